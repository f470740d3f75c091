"""Verify, convert and cache a raw data set. Each finished file is written to a journal, so a stopped run goes on."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..runtime.errors import FgdaError, UsageError
from ..runtime.parallel import spread
from ..runtime.reporter import Reporter
from .classes import IGNORE_INDEX
from .files import BadFile, read_rgb, write_image, write_json
from .layouts.base import Listing, Pair, ReadLabel
from .store import FORMAT, VERSION, read_manifest

JOURNAL = "journal.jsonl"
Cache = Literal["raw", "png"]
CACHE_SUFFIX: dict[str, str] = {"raw": ".bmp", "png": ".png"}  # BMP: raw pixels that every viewer opens


@dataclass(frozen=True)
class Task:
    """How every pair of one data set is converted."""

    dataset: str
    out: Path
    size: tuple[int, int] | None  # width, height of training images; None keeps theirs
    num_classes: int
    read_label: ReadLabel
    check_only: bool = False
    cache: Cache = "raw"
    keep_other_splits: bool = False  # a folder holds one split; the data set may have more, prepared before


@dataclass(frozen=True)
class Summary:
    folder: Path
    images: dict[str, int]
    refused: int
    skipped: int


def convert(task: Task, pair: Pair) -> dict:
    """One journal record: an item, or the reason why the pair is refused."""
    record = {"key": key_of(pair), "split": pair.split, "name": pair.name, "stamp": stamp(pair, task)}
    reading = pair.image
    try:
        image, label = read_rgb(pair.image), None
        if pair.label is not None:
            reading = pair.label
            label = task.read_label(pair.label)
    except BadFile as error:
        return record | {"problem": str(error), "file": str(reading)}
    if label is not None and label.shape != image.shape[:2]:
        sizes = f"image {image.shape[1]}x{image.shape[0]}, label {label.shape[1]}x{label.shape[0]}"
        return record | {"problem": f"sizes differ: {sizes}", "file": str(pair.image)}
    return record | _cache(task, pair, image, label)


def _cache(task: Task, pair: Pair, image: np.ndarray, label: np.ndarray | None) -> dict:
    """Write image and label; validation labels keep their own size, at which they are evaluated."""
    import cv2

    from .loader import resize

    counts = None if label is None else np.bincount(label.ravel(), minlength=256)[: task.num_classes].tolist()
    paths = {"image": f"images/{pair.split}/{pair.name}{CACHE_SUFFIX[task.cache]}",
             "label": None if label is None else f"labels/{pair.split}/{pair.name}.png", "counts": counts}  # fmt: skip
    if task.check_only:
        return paths
    size = task.size or (image.shape[1], image.shape[0])
    if label is not None:
        small = label if pair.split == "val" else resize(label, size, cv2.INTER_NEAREST)
        write_image(task.out / paths["label"], small)
    chosen = task.out / paths["image"]
    write_image(chosen, resize(image, size, cv2.INTER_LINEAR), compression=1)
    for suffix in CACHE_SUFFIX.values():  # of an earlier preparation with the other --cache
        if suffix != chosen.suffix:
            chosen.with_name(f"{pair.name.rpartition('/')[2]}{suffix}").unlink(missing_ok=True)
    return paths


def key_of(pair: Pair) -> str:
    return f"{pair.split}/{pair.name}"


def stamp(pair: Pair, task: Task) -> list:
    """What a cached file depends on; when it changes, the pair is converted again."""
    facts: list = [list(task.size) if task.size else None, task.cache]
    for path in (pair.image, pair.label):
        status = path.stat() if path is not None and path.exists() else None
        facts.append([str(path), status.st_size, status.st_mtime_ns] if status else None)
    return facts


def prepare(task: Task, listing: Listing, reporter: Reporter, workers: int) -> Summary:
    """Convert all pairs of a listing; returns counts. Raises FgdaError when nothing usable is found."""
    pairs = _without_clashes(listing)
    if not pairs:
        first = f" (first: {listing.problems[0]['file']}: {listing.problems[0]['reason']})" if listing.problems else ""
        raise FgdaError(f"no image with everything it needs was found for '{task.dataset}'{first}")
    journal = task.out / JOURNAL
    done = {} if task.check_only else _still_valid(task, pairs, _read_journal(journal))
    missing = [pair for pair in pairs if key_of(pair) not in done]
    if done:
        reporter.say(f"{task.dataset}: {len(done)} of {len(pairs)} images are prepared already")
    records = dict(done)
    if not task.check_only:
        try:
            task.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FgdaError(f"cannot make {task.out}: {error.strerror}") from error
        _check_space(task, len(missing))
    for record in _convert_all(task, missing, reporter, workers):
        records[record["key"]] = record
        if not task.check_only:
            with open(journal, "a") as handle:
                handle.write(json.dumps(record) + "\n")
    return _conclude(task, listing, pairs, records, len(done))


def _check_space(task: Task, images: int) -> None:
    """Raises FgdaError when the images cannot fit; better now than after hours."""
    if task.size is None:
        return
    pixels = task.size[0] * task.size[1] * images
    needed = pixels * 3 if task.cache == "raw" else pixels  # PNG: a third or half of that, as photographs go
    free = shutil.disk_usage(task.out).free
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
        for record in spread(_Convert(task), pairs, 1 if few else workers):
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

    found = ((pair, records.get(key_of(pair))) for pair in pairs)
    return {
        key_of(pair): record
        for pair, record in found
        if record and "problem" not in record and record["stamp"] == stamp(pair, task) and is_there(record)
    }


def _conclude(task: Task, listing: Listing, pairs: list[Pair], records: dict[str, dict], skipped: int) -> Summary:
    splits: dict[str, list] = {}
    totals: dict[str, np.ndarray] = {}
    for pair in pairs:
        record = records[key_of(pair)]
        if "problem" in record:
            listing.problems.append({"file": record["file"], "reason": record["problem"]})
            continue
        splits.setdefault(pair.split, []).append({k: record[k] for k in ("name", "image", "label", "counts")})
        if record["counts"] is not None:
            totals[pair.split] = totals.get(pair.split, 0) + np.array(record["counts"], np.int64)
    summary = Summary(task.out, {k: len(v) for k, v in splits.items()}, len(listing.problems), skipped)
    if task.check_only:
        if listing.problems:
            shown = "\n".join(f"  {p['file']}: {p['reason']}" for p in listing.problems[:20])
            raise FgdaError(f"{task.dataset}: {len(listing.problems)} files are refused\n{shown}")
        return summary
    write_json(task.out / "problems.json", listing.problems)
    if not splits:
        raise FgdaError(f"every image of '{task.dataset}' was refused: see {task.out / 'problems.json'}")
    if task.keep_other_splits:
        splits = _other_splits(task, listing) | splits
    names = listing.classes.names
    for split in splits.keys() - totals.keys():
        counts = [item["counts"] for item in splits[split] if item["counts"] is not None]
        if counts:
            totals[split] = np.sum(counts, axis=0)
    statistics = {split: dict(zip(names, total.tolist(), strict=True)) for split, total in totals.items()}
    manifest = {"format": FORMAT, "version": VERSION, "dataset": task.dataset, "size": task.size,
                "ignore_index": IGNORE_INDEX, "classes": listing.classes.to_json(), "class_pixels": statistics,
                "splits": splits}  # fmt: skip
    write_json(task.out / "manifest.json", manifest, indent=None)
    write_json(task.out / "class_statistics.json", statistics)
    return summary


def _other_splits(task: Task, listing: Listing) -> dict[str, list]:
    """The splits that an earlier preparation left in this data set. Raises FgdaError when its classes were others."""
    if not (task.out / "manifest.json").is_file():
        return {}
    manifest = read_manifest(task.out)
    if manifest["classes"] != listing.classes.to_json():
        raise FgdaError(f"{task.out} was prepared with other classes: choose another --name, or delete it")
    return manifest["splits"]


def parse_size(text: str | None) -> tuple[int, int] | None:
    """`1280x720` to (1280, 720). Raises UsageError."""
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) >= 32 and int(height) >= 32):
        raise UsageError(f"--size {text}: write it as WIDTHxHEIGHT, at least 32x32, e.g. 1280x720")
    return int(width), int(height)
