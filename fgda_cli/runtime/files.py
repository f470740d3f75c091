"""Whole files or none: a crash, a full disk or a kill leaves the previous file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import FgdaError, UsageError

LOCK = ".fgda.lock"
HOLDER = ".fgda.pid"


@contextmanager
def writing(path: Path, *also: type[Exception]):
    """Raise FgdaError that names the file or folder when the system refuses a write inside.

    `also`: what a library raises when its write fails.
    """
    try:
        yield
    except OSError as error:
        raise FgdaError(f"cannot write {path}: {error.strerror or error}") from error
    except also as error:
        raise FgdaError(f"cannot write {path}: the write failed (is the disk full?)") from error


def make_folder(path: Path) -> None:
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def whole_files(*paths: Path, sync: bool = True):
    """Yield a temporary path in the same folder for each file; they take the real names only when
    the block ends well.

    A link is followed: the file that it leads to is replaced. `sync` waits until the disk has the
    files, so that a loss of power leaves the former ones; without it only a crash of the process
    does.
    """
    paths = tuple(Path(os.path.realpath(path)) for path in paths)
    for path in paths:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise FgdaError(
                f"cannot write {path}: it is no regular file, and would be replaced by one"
            )
    partials = [path.with_name(_short(f".{path.name}", f".{os.getpid()}.part")) for path in paths]
    try:
        with writing(paths[0]):
            paths[0].parent.mkdir(parents=True, exist_ok=True)
            yield partials
            for partial in partials if sync else ():
                with open(partial, "rb+") as handle:
                    os.fsync(handle.fileno())
            for partial, path in zip(partials, paths, strict=True):
                partial.replace(path)
    finally:
        for partial in partials:
            # the reason for which the write failed is the one to tell
            with suppress(OSError):
                partial.unlink(missing_ok=True)


# bytes that are read at once
BLOCK = 1 << 20
# bytes of a file's name
LONGEST_NAME = 255


def _short(name: str, ending: str) -> str:
    """A name with an ending, cut and told apart by a hash where a file's name could not be as
    long.
    """
    if len(os.fsencode(name + ending)) <= LONGEST_NAME:
        return name + ending
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return f".{digest}{ending}"


@contextmanager
def whole_file(path: Path, sync: bool = True):
    """Yield `whole_files` of one file."""
    with whole_files(Path(path), sync=sync) as (partial,):
        yield partial


def file_hash(file: BinaryIO) -> str:
    """Return the SHA-256 of a file that is open, read from its beginning."""
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()


def write_bytes(path: Path, content: bytes, sync: bool = True) -> None:
    """Write a whole file, or none; devices and pipes (`/dev/stdout`) are written to as they are."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        with writing(path):
            path.write_bytes(content)
        return
    with whole_file(path, sync) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    # names that are not UTF-8; in JSON the result is an escape
    write_bytes(path, text.encode(errors="backslashreplace"))


def append_line(path: Path, line: str) -> None:
    with writing(path), open(path, "a", encoding="utf-8", errors="backslashreplace") as handle:
        handle.write(line + "\n")


def sync(path: Path) -> None:
    """Wait until the disk has a file."""
    with writing(path), open(path, "rb+") as handle:
        os.fsync(handle.fileno())


def write_json(path: Path, value, indent: int | None = 1) -> None:
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


@contextmanager
def alone_in(folder: Path, other: str = "--out") -> Iterator[None]:
    """Keep other fgda processes out of the folder inside. Raises UsageError that names the process
    that works there.

    The lock is the operating system's: it ends with the process, whatever ends that. `other` is the
    option that names another folder.
    """
    from filelock import FileLock, Timeout

    make_folder(folder)
    lock = FileLock(folder / LOCK)
    holder = folder / HOLDER
    try:
        lock.acquire(timeout=0)
    # an OSError too, so it comes first
    except Timeout:
        try:
            other = f"process {int(holder.read_text())}"
        except (OSError, ValueError):
            other = "another process"
        raise UsageError(
            f"{other} is at work in {folder}: wait until it has ended, or choose another {other}"
        ) from None
    except OSError as error:
        raise FgdaError(f"cannot write {folder / LOCK}: {error.strerror or error}") from error
    try:
        # a full disk: then the other one is not named
        with suppress(FgdaError):
            write_text(holder, str(os.getpid()))
        yield
    finally:
        for path in (holder, folder / LOCK):
            with suppress(OSError):
                path.unlink()
        lock.release()
