"""Malformed images and labels."""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.trust.world import Case, Done, World, call, clear, nothing_half_written


def cases(world: World) -> Iterator[Case]:
    yield from images(world)
    yield from labels(world)


# Images


def encoded(mode: str, kind: str, size=(40, 30), **how) -> bytes:
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    noise = rng.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    if mode in ("I;16", "I", "F"):
        values = rng.integers(0, 65536, (size[1], size[0])) / (65535 if mode == "F" else 1)
        picture = Image.fromarray(
            values.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
        )
    else:
        picture = Image.fromarray(noise, "RGBA").convert(mode)
    picture.save(buffer, kind, **how)
    return buffer.getvalue()


def good_images() -> dict[str, bytes]:
    """Odd but readable files; each must be predicted at its own size."""
    found = {
        f"{mode}.{kind}": encoded(mode, kind.upper().replace("TIF", "TIFF"))
        for mode, kind in (
            ("RGB", "png"),
            ("RGBA", "png"),
            ("L", "png"),
            ("LA", "png"),
            ("P", "png"),
            ("1", "png"),
            ("I;16", "png"),
            ("I", "tif"),
            ("F", "tif"),
            ("RGB", "tif"),
            ("CMYK", "tif"),
            ("RGB", "bmp"),
            ("L", "bmp"),
            ("RGB", "webp"),
            ("RGBA", "webp"),
            ("RGB", "ppm"),
        )
    }
    found |= {f"{mode}.jpg": encoded(mode, "JPEG") for mode in ("RGB", "L", "CMYK")}
    found |= {
        f"{w}x{h}.png": encoded("RGB", "PNG", (w, h))
        for w, h in ((1, 1), (1, 300), (300, 1), (2, 3), (5000, 2))
    }
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        found[f"exif{turn}.jpg"] = encoded("RGB", "JPEG", exif=exif)
    found["wrong_suffix.jpg"] = encoded("RGB", "PNG")
    found["UPPER.PNG"] = encoded("RGB", "PNG")
    found["progressive.jpg"] = encoded("RGB", "JPEG", progressive=True)
    found["rgb16.png"] = rgb16_png()
    return found


def rgb16_png() -> bytes:
    import cv2

    return cv2.imencode(
        ".png", np.random.default_rng(0).integers(0, 65536, (30, 40, 3)).astype(np.uint16)
    )[1].tobytes()


def bad_images() -> dict[str, bytes]:
    found = {
        "empty.png": b"",
        "text.png": b"hello",
        "html.jpg": b"<html></html>",
        "zeros.png": bytes(5000),
        "svg.png": b"<svg/>",
        "gzip.png": b"\x1f\x8b" + bytes(50),
        "header.png": b"\x89PNG\r\n\x1a\n",
        "huge_claim.png": claim(60000, 60000),
    }
    for kind, suffix in (
        ("PNG", "png"),
        ("JPEG", "jpg"),
        ("BMP", "bmp"),
        ("TIFF", "tif"),
        ("WEBP", "webp"),
        ("PPM", "ppm"),
    ):
        whole = encoded("RGB", kind)
        for tenth in (1, 3, 5, 8):
            found[f"cut{tenth}.{suffix}"] = whole[: len(whole) * tenth // 10]
    return found


def claim(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG whose header promises that size; what follows it is `chunks`, each its kind and its
    data.
    """
    import struct
    import zlib

    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    framed = (
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
        for part in (header, *chunks)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def flipped(content: bytes, seed: int, most: int = 12) -> bytes:
    rng = random.Random(seed)
    data = bytearray(content)
    for _ in range(rng.randint(1, most)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def predict_one(world: World, name: str, content: bytes, codes: tuple[int, ...]) -> Done:
    folder = world.folder("image")
    (folder / name).write_bytes(content)
    done = call(
        "predict", world.checkpoint, folder / name, "--out", folder / "out", "--save", "ids,overlay"
    )
    clear(done, codes)
    nothing_half_written(folder)
    written = list((folder / "out").glob("*_ids.png"))
    assert bool(written) == (done.code == 0), f"code {done.code}, but files {written}"
    if done.code:
        assert name in done.err, done.err
    else:
        with Image.open(io.BytesIO(content)) as image:
            turned = image.getexif().get(0x0112, 1) >= 5
            size = image.size[::-1] if turned else image.size
        assert Image.open(written[0]).size == size, f"{Image.open(written[0]).size}, not {size}"
    return done


def images(world: World) -> Iterator[Case]:
    for name, content in good_images().items():
        yield f"image {name}", lambda n=name, c=content: predict_one(world, n, c, codes=(0,))
    for name, content in bad_images().items():
        yield f"image {name}", lambda n=name, c=content: predict_one(world, n, c, codes=(1,))
    for kind, suffix in (
        ("PNG", "png"),
        ("JPEG", "jpg"),
        ("BMP", "bmp"),
        ("TIFF", "tif"),
        ("WEBP", "webp"),
    ):
        for seed in range(8):
            content = flipped(encoded("RGB", kind), seed)
            yield (
                f"image flipped{seed}.{suffix}",
                lambda n=f"f{seed}.{suffix}", c=content: predict_or_refuse(world, n, c),
            )
    yield "image 12,000 x 8,000", lambda: predict_one(world, "large.jpg", large_jpeg(), codes=(0,))
    yield "image that is a named pipe", lambda: pipe(world)
    yield "image that is a broken link", lambda: link(world, "nowhere.png")
    yield "image that links to itself", lambda: link(world, "a.png")


def predict_or_refuse(world: World, name: str, content: bytes) -> None:
    """Flipped bytes: a decoder may read them or not, and may read another size."""
    folder = world.folder("flip")
    (folder / name).write_bytes(content)
    done = call(
        "predict", world.checkpoint, folder / name, "--out", folder / "out", "--save", "ids"
    )
    clear(done, (0, 1))
    nothing_half_written(folder)


def large_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (12000, 8000), (90, 120, 80)).save(buffer, "JPEG")
    return buffer.getvalue()


def pipe(world: World) -> None:
    folder = world.folder("pipe")
    os.mkfifo(folder / "a.png")
    one = call("predict", world.checkpoint, folder / "a.png", "--out", folder / "out")
    clear(one, (2,), "a.png: no such image")
    of_folder = call("predict", world.checkpoint, folder, "--out", folder / "out")
    clear(of_folder, (1,), "holds no image")


def link(world: World, target: str) -> None:
    folder = world.folder("link")
    (folder / "a.png").symlink_to(folder / target)
    done = call("predict", world.checkpoint, folder / "a.png", "--out", folder / "out")
    clear(done, (2,), "a.png: no such image")


# Labels


def labels(world: World) -> Iterator[Case]:
    size = (256, 128)
    grey = np.full((128, 256), 7, np.uint8)
    files = {
        "empty": b"",
        "text": b"no",
        "cut": encoded("L", "PNG", size)[:800],
        "noise ids": encoded("L", "PNG", size),
        "jpeg inside": encoded("L", "JPEG", size),
        "other size": png(grey[:64]),
        "unknown colours": encoded("RGB", "PNG", size),
        "rgba": encoded("RGBA", "PNG", size),
        "16 bit": png(np.full((128, 256), 300, np.uint16)),
        "float": encoded("F", "TIFF", size),
        "1x1": png(grey[:1, :1]),
        "zeros": bytes(3000),
        "one bad id": png(np.where(np.arange(256) == 9, 99, grey).astype(np.uint8)),
        "grey and alpha": encoded("LA", "PNG", size),
    }
    for kind in ("gta5", "cityscapes", "synthia", "camvid", "folder"):
        for name, content in files.items():
            if kind == "synthia" and name in ("16 bit", "noise ids", "one bad id"):
                # legal there: unknown ids are ignored
                continue
            if name == "jpeg inside" and kind != "folder":
                # named .png, so it may pass for noise ids; refused as those
                continue
            yield f"label of {kind}: {name}", lambda k=kind, c=content: label(world, k, c)


def png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def label(world: World, kind: str, content: bytes) -> None:
    """Two pairs, the second label malformed: one is prepared, the other refused by name."""
    folder = world.folder("label")
    image = encoded("RGB", "PNG", (256, 128))
    good = np.full((128, 256), 7, np.uint8)
    # which no train id is: what the ids mean is clear
    good[0] = 8 if kind == "camvid" else 26
    good = png(good)
    places = {
        "gta5": ("images/{}.png", "labels/{}.png"),
        "synthia": ("RGB/{}.png", "GT/LABELS/{}.png"),
        "cityscapes": (
            "leftImg8bit/val/x/x_{}_000019_leftImg8bit.png",
            "gtFine/val/x/x_{}_000019_gtFine_labelIds.png",
        ),
        "camvid": ("val/{}.png", "valannot/{}.png"),
        "folder": ("images/{}.png", "labels/{}.png"),
    }[kind]
    if kind == "synthia":
        import cv2

        good = cv2.imencode(".png", np.full((128, 256, 3), 3, np.uint16))[1].tobytes()
    for number, text in (("000001", good), ("000002", content)):
        for place, data in zip(places, (image, text), strict=True):
            path = folder / "raw" / place.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    # which CamVid must have
    (folder / "raw/train").mkdir()
    own = ("--images", folder / "raw/images", "--labels", folder / "raw/labels", "--name", "folder")
    where = own if kind == "folder" else ("--root", folder / "raw")
    done = call("prepare", kind, *where, "--out", folder / "out", "--size", "64x32", "--workers", 1)
    clear(done, (0,))
    problems = json.loads((folder / "out" / kind / "problems.json").read_text())
    assert len(problems) == 1 and "000002" in problems[0]["file"] and problems[0]["reason"], (
        problems
    )
    assert "1 refused" in done.out
    nothing_half_written(folder)
