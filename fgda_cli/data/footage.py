"""Frames of videos as images to prepare: every so many seconds or frames, without near-duplicates,
named by clip and time.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..runtime.errors import FgdaError, UsageError
from ..runtime.files import make_folder, write_json
from ..runtime.reporter import Reporter
from ..runtime.written import without_written
from .images import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    BadFile,
    difference_hash,
    image_files,
    look_alike,
    write_image,
    written_name,
)

DEFAULT_STEP = "1s"
# folder of the frames, in that of the data set
FRAMES = "frames"


@dataclass(frozen=True)
class Step:
    """The distance of frames that are taken: seconds, or a number of frames."""

    seconds: float = 0.0
    frames: int = 1


def parse_step(text: str | None) -> Step:
    """Read `2s` or `0.5s` as a time and `30` as a number of frames. Raises UsageError."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)s|(\d+))", text or DEFAULT_STEP)
    step = Step(float(match[1] or 0), int(match[2] or 1)) if match else Step(0, 0)
    if step.frames < 1 or (match[1] and not step.seconds):
        raise UsageError(f"--every {text}: write seconds or a number of frames, e.g. 2s or 30")
    return step


def videos_of(source: Path) -> list[Path]:
    """Return the videos that a path names: itself, or those below it; none when it is a folder of
    images.
    """
    if source.is_file():
        return [source] if source.suffix.lower() in VIDEO_SUFFIXES else []
    if not source.is_dir():
        return []
    files = image_files(source, suffixes=IMAGE_SUFFIXES | VIDEO_SUFFIXES)
    # a predicted video, and its legend, may lie beside the footage
    files, _ = without_written(files, source)
    return files if all(path.suffix.lower() in VIDEO_SUFFIXES for path in files) else []


def extract(
    path: Path, videos: list[Path], out: Path, every: str | None, reporter: Reporter
) -> Path:
    """Write the videos' frames below `out` and return it; clips that are there already, unchanged,
    are not read again.

    A frame that looks like the one taken before it (difference hash) is passed over. Raises
    FgdaError where no video can be read.
    """
    step = parse_step(every)
    taken = 0
    passed = 0
    reporter.decide(
        f"frames are taken every {every or DEFAULT_STEP} (--every) from {len(videos)}"
        f" video{'s' * (len(videos) > 1)}"
    )
    clips = _clips(path if path.is_dir() else path.parent, videos, out)
    make_folder(out)
    # delete frames of videos that are not named any more
    for marker in out.rglob("*.json"):
        if marker.with_suffix("") not in clips.values():
            _delete_frames(marker.with_suffix(""))
            marker.unlink()
    for video, clip in reporter.track(clips.items(), "read videos", len(videos)):
        status = video.stat()
        stamp = [
            str(video.resolve()),
            status.st_size,
            status.st_mtime_ns,
            step.seconds,
            step.frames,
        ]
        done = clip.with_name(f"{clip.name}.json")
        record = _read(done)
        if record.get("stamp") != stamp:
            _delete_frames(clip)
            try:
                record = {"stamp": stamp} | _write_frames(video, clip, step)
            except BadFile as error:
                reporter.warn(f"{video}: {error}")
                continue
            write_json(done, record)
        taken = taken + record["taken"]
        passed = passed + record["passed"]
        if record["cut"]:
            reporter.warn(f"{video}: {record['cut']}")
    if not taken:
        raise FgdaError(f"{path}: no frame of its {len(videos)} videos can be read")
    reporter.decide(
        f"{taken} frames are taken, {passed} passed over because they look like the one before"
    )
    return out


def _clips(below: Path, videos: list[Path], out: Path) -> dict[Path, Path]:
    """The folder of each video's frames, one for each: named as the video, its dots as `_`, with
    its suffix where two differ by nothing else, and with a hash of its name where two would still
    have one folder.
    """
    plain = {
        video: video.relative_to(below).with_suffix("").as_posix().replace(".", "_")
        for video in videos
    }
    whole = {video: video.relative_to(below).as_posix().replace(".", "_") for video in videos}
    # On a disk that does not tell capitals from small letters.
    of_plain, of_whole = (
        Counter(name.casefold() for name in names.values()) for names in (plain, whole)
    )
    folders: dict[Path, Path] = {}
    for video in videos:
        name = plain[video]
        if of_plain[name.casefold()] > 1:
            name = whole[video]
        if of_whole[name.casefold()] > 1 or (name == whole[video] and of_plain[name.casefold()]):
            name += (
                "-" + hashlib.sha256(video.name.encode(errors="surrogateescape")).hexdigest()[:6]
            )
        folders[video] = out / written_name(name)
    return folders


FRAME = re.compile(r"[0-9]{6,}_[0-9]+\.[0-9]{2}s\.jpg")  # NUMBER_TIMEs.jpg


def is_frame(path: Path) -> bool:
    """Return whether a file below the folder of frames is one that `extract` writes there."""
    return bool(FRAME.fullmatch(path.name)) or path.suffix == ".json"


def _delete_frames(clip: Path) -> None:
    """Delete the frames in a clip's folder, and the folder when nothing else is in it."""
    for path in clip.glob("*.jpg"):
        if FRAME.fullmatch(path.name):
            path.unlink()
    with suppress(OSError):
        clip.rmdir()


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _write_frames(video: Path, clip: Path, step: Step) -> dict:
    """Write `CLIP/000123_4.10s.jpg` and so on: number in the video, and time. Raises BadFile where
    no frame can be read.
    """
    from .video import Clip, CutShort, frames_of

    taken = passed = 0
    wanted = -math.inf
    last = None
    cut = None
    try:
        for frame in frames_of(str(video), Clip(step.frames)):
            if frame.seconds < wanted - 1e-6:
                continue
            wanted = frame.seconds + step.seconds
            bits = difference_hash(frame.image)
            if last is not None and look_alike(bits, last):
                passed += 1
                continue
            last = bits
            taken = taken + 1
            write_image(clip / f"{frame.number:06d}_{frame.seconds:.2f}s.jpg", frame.image)
    except CutShort as error:
        if not taken:
            raise
        cut = str(error)
    return {"taken": taken, "passed": passed, "cut": cut}
