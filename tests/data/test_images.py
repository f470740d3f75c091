"""Which files count as images, everywhere they are listed; and how large one may be."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from PIL import Image

from fgda_cli.data import images, layouts
from fgda_cli.data.formats import read_label_values
from fgda_cli.data.images import BadFile, apart, image_files, read_rgb, visible_files, write_image
from fgda_cli.data.layouts import folder
from fgda_cli.data.layouts.base import OwnFiles
from fgda_cli.inference.inputs import collect
from tests.helpers import fgda

HIDDEN = (".ipynb_checkpoints", ".thumbnails", "__MACOSX", "town/.cache")


def picture(path):
    write_image(path, np.full((8, 16, 3), 90, np.uint8))


def test_hidden_files_and_folders_are_no_images(tmp_path):
    """Case 5."""
    picture(tmp_path / "town/1.png")
    for place in HIDDEN:
        picture(tmp_path / place / "1.png")
    for name in (".hidden.png", "._1.png", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"x")
    assert image_files(tmp_path) == [tmp_path / "town/1.png"]
    assert visible_files(tmp_path) == [tmp_path / "town/1.png"]
    assert [item.path for item in collect([str(tmp_path)], True)] == [tmp_path / "town/1.png"]
    assert len(folder.open_own(OwnFiles(tmp_path))[0].pairs) == 1


def test_a_hidden_folder_that_is_named_is_read(tmp_path):
    picture(tmp_path / ".mine/1.png")
    assert [item.name for item in collect([str(tmp_path / ".mine")], False)] == ["1"]


@pytest.mark.parametrize("layout", ["gta5", "synthia", "cityscapes"])
def test_no_layout_lists_hidden_folders(tmp_path, layout):
    places = {
        "gta5": ("images", "labels"),
        "synthia": ("RGB", "GT/LABELS"),
        "cityscapes": ("leftImg8bit/train",) * 2,
    }[layout]
    stem = "x_000000_000019_leftImg8bit.png" if layout == "cityscapes" else "1.png"
    for place in places:
        picture(tmp_path / place / "town" / stem)
        for hidden in HIDDEN:
            picture(tmp_path / place / hidden / stem)
    listing = layouts.layout(layout).find(tmp_path)
    assert len(listing.pairs) == 1 and not listing.problems


def test_too_many_pixels_are_refused_before_they_are_decoded_and_may_be_asked_for(tmp_path):
    """Case 17: no warning of a raw library, and a way round."""
    Image.new("1", (20000, 10000)).save(tmp_path / "large.png")
    with pytest.raises(
        BadFile, match=r"200 megapixels, more than the 180 that are read \(--max-pixels\)"
    ):
        read_rgb(tmp_path / "large.png")
    picture(tmp_path / "small.png")
    with pytest.raises(BadFile, match="--max-pixels"):
        read_rgb(tmp_path / "small.png", max_pixels=100)
    assert read_rgb(tmp_path / "small.png", max_pixels=128).shape == (8, 16, 3)


def test_predict_takes_max_pixels_and_warns_of_nothing_else(trained, tmp_path):
    # 96 megapixels: above Pillow's own limit
    Image.new("RGB", (12000, 8000)).save(tmp_path / "a.jpg")
    done = fgda("predict", trained, tmp_path / "a.jpg", "--out", tmp_path / "o", "--save", "ids")
    assert (
        done.returncode == 0 and "Warning" not in done.stderr and "Decompression" not in done.stderr
    ), done.stderr
    done = fgda(
        "predict",
        trained,
        tmp_path / "a.jpg",
        "--out",
        tmp_path / "p",
        "--save",
        "ids",
        "--max-pixels",
        "1000000",
    )
    assert done.returncode == 1 and "96 megapixels, more than the 1 that are read" in done.stderr


@pytest.mark.parametrize(
    "values, wanted",
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),  # by their type
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[0, 7, 255]], np.uint16), "16 bits a value, with values up to 255"),
        (np.array([[0, 32768, 65535]], np.uint16), [0, 127, 255]),
        (np.array([[0, 512, 1023]], np.uint16), "16 bits a value, with values up to 1023"),
        (np.array([[0, 2048, 4095]], np.uint16), "16 bits a value, with values up to 4095"),
        (np.array([[0.0, 300.0]], np.float32), "floats up to 300"),
        (np.array([[0.0, np.nan]], np.float32), "negative or infinite"),
        (np.array([[-1.0, 1.0]], np.float32), "negative or infinite"),
    ],
)
def test_values_of_deep_images_are_read_by_their_type_or_refused(tmp_path, values, wanted):
    """Case 46: floats of 0 to 1 became black, 10 bits a fiftieth as bright as they are."""
    Image.fromarray(values).save(tmp_path / "a.tif")
    if isinstance(wanted, str):
        with pytest.raises(BadFile, match=wanted):
            read_rgb(tmp_path / "a.tif")
    else:
        assert read_rgb(tmp_path / "a.tif")[0, :, 0].tolist() == wanted


def test_reading_leaves_pillows_own_limit_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1234)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    assert read_rgb(tmp_path / "a.png").shape == (64, 64, 3) and Image.MAX_IMAGE_PIXELS == 1234


def test_frames_of_a_ranking_lie_apart():
    """Four neighbours of one drive show one scene."""
    names = [f"{n:03}" for n in range(100)]
    ranked = ["010", "011", "012", "050", "049", "090", "030"]
    assert apart(ranked, 4, names) == ["010", "050", "090", "030"]
    assert apart(["010", "011", "012"], 2, names) == ["010", "011"]
    assert apart([], 4, names) == []


@pytest.mark.parametrize("name", ["pages.tif", "moving.webp", "moving.png"])
@pytest.mark.parametrize("read", [read_rgb, read_label_values])
def test_a_file_of_several_pictures_is_none(tmp_path, name, read):
    page = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    other = Image.fromarray(np.full((8, 8, 3), 200, np.uint8))
    page.save(tmp_path / name, save_all=True, append_images=[other], lossless=True)
    with pytest.raises(BadFile, match="2 pictures"):
        read(tmp_path / name)


def test_smaller_copies_and_masks_in_a_tiff_are_no_pictures_of_their_own(tmp_path):
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    page = Image.fromarray(pixels)
    copy = page.resize((4, 4))
    # NewSubfileType: a smaller copy
    copy.encoderinfo = {"tiffinfo": {254: 1}}
    page.save(tmp_path / "overviews.tif", save_all=True, append_images=[copy])
    with Image.open(tmp_path / "overviews.tif") as image:
        assert image.n_frames == 2
    assert np.array_equal(read_rgb(tmp_path / "overviews.tif"), pixels)
    assert np.array_equal(read_label_values(tmp_path / "overviews.tif"), pixels)


def test_a_signal_while_a_file_is_read_is_not_that_files_fault(tmp_path, monkeypatch):
    """SIGTERM had been reported as an unreadable image, and preparation went on."""
    for name in "abc":
        picture(tmp_path / f"raw/{name}.png")
    original = images.open_image

    def open_image(path, *rest):
        if path.name == "b.png":
            signal.raise_signal(signal.SIGTERM)
        return original(path, *rest)

    monkeypatch.setattr(images, "open_image", open_image)
    done = fgda(
        "prepare",
        "folder",
        "--images",
        tmp_path / "raw",
        "--size",
        "64x32",
        "--name",
        "mine",
        "--workers",
        1,
        "--data-root",
        tmp_path / "data",
    )
    assert done.returncode == 143 and "fgda: terminated" in done.stderr
    assert "b.png" not in done.stderr and not (tmp_path / "data/mine/manifest.json").exists()
