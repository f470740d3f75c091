"""Scenes of sheets: which images are shown, and what becomes of those that cannot be read."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fgda_cli.data.images import write_image
from fgda_cli.inference.inputs import spread_images
from fgda_cli.runtime.errors import FgdaError
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.studies.compare import gather
from tests.helpers import fgda, set_flags


def test_images_of_a_folder_are_spread_evenly(tmp_path):
    for number in range(9):
        write_image(tmp_path / f"{number}.png", np.full((32, 64, 3), number, np.uint8))
    assert [scene.name for scene in gather([str(tmp_path)], tmp_path, 3)] == ["0", "4", "8"]


def test_images_that_cannot_be_read_are_left_out_and_warned_of(tmp_path, capsys):
    """One damaged file among holiday photos stops neither `compare` nor `verdict`."""
    write_image(tmp_path / "0.png", np.full((32, 64, 3), 7, np.uint8))
    (tmp_path / "1.png").write_bytes(b"no image")
    reporter = Reporter(quiet=True)
    (scene,) = gather([str(tmp_path)], tmp_path, 4, reporter=reporter)
    assert scene.name == "0" and "1.png: not a readable image" in capsys.readouterr().err
    assert len(spread_images(str(tmp_path), 4, reporter=reporter)) == 1
    assert "1.png: not a readable image" in capsys.readouterr().err
    with pytest.raises(FgdaError, match="no image could be read"):
        gather([str(tmp_path / "1.png")], tmp_path, 4, reporter=reporter)


def test_compare_draws_datasets_and_photos(data_root, tmp_path):
    run = fgda("pretrain", "--data-root", data_root, "--out", tmp_path / "pre", *set_flags())
    final = run.stdout.strip()
    street = data_root / "playground-street"
    photo = next(street.glob("val-*/images/**/*.png"))
    done = fgda(
        "compare",
        final,
        final,
        "--images",
        street,
        "--images",
        photo,
        "--out",
        tmp_path / "a.png",
        "--frames",
        "4",
    )
    assert done.returncode == 0, done.stderr
    height, width = cv2.imread(str(tmp_path / "a.png")).shape[:2]
    assert width == 6 + 4 * (256 + 6) and height > 8 * 128
