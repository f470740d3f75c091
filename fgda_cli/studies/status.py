"""`fgda status`: the runs below a folder, how far each is, and the command that goes on."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..runtime.errors import UsageError
from ..runtime.files import LOCK
from ..runtime.record import METRICS, RECORD, measurements, recorded

FINISHED = "finished"
RUNNING = "running"
STOPPED = "stopped"
BROKEN = "broken"


@dataclass(frozen=True)
class RunStatus:
    """A run folder in words and figures; `seconds` are left, as the last logged speed says."""

    folder: str
    state: str
    preset: str = ""
    stage: str = ""
    method: str = ""
    seed: int = 0
    iteration: int = 0
    iterations: int = 0
    seconds: float | None = None
    score: str = ""
    verdict: str = ""
    # day and time of the last line of its log
    logged: str = ""
    # the command that continues it
    goes_on: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def runs_below(folder: Path) -> list[RunStatus]:
    """Return every run below a folder, by name. Raises UsageError for a missing folder."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    folders = (path.parent for path in sorted(folder.rglob(RECORD)))
    return [
        status_of(run)
        for run in folders
        if (run / "checkpoints").is_dir() or (run / METRICS).is_file()
    ]


def status_of(folder: Path) -> RunStatus:
    """Read a run's record and its logs; no checkpoint is loaded."""
    facts = recorded(folder, _facts)
    if facts is None:
        return RunStatus(str(folder), BROKEN)
    stage, name, length, batch, seed = facts
    logs = measurements(folder)
    notes = _notes(folder)
    logged = max((int(entry["iteration"]) for entry in logs), default=0)
    iteration = max(logged, _saved_at(notes))
    state = _state(folder)
    speed = next(
        (entry["images_per_second"] for entry in reversed(logs) if entry.get("images_per_second")),
        None,
    )
    left = (length - iteration) * batch / speed if speed and state == RUNNING else None
    goes_on = None
    if state in (STOPPED, BROKEN):
        words = ["fgda", stage["stage"], "--preset", folder / RECORD]
        # a run of an earlier version recorded no data root
        for option, value in (("--init", "init"), ("--data-root", "data_root")):
            if stage.get(value):
                words += [option, stage[value]]
        words += ["--out", folder]
        goes_on = shlex.join(map(str, [*words, "--fresh"] if state == BROKEN else words))
    return RunStatus(
        str(folder),
        state,
        name,
        stage=stage["stage"],
        method=str(stage["method"]),
        seed=seed,
        iteration=iteration,
        iterations=length,
        seconds=left,
        score=_score(logs),
        verdict=_verdict(notes),
        logged=_logged(folder),
        goes_on=goes_on,
    )


def _facts(record: dict[str, Any]) -> tuple[dict[str, Any], str, int, int, int]:
    """Return a run's stage, preset name, iterations, batch size and seed."""
    stage = record["stage"]
    wanted = record[stage["stage"]]
    return (
        stage,
        str(record["name"]),
        int(wanted["iterations"]),
        int(wanted["batch_size"]),
        int(record["run"]["seed"]),
    )


def _state(folder: Path) -> str:
    if _is_held(folder):
        return RUNNING
    if (folder / "checkpoints/final.pth").is_file():
        return FINISHED
    return STOPPED if (folder / "checkpoints/last.pth").is_file() else BROKEN


def _is_held(folder: Path) -> bool:
    """Return whether a process holds the folder's lock, which ends with it; the lock itself is not
    kept.
    """
    from filelock import FileLock, Timeout

    path = folder / LOCK
    if not path.is_file():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        # a folder that cannot be written to: nothing trains there
        return False
    lock.release()
    return False


def _logged(folder: Path) -> str:
    """The day and time of a run's last log line, in this machine's time."""
    path = folder / METRICS
    return f"{datetime.fromtimestamp(path.stat().st_mtime):%d %b %H:%M}" if path.is_file() else ""


def _score(logs: list[dict[str, Any]]) -> str:
    """The last validation in words."""
    last = next(
        (
            entry["validation"]
            for entry in reversed(logs)
            if isinstance(entry.get("validation"), dict)
        ),
        {},
    )
    for key, text in (
        ("miou", "mIoU {:.1f}"),
        ("source_miou", "source {:.1f}"),
        ("label_free", "{:+.1f} expected"),
    ):
        if isinstance(last.get(key), float):
            return text.format(last[key])
    return ""


def _notes(folder: Path) -> list[str]:
    """The lines of log.txt."""
    try:
        return (folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _saved_at(notes: list[str]) -> int:
    """The iteration of the last checkpoint, which a stopped run writes between two log lines."""
    saved = [re.fullmatch(r"iteration (\d+): checkpoint written", line) for line in notes]
    return max((int(match[1]) for match in saved if match), default=0)


def _verdict(notes: list[str]) -> str:
    """The verdict that adaptation ended with."""
    said = next((line for line in reversed(notes) if line.startswith("without labels: ")), "")
    return said.removeprefix("without labels: ").partition(" (")[0]
