"""Which stream of a video is read and how it is shown, what a hole or a change of size does,
streams that break.
"""

from __future__ import annotations

import http.server
import threading
import time
from fractions import Fraction

import cv2
import numpy as np
import pytest

from fgda_cli.data.images import BadFile
from fgda_cli.data.video import Broken, Clip, CutShort, frame_count, frames_of, without_secrets
from fgda_cli.inference.pipeline import newest
from fgda_cli.inference.video import VideoFile

av = pytest.importorskip("av")


def write(path, *streams, shape=None, format=None):
    """A file of video streams, each a list of RGB pictures `[H,W,3]`, 10 a second."""
    with av.open(str(path), mode="w", format=format) as container:
        made = []
        for pictures in streams:
            stream = container.add_stream("mpeg4" if format is None else "mjpeg", rate=10)
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt = "yuv420p" if format is None else "yuvj420p"
            if shape is not None:
                stream.codec_context.sample_aspect_ratio = shape
            made.append((stream, pictures))
        for stream, pictures in made:
            for picture in pictures:
                for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                    container.mux(packet)
            for packet in stream.encode(None):
                container.mux(packet)


def grey(level, size=(64, 48)):
    return np.full((size[1], size[0], 3), level, np.uint8)


def moving(count=12, size=(64, 48)):
    return [grey(10 * number, size) for number in range(count)]


def test_a_cover_is_passed_over_and_a_second_camera_is_said(tmp_path):
    """Case 91."""
    write(tmp_path / "cover.mkv", [grey(200, (320, 240))], moving())
    notices = []
    frames = list(frames_of(str(tmp_path / "cover.mkv"), notice=notices.append))
    assert len(frames) == 12 and frames[0].image.shape == (48, 64, 3)
    write(tmp_path / "two.mkv", moving(), moving(12, (128, 96)))
    frames = list(frames_of(str(tmp_path / "two.mkv"), notice=notices.append))
    assert frames[0].image.shape == (96, 128, 3) and any("--stream" in str(one) for one in notices)
    other = list(frames_of(str(tmp_path / "two.mkv"), Clip(stream=0)))
    assert other[0].image.shape == (48, 64, 3)
    with pytest.raises(BadFile, match="--stream 7"):
        list(frames_of(str(tmp_path / "two.mkv"), Clip(stream=7)))


def test_pixels_become_square(tmp_path):
    """Case 92."""
    write(tmp_path / "wide.mkv", moving(), shape=Fraction(2, 1))
    assert next(frames_of(str(tmp_path / "wide.mkv"))).image.shape == (48, 128, 3)


def test_a_row_of_pictures_whose_size_changes_is_read_whole_and_that_is_said(tmp_path):
    """Cases 93 and 170: by a file's name as by standard input."""
    pictures = [grey(50)] * 3 + [grey(90, (96, 64))] * 2
    content = b"".join(cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures)
    (tmp_path / "row.mjpeg").write_bytes(content)
    notices = []
    frames = list(frames_of(str(tmp_path / "row.mjpeg"), notice=notices.append))
    assert [frame.image.shape[:2] for frame in frames] == [(48, 64)] * 3 + [(64, 96)] * 2
    assert "change from 64x48 to 96x64" in str(notices[0])
    assert frame_count(str(tmp_path / "row.mjpeg")) >= 1


def test_a_hole_costs_its_own_frames(tmp_path):
    """Case 178."""
    rng = np.random.default_rng(0)
    write(
        tmp_path / "a.avi",
        [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(30)],
        format="avi",
    )
    content = bytearray((tmp_path / "a.avi").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    (tmp_path / "a.avi").write_bytes(bytes(content))
    frames = []
    with pytest.raises(CutShort):
        for frame in frames_of(str(tmp_path / "a.avi")):
            frames.append(frame)
    assert len(frames) >= 20


def test_what_is_written_says_its_colours(tmp_path):
    """Case 175."""
    file = VideoFile(tmp_path / "a.mp4", 10.0)
    colours = [(128, 64, 128), (0, 0, 142), (107, 142, 35), (220, 20, 60)]
    for number, colour in enumerate(colours):
        file.add(np.full((48, 64, 3), colour, np.uint8), number / 10)
    file.close()
    with av.open(str(tmp_path / "a.mp4")) as container:
        coded = container.streams.video[0].codec_context
        assert (coded.colorspace, coded.color_primaries, coded.color_trc, coded.color_range) == (
            1,
            1,
            1,
            1,
        )
    for frame, colour in zip(frames_of(str(tmp_path / "a.mp4")), colours, strict=True):
        assert np.abs(frame.image[24, 32].astype(int) - colour).max() <= 6


@pytest.fixture
def stream():
    """An address on this machine that sends five frames and breaks; it counts how often it was
    opened.
    """
    frames = [cv2.imencode(".jpg", picture)[1].tobytes() for picture in moving(5)]
    opened = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            opened.append(1)
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for frame in frames:
                head = (
                    f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(frame)}\r\n\r\n"
                )
                self.wfile.write(head.encode() + frame + b"\r\n")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/live", opened
    server.shutdown()


def test_a_stream_that_ends_is_broken_and_is_opened_again_where_asked(stream, monkeypatch):
    """Case 95."""
    address, opened = stream
    frames = []
    with pytest.raises(Broken):
        for frame in frames_of(address):
            frames.append(frame)
    assert len(frames) >= 4
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    notices = []
    again = []
    for frame in frames_of(address, Clip(reconnect=True), notices.append):
        again.append(frame)
        if len(again) > 2 * len(frames):
            break
    assert any("trying again" in str(one) for one in notices)
    numbers = [frame.number for frame in again]
    assert numbers == sorted(numbers)


def test_a_camera_that_is_faster_than_what_follows_does_not_lag():
    def camera():
        for number in range(50):
            time.sleep(0.002)
            yield number

    seen = []
    for number in newest(camera()):
        seen.append(number)
        time.sleep(0.02)
    assert seen[-1] == 49 and len(seen) < 25 and seen == sorted(seen)


def test_no_password_is_shown():
    """Case 94."""
    for text in ("rtsp://user:secret@host/a", "cannot open 'HTTP://u:secret@h:80/x' now"):
        assert "secret" not in without_secrets(text) and "://h" in without_secrets(text)
    assert without_secrets("a@b.png") == "a@b.png"
