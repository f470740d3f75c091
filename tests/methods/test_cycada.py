"""CyCADA: networks of the published sizes, losses by hand, a translation that resumes to the bit
and is made once.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from fgda_cli.data.images import write_image
from fgda_cli.data.store import PreparedDataset
from fgda_cli.methods.cycada import WINDOW, domain_loss
from fgda_cli.methods.pieces import translation
from fgda_cli.methods.pieces.translation import (
    Cycles,
    Generator,
    PatchGan,
    TranslationSettings,
    real_and_fake_loss,
)
from fgda_cli.models import checkpoint
from fgda_cli.runtime.errors import UsageError
from fgda_cli.training import stages
from tests.helpers import QUIET, Listening, batch, make

CPU = torch.device("cpu")
SMALL = TranslationSettings(steps=6, channels=4, blocks=1, crop=32, save_every=2)
FLAGS = (
    "method.translation_channels=4",
    "method.translation_blocks=1",
    "method.translation_crop=32",
)


def parameters(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_networks_have_the_published_sizes():
    assert parameters(Generator()) == 11_378_179 and parameters(PatchGan()) == 2_764_737
    from fgda_cli.methods.registry import method_class
    from fgda_cli.models.segmenter import Segmenter

    cls = method_class("cycada")
    method = cls(Segmenter(19, "resnet18", width=8, multi_level=False), cls.Settings(name="cycada"))
    assert parameters(method.modules["discriminator"]) == 142_082


def test_a_translated_image_keeps_its_size():
    for size in ((32, 48), (33, 50), (35, 31)):
        assert Generator(4, 1)(torch.zeros(1, 3, *size)).shape[-2:] == size


def test_least_squares_by_hand():
    assert float(
        real_and_fake_loss(torch.tensor([1.0, 0.5]), torch.tensor([0.0, 0.5]))
    ) == pytest.approx(0.125)
    real, fake = (torch.randn(4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(real_and_fake_loss, (real, fake))


def test_pixels_go_to_unit_range_and_back():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(translation.from_unit(translation.to_unit(values)), values)


def test_old_fakes_come_back_half_of_the_time():
    cycles = Cycles(SMALL, 0)
    generator = torch.Generator().manual_seed(0)
    for number in range(translation.POOL):
        assert cycles.old_or_new("target", torch.tensor(float(number)), generator) == number
    shown = [
        float(cycles.old_or_new("target", torch.tensor(1000.0 + n), generator)) - 1000 - n
        for n in range(400)
    ]
    fresh = sum(value == 0 for value in shown)
    assert 160 < fresh < 240 and len(cycles.pools["target"]) == translation.POOL


def image_of(brightness):
    return lambda generator: (torch.rand(3, 40, 48, generator=generator) * 60 + brightness).to(
        torch.uint8
    )


def test_translation_resumes_to_the_bit(tmp_path, monkeypatch):
    def run(folder, settings=SMALL):
        folder.mkdir(exist_ok=True)
        return translation.train(
            folder,
            settings,
            3,
            source=image_of(20),
            target=image_of(180),
            device=CPU,
            reporter=QUIET,
        )

    whole = run(tmp_path / "whole")
    original = Cycles.step
    count = []

    def breaks(self, *arguments):
        count.append(1)
        if len(count) == 4:
            raise MemoryError
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Cycles, "step", breaks)
        with pytest.raises(MemoryError):
            run(tmp_path / "parts")
    parts = run(tmp_path / "parts")
    assert all(
        torch.equal(value, parts.state_dict()[key]) for key, value in whole.state_dict().items()
    )
    start = Cycles(SMALL, 3).state_dict()
    assert all(
        not torch.equal(start[key], value)
        for key, value in whole.state_dict().items()
        if key.endswith("7.weight")
    )


def test_cycles_learn_to_brighten():
    settings = TranslationSettings(steps=60, channels=4, blocks=0, crop=32, lr=5e-3, identity=0.0)
    cycles = Cycles(settings, 0)
    generator = torch.Generator().manual_seed(0)
    dark, bright = (translation.to_unit(image_of(value)(generator))[None] for value in (20, 180))
    before = float(cycles.to_target(dark).detach().mean())
    for _ in range(60):
        cycles.step(dark, bright, generator, factor=1.0)
    assert float(cycles.to_target(dark).detach().mean()) > before + 0.3


def test_domain_loss_by_hand():
    logits = torch.zeros(1, 2, 1, 2, dtype=torch.float64)
    logits[0, 1, 0, 0] = 1.0
    expected = (
        torch.tensor(1 + torch.e, dtype=torch.float64).log()
        + torch.tensor(2.0, dtype=torch.float64).log()
    ) / 2
    assert float(domain_loss(logits, 0)) == pytest.approx(float(expected))


@pytest.mark.parametrize("accuracy, opens", [(0.55, False), (0.7, True)])
def test_the_network_plays_only_against_a_discriminator_that_sees(accuracy, opens):
    method = make("cycada", False, torch.float32, dropout=0.0)
    method.modules["record"].accuracy.fill_(accuracy)
    method.iteration = WINDOW
    terms = method.step(batch())
    assert (float(terms["adv"].detach()) > 0) == opens and float(terms["disc"].detach()) > 0
    # counted where the window turns
    assert float(method.modules["record"].accuracy[0]) != pytest.approx(accuracy)
    assert all(p.grad is not None for p in method.modules["discriminator"].parameters())


def test_dropped_channels_are_drawn_again_alike():
    method = make("cycada", False, torch.float32)
    logits = torch.randn(2, 5, 4, 6)
    assert torch.equal(method.domain_logits(logits, 0), method.domain_logits(logits, 0))
    assert not torch.equal(method.domain_logits(logits, 0), method.domain_logits(logits, 1))


def test_a_run_translates_once_and_trains_on_it(data_root, tiny_preset, trained, tmp_path):
    reporter = Listening(quiet=True)
    preset = tiny_preset(*FLAGS, method="cycada")
    job = stages.Job(preset, data_root, tmp_path / "run", device="cpu", reporter=reporter)
    stages.adapt(job, trained)
    (product,) = (tmp_path / "run/offline").glob("translated-*")
    translated = PreparedDataset(product / "source")
    original = PreparedDataset(data_root / "playground-game")
    items = translated.items("train", labelled=True)
    before = original.items("train")
    assert [item.name for item in items] == [item.name for item in before] and items[
        0
    ].counts == before[0].counts
    assert (translated.label(items[0]) == original.label(before[0])).all()
    assert not (translated.image(items[0]) == original.image(before[0])).all()
    height, width = cv2.imread(str(product / "before-after.png")).shape[:2]
    assert width == 6 + 2 * (256 + 6) and height > 5 * 128
    assert not list(product.rglob("*.part"))
    # two an iteration, as the playground has it
    assert json.loads((product / "product.json").read_text())["depends_on"]["steps"] == 12
    reporter.said.clear()
    # stopped right at the end: what was made is used again
    (tmp_path / "run/checkpoints/final.pth").unlink()
    stages.adapt(job, trained)
    assert any("reusing" in text for text in reporter.said)


@pytest.mark.parametrize(
    "overrides, words",
    [
        (
            ["data.source.dataset=[playground-game, another-game]"],
            "one source data set can be translated",
        ),
        (
            ["run.select=labels", "data.evaluation.dataset=nothing"],
            "run.select: labels needs labelled images",
        ),
        (["model.checkpoint_activations=true"], "checkpoint_activations needs batch_norm: frozen"),
        (["optim.layer_decay=0.5"], "no transformer blocks to count"),
    ],
)
def test_what_cannot_be_is_refused_before_the_translation(
    data_root, tiny_preset, trained, tmp_path, monkeypatch, overrides, words
):
    monkeypatch.setattr(translation, "train", lambda *_: pytest.fail("it was translated first"))
    root = tmp_path / "data"
    shutil.copytree(data_root, root)
    shutil.copytree(data_root / "playground-game", root / "another-game")
    preset = tiny_preset(*FLAGS, *overrides, method="cycada")
    with pytest.raises(UsageError, match=words):
        stages.adapt(
            stages.Job(preset, root, tmp_path / "run", device="cpu", reporter=QUIET), trained
        )
    assert not (tmp_path / "run").exists()


def test_data_prepared_again_are_translated_again_with_their_labels(
    data_root, tiny_preset, trained, tmp_path
):
    """The same folder and names: `--fresh` trained on old images and old labels."""
    root = tmp_path / "data"
    shutil.copytree(data_root, root)
    job = stages.Job(
        tiny_preset(*FLAGS, method="cycada"), root, tmp_path / "run", device="cpu", reporter=QUIET
    )
    stages.adapt(job, trained)
    (before,) = (tmp_path / "run/offline").glob("translated-*")
    dataset = PreparedDataset(root / "playground-game")
    item = dataset.items("train")[0]
    write_image(root / "playground-game" / item.label, np.full_like(dataset.label(item), 7))
    stages.adapt(replace(job, fresh=True), trained)
    (after,) = (tmp_path / "run/offline").glob("translated-*")
    translated = PreparedDataset(after / "source")
    assert after != before and (translated.label(translated.items("train")[0]) == 7).all()


def test_training_goes_on_where_it_was_with_its_translation(
    data_root, tiny_preset, trained, tmp_path
):
    preset = tiny_preset(*FLAGS, method="cycada")
    content = checkpoint.load(
        stages.adapt(
            stages.Job(preset, data_root, tmp_path / "run", device="cpu", reporter=QUIET), trained
        )
    )
    assert content["method"] == "cycada" and "discriminator" not in content["model"]
