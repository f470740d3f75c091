"""Videos in and out: which frames, in which order, at which rate; standard input; nothing half-written."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fgda_cli.data.images import BadFile
from fgda_cli.inference import video
from fgda_cli.inference.inputs import Input, collect, read_chunks
from fgda_cli.inference.outputs import Ids, Pictures, Videos
from fgda_cli.inference.pipeline import ahead
from fgda_cli.inference.predict import Reading, Smoothed, predict_inputs
from fgda_cli.inference.video import Clip, InOrder, VideoFile, frame_count, frames_of, parse_time
from fgda_cli.models.checkpoint import load_model
from fgda_cli.runtime.devices import Precision
from fgda_cli.runtime.errors import FgdaError, UsageError
from fgda_cli.runtime.reporter import Reporter
from tests.conftest import fgda

av = pytest.importorskip("av")
CPU, QUIET = Precision("fp32", torch.device("cpu")), Reporter(quiet=True)


def grey(number: int) -> np.ndarray:
    return np.full((48, 64, 3), 8 * number, np.uint8)


@pytest.fixture(scope="module")
def drive(tmp_path_factory) -> Path:
    """20 frames at 10 a second, each as grey as its number says."""
    path = tmp_path_factory.mktemp("video") / "drive.mp4"
    file = VideoFile(path, 10.0)
    for number in range(20):
        file.add(grey(number))
    file.close()
    return path


def levels(path: Path) -> list[int]:
    """The grey of each frame, as its number."""
    with av.open(str(path)) as container:
        return [round(float(frame.to_ndarray(format="rgb24").mean()) / 8) for frame in container.decode(video=0)]


def test_what_is_written_is_read_again_with_its_rate(drive):
    found = list(frames_of(str(drive)))
    assert [number for number, _, _ in found] == list(range(1, 21))
    assert [round(float(image.mean()) / 8) for _, image, _ in found] == list(range(20)) == levels(drive)
    assert {rate for _, _, rate in found} == {10.0} and frame_count(str(drive)) == 20
    assert os.listdir(drive.parent) == ["drive.mp4"]


@pytest.mark.parametrize(
    "clip, numbers",
    [
        (Clip(every=5), [1, 6, 11, 16]),
        (Clip(start=1.5), [16, 17, 18, 19, 20]),
        (Clip(end=0.3), [1, 2, 3]),
        (Clip(every=2, start=0.5, end=1.2), [6, 8, 10, 12]),
    ],
)
def test_every_nth_frame_from_start_to_end(drive, clip, numbers):
    assert [number for number, _, _ in frames_of(str(drive), clip)] == numbers
    assert frame_count(str(drive), clip) == len(numbers)
    (chunk, *_) = read_chunks([Input("drive", drive)], clip=clip)
    assert [item.name for item, _ in chunk][:2] == [f"drive/{n:06d}" for n in numbers[:2]]
    assert [item.order for item, _ in chunk] == list(range(len(chunk))) and chunk[0][0].rate == 10 / clip.every


def test_a_clip_without_a_frame_and_a_file_without_one(drive, tmp_path):
    with pytest.raises(BadFile, match="no frame between --start and --end"):
        list(frames_of(str(drive), Clip(start=99)))
    (tmp_path / "x.mp4").write_bytes(b"nothing")
    with pytest.raises(BadFile, match="no video that can be read"):
        list(frames_of(str(tmp_path / "x.mp4")))


def test_times_as_people_write_them():
    assert [parse_time(text, "--start") for text in ("90", "1:30", "0:01:30.5", None)] == [90.0, 90.0, 90.5, None]
    for text in ("soon", "1:", "-3", "1:2:3:4"):
        with pytest.raises(UsageError, match="--start"):
            parse_time(text, "--start")


def test_items_in_any_order_are_acted_on_in_order():
    seen: list[int] = []
    order = InOrder(seen.append)
    numbers = list(range(200))
    random.Random(0).shuffle(numbers)
    threads = [
        threading.Thread(target=lambda part=part: [order.put(n, n) for n in part]) for part in (numbers[:100], numbers[100:])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == list(range(200)) and not order.waiting


def test_read_ahead_keeps_order_bounds_memory_and_passes_errors_on():
    made: list[int] = []

    def items():
        for number in range(50):
            made.append(number)
            yield number
        raise ValueError("at the end")

    found = ahead(items(), 4)
    assert next(found) == 0
    time.sleep(0.3)
    assert len(made) <= 7
    with pytest.raises(ValueError, match="at the end"):
        for _ in found:
            pass
    rest = ahead(iter(range(10**9)), 2)
    assert next(rest) == 0
    rest.close()  # its thread ends


def test_odd_sizes_and_changing_ones(tmp_path):
    file = VideoFile(tmp_path / "odd.mp4", 29.97)
    for size in ((33, 47), (33, 47), (66, 94)):
        file.add(np.full((*size, 3), 100, np.uint8))
    file.close()
    with av.open(str(tmp_path / "odd.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (46, 32) and float(stream.average_rate) == pytest.approx(29.97, abs=0.01)
        assert sum(1 for _ in container.decode(stream)) == 3


def test_an_unfinished_file_is_not_left(tmp_path):
    file = VideoFile(tmp_path / "a.mp4", 10)
    for number in range(60):
        file.add(np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    assert list(tmp_path.glob(".a.mp4.*"))
    file.give_up(RuntimeError("x"))
    assert not list(tmp_path.iterdir())
    VideoFile(tmp_path / "b.mp4", 10).close()
    assert not list(tmp_path.iterdir())


def test_the_library_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(FgdaError, match=r"--save video needs the package av: pip install 'fgda\[video\]'"):
        video.library("--save video")


@pytest.mark.parametrize("shown, width", [("overlay", 64), ("color", 64), ("side", 192)])
def test_predict_writes_one_playable_file(drive, trained, tmp_path, shown, width):
    done = fgda("predict", trained, drive, "--out", tmp_path, "--save", "video", "--video", shown, "--every", "2")
    assert done.returncode == 0 and "10 predicted" in done.stdout, done.stderr
    assert sorted(os.listdir(tmp_path)) == ["drive.mp4", "legend.png"]
    with av.open(str(tmp_path / "drive.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, float(stream.average_rate)) == (width, 48, 5.0)
        assert sum(1 for _ in container.decode(stream)) == 10 and not container.streams.audio
    if shown == "side":
        with av.open(str(tmp_path / "drive.mp4")) as container:
            means = [frame.to_ndarray(format="rgb24")[:, :60].mean() / 16 for frame in container.decode(video=0)]
        assert [round(float(mean)) for mean in means] == list(range(10))  # the image, in order


def test_frames_as_pictures_keep_their_numbers(drive, trained, tmp_path):
    done = fgda("predict", trained, drive, "--out", tmp_path, "--save", "ids,video", "--start", "1.7")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "drive").iterdir()) == [f"0000{n}_ids.png" for n in (18, 19, 20)]
    assert len(levels(tmp_path / "drive.mp4")) == 3


def test_what_cannot_be_is_refused(drive, trained, tmp_path):
    done = fgda("predict", trained, drive, "--out", drive.parent, "--save", "video")
    assert done.returncode == 2 and "would take the place of" in done.stderr and len(levels(drive)) == 20
    cv2.imwrite(str(tmp_path / "a.png"), grey(3))
    done = fgda("predict", trained, tmp_path / "a.png", "--out", tmp_path / "o", "--save", "video")
    assert done.returncode == 2 and "none of the inputs is a video" in done.stderr
    done = fgda("predict", trained, drive, "--out", tmp_path / "o", "--start", "5", "--end", "2")
    assert done.returncode == 2 and "is not after" in done.stderr
    done = fgda("predict", trained, drive, "--out", tmp_path / "o", "--save", "video", "--start", "99")
    assert (
        done.returncode == 1 and "no frame between --start and --end" in done.stderr and not list((tmp_path / "o").glob("*.mp4"))
    )


def test_images_and_lists_on_standard_input(trained, tmp_path):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"i{number}.jpg"), grey(5 + number))
    paths = sorted(tmp_path.glob("i*.jpg"))
    run = [sys.executable, "-m", "fgda_cli", "predict", trained, "-", "--save", "ids,video", "--out"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent), "OMP_NUM_THREADS": "1"}
    frames = subprocess.run([*run, tmp_path / "frames"], input=b"".join(path.read_bytes() for path in paths), capture_output=True,
                            env=environment)  # fmt: skip
    assert frames.returncode == 0, frames.stderr
    assert len(levels(tmp_path / "frames/stdin.mp4")) == 3 and len(list((tmp_path / "frames/stdin").iterdir())) == 3
    listed = subprocess.run(
        [*run, tmp_path / "list"], input="\n".join(map(str, paths)).encode(), capture_output=True, env=environment
    )
    assert listed.returncode == 0, listed.stderr
    assert sorted(path.name for path in (tmp_path / "list").glob("*_ids.png")) == [f"i{n}_ids.png" for n in range(3)]
    nothing = subprocess.run([*run, tmp_path / "none"], input=b"", capture_output=True, env=environment)
    assert nothing.returncode == 1 and b"standard input is empty" in nothing.stderr
    rubbish = subprocess.run([*run, tmp_path / "none"], input=b"\x00\x01rubbish" * 99, capture_output=True, env=environment)
    assert rubbish.returncode == 1 and b"no frames that can be read" in rubbish.stderr and b"Traceback" not in rubbish.stderr


def test_streams_have_names_of_their_own():
    found = collect(["camera:0", "rtsp://10.0.0.7:554/front"], False)
    assert [item.name for item in found] == ["camera-0", "rtsp-10-0-0-7-554-front"]
    assert all(item.is_video for item in found) and found[0].source == "camera:0"
    with pytest.raises(BadFile, match="no video that can be read"):
        next(frames_of("camera:97"))


@pytest.mark.parametrize("stream, kept", [("camera:0", 5), (None, 0)])
def test_an_interrupted_stream_is_finished_and_an_interrupted_file_is_not_left(trained, tmp_path, monkeypatch, stream, kept):
    """Ctrl-C ends a camera: what was recorded is playable."""
    from fgda_cli.inference import inputs

    def frames(source, clip=Clip()):
        for number in range(1, 6):
            yield number, grey(number), 10.0
        raise KeyboardInterrupt

    monkeypatch.setattr(inputs, "frames_of", frames)
    model, info = load_model(trained)
    write = Videos(Pictures(tmp_path, info["classes"], (), Ids("train", info["classes"])), "overlay")
    with pytest.raises(KeyboardInterrupt):
        predict_inputs(model, [Input("cam", Path("cam.mp4"), stream)], CPU, QUIET, write)
    assert [len(levels(path)) for path in tmp_path.glob("*.mp4")] == ([kept] if kept else [])
    assert not list(tmp_path.glob(".*"))


def test_smoothing_averages_a_videos_probabilities_and_begins_anew():
    smoothed = Smoothed(0.25)
    sure, other = torch.tensor([[[[9.0]], [[-9.0]]]]), torch.tensor([[[[-9.0]], [[9.0]]]])
    first, second = Input("a/1", Path("a.mp4")), Input("b/1", Path("b.mp4"))
    assert smoothed(first, [sure])[0].exp()[0, 0].item() == pytest.approx(1.0, abs=1e-4)
    assert smoothed(first, [other])[0].exp()[0, 0].item() == pytest.approx(0.25, abs=1e-4)
    assert smoothed(first, [other])[0].exp()[0, 0].item() == pytest.approx(0.0625, abs=1e-4)
    assert smoothed(second, [other])[0].exp()[0, 0].item() == pytest.approx(0.0, abs=1e-4)


def test_memory_is_constant_over_a_long_video(trained, tmp_path, monkeypatch):
    """Frames that wait: bounded, however long the video."""
    from fgda_cli.inference import inputs

    alive, most = [0], [0]

    class Frame(np.ndarray):
        def __del__(self):
            if self.base is None:
                alive[0] -= 1

    def frames(source, clip=Clip()):
        for number in range(1, 301):
            image = np.ndarray.__new__(Frame, (32, 64, 3), np.uint8)
            image[:] = number % 250
            alive[0] += 1
            most[0] = max(most[0], alive[0])
            yield number, image, 10.0

    monkeypatch.setattr(inputs, "frames_of", frames)
    model, info = load_model(trained)
    write = Videos(Pictures(tmp_path, info["classes"], (), Ids("train", info["classes"])), "overlay")
    predict_inputs(model, [Input("v", Path("v.mp4"))], CPU, QUIET, write, reading=Reading(threads=2))
    assert len(levels(tmp_path / "v.mp4")) == 300 and most[0] < 40
