"""Videos in and out: which frames, in which order, at which rate; standard input; nothing
half-written.
"""

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

from fgda_cli.data import video
from fgda_cli.data.images import BadFile, visible_files
from fgda_cli.data.video import Clip, frame_count, frames_of, parse_time
from fgda_cli.inference.inputs import InputImage, collect, read_chunks
from fgda_cli.inference.outputs import Ids, Pictures, Videos
from fgda_cli.inference.pipeline import ahead
from fgda_cli.inference.predict import Reading, predict_inputs
from fgda_cli.inference.video import InOrder, VideoFile
from fgda_cli.models.checkpoint import load_model
from fgda_cli.runtime.devices import Precision
from fgda_cli.runtime.errors import FgdaError, UsageError
from fgda_cli.runtime.written import Written
from tests.helpers import QUIET, fgda

av = pytest.importorskip("av")
CPU = Precision("fp32", torch.device("cpu"))


def grey(number: int) -> np.ndarray:
    return np.full((48, 64, 3), 8 * number, np.uint8)


@pytest.fixture(scope="module")
def drive(tmp_path_factory) -> Path:
    """20 frames at 10 a second, each as grey as its number says."""
    path = tmp_path_factory.mktemp("video") / "drive.mp4"
    file = VideoFile(path, 10.0)
    for number in range(20):
        file.add(grey(number), number / 10)
    file.close()
    return path


def levels(path: Path) -> list[int]:
    """The grey of each frame, as its number."""
    with av.open(str(path)) as container:
        return [
            round(float(frame.to_ndarray(format="rgb24").mean()) / 8)
            for frame in container.decode(video=0)
        ]


def test_what_is_written_is_read_again_with_its_rate(drive):
    found = list(frames_of(str(drive)))
    assert [frame.number for frame in found] == list(range(1, 21))
    assert (
        [round(float(frame.image.mean()) / 8) for frame in found]
        == list(range(20))
        == levels(drive)
    )
    assert [frame.seconds for frame in found] == pytest.approx(
        [number / 10 for number in range(20)], abs=1e-3
    )
    assert {round(frame.rate, 3) for frame in found} == {10.0} and frame_count(str(drive)) == 20
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
    assert [frame.number for frame in frames_of(str(drive), clip)] == numbers
    assert frame_count(str(drive), clip) == len(numbers)
    chunk, *_ = read_chunks([InputImage("drive", drive)], clip=clip)
    assert [item.name for item, _ in chunk][:2] == [f"drive/{n:06d}" for n in numbers[:2]]
    assert [item.order for item, _ in chunk] == list(range(len(chunk))) and chunk[0][
        0
    ].rate == 10 / clip.every


def test_a_clip_without_a_frame_and_a_file_without_one(drive, tmp_path):
    with pytest.raises(BadFile, match="no frame between --start and --end"):
        list(frames_of(str(drive), Clip(start=99)))
    (tmp_path / "x.mp4").write_bytes(b"nothing")
    with pytest.raises(BadFile, match="no video that can be read"):
        list(frames_of(str(tmp_path / "x.mp4")))


def test_times_as_people_write_them():
    assert [parse_time(text, "--start") for text in ("90", "1:30", "0:01:30.5", None)] == [
        90.0,
        90.0,
        90.5,
        None,
    ]
    for text in ("soon", "1:", "-3", "1:2:3:4"):
        with pytest.raises(UsageError, match="--start"):
            parse_time(text, "--start")


def test_items_in_any_order_are_acted_on_in_order():
    seen: list[int] = []
    order = InOrder(seen.append)
    numbers = list(range(200))
    random.Random(0).shuffle(numbers)
    threads = [
        threading.Thread(target=lambda part=part: [order.put(n, n) for n in part])
        for part in (numbers[:100], numbers[100:])
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
    for number, size in enumerate(((33, 47), (33, 47), (66, 94))):
        file.add(np.full((*size, 3), 100, np.uint8), number / 29.97)
    file.close()
    with av.open(str(tmp_path / "odd.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (46, 32) and float(
            stream.average_rate
        ) == pytest.approx(29.97, abs=0.01)
        assert sum(1 for _ in container.decode(stream)) == 3


def test_an_unfinished_file_is_not_left(tmp_path):
    file = VideoFile(tmp_path / "a.mp4", 10)
    for number in range(60):
        file.add(
            np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8), number / 10
        )
    assert list(tmp_path.glob(".a.mp4.*"))
    file.give_up(RuntimeError("x"))
    assert not list(tmp_path.iterdir())
    VideoFile(tmp_path / "b.mp4", 10).close()
    assert not list(tmp_path.iterdir())


def test_the_library_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        FgdaError, match=r"--save video needs the package av: pip install 'fgda\[video\]'"
    ):
        video.library("--save video")


@pytest.mark.parametrize("shown, width", [("overlay", 64), ("color", 64), ("side", 192)])
def test_predict_writes_one_playable_file(drive, trained, tmp_path, shown, width):
    done = fgda(
        "predict",
        trained,
        drive,
        "--out",
        tmp_path,
        "--save",
        "video",
        "--video",
        shown,
        "--every",
        "2",
    )
    assert done.returncode == 0 and "10 predicted" in done.stdout, done.stderr
    assert sorted(path.name for path in visible_files(tmp_path)) == ["drive.mp4", "legend.png"]
    with av.open(str(tmp_path / "drive.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, float(stream.average_rate)) == (width, 48, 5.0)
        assert sum(1 for _ in container.decode(stream)) == 10 and not container.streams.audio
    if shown == "side":
        with av.open(str(tmp_path / "drive.mp4")) as container:
            means = [
                frame.to_ndarray(format="rgb24")[:, :60].mean() / 16
                for frame in container.decode(video=0)
            ]
        # the image, in order
        assert [round(float(mean)) for mean in means] == list(range(10))


def test_frames_as_pictures_keep_their_numbers(drive, trained, tmp_path):
    done = fgda(
        "predict", trained, drive, "--out", tmp_path, "--save", "ids,video", "--start", "1.7"
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "drive").iterdir()) == [
        f"0000{n}_ids.png" for n in (18, 19, 20)
    ]
    assert len(levels(tmp_path / "drive.mp4")) == 3


def test_what_cannot_be_is_refused(drive, trained, tmp_path):
    done = fgda("predict", trained, drive, "--out", drive.parent, "--save", "video")
    assert (
        done.returncode == 2
        and "would overwrite the input" in done.stderr
        and len(levels(drive)) == 20
    )
    cv2.imwrite(str(tmp_path / "a.png"), grey(3))
    done = fgda("predict", trained, tmp_path / "a.png", "--out", tmp_path / "o", "--save", "video")
    assert done.returncode == 2 and "none of the inputs is a video" in done.stderr
    done = fgda("predict", trained, drive, "--out", tmp_path / "o", "--start", "5", "--end", "2")
    assert done.returncode == 2 and "is not after" in done.stderr
    done = fgda(
        "predict", trained, drive, "--out", tmp_path / "o", "--save", "video", "--start", "99"
    )
    assert (
        done.returncode == 1
        and "no frame between --start and --end" in done.stderr
        and not list((tmp_path / "o").glob("*.mp4"))
    )


def test_images_and_lists_on_standard_input(trained, tmp_path):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"i{number}.jpg"), grey(5 + number))
    paths = sorted(tmp_path.glob("i*.jpg"))
    run = [
        sys.executable,
        "-m",
        "fgda_cli",
        "predict",
        trained,
        "-",
        "--save",
        "ids,video",
        "--out",
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent.parent.parent),
        "OMP_NUM_THREADS": "1",
    }
    frames = subprocess.run(
        [*run, tmp_path / "frames"],
        input=b"".join(path.read_bytes() for path in paths),
        capture_output=True,
        env=environment,
    )
    assert frames.returncode == 0, frames.stderr
    assert (
        len(levels(tmp_path / "frames/stdin.mp4")) == 3
        and len(list((tmp_path / "frames/stdin").iterdir())) == 3
    )
    # below, in this process
    run = ("predict", trained, "-", "--save", "ids,video", "--out")
    listed = fgda(*run, tmp_path / "list", stdin="\n".join(map(str, paths)).encode())
    assert listed.returncode == 0, listed.stderr
    assert sorted(path.name for path in (tmp_path / "list").glob("*_ids.png")) == [
        f"i{n}_ids.png" for n in range(3)
    ]
    nothing = fgda(*run, tmp_path / "none", stdin=b"")
    assert nothing.returncode == 1 and "standard input is empty" in nothing.stderr
    rubbish = fgda(*run, tmp_path / "none", stdin=b"\x00\x01rubbish" * 99)
    assert (
        rubbish.returncode == 1
        and "no video that can be read" in rubbish.stderr
        and "Traceback" not in rubbish.stderr
    )


def test_streams_have_names_of_their_own():
    found = collect(["camera:0", "rtsp://10.0.0.7:554/front"], False)
    assert [item.name for item in found] == ["camera-0", "rtsp-10-0-0-7-554-front"]
    assert all(item.is_video for item in found) and found[0].source == "camera:0"
    with pytest.raises(BadFile, match="no such camera"):
        next(frames_of("camera:97"))
    secret = collect(["rtsp://user:secret@10.0.0.7/front"], False)[0]
    assert (
        "secret" not in secret.name + secret.shown + str(secret.path) and "secret" in secret.source
    )


@pytest.mark.parametrize("stream, kept", [("camera:0", 5), (None, 0)])
def test_an_interrupted_stream_is_finished_and_an_interrupted_file_is_not_left(
    trained, tmp_path, monkeypatch, stream, kept
):
    """Ctrl-C ends a camera: what was recorded is playable."""
    from fgda_cli.inference import inputs

    def frames(source, clip=Clip(), notice=None):
        for number in range(1, 6):
            yield video.Frame(number, number / 10, grey(number), rate=10.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(inputs, "frames_of", frames)
    model, info = load_model(trained)
    write = Videos(
        Pictures(
            tmp_path,
            info["classes"],
            (),
            ids=Ids("train", info["classes"]),
            written=Written(tmp_path),
        ),
        "overlay",
    )
    with pytest.raises(KeyboardInterrupt):
        predict_inputs(
            model, [InputImage("cam", Path("cam.mp4"), stream)], CPU, reporter=QUIET, write=write
        )
    lengths = [len(levels(path)) for path in tmp_path.glob("*.mp4")]
    # a live source's frames that come too fast are dropped
    assert lengths == [] if not kept else 1 <= lengths[0] <= kept
    assert not list(tmp_path.glob(".*.part"))


def test_memory_is_constant_over_a_long_video(trained, tmp_path, monkeypatch):
    """Frames that wait: bounded, however long the video."""
    from fgda_cli.inference import inputs

    alive = [0]
    most = [0]

    class Frame(np.ndarray):
        def __del__(self):
            if self.base is None:
                alive[0] -= 1

    def frames(source, clip=Clip(), notice=None):
        for number in range(1, 301):
            image = np.ndarray.__new__(Frame, (32, 64, 3), np.uint8)
            image[:] = number % 250
            alive[0] += 1
            most[0] = max(most[0], alive[0])
            yield video.Frame(number, number / 10, image, rate=10.0)

    monkeypatch.setattr(inputs, "frames_of", frames)
    model, info = load_model(trained)
    write = Videos(
        Pictures(
            tmp_path,
            info["classes"],
            (),
            ids=Ids("train", info["classes"]),
            written=Written(tmp_path),
        ),
        "overlay",
    )
    predict_inputs(
        model,
        [InputImage("v", Path("v.mp4"))],
        CPU,
        reporter=QUIET,
        write=write,
        reading=Reading(threads=2),
    )
    assert len(levels(tmp_path / "v.mp4")) == 300 and most[0] < 40


TIMES = [*(number / 10 for number in range(10)), 1.0, 3.0, 5.0, 7.0, 9.0, 11.0]


@pytest.fixture(scope="module")
def uneven(tmp_path_factory) -> Path:
    """Ten frames in the first second, then one every two seconds."""
    path = tmp_path_factory.mktemp("uneven") / "uneven.mp4"
    file = VideoFile(path, 10.0)
    for number, seconds in enumerate(TIMES):
        file.add(grey(number), seconds)
    file.close()
    return path


def test_frames_have_their_own_times_in_and_out(uneven, trained, tmp_path):
    """Case 30: number / mean rate began at 3 s where 5 was asked for, and played 6.8 of 11 s."""
    assert [frame.seconds for frame in frames_of(str(uneven))] == pytest.approx(TIMES, abs=2e-3)
    assert [frame.number for frame in frames_of(str(uneven), Clip(start=5))] == [13, 14, 15, 16]
    assert [frame.number for frame in frames_of(str(uneven), Clip(end=1))] == list(range(1, 11))
    done = fgda("predict", trained, uneven, "--out", tmp_path / "o", "--save", "video")
    assert done.returncode == 0, done.stderr
    shown = [frame.seconds for frame in frames_of(str(tmp_path / "o/uneven.mp4"))]
    assert shown == pytest.approx(TIMES, abs=2e-3)


def test_a_damaged_clip_gives_what_can_be_read_and_says_how_much(trained, tmp_path):
    """Case 29."""
    path = tmp_path / "drive.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for number in range(30):
        writer.write(np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    writer.release()
    raw = path.read_bytes()
    (tmp_path / "cut.avi").write_bytes(raw[: len(raw) * 2 // 3])
    with pytest.raises(
        video.CutShort, match=r"(\d+) of the 30 frames that its header counts"
    ) as caught:
        list(frames_of(str(tmp_path / "cut.avi")))
    assert list(frames_of(str(path), Clip(end=1))), "a clip that ends on purpose is not damaged"
    done = fgda("predict", trained, tmp_path / "cut.avi", "--out", tmp_path / "o", "--save", "ids")
    read = str(caught.value).split()[0]
    assert (
        done.returncode == 0
        and f"warning: {tmp_path / 'cut.avi'}: {read} of the 30 frames" in done.stderr
    )
    assert f"{read} predicted" in done.stdout and len(
        list((tmp_path / "o/cut").glob("*_ids.png"))
    ) == int(read)
    ranked = fgda("rank", trained, tmp_path / "cut.avi", "--out", tmp_path / "r", "--top", "2")
    assert ranked.returncode == 0 and f"{read} of the 30 frames" in ranked.stderr


def test_a_telephone_held_upright_is_upright_on_standard_input_too(tmp_path, monkeypatch):
    """Case 31: a file is turned as its metadata say; frames on standard input were not."""
    frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
    image = np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)

    class Turned:
        rotation = -90

        def to_ndarray(self, format):
            return image

    assert video._upright(frame).shape == (48, 64, 3)
    turned = video._upright(Turned())
    # its upper row is the right column
    assert turned.shape == (64, 48, 3) and (turned[:, -1] == image[0]).all()


def test_lists_on_standard_input_may_be_long_or_of_other_letters(trained, tmp_path):
    """Case 38."""
    for name in ("größe.jpg", f"{'d' * 200}/{'e' * 200}/{'f' * 200}.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(cv2.imencode(".jpg", grey(5))[1].tobytes())
    listed = "\n".join(str(path) for path in sorted(tmp_path.rglob("*.jpg"))).encode()
    done = fgda("predict", trained, "-", "--save", "ids", "--out", tmp_path / "o", stdin=listed)
    assert done.returncode == 0 and "2 predicted" in done.stdout, done.stderr


def test_transport_streams_are_videos_and_program_texts_are_not(tmp_path):
    """Case 39."""
    (tmp_path / "a.ts").write_bytes(b"G" + bytes(187))
    (tmp_path / "b.ts").write_text("export const a = 1\n")
    assert [item.name for item in collect([str(tmp_path)], False)] == ["a"]
