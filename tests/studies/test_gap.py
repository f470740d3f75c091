"""What lies between two data sets: each figure on images made so that it is known, and the advice
that follows from it.
"""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from fgda_cli.data.store import open_dataset
from fgda_cli.presets import load_preset
from fgda_cli.runtime.errors import FgdaError
from fgda_cli.studies.gap import (
    BANDS,
    _largest_crop,
    best_shift,
    beyond,
    measure,
    profile_of,
    spectrum_of,
)
from tests.helpers import fgda


class Made:
    """A data set of arrays."""

    resample = "area"
    size = None

    def __init__(self, name, images, labels=None, num_classes=3):
        from fgda_cli.data.classes import named_classes

        self.name = name
        self.images = images
        self.labels = labels
        self.classes = named_classes([f"class{k}" for k in range(num_classes)])
        self.num_classes = num_classes

    def splits(self):
        return ["train"]

    def items(self, split, labelled=False):
        def counts(n):
            return tuple(
                np.bincount(self.labels[n].ravel(), minlength=self.num_classes)[: self.num_classes]
            )

        return [
            SimpleNamespace(
                number=n,
                name=f"{n}",
                size=image.shape[1::-1],
                label=None if self.labels is None else n,
                counts=None if self.labels is None else counts(n),
            )
            for n, image in enumerate(self.images)
        ]

    def image(self, item):
        return self.images[item.number]

    def label(self, item):
        return self.labels[item.number]


def scene(rng, horizon=0.5, size=(144, 256), tint=(0, 0, 0), detail=12, blur=0.0):
    """Sky above, ground below, and boxes on the horizon; and its labels."""
    height, width = size
    label = np.zeros(size, np.uint8)
    row = int(horizon * height)
    label[row:] = 1
    for _ in range(6):
        x = rng.integers(0, width - 20)
        w = rng.integers(8, 30)
        h = rng.integers(8, 24)
        label[max(0, row - h) : row + 4, x : x + w] = 2
    colours = np.array([(150, 190, 230), (90, 90, 95), (160, 110, 70)])
    image = colours[label] + np.array(tint) + rng.normal(0, detail, (*size, 1))
    image = np.clip(image, 0, 255).astype(np.uint8)
    return cv2.GaussianBlur(image, (0, 0), blur) if blur else image, label


def made(name, count=12, seed=0, **how):
    rng = np.random.default_rng(seed)
    images, labels = zip(*(scene(rng, **how) for _ in range(count)), strict=True)
    return Made(name, images, labels)


def advised(gap):
    return {one.what: one.why for one in gap.advice}


def test_the_same_look_has_no_gap():
    gap = measure(made("a"), made("b", seed=1), 12)
    f = gap.figures
    assert abs(f["brightness"]) < 1 and f["colour_distance"] < 0.1 and abs(f["sharpness_db"]) < 1
    assert f["layout_correlation"] > 0.95 and f["horizon_shift"] == 0 and f["class_distance"] < 0.05
    assert [one.what.partition("=")[0] for one in gap.advice] == ["data.target.size"]
    np.testing.assert_allclose(gap.guess, gap.source.shares, atol=0.05)


def test_another_tint_is_a_gap_of_colours_alone():
    gap = measure(made("a"), made("b", seed=1, tint=(60, 0, -40)), 12)
    assert gap.figures["colour_distance"] > 0.4 and gap.figures["class_distance"] < 0.1
    assert not any(one.what.startswith(("adapt.", "method.")) for one in gap.advice), (
        "no such rule held on every pair"
    )


def test_a_blurred_target_makes_the_source_the_sharper():
    gap = measure(made("a"), made("b", seed=1, blur=1.5), 12)
    # it did not help where tried
    assert gap.figures["sharpness_db"] > 6 and not any("blur" in one.what for one in gap.advice)
    assert measure(made("a", blur=1.5), made("b", seed=1), 12).figures["sharpness_db"] < -6


def test_a_horizon_elsewhere_is_another_view():
    gap = measure(made("a", horizon=0.35), made("b", seed=1, horizon=0.6), 12)
    assert gap.figures["horizon_shift"] == pytest.approx(0.25, abs=0.04)
    why = advised(gap)["data.source.scale=[1.0,3.0]"]
    assert why.startswith("the horizon lies 2") and "lower" in why
    # more sky is expected there
    assert gap.guess[0] > gap.source.shares[0] + 0.1


def test_sizes_are_those_that_the_data_sets_were_prepared_at():
    source = made("a", size=(144, 256))
    target = made("b", seed=1, size=(240, 320))
    source.size = (128, 72)
    target.size = (160, 120)
    advice = [*advised(measure(source, target, 12))]
    assert "data.target.size=[160,120]" in advice and "data.source.crop=[96,72]" in advice


def test_a_squeezed_source_is_prepared_again():
    """A crop of a squeezed image cannot undo it."""
    source = made("a", size=(144, 256))
    source.size = (128, 96)
    advice = advised(measure(source, made("b", seed=1, size=(240, 320)), 12))
    assert "squeezed to 128x96" in advice["--cut --size 128x96"]


def test_a_preset_hears_only_what_it_lacks():
    gap = measure(made("a", size=(144, 256)), made("b", seed=1, size=(240, 320)), 12)
    assert {"data.target.size=[320,240]", "data.source.crop=[192,144]"} <= {*advised(gap)}
    data = load_preset(
        "playground", ["data.target.size=[160,120]", "data.source.crop=[96,72]"]
    ).data
    assert not advised(beyond(gap, data))
    squeezed = load_preset("playground", ["data.target.size=[160,120]"]).data
    assert [*advised(beyond(gap, squeezed))] == ["data.source.crop=[192,144]"]


def test_halves_of_the_target_are_the_scale_of_a_figure():
    gap = measure(made("a"), made("b", seed=1, tint=(60, 0, -40)), 12)
    assert gap.figures["colour_distance"] > 5 * gap.within["colour_distance"]
    assert gap.within["layout_correlation"] > 0.95


def test_rare_classes_are_named_and_aspects_cut():
    gap = measure(made("a", size=(144, 256)), made("b", seed=1, size=(240, 320)), 12)
    assert advised(gap)["data.source.crop=[192,144]"].startswith(
        "the source (256x144, prepared at 256x144)"
    )
    assert _largest_crop((1914, 1052), (2048, 1024)) == (1912, 952)
    images, labels = zip(*(scene(np.random.default_rng(n)) for n in range(6)), strict=True)
    for label in labels:
        label[label == 2] = 0
        label[0, :5] = 2
    assert (
        advised(measure(Made("a", images, labels), made("b"), 6))["data.class_balance=0.5"]
        == "rare in the source: class2"
    )


def test_shifts_and_spectra_by_hand():
    image, _ = scene(np.random.default_rng(0))
    profile = profile_of(image)
    shift, r = best_shift(profile, np.roll(profile, 5, axis=1))
    assert shift == 5 / 32 and r > 0.99
    wave = np.tile(127 + 100 * np.sin(2 * np.pi * 24 * np.arange(192) / 192), (192, 1))
    spectrum = spectrum_of(np.repeat(wave[..., None], 3, 2).astype(np.uint8))
    assert spectrum.argmax() == 24 * BANDS // 96 and len(spectrum) == BANDS


def test_a_source_without_labels_is_refused():
    with pytest.raises(FgdaError, match="a has no labels: a source needs them"):
        measure(Made("a", made("a").images), made("b"), 4)


def test_gap_by_command(data_root, trained, tmp_path):
    done = fgda(
        "gap",
        "playground-game",
        "playground-street",
        "--data-root",
        data_root,
        "--report",
        tmp_path,
        "--json",
        tmp_path / "g.json",
    )
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80 and "what to set" in done.stdout
    result = json.loads((tmp_path / "g.json").read_text())
    assert result["source"]["images"] == 10 and sum(
        result["class_shares"].values()
    ) == pytest.approx(1)
    page = (tmp_path / "index.html").read_text()
    assert page.count("<img") == 10 and "<script" not in page and "--set" in page
    by_model = fgda(
        "gap",
        "playground-game",
        data_root / "playground-street",
        "--data-root",
        data_root,
        "--model",
        trained,
        "--json",
    )
    other = json.loads(by_model.stdout)
    assert other["expected_on_target"] != result["expected_on_target"]
    assert sum(other["expected_on_target"].values()) == pytest.approx(1)
    of_preset = fgda("gap", "--preset", "playground", "--data-root", data_root)
    assert of_preset.returncode == 0 and "playground-street" in of_preset.stdout
    assert max(map(len, of_preset.stdout.splitlines())) <= 80
    assert fgda("gap", "playground-game").returncode == 2
    wrong = fgda("gap", "playground-game", "nowhere", "--data-root", data_root)
    assert wrong.returncode == 1 and "is not prepared" in wrong.stderr


def test_the_newest_source_model_is_used_where_there_is_one(data_root, trained, tmp_path):
    """Finding 2 of the first hour: a guess from colour gave advice while a trained model lay beside
    it.
    """
    command = ("gap", "playground-game", "playground-street", "--data-root", data_root, "--json")
    guess = fgda(*command, cwd=tmp_path)
    assert json.loads(guess.stdout)["expected_by"] == "a guess from colour and height"
    run = shutil.copytree(trained.parent.parent, tmp_path / "runs/mine/pretrain-seed0")
    found = fgda(*command, cwd=tmp_path)
    assert "are those that runs/mine/pretrain-seed0/checkpoints/final.pth predicts" in found.stderr
    asked = fgda(*command, "--model", trained, cwd=tmp_path)
    assert (
        json.loads(found.stdout)["expected_on_target"]
        == json.loads(asked.stdout)["expected_on_target"]
    )
    record = (run / "preset.yaml").read_text()
    (run / "preset.yaml").write_text(record.replace("playground-game", "another"))
    assert (
        json.loads(fgda(*command, cwd=tmp_path).stdout)["expected_by"]
        == "a guess from colour and height"
    )


def test_the_advice_is_made_of_keys_that_exist(data_root, tiny_preset):
    found = measure(
        open_dataset(data_root, "playground-game"), open_dataset(data_root, "playground-street"), 10
    )
    for one in found.advice:
        tiny_preset(one.what)
