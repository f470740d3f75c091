"""Verify, convert and cache a raw data set. Each finished file is written to a journal, so a stopped run goes on."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..runtime.errors import FgdaError, UsageError
from ..runtime.files import append_line, make_folder, write_json
from ..runtime.parallel import in_processes
from ..runtime.reporter import Reporter
from .classes import IGNORE_INDEX
from .convert import Task, convert, key_of, stamp
from .geometry import same_aspect
from .layouts.base import Listing, Pair
from .store import FORMAT, VERSION, read_manifest

JOURNAL = "journal.jsonl"
WORTH_A_WORD = 1_000_000_000  # bytes of a cache from which its size is said before it is written
FEW_LABELLED, MOST_LABELLED = 2.0, 80.0  # percent of labelled pixels below which a person should look twice, or hear a word


@dataclass(frozen=True)
class Summary:
    """Result of a preparation; `labelled` is the share of labelled pixels by split in percent, `absent` the classes without a
    pixel.
    """

    folder: Path
    images: dict[str, int]
    refused: int
    skipped: int
    labelled: dict[str, float] = field(default_factory=dict)
    absent: dict[str, list[str]] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict:
        return {"folder": str(self.folder), "images": self.images, "refused": self.refused, "skipped": self.skipped,
                "labelled_percent": self.labelled, "classes_without_a_pixel": self.absent, "refused_by_reason": self.reasons,
                "warnings": self.warnings}  # fmt: skip


def fill(task: Task, listing: Listing, reporter: Reporter, workers: int) -> Summary:
    """Convert all pairs of a listing; returns counts. Raises FgdaError when nothing usable is found."""
    pairs = _without_clashes(listing)
    if not pairs:
        first = f" (first: {listing.problems[0]['file']}: {listing.problems[0]['reason']})" if listing.problems else ""
        raise FgdaError(f"no image with everything it needs was found for '{task.dataset}'{first}")
    for note in (*listing.notes, *_replaced(task)):
        reporter.decide(f"{task.dataset}: {note}")
    journal = task.out / JOURNAL
    done = {} if task.check_only else _still_valid(task, pairs, _read_journal(journal))
    missing = [pair for pair in pairs if key_of(pair) not in done]
    if done:
        reporter.say(f"{task.dataset}: {len(done)} of {len(pairs)} images are prepared already")
    records = dict(done)
    if not task.check_only:
        make_folder(task.out)
        _check_space(task, len(missing), reporter)
    for record in _convert_all(task, missing, reporter, workers):
        records[record["key"]] = record
        if not task.check_only:
            append_line(journal, json.dumps(record))
    return _conclude(task, listing, pairs, records, len(done))


def _replaced(task: Task) -> list[str]:
    """Return the message for a data set that exists already at another size."""
    try:
        before = read_manifest(task.out)["size"] if not task.check_only else task.size
    except FgdaError:
        return []
    if before is None or task.size is None or tuple(before) == tuple(task.size):
        return []
    return ["it was prepared at {}x{}, and is now prepared at {}x{} (another --name keeps both)".format(*before, *task.size)]


def _check_space(task: Task, images: int, reporter: Reporter) -> None:
    """Say how much disk space the images need. Raises FgdaError when they cannot fit; better now than after hours."""
    if task.size is None:
        return
    pixels = task.size[0] * task.size[1] * images
    needed = pixels * 3 if task.cache == "raw" else pixels  # PNG: a third or half of that, as photographs go
    free = shutil.disk_usage(task.out).free
    if needed >= WORTH_A_WORD:
        smaller = f", --cache png about {_megabytes(pixels)}" if task.cache == "raw" else ""
        reporter.say(f"{task.dataset}: {images} images need about {_megabytes(needed)} in {task.out}{smaller}")
    if needed > free:
        smaller = "--cache png, or " if task.cache == "raw" else ""
        raise FgdaError(
            f"{task.out} needs about {_megabytes(needed)} for {images} images, but {_megabytes(free)} are free\n"
            f"use {smaller}a smaller --size, or another --out"
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"


def _convert_all(task: Task, pairs: list[Pair], reporter: Reporter, workers: int):
    label = f"{'check' if task.check_only else 'prepare'} {task.dataset}"
    with reporter.progress(label, len(pairs)) as advance:
        few = len(pairs) < 8  # not worth starting processes for
        for record in in_processes(_Convert(task), pairs, 1 if few else workers):
            yield record
            advance(1)


@dataclass(frozen=True)
class _Convert:
    """`convert` with its task bound, in a form that travels to a worker process."""

    task: Task

    def __call__(self, pair: Pair) -> dict:
        return convert(self.task, pair)


def _without_clashes(listing: Listing) -> list[Pair]:
    """Two raw files that would become the same prepared file: the second is refused."""
    seen: dict[str, Pair] = {}
    for pair in listing.pairs:
        if key_of(pair) in seen:
            listing.refuse(pair.image, f"same name as {seen[key_of(pair)].image}")
        else:
            seen[key_of(pair)] = pair
    return list(seen.values())


def _read_journal(path: Path) -> dict[str, dict]:
    records: dict[str, dict] = {}
    try:
        for line in path.read_text().splitlines():
            try:
                record = json.loads(line)
                records[record["key"]] = record
            except (ValueError, KeyError, TypeError):
                continue  # a line cut short by a crash: the pair is converted again
    except FileNotFoundError:
        pass
    return records


def _still_valid(task: Task, pairs: list[Pair], records: dict[str, dict]) -> dict[str, dict]:
    """Records whose raw files are unchanged and whose cached files are there."""

    def is_there(record: dict) -> bool:
        return all(path is None or (task.out / path).is_file() for path in (record.get("image"), record.get("label")))

    recorded = ((pair, records.get(key_of(pair))) for pair in pairs)
    return {
        key_of(pair): record
        for pair, record in recorded
        if record and "problem" not in record and record["stamp"] == stamp(pair, task) and is_there(record)
    }


def _conclude(task: Task, listing: Listing, pairs: list[Pair], records: dict[str, dict], skipped: int) -> Summary:
    splits: dict[str, list] = {}
    unchanged = 0
    for pair in pairs:
        record = records[key_of(pair)]
        if "problem" in record:
            listing.problems.append({"file": record["file"], "reason": record["problem"]})
            continue
        unchanged += bool(record.get("unchanged"))
        splits.setdefault(pair.split, []).append({k: record[k] for k in ("name", "image", "label", "counts", "size")})
    summary = _summary(task, listing, splits, skipped)
    _warn_of_squeezed(task, splits.get("train", []), summary.warnings)
    if unchanged:
        summary.warnings.append(
            f"{unchanged} of {sum(map(len, splits.values()))} labels are unchanged pre-labels of fgda rank: a model's guesses, "
            "to be corrected first"
        )
    if task.check_only:
        if listing.problems:
            shown = "\n".join(f"  {p['file']}: {p['reason']}" for p in listing.problems[:20])
            raise FgdaError(f"{task.dataset}: {len(listing.problems)} files are refused\n{shown}")
        return summary
    write_json(task.out / "problems.json", listing.problems)
    if not splits:
        commonest, count = next(iter(summary.reasons.items()))
        example = next(p for p in listing.problems if _kind_of(p["reason"]) == commonest)
        raise FgdaError(
            f"every image of '{task.dataset}' was refused, {count} of {len(listing.problems)} as {example['file']}: "
            f"{example['reason']}\nall reasons: {task.out / 'problems.json'}"
        )
    if task.keep_other_splits:
        splits = _other_splits(task, listing, splits) | splits
    names = listing.classes.names
    statistics = {
        split: dict(zip(names, total.tolist(), strict=True))
        for split, total in ((split, _class_pixels(items)) for split, items in splits.items())
        if total is not None
    }
    if task.rows is not None:
        listing.notes.append("rows {:g} to {:g} % of each image's height are kept".format(*task.rows))
    if task.cut:
        listing.notes.append("training images are cut to the shape of {}x{}".format(*task.size))
    manifest = {"format": FORMAT, "version": VERSION, "dataset": task.dataset, "size": task.size, "resample": task.resample,
                "ignore_index": IGNORE_INDEX, "classes": listing.classes.to_json(), "class_pixels": statistics,
                "decisions": listing.notes, "splits": splits}  # fmt: skip
    write_json(task.out / "manifest.json", manifest, indent=None)
    write_json(task.out / "class_statistics.json", statistics)
    return summary


def _warn_of_squeezed(task: Task, items: list[dict], warnings: list[str]) -> None:
    """Warn of training images that do not have the shape that most have: one size squeezes them differently."""
    sizes = Counter(tuple(item["size"]) for item in items)
    if task.size is None or not sizes:
        return
    most = sizes.most_common(1)[0][0]
    others = sum(count for size, count in sizes.items() if not same_aspect(size, most))
    if others:
        warnings.append(
            f"train: {others} of {len(items)} images have another shape than most ({most[0]}x{most[1]}) and are squeezed to "
            f"{task.size[0]}x{task.size[1]}: --cut keeps their middle instead"
        )


def _class_pixels(items: list[dict]) -> np.ndarray | None:
    """Label pixels by class `[K]` int64 of a split; None without labels."""
    counts = [item["counts"] for item in items if item["counts"] is not None]
    return np.sum(np.array(counts, np.int64), axis=0) if counts else None


def _summary(task: Task, listing: Listing, splits: dict[str, list], skipped: int) -> Summary:
    labelled, absent, warnings, names = {}, {}, [], listing.classes.names
    for split, items in splits.items():
        pixels = _class_pixels(items)
        if pixels is None:
            continue
        everything = sum(width * height for width, height in (item["size"] for item in items if item["counts"] is not None))
        labelled[split] = round(100 * float(pixels.sum()) / max(everything, 1), 2)
        absent[split] = [name for name, count in zip(names, pixels, strict=True) if not count]
        if labelled[split] < FEW_LABELLED:
            warnings.append(f"{split}: only {labelled[split]:.1f} % of the pixels are labelled: is the mapping right?")
        elif labelled[split] < MOST_LABELLED:
            warnings.append(
                f"{split}: {100 - labelled[split]:.0f} % of the pixels are ignored; a model will call them one of your classes: "
                "map them to a class of their own, e.g. `rest: other`"
            )
        never = [names[k] for k in sorted(task.mapped) if k < len(names) and not pixels[k]]
        if never:
            warnings.append(f"{split}: mapped, but never seen: {', '.join(never)}")
    reasons = Counter(_kind_of(problem["reason"]) for problem in listing.problems)
    images = {split: len(items) for split, items in splits.items()}
    return Summary(task.out, images, len(listing.problems), skipped, labelled, absent, dict(reasons.most_common()), warnings)


def _kind_of(reason: str) -> str:
    """A refusal without what differs from file to file."""
    return reason.split(":")[0].split(" (")[0] if not reason.startswith(("label id", "train id")) else "an id outside the table"


def _other_splits(task: Task, listing: Listing, replaced: dict[str, list]) -> dict[str, list]:
    """The splits that an earlier preparation left in this data set, but those made anew.

    Raises FgdaError when their classes were others.
    """
    if not (task.out / "manifest.json").is_file():
        return {}
    try:
        manifest = read_manifest(task.out)
    except FgdaError:
        return {}  # of an older version, or damaged: nothing of it can be kept
    kept = {split: items for split, items in manifest["splits"].items() if split not in replaced}
    if kept and manifest["classes"] != listing.classes.to_json():
        raise FgdaError(
            f"the splits {', '.join(kept)} of {task.out} were prepared with different classes: choose another --name or delete it"
        )
    return kept


def parse_size(text: str | None, option: str = "--size") -> tuple[int, int] | None:
    """Read `1280x720` as (1280, 720). Raises UsageError."""
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) >= 32 and int(height) >= 32):
        raise UsageError(f"{option} {text}: write it as WIDTHxHEIGHT, at least 32x32, e.g. 1280x720")
    return int(width), int(height)


def parse_rows(text: str | None) -> tuple[float, float] | None:
    """Read `29:70`, percent of the height from the top, as (29.0, 70.0). Raises UsageError."""
    if text is None:
        return None
    try:
        top, bottom = (float(part.removesuffix("%")) for part in text.split(":"))
    except ValueError:
        top = bottom = math.nan
    if not 0 <= top < bottom <= 100:
        raise UsageError(f"--rows {text}: write it as TOP:BOTTOM in percent of the height, e.g. 29:70")
    return top, bottom
