"""Where a prepared data set may be written: not into raw files, not over files that are not ours,
and not in the place of another data set; and which of its files are deleted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..runtime.errors import FgdaError, UsageError
from .convert import Task
from .footage import FRAMES, is_frame
from .images import visible_files
from .layouts.base import Listing
from .splits import kept_splits, refuse_kept_images
from .store import is_dataset, read_manifest

JOURNAL = "journal.jsonl"
# key of its first line, which names all files that the folder will hold
PLANNED = "planned"
PROBLEMS = "problems.json"
# names of splits' folders
BUILT = re.compile(r"[a-z]+-[0-9a-f]{12}")
OF_EARLIER_VERSIONS = frozenset({"class_statistics.json", JOURNAL})


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


def check_former(task: Task, listing: Listing, former: dict[str, Any] | None) -> None:
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
    kept = kept_splits(task, listing, former)
    if kept and former["classes"] != listing.classes.to_json():
        raise FgdaError(
            f"the splits {', '.join(kept)} of {task.out} were prepared with different classes:"
            " choose another --name or delete it"
        )
    refuse_kept_images(task, listing, kept)


def _other_name(task: Task, value: Any) -> str:
    """A name for the second data set: after what tells it from the first."""
    word = re.sub(r"[^A-Za-z0-9]+", "-", str(Path(str(value)).name)).strip("-").lower() or "2"
    parent = re.sub(r"[^A-Za-z0-9]+", "-", Path(str(value)).parent.name).strip("-").lower()
    return f"{task.dataset}-{parent if word == task.dataset.lower() and parent else word}"


def sweep(out: Path, manifest: dict[str, Any]) -> None:
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
    planned = read_journal(folder / JOURNAL).get(PLANNED, {}).get("paths", [])
    inside = [
        path
        for path in planned
        if Path(path).parts[0] == folder.name and ".." not in Path(path).parts
    ]
    return [*(folder.parent / path for path in inside), folder / JOURNAL]


def read_journal(path: Path) -> dict[str, dict]:
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
