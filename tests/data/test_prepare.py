"""Preparation starts again where it stopped, and gives the same result however often it was
stopped.
"""

from __future__ import annotations

import hashlib
import json

import pytest

from fgda_cli.data import cache as module
from fgda_cli.data import playground
from fgda_cli.data.layouts.base import OwnFiles
from fgda_cli.data.prepare import How, prepare_layout, prepare_own
from fgda_cli.data.store import PreparedDataset, open_dataset
from fgda_cli.runtime.errors import FgdaError, UsageError
from fgda_cli.runtime.reporter import Reporter
from tests.helpers import QUIET


def digest(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != module.JOURNAL)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def game(raw, out, workers=1, size=(64, 32), **kwargs):
    return prepare_layout(
        "gta5", raw / "game", How(out, size, workers, reporter=QUIET, **kwargs), name="game"
    )


def test_an_interrupted_preparation_goes_on_and_ends_the_same(
    raw_playground, tmp_path, monkeypatch
):
    game(raw_playground, tmp_path / "whole")
    original = module.convert
    calls = []

    def fails_at_fifth(task, pair, folder):
        calls.append(pair.name)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(task, pair, folder)

    monkeypatch.setattr(module, "convert", fails_at_fifth)
    with pytest.raises(KeyboardInterrupt):
        game(raw_playground, tmp_path / "parts")
    assert not (tmp_path / "parts/game/manifest.json").exists()
    monkeypatch.setattr(module, "convert", original)
    summary = game(raw_playground, tmp_path / "parts")
    assert summary.skipped == 4 and summary.images == {"train": 10}
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")


def test_a_journal_line_cut_short_is_converted_again(raw_playground, tmp_path):
    game(raw_playground, tmp_path)
    (journal,) = (tmp_path / "game").glob(f"train-*/{module.JOURNAL}")
    journal.write_text(journal.read_text()[:-40])
    assert game(raw_playground, tmp_path).skipped == 9


def test_workers_give_the_same_files(raw_playground, tmp_path):
    game(raw_playground, tmp_path / "one")
    game(raw_playground, tmp_path / "two", workers=2)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


def test_another_size_converts_again(raw_playground, tmp_path):
    game(raw_playground, tmp_path)
    summary = game(raw_playground, tmp_path, size=(96, 48))
    dataset = PreparedDataset(tmp_path / "game")
    assert summary.skipped == 0 and dataset.image(dataset.items("train")[0]).shape == (48, 96, 3)


def test_another_size_under_the_same_name_is_said(raw_playground, tmp_path):
    decisions: list[str] = []
    for size in ((64, 32), (64, 32), (128, 64)):
        before = len(decisions)
        reporter = Reporter(quiet=True, decisions=decisions)
        prepare_layout(
            "cityscapes",
            raw_playground / "street",
            How(tmp_path, size, 1, reporter=reporter),
            name="street",
        )
        said = [
            text
            for text in decisions[before:]
            if "train was prepared with --size 64x32, now 128x64" in text
        ]
        assert len(said) == (size == (128, 64))


def test_check_only_writes_nothing(raw_playground, tmp_path):
    assert game(raw_playground, tmp_path, check_only=True).images == {"train": 10}
    assert not list(tmp_path.iterdir())


def test_class_statistics_count_the_raw_labels(raw_playground, tmp_path):
    game(raw_playground, tmp_path)
    manifest = json.loads((tmp_path / "game/manifest.json").read_text())
    total = sum(sum(item["counts"]) for item in manifest["splits"]["train"])
    assert total == sum(manifest["class_pixels"]["train"].values())
    assert 0.9 * 10 * 512 * 256 < total <= 10 * 512 * 256


def test_nothing_usable_is_an_error(tmp_path):
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    with pytest.raises(FgdaError, match="no image"):
        prepare_layout("gta5", tmp_path, How(tmp_path / "out", None, 1, reporter=QUIET))


def test_playground_scenes_are_reproducible_and_hold_all_classes():
    import numpy as np

    from fgda_cli.data.playground.looks import GAME, STREET
    from fgda_cli.data.playground.scene import draw

    first = draw(STREET, 3, 5)
    again = draw(STREET, 3, 5)
    assert (first[0] == again[0]).all() and (first[1] == again[1]).all()
    assert (draw(STREET, 4, 5)[0] != first[0]).any()
    for look in (GAME, STREET):
        seen = set().union(*(np.unique(draw(look, 0, index)[1]).tolist() for index in range(25)))
        assert set(range(19)) <= seen


def test_scenes_of_another_seed_are_not_taken_for_those_asked_for(tmp_path):
    playground.write_raw(tmp_path, 0, QUIET, workers=1, train=1, val=1)
    playground.write_raw(tmp_path, 0, QUIET, workers=1, train=2, val=1)
    with pytest.raises(UsageError, match="other scenes than those of --seed 1"):
        playground.write_raw(tmp_path, 1, QUIET, workers=1, train=2, val=1)


def _die(item):
    import os
    import signal

    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_a_killed_worker_is_one_clear_error():
    from fgda_cli.runtime.system import in_processes

    with pytest.raises(FgdaError, match="worker process was killed"):
        list(in_processes(_die, range(8), 2))


def test_a_folder_data_set_gains_splits_one_after_the_other(raw_playground, tmp_path):
    street = raw_playground / "street"
    how = How(tmp_path, (64, 32), 1, reporter=QUIET)
    prepare_own("folder", OwnFiles(street / "leftImg8bit/train"), "mine", how=how)
    images = tmp_path / "images"
    labels = tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    for image in (street / "leftImg8bit/val").rglob("*.png"):
        stem = image.stem.removesuffix("_leftImg8bit")
        (images / f"{stem}.png").write_bytes(image.read_bytes())
        label = next((street / "gtFine/val").rglob(f"{stem}*"))
        (labels / f"{stem}.png").write_bytes(label.read_bytes())
    prepare_own("folder", OwnFiles(images, labels, split="val"), "mine", how=how)
    dataset = PreparedDataset(tmp_path / "mine")
    assert len(dataset.items("train")) == 10 and len(dataset.items("val", labelled=True)) == 3
    assert set(dataset.manifest["class_pixels"]) == {"val"}


def test_both_kinds_of_cache_hold_the_same_pixels_and_replace_each_other(raw_playground, tmp_path):
    game(raw_playground, tmp_path)
    raw = PreparedDataset(tmp_path / "game")
    pixels = [raw.image(item) for item in raw.items("train")]
    assert all(item.image.endswith(".bmp") for item in raw.items("train"))
    assert game(raw_playground, tmp_path, cache="png").skipped == 0
    png = PreparedDataset(tmp_path / "game")
    for item, before in zip(png.items("train"), pixels, strict=True):
        assert item.image.endswith(".png") and (png.image(item) == before).all()
    assert not list((tmp_path / "game").rglob("*.bmp"))


def test_a_disk_too_small_is_said_before_anything_is_converted(
    raw_playground, tmp_path, monkeypatch
):
    usage = module.shutil.disk_usage(tmp_path)._replace(free=20_000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        FgdaError, match=r"about 0\.06 MB for 10 images, but 0\.02 MB are free\n.*--cache png"
    ):
        game(raw_playground, tmp_path)
    assert not list(tmp_path.rglob("*.bmp"))


@pytest.mark.parametrize(
    "name, words",
    [
        ("gta5", r"run `fgda prepare gta5 --root RAW"),
        ("mine", r"run `fgda prepare folder --name mine .*there are: playground-game"),
        ("plaground-game", r"did you mean .playground-game.\? \(there are: "),
        ("none", r"not prepared in \S+ \(there are: playground-game, playground-street\)"),
        ("playground-game+playground-street", "name one data set at a time"),
    ],
)
def test_a_data_set_that_is_not_there_is_told_rightly(data_root, name, words):
    """Cases 45, 53: "run `fgda prepare none`"."""
    with pytest.raises(FgdaError, match=words):
        open_dataset(data_root, name)
