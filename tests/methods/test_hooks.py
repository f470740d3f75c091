"""What the engine offers to methods: own optimisers, offline products, second views, crops, joined
sources, encoder stages.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from fgda_cli.data.loader import PairedSamples, Positions, batches
from fgda_cli.data.store import JoinedDataset, open_dataset, open_domain
from fgda_cli.methods.base import EVERY, Method, MethodSettings
from fgda_cli.methods.offline import OfflineData
from fgda_cli.methods.optimizers import Scheduled, constant_then_linear
from fgda_cli.models import checkpoint
from fgda_cli.presets import load_preset
from fgda_cli.runtime.errors import FgdaError, UsageError
from fgda_cli.training import stages
from tests.helpers import QUIET, SIZE, Listening, crash_at, data_settings, samples


class Translator(Method):
    """Stands for the methods to come: a network with an optimiser of its own, a reference, an
    offline product.
    """

    Settings = MethodSettings
    reads_border = True
    supports = EVERY
    seen: list = []

    def __init__(self, model, settings, engine=None):
        super().__init__(model, settings, engine)
        self.modules["generator"] = torch.nn.Conv2d(3, 3, 1)

    def before_training(self, data: OfflineData) -> None:
        def build(folder):
            self.seen.append("built")
            (folder / "means.json").write_text(json.dumps([1.0, 2.0]))

        place = data.product(
            "statistics", {"seed": self.seed, "images": len(data.samples.source_items)}, build
        )
        self.means = json.loads((place / "means.json").read_text())
        self.references["twin"] = torch.nn.Conv2d(3, 3, 1)

    def optimizers(self, recipe):
        found = super().optimizers(recipe)
        adam = torch.optim.Adam(self.modules["generator"].parameters(), lr=0.01)
        return found | {"generator": Scheduled(adam, constant_then_linear(0.5))}

    def step(self, batch):
        output, terms = self.source_pass(batch)
        assert len(output.stages) == 4
        generated = self.modules["generator"](batch.target.float() / 255)
        terms["cycle"] = generated.square().mean() + self.references["twin"](generated).mean() * 0
        self.backward(terms["cycle"])
        return terms


@pytest.fixture
def translator(monkeypatch, tiny_preset):
    """The method, known to stages by a name; a fresh record of what it built."""
    monkeypatch.setattr(stages, "method_class", lambda name: Translator)
    Translator.seen.clear()
    preset = tiny_preset()
    return preset.model_copy(update={"method": MethodSettings(name="translator")})


def test_a_method_with_networks_optimisers_and_products_of_its_own_trains_and_resumes(
    translator, data_root, trained, tmp_path, monkeypatch
):
    torch.set_num_threads(1)
    job = stages.Job(translator, data_root, tmp_path / "whole", device="cpu", reporter=QUIET)
    whole = checkpoint.load(stages.adapt(job, trained).parent / "last.pth")["train"]
    assert Translator.seen == ["built"] and set(whole["optimizers"]) == {
        "segmentation",
        "generator",
    }
    # references are not saved
    assert set(whole["modules"]) == {"generator"}
    rates = [
        json.loads(line)["lr"]["generator"]
        for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()
        if "seg" in line
    ]
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.01, 0.01 * 2 / 3, 0.01 / 3])
    parts = replace(job, out=tmp_path / "parts")
    crash_at(monkeypatch, 3, lambda: stages.adapt(parts, trained))
    again = checkpoint.load(stages.adapt(parts, trained).parent / "last.pth")["train"]
    # once a folder: a resumed run reuses it
    assert Translator.seen == ["built", "built"]
    for name, value in whole["modules"]["generator"].items():
        assert torch.equal(value, again["modules"]["generator"][name])


def offline(data_root, folder, reporter=QUIET):
    return OfflineData(samples(data_root), folder, torch.device("cpu"), reporter=reporter)


def test_a_product_is_reused_resumed_and_made_anew_when_what_it_depends_on_changes(
    data_root, tmp_path
):
    built = []
    reporter = Listening()
    data = offline(data_root, tmp_path / "offline", reporter)

    def build(folder):
        for number in range(4):
            path = folder / f"{number}.txt"
            if path.exists():
                continue
            if number == 2 and "stopped" not in built:
                built.append("stopped")
                raise KeyboardInterrupt
            path.write_text("x")
            built.append(number)

    with pytest.raises(KeyboardInterrupt):
        data.product("images", {"lr": 1}, build)
    first = data.product("images", {"lr": 1}, build)
    # what was there is not made twice
    assert built == [0, 1, "stopped", 2, 3] and len(list(first.glob("*.txt"))) == 4
    count = len(built)
    assert (
        data.product("images", {"lr": 1}, build) == first
        and len(built) == count
        and "reusing" in reporter.said[-1]
    )
    (tmp_path / "offline/notes-of-mine").mkdir()
    second = data.product("images", {"lr": 2}, build)
    assert second != first and not first.exists() and (tmp_path / "offline/notes-of-mine").exists()
    data.product("other", {}, lambda folder: None)
    assert second.exists()


def test_asked_for_fields_come_and_others_do_not(data_root):
    plain = next(batches(samples(data_root), Positions(0, 1, 2), 0, pin=False))
    assert plain.target_border is plain.labelled is None
    labelled = open_dataset(data_root, "playground-game")
    full = next(batches(samples(data_root, labelled=labelled), Positions(0, 1, 2), 0, pin=False))
    assert torch.equal(full.source, plain.source) and torch.equal(full.target, plain.target)
    assert (
        full.labelled.shape == full.target.shape
        and full.labelled_ids.shape == full.target.shape[:1] + full.target.shape[2:]
    )
    assert (full.labelled_ids != 255).any()


def test_crops_keep_labels_on_images_and_mark_what_lies_beyond(data_root):
    source = SIZE | {"crop": (48, 48), "scale": (0.5, 1.0)}
    paired = samples(data_root, data_settings(source, SIZE | {"crop": (80, 24)}, flip=False))
    for position in range(4):
        sample = paired[position]
        assert sample["source"].shape[1:] == sample["labels"].shape == (48, 48) and sample[
            "target"
        ].shape[1:] == (24, 80)
        beyond = (sample["source"] == 0).all(0)
        assert (sample["labels"][32:] == 255).all() and beyond[32:].all()
        assert (sample["target"] == 0).all(0).sum() >= 24 * 16


def test_a_position_alone_decides_crops_and_views(data_root):
    target = SIZE | {"crop": (32, 32)}
    settings = data_settings(target | {"scale": (0.8, 1.2)}, target)
    first, again = (samples(data_root, settings) for _ in range(2))
    [first[p] for p in (0, 3)]
    for key, value in first[7].items():
        assert torch.equal(value, again[7][key])


def test_several_data_sets_are_one_domain(data_root):
    joined = open_domain(data_root, ("playground-game", "playground-street"))
    assert isinstance(joined, JoinedDataset) and joined.name == "playground-game+playground-street"
    assert len(joined.items("train")) == 20
    twice = open_domain(data_root, ("playground-game", "playground-game"))
    paired = PairedSamples(twice, None, data_settings(), seed=0)
    assert len(paired.source_items) == 20 and paired[0]["labels"].shape == (32, 64)


@pytest.mark.parametrize("kind", ["uniform", "class_balanced", "rare_class"])
def test_joined_data_sets_come_by_their_weights(data_root, tmp_path, kind):
    for name in ("one", "two"):
        shutil.copytree(data_root / "playground-game", tmp_path / name)
    joined = open_domain(tmp_path, ("one", "two"), (3.0, 1.0))
    shares = joined.shares(joined.items("train"))
    assert shares.sum() == pytest.approx(1) and shares[:10].sum() == pytest.approx(0.75)
    settings = data_settings(sampling=kind, rare_class_min_pixels=0)
    paired = PairedSamples(joined, joined, settings, seed=0)
    draws = [paired.draw_source(np.random.default_rng(n)) for n in range(2000)]
    assert np.mean([index < 10 for index in draws]) == pytest.approx(
        0.75, abs=0.05 if kind == "uniform" else 0.15
    )
    seen = []
    original = joined.image
    joined.image = lambda item: seen.append(item.folder.name) or original(item)
    for position in (*range(150), 0):
        # source, then target
        paired[position]
    assert np.mean([name == "one" for name in seen[1::2]]) == pytest.approx(0.75, abs=0.12)
    assert seen[:2] == seen[-2:]  # by position alone
    with pytest.raises(UsageError, match="weights: 3 for 2 data sets"):
        load_preset("playground", ["data.source.dataset=[a,b]", "data.source.weights=[1,2,3]"])


def test_data_sets_of_other_classes_are_no_one_domain(data_root, tmp_path):
    from fgda_cli.data.images import write_image
    from fgda_cli.data.layouts.base import OwnFiles
    from fgda_cli.data.prepare import How, prepare_own
    from fgda_cli.data.store import PreparedDataset

    write_image(tmp_path / "i/1.png", np.zeros((32, 64, 3), np.uint8))
    write_image(tmp_path / "l/1.png", np.ones((32, 64), np.uint8))
    (tmp_path / "m.yaml").write_text("classes: [ground]\n1: ground\n")
    quiet = How(tmp_path, (64, 32), 1, reporter=QUIET)
    prepare_own(
        "folder",
        OwnFiles(tmp_path / "i", tmp_path / "l", mapping=tmp_path / "m.yaml"),
        "mine",
        how=quiet,
    )
    with pytest.raises(FgdaError, match="need the same classes"):
        JoinedDataset(
            [open_dataset(data_root, "playground-game"), PreparedDataset(tmp_path / "mine")]
        )


def test_data_sets_resized_otherwise_are_no_one_domain(raw_playground, data_root, tmp_path):
    from fgda_cli.data.prepare import How, prepare_layout
    from fgda_cli.data.store import PreparedDataset

    how = How(tmp_path, (32, 32), 1, reporter=QUIET, resample="bicubic")
    prepare_layout("gta5", raw_playground / "game", how, name="game")
    with pytest.raises(FgdaError, match="prepared with --resample area and bicubic"):
        JoinedDataset(
            [open_dataset(data_root, "playground-game"), PreparedDataset(tmp_path / "game")]
        )
