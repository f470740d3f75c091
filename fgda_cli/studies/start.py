"""`fgda start`: from a labelled simulator and footage to a mapping, a preset, and the commands to
run with their times.
"""

from __future__ import annotations

import shlex
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.footage import videos_of
from ..data.geometry import same_aspect
from ..data.images import BadFile, evenly_spaced, image_files, read_rgb
from ..data.survey import Survey, mapping_text
from ..data.video import frames_of
from ..presets import load_preset
from ..runtime.errors import FgdaError, UsageError
from ..runtime.files import make_folder, write_text
from ..runtime.system import usable_cores
from ..runtime.written import Written, own_files, without_written
from ..settings import Preset
from ..training.speed import Measure, minutes_of_stages, seconds_a_step

# images whose sizes are read
LOOKED_AT = 24
# smallest share of the preset's iterations: fewer train no model
LEAST_SHARE = 0.25
# sizes of a training image to choose from, in pixels
PIXELS = (32_768, 53_248, 76_800, 131_072, 262_144, 524_288)
# the recipe whose settings, sizes apart, are taken over
BASE = "carla2kitti"
# percent of the simulator's images
HELD_OUT = 15
# with fewer images, none is held out
FEW_IMAGES = 20


@dataclass(frozen=True)
class Footage:
    """Images or videos: the size most have, how many there are, and how long one takes to read."""

    place: Path
    size: tuple[int, int]
    count: int
    # number of images seen that have another shape
    others: int
    looked_at: int
    seconds: float
    is_video: bool = False


@dataclass(frozen=True)
class Step:
    """A command of the first hour, what it is for, and how many minutes it takes. None: no
    guess.
    """

    what: str
    command: str
    minutes: float | None = None


@dataclass(frozen=True)
class Start:
    """Findings and files of `fgda start`."""

    mapping: Path
    preset: Path
    size: tuple[int, int]
    steps: list[Step]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        steps = [
            {"what": step.what, "command": step.command, "minutes": step.minutes}
            for step in self.steps
        ]
        return {
            "mapping": str(self.mapping),
            "preset": str(self.preset),
            "size": list(self.size),
            "steps": steps,
            "notes": self.notes,
        }


def look_at(source: Path, option: str) -> Footage:
    """Read some images, or a frame of some videos. Raises FgdaError where there are none that can
    be read.
    """
    if not source.exists():
        raise UsageError(f"{option} {source}: no such folder or video")
    videos = videos_of(source)
    files = videos
    if not videos and source.is_dir():
        files, _ = without_written(image_files(source), source)
    sizes: Counter[tuple[int, int]] = Counter()
    started = time.perf_counter()
    for path in evenly_spaced(files, LOOKED_AT):
        try:
            image = next(iter(frames_of(str(path)))).image if videos else read_rgb(path)
        except (BadFile, StopIteration):
            continue
        sizes[image.shape[1], image.shape[0]] += 1
    if not sizes:
        raise FgdaError(f"{source}: no image or video in it can be read")
    size = sizes.most_common(1)[0][0]
    others = sum(count for other, count in sizes.items() if not same_aspect(other, size))
    seconds = (time.perf_counter() - started) / sizes.total()
    return Footage(
        source,
        size,
        len(files),
        others=others,
        looked_at=sizes.total(),
        seconds=seconds,
        is_video=bool(videos),
    )


def files_of(name: str, out: Path) -> tuple[Path, Path]:
    """Return the paths of the mapping and the preset."""
    return out / f"{name}-mapping.yaml", out / f"{name}.yaml"


def check_place(name: str, out: Path) -> None:
    """Raise UsageError where a person wrote or changed one of the files.

    Our own are written anew.
    """
    written = Written(out)
    for path in files_of(name, out):
        if not written.is_ours(path.name):
            raise UsageError(
                f"{path} exists already, and was written or changed by hand: choose another --name"
                " or --out, or delete it"
            )


def write_start(
    name: str,
    out: Path,
    source: Footage,
    labels: Path,
    meaning: Survey,
    target: Footage,
    minutes: float,
    device: str,
    measure: Measure = seconds_a_step,
) -> Start:
    """Choose sizes that fit the minutes on this machine, write mapping.yaml and the preset, and say
    what to run.
    """
    notes: list[str] = []
    mapping, preset_file = files_of(name, out)
    make_folder(out)
    tried = PIXELS[1]
    sizes = sizes_for(tried, source.size, target.size)
    text = preset_text(name, sizes, bool(_held_out(meaning)), iterations={})
    preset = _parsed(text, out)
    times = minutes_of_stages(preset, max(2, len(meaning.names)), device, measure=measure)
    largest = min(target.size[0] * target.size[1], source.size[0] * source.size[1] * 4)
    fits = [
        pixels
        for pixels in PIXELS
        if pixels <= largest and sum(times.values()) * pixels / tried <= minutes
    ]
    pixels = fits[-1] if fits else PIXELS[0]
    times = {stage: value * pixels / tried for stage, value in times.items()}
    iterations = {stage: getattr(preset, stage).iterations for stage in times}
    if not fits:
        whole = sum(times.values())
        share = max(minutes / whole, LEAST_SHARE)
        iterations = {stage: round(count * share) for stage, count in iterations.items()}
        times = {stage: value * share for stage, value in times.items()}
        notes.append(
            f"even the smallest size takes about {whole:.0f} minutes here: the preset has"
            f" {100 * share:.0f} % of the iterations, for about {sum(times.values()):.0f} minutes;"
            " more of them make a better model"
        )
    sizes = sizes_for(pixels, source.size, target.size)
    with own_files(mapping, preset_file):
        write_text(mapping, mapping_text(meaning))
        write_text(preset_file, preset_text(name, sizes, bool(_held_out(meaning)), iterations))
    notes += _notes(source, meaning, target, sizes=sizes)
    steps = steps_for(
        name,
        mapping,
        preset_file,
        source=source,
        labels=labels,
        meaning=meaning,
        target=target,
        sizes=sizes,
        times=times,
    )
    return Start(mapping, preset_file, sizes.target, steps=steps, notes=notes)


@dataclass(frozen=True)
class Sizes:
    """Width and height of training images and crops of both domains; `rows`: the part of the
    source's height that is kept.
    """

    source: tuple[int, int]
    source_crop: tuple[int, int]
    target: tuple[int, int]
    target_crop: tuple[int, int]
    rows: tuple[int, int] | None


def sizes_for(pixels: int, source: tuple[int, int], target: tuple[int, int]) -> Sizes:
    """Return sizes of about this many pixels, each domain in its own aspect; a much higher source
    is cut to the target's.
    """
    aspect = target[0] / target[1]
    size = _sides(pixels, aspect)
    rows = None
    own = source[0] / source[1]
    # the target sees a band of what the source sees
    if own < aspect / 1.2:
        kept = 100 * own / aspect
        rows = (round(50 - kept / 2), round(50 + kept / 2))
        own = aspect
    taken = _sides(pixels, own)
    narrow = min(0.6 * taken[0], 0.8 * taken[1] * aspect)
    return Sizes(
        taken,
        _rounded(narrow, narrow / aspect),
        size,
        target_crop=_rounded(0.7 * size[0], 0.7 * size[1]),
        rows=rows,
    )


def _sides(pixels: int, aspect: float) -> tuple[int, int]:
    return _rounded((pixels * aspect) ** 0.5, (pixels / aspect) ** 0.5)


def _rounded(width: float, height: float) -> tuple[int, int]:
    return max(32, round(width / 8) * 8), max(32, round(height / 8) * 8)


def preset_text(name: str, sizes: Sizes, held_out: bool, iterations: dict[str, int]) -> str:
    """Return the preset as YAML, each line with its purpose; `iterations` by stage."""
    purposes = {
        "pretrain": "steps on the simulator: more if its score still rises",
        "adapt": "steps of adaptation",
    }
    rows = [
        (
            f"extends: {BASE}",
            "a small encoder that trains on a CPU; gta2city is the paper's ResNet-101, for a GPU",
        ),
        ("data:", ""),
        ("  source:", "the simulator"),
        (f"    dataset: {name}-sim", ""),
        (f"    size: {list(sizes.source)}", "width and height of training images"),
        (f"    crop: {list(sizes.source_crop)}", "of it, in the shape of the target's images"),
        (
            "    scale: [1.0, 2.5]",
            "random factor of the size: raise it where the footage's objects look larger",
        ),
        (
            f"    validation: {'val' if held_out else 'null'}",
            "held-out images that pick the source model's checkpoint",
        ),
        ("  target:", "the footage"),
        (f"    dataset: {name}-real", ""),
        (f"    size: {list(sizes.target)}", "in the footage's own shape"),
        (f"    crop: {list(sizes.target_crop)}", ""),
        (
            f"  evaluation: {{dataset: {name}-real, split: train}}",
            "name labelled images of the target here, if you have some",
        ),
        *(
            (f"{stage}: {{iterations: {count}}}", purposes[stage])
            for stage, count in iterations.items()
        ),
        ("method: fgda", "another: docs/choosing.md"),
        (
            "run: {select: label-free}",
            "no labels of the target: signals without labels pick the checkpoint",
        ),
    ]
    return "".join(f"{line.ljust(52)}# {why}\n" if why else f"{line}\n" for line, why in rows)


def _parsed(text: str, out: Path) -> Preset:
    """The preset of a text, through a file, as a user's would be."""
    path = out / ".fgda-start.yaml"
    write_text(path, text)
    try:
        return load_preset(str(path))
    finally:
        path.unlink(missing_ok=True)


def _held_out(meaning: Survey) -> int:
    return HELD_OUT if meaning.count >= FEW_IMAGES else 0


def _notes(source: Footage, meaning: Survey, target: Footage, sizes: Sizes) -> list[str]:
    notes = []
    if sizes.rows is not None:
        notes.append(
            f"rows {sizes.rows[0]} to {sizes.rows[1]} % of the simulator's images are kept, for the"
            " footage is wider: see that the horizons agree (fgda gap)"
        )
    if target.others:
        notes.append(
            f"{target.others} of {target.looked_at} images of the footage have another shape than"
            " most and are cut (--cut)"
        )
    if meaning.left_out:
        rare = ", ".join(
            f"{name} ({100 * share:.2f} %)" for name, share in meaning.left_out.items()
        )
        notes.append(f"too few pixels to be learned, left out: {rare}")
    if meaning.rest is None:
        notes.append(
            f"{meaning.looked_at} of {meaning.count} label files were looked at: prepare refuses a"
            " value that only others have"
        )
    if meaning.unnamed:
        notes.append(
            f"nothing says what {len(meaning.unnamed)} label values are: name them in the mapping"
        )
    if meaning.rest == "other":
        notes.append(
            "the chosen classes cover less than 80 % of the pixels: the rest becomes the class"
            " `other`"
        )
    if not _held_out(meaning):
        notes.append(f"{meaning.count} labelled images are too few to hold some out for validation")
    return notes


def steps_for(
    name: str,
    mapping: Path,
    preset: Path,
    source: Footage,
    labels: Path,
    meaning: Survey,
    target: Footage,
    sizes: Sizes,
    times: dict[str, float],
) -> list[Step]:
    """Return the commands of the first hour, in order."""

    def text(*words: object) -> str:
        return shlex.join(["fgda", *map(str, words)])

    def minutes(side: Footage) -> float:
        return side.count * side.seconds * 2 / usable_cores() / 60

    held_out = ("--hold-out", HELD_OUT) if _held_out(meaning) else ()
    rows = ("--rows", "{}:{}".format(*sizes.rows)) if sizes.rows else ()
    frames = ("--every", "1s") if target.is_video else ()
    cut = ("--cut",) if target.others else ()
    run = f"runs/{preset.stem}"
    adapted = f"{run}/adapt-fgda-seed0/checkpoints/final.pth"
    return [
        Step(
            "prepare the simulator",
            text(
                "prepare",
                meaning.command,
                "--images",
                source.place,
                "--labels",
                labels,
                *meaning.options,
                "--mapping",
                mapping,
                *rows,
                "--size",
                "{}x{}".format(*sizes.source),
                *held_out,
                "--name",
                f"{name}-sim",
            ),
            minutes(source),
        ),
        Step(
            "prepare the footage",
            text(
                "prepare",
                "folder",
                "--images",
                target.place,
                *frames,
                *cut,
                "--size",
                "{}x{}".format(*sizes.target),
                "--name",
                f"{name}-real",
            ),
            None if target.is_video else minutes(target),
        ),
        Step("compare both", text("gap", "--preset", preset, "--report", f"{name}-gap"), 1),
        Step("train on the simulator", text("pretrain", "--preset", preset), times["pretrain"]),
        Step("adapt to the footage", text("adapt", "--preset", preset), times["adapt"]),
        Step("see what changed", text("verdict", adapted, "--report", f"{name}-verdict"), 1),
        Step(
            "segment the footage",
            text("predict", adapted, target.place, "--out", f"{name}-predicted"),
            None,
        ),
        Step(
            "choose images to label",
            text(
                "rank",
                adapted,
                target.place,
                "--top",
                20,
                "--export",
                "cvat",
                "--out",
                f"{name}-ranking",
            ),
            None,
        ),
    ]
