"""A prepared data set is a value: each split is built aside, and a manifest puts all of it in place
by one rename.

A split is built in a folder of its own, `SPLIT-KEY`, where the key is a hash of everything that it
depends on: raw files, reader, mapping, size, rows, cut, resampling. A journal in it names each
finished file, so that a stopped preparation goes on. No manifest names the folder before the split
is whole: until then the former data set is untouched and valid.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.errors import FgdaError
from ..runtime.files import alone_in, append_line, make_folder, sync, write_json
from ..runtime.reporter import Reporter
from ..runtime.system import in_processes
from .classes import IGNORE_INDEX
from .convert import Task, convert, key_of, paths_of, stamp
from .destination import (
    JOURNAL,
    PLANNED,
    PROBLEMS,
    check_destination,
    check_former,
    former_manifest,
    read_journal,
    sweep,
)
from .footage import FRAMES
from .geometry import typed_pair
from .layouts.base import Listing, Pair
from .splits import Splits, kept_splits, refuse_shared_paths, without_shared_images
from .store import FORMAT, VERSION, pixels_hash
from .summary import Summary, class_pixels, kind_of, not_taken, summarise

# options by which images look otherwise: two splits of one data set should have the same
LOOKS = ("size", "rows", "resample")
# a cache of this many bytes or more is announced before it is written
WORTH_A_WORD = 1_000_000_000


def fill(task: Task, listing: Listing, reporter: Reporter, workers: int) -> Summary:
    """Convert all pairs of a listing and put the data set in place; returns counts.

    Raises FgdaError when nothing usable is found, UsageError for a place or a name that another
    data set has.
    """
    if not listing.pairs:
        first = (
            f" (first: {listing.problems[0]['file']}: {listing.problems[0]['reason']})"
            if listing.problems
            else ""
        )
        said = (*listing.notes, *not_taken(task, listing))
        there = f"\nthere: {'; '.join(said[:2])}" if said else ""
        only = f" by --only {' '.join(task.asked['only'])}" if task.asked.get("only") else ""
        raise FgdaError(
            f"no image with everything it needs was found{only} for '{task.dataset}'{first}{there}"
        )
    refuse_shared_paths(listing)
    for note in (*listing.notes, *not_taken(task, listing)):
        reporter.decide(f"{task.dataset}: {note}")
    if task.check_only:
        records = {
            record["key"]: record
            for record in _convert_all(task, listing.pairs, {}, reporter=reporter, workers=workers)
        }
        return _judge(task, listing, records, kept={}, skipped=0)[0]
    files = [
        path for pair in listing.pairs for path in (pair.image, pair.label) if path is not None
    ]
    check_destination(
        task.out, task.raw, [path for path in files if not path.is_relative_to(task.out / FRAMES)]
    )
    with alone_in(task.out, "--name or --data-root"):
        former = former_manifest(task.out)
        check_former(task, listing, former)
        for note in _changed_facts(task, listing, former):
            reporter.decide(f"{task.dataset}: {note}")
        return _build(task, listing, former, reporter=reporter, workers=workers)


def _build(
    task: Task, listing: Listing, former: dict[str, Any] | None, reporter: Reporter, workers: int
) -> Summary:
    folders = {
        split: f"{split}-{_key(task, pairs)}" for split, pairs in _by_split(listing.pairs).items()
    }
    journals = {split: task.out / folder / JOURNAL for split, folder in folders.items()}
    records: dict[str, dict] = {}
    for split, journal in journals.items():
        make_folder(journal.parent)
        if not journal.is_file():
            planned = [
                path
                for pair in listing.pairs
                if pair.split == split
                for path in paths_of(task, pair, folders[split])
            ]
            append_line(journal, json.dumps({"key": PLANNED, "paths": planned}))
        records |= _still_valid(task, listing.pairs, read_journal(journal))
        for record in _reused(
            task, listing.pairs, former, split=split, folder=folders[split], records=records
        ):
            records[record["key"]] = record
            append_line(journal, json.dumps(record))
    skipped = len(records)
    if skipped:
        reporter.say(
            f"{task.dataset}: {skipped} of {len(listing.pairs)} images are prepared already"
        )
    missing = [pair for pair in listing.pairs if key_of(pair) not in records]
    _check_space(task, len(missing), reporter)
    for record in _convert_all(task, missing, folders, reporter=reporter, workers=workers):
        records[record["key"]] = record
        append_line(journals[record["split"]], json.dumps(record))
    kept = kept_splits(task, listing, former)
    summary, splits = _judge(task, listing, records, kept=kept, skipped=skipped)
    manifest = _manifest(
        task,
        listing,
        splits,
        folders=folders,
        former_made=(former or {}).get("made") or {},
    )
    summary.pixels.update({split: made["pixels"] for split, made in manifest["made"].items()})
    for journal in journals.values():
        sync(journal)
    write_json(task.out / "manifest.json", manifest, indent=None)
    sweep(task.out, manifest)
    return summary


def _by_split(pairs: list[Pair]) -> dict[str, list[Pair]]:
    splits: dict[str, list[Pair]] = {}
    for pair in pairs:
        splits.setdefault(pair.split, []).append(pair)
    return splits


def _key(task: Task, pairs: list[Pair]) -> str:
    """A hash of everything that a split depends on."""
    facts = [task.conversion, task.reader, [(key_of(pair), stamp(pair, task)) for pair in pairs]]
    return hashlib.sha256(json.dumps(facts).encode(errors="surrogateescape")).hexdigest()[:12]


def _reused(
    task: Task,
    pairs: list[Pair],
    former: dict[str, Any] | None,
    split: str,
    folder: str,
    records: dict[str, dict],
) -> Iterator[dict]:
    """Yield records of images that the former data set holds exactly so, linked into the new
    folder.
    """
    before = (former or {}).get("made", {}).get(split, {}).get("folder")
    if before is None or before == folder:
        return
    valid = _still_valid(task, pairs, read_journal(task.out / before / JOURNAL))
    for key, record in valid.items():
        if key in records or record["split"] != split:
            continue
        moved = dict(record)
        for part in ("image", "label"):
            if record[part] is not None:
                moved[part] = folder + record[part].removeprefix(before)
                _link(task.out / record[part], task.out / moved[part])
        yield moved


def _link(old: Path, new: Path) -> None:
    """Give a finished file, which is never changed, a second name; a copy where the disk has no
    links.
    """
    make_folder(new.parent)
    new.unlink(missing_ok=True)
    try:
        os.link(old, new)
    except OSError:
        shutil.copyfile(old, new)


def _check_space(task: Task, images: int, reporter: Reporter) -> None:
    """Say how much disk space the images need. Raises FgdaError when they cannot fit; better now
    than after hours.
    """
    if task.size is None:
        return
    pixels = task.size[0] * task.size[1] * images
    # PNG: a third or half of that, as photographs go
    needed = pixels * 3 if task.cache == "raw" else pixels
    free = shutil.disk_usage(task.out).free
    if needed >= WORTH_A_WORD:
        smaller = f", --cache png about {_megabytes(pixels)}" if task.cache == "raw" else ""
        reporter.say(
            f"{task.dataset}: {images} images need about {_megabytes(needed)} in"
            f" {task.out}{smaller}"
        )
    if needed > free:
        smaller = "--cache png, or " if task.cache == "raw" else ""
        raise FgdaError(
            f"{task.out} needs about {_megabytes(needed)} for {images} images, but"
            f" {_megabytes(free)} are free\nuse {smaller}a smaller --size, or another --data-root"
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"


def _convert_all(
    task: Task, pairs: list[Pair], folders: dict[str, str], reporter: Reporter, workers: int
):
    label = f"{'check' if task.check_only else 'prepare'} {task.dataset}"
    with reporter.progress(label, len(pairs)) as advance:
        # too few images to start processes for
        few = len(pairs) < 8
        for record in in_processes(_Convert(task, folders), pairs, 1 if few else workers):
            yield record
            advance(1)


@dataclass(frozen=True)
class _Convert:
    """`convert` with its task and the splits' folders bound, in a form that travels to a worker
    process.
    """

    task: Task
    folders: dict[str, str]

    def __call__(self, pair: Pair) -> dict:
        return convert(self.task, pair, self.folders.get(pair.split, pair.split))


def _still_valid(task: Task, pairs: list[Pair], records: dict[str, dict]) -> dict[str, dict]:
    """Records whose raw files are unchanged and whose cached files are there, and not empty."""

    def is_there(record: dict) -> bool:
        paths = [task.out / record[part] for part in ("image", "label") if record.get(part)]
        return all(path.is_file() and path.stat().st_size for path in paths)

    recorded = ((pair, records.get(key_of(pair))) for pair in pairs)
    return {
        key_of(pair): record
        for pair, record in recorded
        if record
        and "problem" not in record
        and record["stamp"] == stamp(pair, task)
        and is_there(record)
    }


def _judge(
    task: Task, listing: Listing, records: dict[str, dict], kept: Splits, skipped: int
) -> tuple[Summary, Splits]:
    """Return the summary, and the manifest's entries of all splits, those that are kept too.

    Raises FgdaError where nothing is left, or where --check-only found a problem.
    """
    accepted = _accepted(listing, records)
    _refuse_problems(task, listing, accepted)
    splits, shared = without_shared_images(kept | accepted, listing)
    made = {split: splits[split] for split in accepted}
    summary = summarise(task, listing, made, skipped=skipped)
    unchanged = sum(
        bool(records[f"{split}/{entry['name']}"].get("unchanged"))
        for split, items in made.items()
        for entry in items
    )
    if unchanged:
        summary.warnings.append(
            f"{unchanged} of {sum(map(len, made.values()))} labels are unchanged pre-labels of"
            " fgda rank: a model's guesses, to be corrected first"
        )
    summary.warnings.extend(shared)
    return summary, splits


def _accepted(listing: Listing, records: dict[str, dict]) -> Splits:
    """Return the manifest's entries of what was converted; the listing's problems take the rest."""
    splits: Splits = {}
    for pair in listing.pairs:
        record = records[key_of(pair)]
        if "problem" in record:
            listing.problems.append({"file": record["file"], "reason": record["problem"]})
            continue
        kept = ("name", "image", "label", "counts", "size", "raw", "raw_hash", "hash")
        splits.setdefault(pair.split, []).append({key: record[key] for key in kept})
    return splits


def _refuse_problems(task: Task, listing: Listing, accepted: Splits) -> None:
    """Write the list of refused files beside the data set. Raises FgdaError where nothing is left;
    on --check-only, where anything was refused.
    """
    problems = listing.problems
    if task.check_only:
        if problems:
            shown = "\n".join(f"  {p['file']}: {p['reason']}" for p in problems[:20])
            raise FgdaError(f"{task.dataset}: {len(problems)} files are refused\n{shown}")
        return
    write_json(task.out / PROBLEMS, problems)
    if not accepted:
        ((commonest, count),) = Counter(kind_of(p["reason"]) for p in problems).most_common(1)
        example = next(p for p in problems if kind_of(p["reason"]) == commonest)
        raise FgdaError(
            f"every image of '{task.dataset}' was refused, {count} of {len(problems)} as"
            f" {example['file']}: {example['reason']}\nall reasons: {task.out / PROBLEMS}"
        )


def _manifest(
    task: Task,
    listing: Listing,
    splits: Splits,
    folders: dict[str, str],
    former_made: dict[str, Any],
) -> dict[str, Any]:
    """Return the manifest of the new data set: of its splits, those in `folders` are made now, and
    `former_made` says what the others, which are kept, were made from.
    """
    made = {}
    for split, items in splits.items():
        if split in folders:
            made[split] = made_from(task, folders[split], items)
        elif split in former_made:
            made[split] = former_made[split] | {"pixels": pixels_hash(items)}
    names = listing.classes.names
    statistics = {
        split: dict(zip(names, total.tolist(), strict=True))
        for split, total in ((split, class_pixels(items)) for split, items in splits.items())
        if total is not None
    }
    if task.rows is not None:
        listing.notes.append(
            "rows {:g} to {:g} % of each image's height are kept".format(*task.rows)
        )
    if task.cut:
        listing.notes.append("training images are cut to the shape of {}x{}".format(*task.size))
    of_training = made.get("train", {}).get("options", {})
    is_kept = "train" not in folders and "size" in of_training
    return {
        "format": FORMAT,
        "version": VERSION,
        "dataset": task.dataset,
        "size": of_training["size"] if is_kept else task.size,
        "resample": of_training["resample"] if is_kept else task.resample,
        "ignore_index": IGNORE_INDEX,
        "classes": listing.classes.to_json(),
        "class_pixels": statistics,
        "decisions": listing.notes,
        "made": made,
        "splits": splits,
    }


def made_from(task: Task, folder: str, items: list[dict]) -> dict[str, Any]:
    """Return what a split was made from: for the manifest, and for the records of runs."""
    meaning = hashlib.sha256(json.dumps(task.label_facts, sort_keys=True).encode()).hexdigest()[:12]
    return {
        "reader": task.reader,
        "raw": task.raw,
        "choice": task.choice,
        "options": {
            "size": task.size,
            "rows": task.rows,
            "cut": task.cut,
            "resample": task.resample,
            "cache": task.cache,
            **task.asked,
        },
        "reading": task.reading,
        "mapping": meaning,
        "folder": folder,
        "pixels": pixels_hash(items),
    }


def _changed_facts(task: Task, listing: Listing, former: dict[str, Any] | None) -> list[str]:
    """Say what a data set of this name is now prepared with in place of what it was."""
    said = []
    now = json.loads(json.dumps(made_from(task, "", [])))
    splits = dict.fromkeys(pair.split for pair in listing.pairs)
    for split in splits:
        before = (former or {}).get("made", {}).get(split)
        if before is None:
            continue
        changes = _differing(
            before["options"], now["options"], [key for key in now["options"] if key != "cache"]
        )
        changes += ["other meanings of the labels"] if before["mapping"] != now["mapping"] else []
        if changes:
            said.append(
                f"{split} was prepared with {'; '.join(changes)} (another --name keeps both)"
            )
    for split, made in ((former or {}).get("made") or {}).items():
        if not task.is_own or split in splits:
            continue
        others = _differing(made["options"], now["options"], LOOKS)
        if made["mapping"] != now["mapping"]:
            others.append("other meanings of the labels or another reader")
        if others:
            said.append(f"the split {split}, which is kept, was prepared with {'; '.join(others)}")
    return said


def _differing(before: dict[str, Any], now: dict[str, Any], options: Iterable[str]) -> list[str]:
    """Options that were others, in words."""
    return [
        f"--{option} {_text(before.get(option))}, now {_text(now[option])}"
        for option in options
        if before.get(option) != now[option]
    ]


def _text(value: Any) -> str:
    if value is None or value == []:
        return "none"
    if not isinstance(value, list):
        return str(value)
    # patterns of --only, else a size or rows
    return " ".join(value) if isinstance(value[0], str) else typed_pair(value)
