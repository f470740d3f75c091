"""Faults: processes killed at random points, stopped, starved of disk, their workers killed, their
losses broken.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from fgda_cli.data.prepare import How, prepare_layout
from fgda_cli.models import checkpoint
from tests.trust.world import QUIET, Case, Done, World, clear, finish, nothing_half_written, start

KILLS = 20
SMALL_TRANSLATION = ("method.translation_channels=4", "method.translation_crop=32")


def cases(world: World) -> Iterator[Case]:
    yield from kills_of_training(world)
    yield from kills_of_prepare(world)
    yield from full_and_read_only(world)
    yield from signals(world)
    yield "a reading worker is killed", lambda: killed_reader(world)
    yield "a preparing worker is killed", lambda: killed_preparer(world)
    yield "NaN loss", lambda: nan_loss(world)


def until(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 60) -> bool:
    """Waits; False when the process ended first."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


def children(process: subprocess.Popen) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in path.read_text().split()] if path.exists() else []


# Training


def kills_of_training(world: World) -> Iterator[Case]:
    """One run killed again and again, at random moments, until it has been killed KILLS times; then
    it ends.
    """
    flags = world.train_flags(
        "adapt.iterations=400", "adapt.checkpoint_every=3", "adapt.evaluate_every=150"
    )
    whole = world.folder("whole")
    parts = world.folder("parts")

    def command(out: Path):
        return ("adapt", "--init", world.checkpoint, "--out", out, *flags)

    rng = random.Random(0)

    def one_kill() -> None:
        process = start(*command(parts))
        last = parts / "checkpoints/last.pth"
        before = last.stat().st_mtime_ns if last.exists() else 0
        # in the loop, else somewhere in the start
        if rng.random() < 0.7:
            until(lambda: last.exists() and last.stat().st_mtime_ns != before, process)
            time.sleep(rng.uniform(0, 0.15))
        else:
            time.sleep(rng.uniform(0.5, 4))
        assert process.poll() is None, f"the run ended before it was killed: {finish(process)}"
        kill(process)
        if last.exists():
            checkpoint.load(last)  # never half-written

    def the_end() -> None:
        for out in (whole, parts):
            clear(finish(start(*command(out))), [0])
        one, two = (checkpoint.load(out / "checkpoints/last.pth") for out in (whole, parts))
        where = difference(one, two)
        assert where is None, f"the killed run differs from the one never stopped at {where}"
        lines = [
            [strip(json.loads(line)) for line in (out / "metrics.jsonl").read_text().splitlines()]
            for out in (whole, parts)
        ]
        assert lines[0] == lines[1], "log lines were lost, doubled or changed"
        assert len([line for line in lines[0] if "seg" in line]) == 400
        nothing_half_written_but_of_the_dead(parts)

    yield from ((f"kill -9 in training, {number + 1}", one_kill) for number in range(KILLS))
    yield "the killed training run ends with the same bits", the_end


def strip(record: dict) -> dict:
    return {key: value for key, value in record.items() if key != "images_per_second"}


def difference(first, second, place: str = "") -> str | None:
    """Where two checkpoints differ first; None when they are the same to the bit."""
    if isinstance(first, torch.Tensor):
        return None if torch.equal(first, second) else place
    if isinstance(first, (list, tuple)):
        first = dict(enumerate(first))
        second = dict(enumerate(second))
    if not isinstance(first, dict):
        return None if first == second else f"{place} ({first} and {second})"
    if first.keys() != second.keys():
        return f"{place} (other keys)"
    found = (difference(first[key], second[key], f"{place}/{key}") for key in first)
    return next((where for where in found if where), None)


def nothing_half_written_but_of_the_dead(folder: Path) -> None:
    """kill -9 leaves no time to clean up: hidden temporary files may remain, none under a real
    name.
    """
    assert not [path for path in folder.rglob("*.part") if not path.name.startswith(".")]


# Preparation


def kills_of_prepare(world: World) -> Iterator[Case]:
    rng = random.Random(1)
    whole = world.folder("prepared")
    prepare_layout("gta5", world.raw / "game", How(whole, (512, 256), 1, reporter=QUIET))

    def one_kill() -> None:
        """A preparation killed once, then run again: the same files and journal as the one never
        stopped.
        """
        out = world.folder("prepare")
        command = (
            "prepare",
            "gta5",
            "--root",
            world.raw / "game",
            "--data-root",
            out,
            "--size",
            "512x256",
            "--workers",
            2,
        )
        process = start(*command)
        assert until(lambda: is_preparing(out), process), f"ended too early: {finish(process)}"
        time.sleep(rng.uniform(0, 0.1))
        workers = children(process)
        kill(process)
        time.sleep(0.3)
        assert not [pid for pid in workers if alive(pid)], "workers outlive the killed process"
        clear(finish(start(*command)), [0])
        assert contents(out / "gta5") == contents(whole / "gta5"), (
            "files differ from those of a preparation never stopped"
        )
        shutil.rmtree(out)

    yield from ((f"kill -9 in prepare, {number + 1}", one_kill) for number in range(KILLS))


def is_preparing(out: Path) -> bool:
    """Whether a preparation has begun to write images."""
    return any(path.is_file() and path.suffix == ".bmp" for path in out.rglob("*"))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def contents(folder: Path) -> dict[str, bytes]:
    files = (
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".part" and path.name != "journal.jsonl"
    )
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# Disk


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[Path]:
    """A small file system of its own; needs the right to mount (root)."""
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        check=True,
        capture_output=True,
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full_and_read_only(world: World) -> Iterator[Case]:
    photos = world.raw / "street/leftImg8bit"
    commands = {
        "prepare": (
            "prepare",
            "gta5",
            "--root",
            world.raw / "game",
            "--size",
            "64x32",
            "--workers",
            1,
            "--data-root",
        ),
        "pretrain": ("pretrain", *world.train_flags(), "--out"),
        "adapt": ("adapt", "--init", world.checkpoint, *world.train_flags(), "--out"),
        "predict": ("predict", world.checkpoint, photos, "-r", "--out"),
        "entropy-map": ("entropy-map", world.checkpoint, photos, "-r", "--raw", "--out"),
        "evaluate": ("evaluate", world.checkpoint, "--data-root", world.data, "--save-predictions"),
        "report": ("evaluate", world.checkpoint, "--data-root", world.data, "--report"),
        "cycada": (
            "adapt",
            "--method",
            "cycada",
            "--init",
            world.checkpoint,
            *world.train_flags(*SMALL_TRANSLATION),
            "--out",
        ),
        "ablate": (
            "ablate",
            "--methods",
            "source-only",
            "--seeds",
            "0",
            *world.train_flags(),
            "--preset",
            "playground",
            "--out",
        ),
        "rank": ("rank", world.checkpoint, photos, "-r", "--export", "coco", "--out"),
        "compare": ("compare", world.checkpoint, "--images", photos / "val/procedura", "--out"),
        "onnx": ("export", world.checkpoint, "--size", "64x32", "--out"),
        "torchscript": (
            "export",
            world.checkpoint,
            "--size",
            "64x32",
            "--format",
            "torchscript",
            "--out",
        ),
        "openvino": (
            "export",
            world.checkpoint,
            "--size",
            "64x32",
            "--format",
            "openvino",
            "--out",
        ),
    }
    ends = {"compare": "sheet.png", "onnx": "m.onnx", "torchscript": "m.pt", "openvino": "m.xml"}

    def case(command: tuple, options: str, end: str) -> None:
        with tmpfs(world.folder("disk"), options) as disk:
            target = disk / "sub" / end if end else disk / "sub"
            clear(finish(start(*command, target)), [1])
            nothing_half_written(disk)

    for name, command in commands.items():
        end = ends.get(name, "")
        for what, options in {
            "full disk": "size=8k",
            "nearly full disk": "size=200k",
            "read-only disk": "size=64k,ro",
        }.items():
            if what == "nearly full disk" and name in ("evaluate", "prepare"):
                # their files may fit
                continue
            yield (
                f"{what}: {name}",
                lambda command=command, options=options, end=end: case(command, options, end),
            )


# Signals and broken work


def signals(world: World) -> Iterator[Case]:
    photos = world.folder("photos")
    for index in range(300):
        os.symlink(
            next(iter(sorted((world.raw / "street/leftImg8bit").rglob("*.png")))),
            photos / f"{index:03d}.png",
        )

    def case(name: str, command: tuple, begun: Callable[[Path], bool], signum: int) -> None:
        out = world.folder("signal")
        process = start(*command, out / "o")
        assert until(lambda: begun(out / "o"), process), f"ended too early: {finish(process)}"
        process.send_signal(signum)
        done = finish(process)
        clear(done, [128 + signum])
        nothing_half_written(out)
        if name == "pretrain":
            assert "run the same command to go on" in done.err
            assert checkpoint.load(out / "o/checkpoints/last.pth")["train"]["iteration"] > 0

    long = world.train_flags("pretrain.iterations=100000", "pretrain.checkpoint_every=100000")
    commands = {
        "pretrain": (("pretrain", *long, "--out"), lambda out: (out / "metrics.jsonl").is_file()),
        "prepare": (
            (
                "prepare",
                "gta5",
                "--root",
                world.raw / "game",
                "--size",
                "1920x960",
                "--workers",
                2,
                "--data-root",
            ),
            is_preparing,
        ),
        "predict": (
            ("predict", world.checkpoint, photos, "--out"),
            lambda out: len(list(out.glob("*_ids.png"))) > 3,
        ),
        "entropy-map": (
            ("entropy-map", world.checkpoint, photos, "--out"),
            lambda out: len(list(out.glob("*.png"))) > 3,
        ),
    }
    for name, (command, begun) in commands.items():
        for signum in (signal.SIGINT, signal.SIGTERM):
            label = f"{signal.Signals(signum).name} in {name}"
            yield label, lambda n=name, c=command, b=begun, s=signum: case(n, c, b, signum=s)


def killed_reader(world: World) -> None:
    out = world.folder("reader") / "run"
    flags = world.train_flags("pretrain.iterations=100000", "run.workers=2")
    process = start("pretrain", *flags, "--out", out)
    assert until(lambda: (out / "metrics.jsonl").is_file(), process)
    os.kill(children(process)[-1], signal.SIGKILL)
    clear(
        finish(process),
        [1],
        "a process that reads images was killed",
        "run the same command to go on",
    )
    nothing_half_written(out)


def killed_preparer(world: World) -> None:
    out = world.folder("preparer")
    process = start(
        "prepare",
        "gta5",
        "--root",
        world.raw / "game",
        "--size",
        "1920x960",
        "--workers",
        2,
        "--data-root",
        out,
    )
    assert until(lambda: is_preparing(out) and len(children(process)) >= 2, process)
    os.kill(children(process)[-1], signal.SIGKILL)
    clear(finish(process), [1], "a worker process was killed", "run the same command to go on")


def nan_loss(world: World) -> None:
    out = world.folder("nan") / "run"
    done: Done = finish(
        start(
            "pretrain", *world.train_flags("optim.lr=1e20", "pretrain.iterations=50"), "--out", out
        )
    )
    clear(done, [1], "is not finite at iteration", "checkpoint")
    nothing_half_written(out)
