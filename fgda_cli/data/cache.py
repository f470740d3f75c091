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
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.errors import FgdaError, UsageError
from ..runtime.files import alone_in, append_line, make_folder, sync, write_json
from ..runtime.reporter import Reporter
from ..runtime.system import in_processes
from ..settings import LARGEST_SIDE
from .classes import IGNORE_INDEX
from .convert import Task, convert, key_of, paths_of, stamp
from .footage import is_frame
from .geometry import same_aspect
from .images import (
    IMAGE_SUFFIXES,
    UNREAD_SUFFIXES,
    VIDEO_SUFFIXES,
    folders_of,
    suffixes_of,
    visible_files,
)
from .layouts.base import Listing, Pair, fits_one
from .store import FORMAT, VERSION, is_dataset, pixels_hash, read_manifest

JOURNAL = "journal.jsonl"
# key of its first line, which names all files that the folder will hold
PLANNED = "planned"
PROBLEMS = "problems.json"
# names of splits' folders
BUILT = re.compile(r"[a-z]+-[0-9a-f]{12}")
OF_EARLIER_VERSIONS = frozenset({"class_statistics.json", JOURNAL})
# folder of a video's frames (footage.py)
FRAMES = "frames"
# a cache of this many bytes or more is announced before it is written
WORTH_A_WORD = 1_000_000_000
# Percent of labelled pixels below which a person should look twice, or be told.
FEW_LABELLED = 2.0
MOST_LABELLED = 80.0


@dataclass(frozen=True)
class Summary:
    """Result of a preparation; `labelled` is the share of labelled pixels by split in percent,
    `absent` the classes without a pixel, `pixels` a hash of what was prepared by split.
    """

    folder: Path
    images: dict[str, int]
    refused: int
    skipped: int
    labelled: dict[str, float] = field(default_factory=dict)
    absent: dict[str, list[str]] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    pixels: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict:
        return {
            "folder": str(self.folder),
            "images": self.images,
            "refused": self.refused,
            "skipped": self.skipped,
            "labelled_percent": self.labelled,
            "classes_without_a_pixel": self.absent,
            "refused_by_reason": self.reasons,
            "warnings": self.warnings,
            "pixels": self.pixels,
        }


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
        there = "".join(f"\nthere: {text}" for text in not_taken(task, listing)[:1])
        only = f" by --only {' '.join(task.asked['only'])}" if task.asked.get("only") else ""
        raise FgdaError(
            f"no image with everything it needs was found{only} for '{task.dataset}'{first}{there}"
        )
    _refuse_shared_paths(task, listing)
    for note in (*listing.notes, *not_taken(task, listing)):
        reporter.decide(f"{task.dataset}: {note}")
    if task.check_only:
        records = {
            record["key"]: record
            for record in _convert_all(task, listing.pairs, {}, reporter=reporter, workers=workers)
        }
        return _judge(task, listing, records, skipped=0)[0]
    files = [
        path for pair in listing.pairs for path in (pair.image, pair.label) if path is not None
    ]
    check_destination(
        task.out, task.raw, [path for path in files if not path.is_relative_to(task.out / FRAMES)]
    )
    with alone_in(task.out, "--name or --data-root"):
        former = former_manifest(task.out)
        _check_former(task, listing, former)
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
        records |= _still_valid(task, listing.pairs, _read_journal(journal))
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
    summary, splits = _judge(task, listing, records, skipped=skipped)
    manifest = _manifest(task, listing, splits, folders=folders, former=former)
    summary.warnings.extend(_drop_shared_images(manifest, listing))
    summary.images.update(
        {split: len(items) for split, items in manifest["splits"].items() if split in splits}
    )
    summary.pixels.update({split: made["pixels"] for split, made in manifest["made"].items()})
    for journal in journals.values():
        sync(journal)
    write_json(task.out / "manifest.json", manifest, indent=None)
    _sweep(task.out, manifest)
    return summary


# What may be written where


def check_destination(out: Path, raw: dict[str, str], files: Iterable[Path] = ()) -> None:
    """Raise UsageError where a data set would be written into raw files, or over files that are not
    ours.
    """
    here = out.resolve()
    for option, text in raw.items():
        there = Path(text).resolve()
        is_inside = here == there or here.is_relative_to(there) or there.is_relative_to(here)
        if there.is_dir() and is_inside:
            raise UsageError(
                f"the data set would be written to {out}, which "
                + (
                    "is"
                    if here == there
                    else "lies in"
                    if here.is_relative_to(there)
                    else "contains"
                )
                + f" the raw data of --{option} {text}: nothing is written there\ngive another"
                " --name or --data-root"
            )
        prepared = next((folder for folder in (there, *there.parents) if is_dataset(folder)), None)
        if prepared is not None:
            raise UsageError(
                f"--{option} {text} lies in {prepared}, a prepared data set: name the raw images in"
                " its place"
            )
    parents: dict[Path, Path] = {}
    for path in files:
        parent = parents.setdefault(path.parent, path.parent.resolve())
        real = path.resolve() if path.is_symlink() else parent / path.name
        if real.is_relative_to(here):
            raise UsageError(
                f"{path} leads into {out}, to which the data set would be written: give another"
                " --name or --data-root"
            )
    foreign = next(_foreign(out), None)
    if foreign is not None:
        raise UsageError(
            f"{out} holds {foreign.relative_to(out)}, which no data set of fgda names: nothing is"
            " written there\ngive another --name or --data-root"
        )


def _foreign(out: Path) -> Iterator[Path]:
    """Files of a destination that we did not write."""
    if not out.is_dir():
        return
    manifest = former_manifest(out)
    entries = [
        entry for items in (manifest["splits"].values() if manifest else ()) for entry in items
    ]
    named = {
        out / entry[part] for entry in entries for part in ("image", "label") if entry.get(part)
    }
    top = {"manifest.json", PROBLEMS} | (OF_EARLIER_VERSIONS if manifest else set())
    built = {folder.name for folder in out.iterdir() if _is_built(folder)}
    for path in visible_files(out):
        first, *rest = path.relative_to(out).parts
        of_video = first == FRAMES and is_frame(path)
        is_ours = path in named or first in built or of_video or (not rest and first in top)
        if not is_ours:
            yield path


def _is_built(folder: Path) -> bool:
    """Whether a folder is a split's, finished or not."""
    return bool(BUILT.fullmatch(folder.name)) and (folder / JOURNAL).is_file()


def former_manifest(out: Path) -> dict[str, Any] | None:
    """Return the manifest of the data set that is there; None where there is none that can be
    read.
    """
    if not (out / "manifest.json").is_file():
        return None
    try:
        return read_manifest(out)
    except FgdaError:
        # the journal is of an older version, or damaged: nothing of it can be kept
        return None


def _check_former(task: Task, listing: Listing, former: dict[str, Any] | None) -> None:
    """Raise UsageError where the name belongs to other raw files, and FgdaError where kept splits
    have other classes.
    """
    if former is None:
        return
    splits = {pair.split for pair in listing.pairs}
    for split, made in former.get("made", {}).items():
        if split not in splits and task.is_own:
            continue
        if not set(made["raw"]) & set(task.raw):
            option, was = next(iter(made["raw"].items()), ("root", "other files"))
            raise UsageError(
                f"{task.out} was made by prepare {made['reader']} from --{option} {was}\n"
                f"--name {task.dataset}-2 keeps both; to replace it, delete {task.out} first"
            )
        for option, now in {**task.raw, **task.choice}.items():
            was = made["raw"].get(option, made["choice"].get(option))
            is_path = option in task.raw
            if was is None or was == now or (is_path and not Path(was).exists()):
                continue
            another = f"--{option} {was}" if was != "all" else f"every {option}"
            raise UsageError(
                f"{task.out} was made from {another}, not from --{option} {now}\n--name"
                f" {_other_name(task, now)} keeps both; to replace it, delete {task.out} first"
            )
    kept = _kept(task, listing, former)
    if kept and former["classes"] != listing.classes.to_json():
        raise FgdaError(
            f"the splits {', '.join(kept)} of {task.out} were prepared with different classes:"
            " choose another --name or delete it"
        )
    raw = {
        os.path.realpath(entry["raw"]): split
        for split, items in kept.items()
        for entry in items
        if entry.get("raw")
    }
    both = [pair for pair in listing.pairs if os.path.realpath(pair.image) in raw]
    if both:
        other = raw[os.path.realpath(both[0].image)]
        raise UsageError(
            f"{len(both)} images stand in the split {other} of {task.out} already, e.g."
            f" {both[0].image}: no image may be in two splits\nleave them out, prepare {other} anew"
            " by the same command (--hold-out), or give another --name"
        )


def _other_name(task: Task, value: Any) -> str:
    """A name for the second data set: after what tells it from the first."""
    word = re.sub(r"[^A-Za-z0-9]+", "-", str(Path(str(value)).name)).strip("-").lower() or "2"
    parent = re.sub(r"[^A-Za-z0-9]+", "-", Path(str(value)).parent.name).strip("-").lower()
    return f"{task.dataset}-{parent if word == task.dataset.lower() and parent else word}"


def _refuse_shared_paths(task: Task, listing: Listing) -> None:
    """Raise UsageError for an image that two splits of one listing hold."""
    if listing.shares_images:
        return
    seen: dict[str, Pair] = {}
    for pair in listing.pairs:
        other = seen.setdefault(os.path.realpath(pair.image), pair)
        if other.split != pair.split:
            raise UsageError(
                f"{pair.image} is in the splits {other.split} and {pair.split}: no image may be"
                " in two"
            )


def _drop_shared_images(manifest: dict[str, Any], listing: Listing) -> list[str]:
    """Take images out of the split train that another split holds too, as copies; returns what to
    say of it.
    """
    if listing.shares_images:
        return []
    held = {
        entry["raw_hash"]: (split, entry["name"])
        for split, items in manifest["splits"].items()
        if split != "train"
        for entry in items
        if entry.get("raw_hash")
    }
    train = manifest["splits"].get("train", [])
    both = [entry for entry in train if entry.get("raw_hash") in held]
    if not both:
        return []
    names = {entry["name"] for entry in both}
    kept = [entry for entry in train if entry["name"] not in names]
    if not kept:
        split, _ = held[both[0]["raw_hash"]]
        raise FgdaError(
            f"every training image is an image of the split {split} too: no image may be in two"
            " splits"
        )
    manifest["splits"]["train"] = kept
    manifest["made"].get("train", {})["pixels"] = pixels_hash(kept)
    split, other = held[both[0]["raw_hash"]]
    return [
        f"train: {len(both)} images are left out, for the split {split} has the same pixels "
        f"(e.g. {both[0]['name']}, there {other})"
    ]


def not_taken(task: Task, listing: Listing) -> list[str]:
    """Say which files below the raw folders look like images, labels or videos and are neither
    taken nor refused, nor left out on purpose, by the layout or by --only.
    """
    asked = task.asked.get("only") or ["*"]
    used = {
        os.path.realpath(path)
        for pair in listing.pairs
        for path in (pair.image, pair.label)
        if path is not None
    }
    used |= {os.path.realpath(problem["file"]) for problem in listing.problems}
    used |= {os.path.realpath(path) for path in listing.used}
    pictures = IMAGE_SUFFIXES | UNREAD_SUFFIXES | VIDEO_SUFFIXES
    said = []
    roots = {
        os.path.realpath(path): Path(path) for path in task.raw.values() if Path(path).is_dir()
    }
    for real, root in roots.items():
        if any(other != real and Path(real).is_relative_to(other) for other in roots):
            # a folder that lies in another one's
            continue
        rest = [
            path
            for path in visible_files(root)
            if path.suffix.lower() in pictures
            and os.path.realpath(path) not in used
            and not fits_one(path, root, listing.not_read)
            and fits_one(path, root, asked)
        ]
        if rest:
            said.append(
                f"{len(rest)} files are not taken: {suffixes_of(rest)} ({folders_of(rest, root)})"
            )
    return said


# Building


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
    valid = _still_valid(task, pairs, _read_journal(task.out / before / JOURNAL))
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


def _read_journal(path: Path) -> dict[str, dict]:
    records: dict[str, dict] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
                records[record["key"]] = record
            except (ValueError, KeyError, TypeError):
                # a line cut short by a crash: the pair is converted again
                continue
    except FileNotFoundError:
        pass
    return records


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
    task: Task, listing: Listing, records: dict[str, dict], skipped: int
) -> tuple[Summary, dict[str, list[dict]]]:
    """Return the summary, and the manifest's entries by split. Raises FgdaError where nothing is
    left, or on --check-only.
    """
    splits: dict[str, list[dict]] = {}
    unchanged = 0
    for pair in listing.pairs:
        record = records[key_of(pair)]
        if "problem" in record:
            listing.problems.append({"file": record["file"], "reason": record["problem"]})
            continue
        unchanged += bool(record.get("unchanged"))
        kept = ("name", "image", "label", "counts", "size", "raw", "raw_hash", "hash")
        splits.setdefault(pair.split, []).append({key: record[key] for key in kept})
    summary = _summary(task, listing, splits, skipped=skipped)
    _warn_of_squeezed(task, splits.get("train", []), summary.warnings)
    if unchanged:
        summary.warnings.append(
            f"{unchanged} of {sum(map(len, splits.values()))} labels are unchanged pre-labels of"
            " fgda rank: a model's guesses, to be corrected first"
        )
    if task.check_only:
        if listing.problems:
            shown = "\n".join(f"  {p['file']}: {p['reason']}" for p in listing.problems[:20])
            raise FgdaError(f"{task.dataset}: {len(listing.problems)} files are refused\n{shown}")
        return summary, splits
    write_json(task.out / PROBLEMS, listing.problems)
    if not splits:
        commonest, count = next(iter(summary.reasons.items()))
        example = next(p for p in listing.problems if _kind_of(p["reason"]) == commonest)
        raise FgdaError(
            f"every image of '{task.dataset}' was refused, {count} of {len(listing.problems)} as"
            f" {example['file']}: {example['reason']}\nall reasons: {task.out / PROBLEMS}"
        )
    return summary, splits


def _kept(task: Task, listing: Listing, former: dict[str, Any] | None) -> dict[str, list[dict]]:
    """The splits of the former data set that this preparation does not make anew."""
    if former is None or not task.is_own:
        return {}
    made_anew = {pair.split for pair in listing.pairs}
    return {split: items for split, items in former["splits"].items() if split not in made_anew}


def _manifest(
    task: Task,
    listing: Listing,
    splits: dict[str, list],
    folders: dict[str, str],
    former: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return the manifest of the new data set: the splits made now, and those that are kept."""
    kept = _kept(task, listing, former)
    made = {
        split: made for split, made in ((former or {}).get("made") or {}).items() if split in kept
    }
    for split, items in splits.items():
        made[split] = made_from(task, folders[split], items)
    names = listing.classes.names
    splits = kept | splits
    statistics = {
        split: dict(zip(names, total.tolist(), strict=True))
        for split, total in ((split, _class_pixels(items)) for split, items in splits.items())
        if total is not None
    }
    if task.rows is not None:
        listing.notes.append(
            "rows {:g} to {:g} % of each image's height are kept".format(*task.rows)
        )
    if task.cut:
        listing.notes.append("training images are cut to the shape of {}x{}".format(*task.size))
    of_training = made.get("train", {}).get("options", {})
    is_kept = "train" in kept and "size" in of_training
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
        changes = [
            f"--{option} {_text(before['options'].get(option))}, now {_text(value)}"
            for option, value in now["options"].items()
            if before["options"].get(option) != value and option != "cache"
        ]
        changes += ["other meanings of the labels"] if before["mapping"] != now["mapping"] else []
        if changes:
            said.append(
                f"{split} was prepared with {'; '.join(changes)} (another --name keeps both)"
            )
    for split, made in ((former or {}).get("made") or {}).items():
        is_kept = task.is_own and split not in splits
        if is_kept and made["mapping"] != now["mapping"]:
            said.append(
                f"the split {split}, which is kept, was prepared with other meanings of the labels"
                " or another reader"
            )
    return said


def _text(value: Any) -> str:
    if isinstance(value, list) and len(value) == 2:
        return "{:g}x{:g}".format(*value)
    return "none" if value is None else str(value)


def _sweep(out: Path, manifest: dict[str, Any]) -> None:
    """Delete the folders of splits that no manifest names any more: of each only the files that its
    journal names.
    """
    used = {made["folder"] for made in manifest["made"].values()}
    for folder in out.iterdir():
        if not _is_built(folder) or folder.name in used:
            continue
        for path in [*folder.rglob(".*.part"), *_named_by(folder)]:
            with suppress(OSError):
                path.unlink()
        for below in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
            with suppress(OSError):
                below.rmdir()
        with suppress(OSError):
            folder.rmdir()


def _named_by(folder: Path) -> list[Path]:
    """The files of a split's folder that its journal names, the journal last."""
    planned = _read_journal(folder / JOURNAL).get(PLANNED, {}).get("paths", [])
    inside = [
        path
        for path in planned
        if Path(path).parts[0] == folder.name and ".." not in Path(path).parts
    ]
    return [*(folder.parent / path for path in inside), folder / JOURNAL]


# What is said of the result


def _warn_of_squeezed(task: Task, items: list[dict], warnings: list[str]) -> None:
    """Warn of training images that do not have the shape that most have: one size squeezes them
    differently.
    """
    sizes = Counter(tuple(item["size"]) for item in items)
    if task.size is None or not sizes:
        return
    most = sizes.most_common(1)[0][0]
    others = sum(count for size, count in sizes.items() if not same_aspect(size, most))
    if others:
        warnings.append(
            f"train: {others} of {len(items)} images have another shape than most"
            f" ({most[0]}x{most[1]}) and are squeezed to {task.size[0]}x{task.size[1]}: --cut keeps"
            " their middle instead"
        )


def _class_pixels(items: list[dict]) -> np.ndarray | None:
    """Label pixels by class `[K]` int64 of a split; None without labels."""
    counts = [item["counts"] for item in items if item["counts"] is not None]
    return np.sum(np.array(counts, np.int64), axis=0) if counts else None


def _summary(task: Task, listing: Listing, splits: dict[str, list], skipped: int) -> Summary:
    labelled: dict[str, float] = {}
    absent: dict[str, list[str]] = {}
    warnings: list[str] = []
    names = listing.classes.names
    for split, items in splits.items():
        pixels = _class_pixels(items)
        if pixels is None:
            continue
        everything = sum(
            width * height
            for width, height in (item["size"] for item in items if item["counts"] is not None)
        )
        labelled[split] = round(100 * float(pixels.sum()) / max(everything, 1), 2)
        absent[split] = [name for name, count in zip(names, pixels, strict=True) if not count]
        if labelled[split] < FEW_LABELLED:
            warnings.append(
                f"{split}: only {labelled[split]:.1f} % of the pixels are labelled: is the mapping"
                " right?"
            )
        elif labelled[split] < MOST_LABELLED:
            warnings.append(
                f"{split}: {100 - labelled[split]:.0f} % of the pixels are ignored; a model will"
                " call them one of your classes: map them to a class of their own, e.g. `rest:"
                " other`"
            )
        never = [names[k] for k in sorted(task.mapped) if k < len(names) and not pixels[k]]
        if never:
            warnings.append(f"{split}: mapped, but never seen: {', '.join(never)}")
    reasons = Counter(_kind_of(problem["reason"]) for problem in listing.problems)
    images = {split: len(items) for split, items in splits.items()}
    return Summary(
        task.out,
        images,
        len(listing.problems),
        skipped=skipped,
        labelled=labelled,
        absent=absent,
        reasons=dict(reasons.most_common()),
        warnings=warnings,
    )


def _kind_of(reason: str) -> str:
    """A refusal without what differs from file to file."""
    return (
        reason.split(":")[0].split(" (")[0]
        if not reason.startswith(("label id", "train id"))
        else "an id outside the table"
    )


# Options


def parse_size(text: str | None, option: str = "--size") -> tuple[int, int] | None:
    """Read `1280x720` as (1280, 720). Raises UsageError."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text.lower())
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(size) < 32 or max(size) > LARGEST_SIDE:
        raise UsageError(
            f"{option} {text}: write it as WIDTHxHEIGHT, from 32x32 to {LARGEST_SIDE} a side, e.g."
            " 1280x720"
        )
    return size


def parse_rows(text: str | None) -> tuple[float, float] | None:
    """Read `29:70`, percent of the height from the top, as (29.0, 70.0). Raises UsageError."""
    if text is None:
        return None
    try:
        top, bottom = (float(part.removesuffix("%")) for part in text.split(":"))
    except ValueError:
        top = bottom = math.nan
    if not 0 <= top < bottom <= 100:
        raise UsageError(
            f"--rows {text}: write it as TOP:BOTTOM in percent of the height, e.g. 29:70"
        )
    return top, bottom
