"""Whole files or none: a crash, a full disk or a kill leaves the previous file."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path

from .errors import FgdaError


@contextmanager
def writing(place: Path, *also: type[Exception]):
    """A write that the system refuses in this block names the file or folder: raises FgdaError.

    `also`: what a library raises when its write fails.
    """
    try:
        yield
    except OSError as error:
        raise FgdaError(f"cannot write {place}: {error.strerror or error}") from error
    except also as error:
        raise FgdaError(f"cannot write {place}: the write failed (is the disk full?)") from error


def make_folder(path: Path) -> None:
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def whole_files(*paths: Path):
    """Yields a temporary path in the same folder for each; they take the real names only when the block ends well."""
    partials = [path.with_name(f".{path.name}.{os.getpid()}.part") for path in paths]
    try:
        with writing(paths[0]):
            paths[0].parent.mkdir(parents=True, exist_ok=True)
            yield partials
            for partial in partials:
                with open(partial, "rb+") as handle:
                    os.fsync(handle.fileno())
            for partial, path in zip(partials, paths, strict=True):
                partial.replace(path)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path):
    """`whole_files` of one."""
    with whole_files(Path(path)) as (partial,):
        yield partial


def write_bytes(path: Path, content: bytes) -> None:
    with whole_file(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode(errors="backslashreplace"))  # names that are not UTF-8; in JSON the result is an escape


def append_line(path: Path, line: str) -> None:
    with writing(path), open(path, "a", encoding="utf-8", errors="backslashreplace") as handle:
        handle.write(line + "\n")


def write_json(path: Path, value, indent: int | None = 1) -> None:
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")
