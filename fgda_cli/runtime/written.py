"""What a command wrote into a folder, so that it never writes over a file that a person made there,
or has changed since.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .distributed import ProcessGroup
from .errors import UsageError
from .files import append_line, make_folder

JOURNAL = ".fgda-written.jsonl"


class Written:
    """The files of a folder that fgda wrote: a line in a journal for each, with its size and time,
    and a hash of what it was made of where a later call asks for that.

    `plan` names files before they are written. One that was planned and not recorded is ours: the
    process was killed between the two. Any other file that exists and differs from its line is a
    person's.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.lock = threading.Lock()
        self.facts: dict[str, list | None] = {}
        with suppress(OSError):
            for line in (
                (self.folder / JOURNAL).read_text(encoding="utf-8", errors="replace").splitlines()
            ):
                with suppress(ValueError, AttributeError, TypeError):
                    self.facts.update(json.loads(line))

    def is_ours(self, name: str) -> bool:
        """Return whether a path below the folder is free, or holds what fgda wrote there."""
        path = self.folder / name
        if not path.exists() and not path.is_symlink():
            return True
        if name not in self.facts:
            return False
        facts = self.facts[name]
        return facts is None or facts[:2] == _facts_of(path)

    def holds(self, names: Iterable[str]) -> bool:
        """Return whether all of these were written whole, and are as they were."""
        names = list(names)
        are_whole = (
            (self.folder / name).exists() and self.facts.get(name) and self.is_ours(name)
            for name in names
        )
        return bool(names) and all(are_whole)

    def was_made_of(self, names: Iterable[str], key: str) -> bool:
        """Return whether all of these were recorded with this hash."""
        return all((self.facts.get(name) or ())[2:] == [key] for name in names)

    def check(self, names: Iterable[str]) -> None:
        """Raise UsageError for the first file that a person made or changed."""
        for name in names:
            if self.is_ours(name):
                continue
            what = (
                "was changed since fgda wrote it"
                if name in self.facts
                else "is there already, and fgda did not write it"
            )
            raise UsageError(f"{self.folder / name} {what}: choose another --out, or move it away")

    def plan(self, names: Iterable[str]) -> None:
        """Record files before they are written. Raises UsageError as `check` does, before anything
        is.
        """
        names = list(names)
        self.check(names)
        self._append(dict.fromkeys(names))

    def done(self, name: str, key: str | None = None) -> None:
        """Record a file that was written, and a hash of what it was made of."""
        facts = _facts_of(self.folder / name)
        self._append({name: facts if key is None else [*facts, key]})

    def finish(self, names: Iterable[str]) -> None:
        """Record all of these at once, and delete what an earlier call of the command wrote and
        this one did not.
        """
        names = list(names)
        for name in self.facts.keys() - set(names):
            if self.is_ours(name):
                with suppress(OSError):
                    (self.folder / name).unlink()
        self._append(
            {
                name: _facts_of(self.folder / name)
                for name in names
                if (self.folder / name).is_file()
            }
        )

    def all(self) -> list[str]:
        return list(self.facts)

    def _append(self, facts: dict[str, list | None]) -> None:
        if not facts:
            return
        with self.lock:
            make_folder(self.folder)
            self.facts |= facts
            append_line(self.folder / JOURNAL, json.dumps(facts))


@contextmanager
def own_files(*paths: Path) -> Iterator[None]:
    """Record files that are written inside, each in its folder's journal.

    Raises UsageError before the work where one exists that fgda did not write.
    """
    records = [(Written(path.parent), path) for path in paths]
    for written, path in records:
        written.check((path.name,))
    yield
    for written, path in records:
        written.done(path.name)


def planned(folder: Path, names: Iterable[str], process_group: ProcessGroup) -> Written:
    """Return the record of a folder in which these files are planned, by the first process for all.
    Raises UsageError.
    """
    names = list(names)
    process_group.first_decides(lambda: Written(folder).plan(names) or 0)
    return Written(folder)


def without_written(
    files: Iterable[Path], below: Path | None = None
) -> tuple[list[Path], list[Path]]:
    """Return the files that a person made or changed, and those that fgda wrote, by the journals of
    `below` and of the folders between it and each file; None: of the file's own folder alone.

    A journal above `below` is not asked: who names a folder of written files means them.
    """
    records: dict[Path, Written] = {}

    def is_written(path: Path) -> bool:
        for folder in path.parents:
            if not folder.is_relative_to(below or path.parent):
                return False
            if folder not in records:
                records[folder] = Written(folder)
            name = path.relative_to(folder).as_posix()
            if name in records[folder].facts and records[folder].is_ours(name):
                return True
        return False

    others = []
    written = []
    for path in files:
        (written if is_written(path) else others).append(path)
    return others, written


def _facts_of(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
