"""What the trust suites work on: a small prepared playground, a trained checkpoint, and ways to
call fgda.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fgda_cli.data import playground
from fgda_cli.data.prepare import How, prepare_layout
from fgda_cli.presets import load_preset
from fgda_cli.training import stages
from tests.helpers import QUIET, ROOT, TINY, fgda, set_flags, with_preset

# a label, and what fails with an AssertionError
Case = tuple[str, Callable[[], None]]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class World:
    root: Path
    # both playground domains
    raw: Path
    # the same, prepared at 64x32
    data: Path
    checkpoint: Path

    def folder(self, name: str) -> Path:
        """A new empty folder."""
        folder = self.root / "cases" / name
        number = 0
        while folder.exists():
            number += 1
            folder = self.root / "cases" / f"{name}-{number}"
        folder.mkdir(parents=True)
        return folder

    def train_flags(self, *overrides: str) -> list[str]:
        return ["--data-root", str(self.data), "--device", "cpu", *set_flags(*overrides)]


def make_world(root: Path) -> World:
    raw = root / "raw"
    data = root / "data"
    for sheet in playground.sheets(raw, seed=0, train=16, val=4):
        playground.write_sheet(sheet)
    how = How(data, (64, 32), 1, reporter=QUIET)
    prepare_layout("gta5", raw / "game", how, name="playground-game")
    prepare_layout("cityscapes", raw / "street", how, name="playground-street")
    job = stages.Job(
        load_preset("playground", TINY), data, root / "pre", device="cpu", reporter=QUIET
    )
    return World(root, raw, data, checkpoint=stages.pretrain(job))


def call(*arguments) -> Done:
    """Run fgda in this process."""
    done = fgda(*arguments)
    return Done(done.returncode, done.stdout, done.stderr)


def start(*arguments, **how) -> subprocess.Popen:
    """Start fgda in a process (and process group) of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "fgda_cli", *with_preset(arguments)]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **how,
    )


def finish(process: subprocess.Popen) -> Done:
    out, err = process.communicate(timeout=300)
    return Done(process.returncode, out, err)


def clear(done: Done, codes: Sequence[int], *parts: str) -> None:
    """One or two plain lines for a failure, the right code, no traceback, nothing that calls itself
    internal.
    """
    assert done.code in codes, f"exit code {done.code}, not {codes}: {done.err[-500:]}"
    assert "Traceback" not in done.err and "internal error" not in done.err, done.err[-800:]
    if done.code:
        lines = done.err.strip().splitlines()
        first = next(
            (
                k
                for k, line in enumerate(lines)
                if line.startswith("fgda: ") and "warning: " not in line
            ),
            None,
        )
        assert first is not None and len(lines) - first <= 2, (
            f"no clear line at the end: {done.err[-500:]}"
        )
    for part in parts:
        assert part in done.err, f"'{part}' is missing: {done.err[-500:]}"


def nothing_half_written(folder: Path) -> None:
    left = [path for path in folder.rglob("*.part")]
    assert not left, f"half-written files: {left}"
