"""Videos as footage: which frames are taken, how they are named, what is read again."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from fgda_cli.data.footage import Step, parse_step
from fgda_cli.data.store import PreparedDataset
from fgda_cli.runtime.errors import UsageError
from tests.helpers import fgda


def draw(path, scenes, length=10, rate=10):
    """A video of `scenes` still pictures, each `length` frames long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, (96, 64))
    for number in scenes:
        picture = cv2.resize(
            np.random.default_rng(number).integers(0, 256, (4, 6, 3), dtype=np.uint8), (96, 64)
        )
        for _ in range(length):
            writer.write(picture)
    writer.release()


@pytest.fixture
def prepare(tmp_path):
    def run(*more, images=tmp_path / "drives"):
        return fgda(
            "prepare",
            "folder",
            "--images",
            images,
            "--name",
            "street",
            "--size",
            "48x32",
            "--data-root",
            tmp_path / "data",
            *more,
        )

    return run


def names(tmp_path):
    return [item.name for item in PreparedDataset(tmp_path / "data/street").items("train")]


def test_a_folder_of_videos_is_prepared_a_frame_a_second_without_near_duplicates(tmp_path, prepare):
    """28, 14: "no such folder" for a file that exists, and ffmpeg was advised."""
    draw(tmp_path / "drives/a.mp4", [1, 2, 2, 3])
    draw(tmp_path / "drives/town/b.mp4", [4, 5])
    done = prepare()
    assert done.returncode == 0, done.stderr
    assert (
        "every 1s (--every) from 2 videos" in done.stderr
        and "5 frames are taken, 1 passed over" in done.stderr
    )
    assert names(tmp_path) == [
        "a/000001_0.00s",
        "a/000011_1.00s",
        "a/000031_3.00s",
        "town/b/000001_0.00s",
        "town/b/000011_1.00s",
    ]
    image = PreparedDataset(tmp_path / "data/street").image(
        PreparedDataset(tmp_path / "data/street").items("train")[1]
    )
    expected = np.random.default_rng(2).integers(0, 256, (4, 6, 3), dtype=np.uint8)[..., ::-1]
    assert (
        image.shape == (32, 48, 3)
        and np.abs(
            cv2.resize(image, (6, 4), interpolation=cv2.INTER_AREA) - expected.astype(float)
        ).mean()
        < 30
    )


def test_only_what_changed_is_read_again_and_nothing_of_before_stays(
    tmp_path, prepare, monkeypatch
):
    from fgda_cli.data import footage

    draw(tmp_path / "drives/a.mp4", [1, 2])
    draw(tmp_path / "drives/b.mp4", [3])
    assert prepare().returncode == 0
    read = []
    original = footage._write_frames
    monkeypatch.setattr(
        footage,
        "_write_frames",
        lambda video, *more: read.append(video.name) or original(video, *more),
    )
    assert prepare().returncode == 0 and not read
    draw(tmp_path / "drives/b.mp4", [5, 6, 7])
    assert prepare().returncode == 0 and read == ["b.mp4"] and len(names(tmp_path)) == 5
    assert prepare("--every", "5").returncode == 0 and read == ["b.mp4", "a.mp4", "b.mp4"]
    (tmp_path / "drives/b.mp4").unlink()
    assert prepare().returncode == 0 and names(tmp_path) == ["a/000001_0.00s", "a/000011_1.00s"]


def test_one_video_and_two_of_one_name(tmp_path, prepare):
    draw(tmp_path / "drives/a.mp4", [1, 2])
    assert prepare(images=tmp_path / "drives/a.mp4").returncode == 0 and len(names(tmp_path)) == 2
    draw(tmp_path / "drives/a.mkv", [3])
    done = prepare()
    assert done.returncode == 2 and "--name street-drives keeps both" in done.stderr
    shutil.rmtree(tmp_path / "data/street")
    assert prepare().returncode == 0
    assert {name.split("/")[0] for name in names(tmp_path)} == {"a_mp4", "a_mkv"}


def test_what_does_not_go_with_videos_is_refused(tmp_path, prepare):
    draw(tmp_path / "drives/a.mp4", [1])
    (tmp_path / "labels").mkdir()
    for more, words in (
        (("--labels", tmp_path / "labels"), "--labels does not go with videos"),
        (("--check-only",), "--check-only"),
    ):
        done = prepare(*more)
        assert done.returncode == 2 and words in done.stderr
    (tmp_path / "drives/a.mp4").write_bytes(b"no video")
    done = prepare()
    assert done.returncode == 1 and "no frame of its 1 videos can be read" in done.stderr
    (tmp_path / "drives/notes.txt").write_text("x")
    done = prepare(images=tmp_path / "drives/notes.txt")
    assert done.returncode == 2 and "a file, not a folder" in done.stderr


@pytest.mark.parametrize(
    "text, step", [(None, Step(1.0)), ("2s", Step(2.0)), ("0.5s", Step(0.5)), ("30", Step(0.0, 30))]
)
def test_steps(text, step):
    assert parse_step(text) == step


@pytest.mark.parametrize("text", ["0", "0s", "often", "-1", "2m"])
def test_other_steps_are_refused(text):
    with pytest.raises(UsageError, match="--every"):
        parse_step(text)
