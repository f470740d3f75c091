"""Steps, runs and predictions on a GPU that is pretended (tests/pretend.py): the same bits, and a
host that does not wait.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from fgda_cli.data.loader import Batch
from fgda_cli.inference import evaluate, predict
from fgda_cli.methods import optimizers
from fgda_cli.methods.registry import method_class, method_names
from fgda_cli.models import checkpoint
from fgda_cli.models.heads import AsppHead
from fgda_cli.models.tuning import tune
from fgda_cli.presets import load_preset
from fgda_cli.runtime import devices, transfer
from fgda_cli.runtime.devices import Precision
from fgda_cli.runtime.distributed import ProcessGroup
from fgda_cli.runtime.errors import FgdaError
from fgda_cli.runtime.transfer import Readings, may_go_on
from fgda_cli.training import components, stages
from fgda_cli.training.run_folder import RunFolder
from fgda_cli.training.trainer import Trainer
from tests.helpers import QUIET, TINY, give_foundation
from tests.pretend import DEVICE, needs_pretended_gpu, pretended_gpu

pytestmark = needs_pretended_gpu

CPU = torch.device("cpu")
# reads the step before: the one place where an iteration may wait
READING = "runtime/transfer.py"
NATIVE = ("model.multi_level=false", "model.output_stride=native")
# what a step can be beside its method, and the method that shows it
MORE = {
    "a network of two resolutions": (
        "mic",
        "model.head=fused",
        "model.head_width=16",
        "model.dilations=[2]",
        "model.detail=[32, 32]",
        *NATIVE,
    ),
    "a transformer": (
        "fgda-st",
        "model.backbone=timm:vit_tiny_patch16_224",
        "model.weights=none",
        "model.head=dpt",
        "model.width=64",
        "model.drop_path=0.1",
        *NATIVE,
    ),
    "an adapter": (
        "mic",
        "model.backbone=adapter:tiny14",
        "model.weights=none",
        "model.head=linear",
        "model.width=64",
        *NATIVE,
    ),
    "low-rank updates": (
        "mic",
        "model.backbone=dinov2:tiny14",
        "model.weights=none",
        "model.head=transposed",
        "model.head_width=16",
        "model.width=64",
        "model.tune=lora",
        *NATIVE,
    ),
    "a mix transformer": (
        "mic",
        "model.backbone=mit:b0",
        "model.weights=none",
        "model.head=segformer",
        "model.head_width=16",
        "model.width=64",
        "model.drop_path=0.1",
        *NATIVE,
    ),
    "a network of convolutions of timm": (
        "fgda",
        "model.backbone=timm:mobilenetv3_small_050",
        "model.weights=none",
        "model.width=64",
        *NATIVE,
    ),
    "labels of the target": ("fgda-st", "adapt.iterations=6"),
    "statistics of the target": ("fgda-st", "adapt.batch_norm=target"),
    "two levels": ("clan", "model.multi_level=true"),
    "dropped channels": ("fgda", "model.dropout=0.2"),
    "parts of a batch": ("fgda-st", "adapt.accumulate=2"),
    "short gradients": ("fgda", "optim.clip_norm=0.1", "optim.kind=adamw", "optim.lr=0.0001"),
}


@pytest.fixture(autouse=True)
def one_order_of_additions():
    """As the processor's: the memory format, and the sum of a head's taps, are chosen otherwise for
    a GPU.
    """
    with (
        mock.patch.object(Precision, "channels_last", False),
        mock.patch.object(AsppHead, "by_folds", AsppHead.by_taps),
    ):
        yield


def made(device: torch.device, name: str, *overrides: str, scaler=None) -> Trainer:
    preset = load_preset("playground", [*TINY, *overrides], name)
    torch.manual_seed(0)
    model = checkpoint.build_model(preset.model, 5)
    tune(model, preset.model)
    method = method_class(name)
    precision = Precision("fp32", device, scaler)
    prepared = components.prepare_method(
        method, model, preset, stage=preset.adapt, precision=precision, group=ProcessGroup()
    )
    give_foundation(prepared, device)
    state = components.make_state(prepared, preset, preset.adapt, precision=precision)
    return Trainer(
        state,
        None,
        preset.adapt,
        preset=preset,
        run=RunFolder(Path()),
        header={"stage": "adapt", "method": name},
        validators=None,
        reporter=QUIET,
    )


def batch_of(number: int, labelled: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(number)
    images = torch.randint(0, 256, (3, 2, 3, 32, 64), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 6, (2, 2, 32, 64), dtype=torch.uint8, generator=generator)
    labels[labels == 5] = 255
    return Batch(images[0], labels[0], images[1], *((images[2], labels[1]) if labelled else ()))


def three_steps(trainer: Trainer, labelled: bool = False, gpu=None):
    """Weights after three iterations, and the lines that made the host wait in the last two (the
    first fills tables).
    """
    device = trainer.state.precision.device
    if labelled:
        samples = mock.Mock(labelled_items=[1])
        trainer.state.method.before_training(mock.Mock(samples=samples, device=device))
    images = batch_of(9).target
    with mock.patch.object(Trainer, "target_images", lambda self: iter(images)):
        for number in range(3):
            batch = batch_of(number, labelled).to(device)
            if gpu is not None and number == 1:
                gpu.waits.clear()
            trainer.train_iteration(batch)
    waits = (
        {}
        if gpu is None
        else {line: count for line, count in gpu.waits.items() if not line.startswith(READING)}
    )
    modules = {"model": trainer.state.method.model, **trainer.state.method.modules}
    return {
        f"{name}.{key}": v.cpu()
        for name, module in modules.items()
        for key, v in module.state_dict().items()
    }, waits


# whose attention has a kernel of its own on a processor
WITH_ATTENTION = ("a transformer", "an adapter", "low-rank updates", "a mix transformer", "vfmuda")
# adabn's one iteration trains nothing
CASES = {name: (name,) for name in method_names() if name != "adabn"} | MORE
# a round, at whose start it counts on the host, is longer
CASES["cbst"] = ("cbst", "adapt.iterations=30")


@cache
def plain_steps(case: str) -> dict:
    """Weights after three steps on the processor, made once for both tests of a case."""
    return three_steps(made(CPU, *CASES[case]), case == "labels of the target")[0]


@pytest.mark.parametrize("case", CASES)
def test_a_step_on_a_gpu_gives_the_same_bits_and_makes_the_host_wait_for_nothing(case):
    labelled = case == "labels of the target"
    plain = plain_steps(case)
    with pretended_gpu() as gpu:
        found, waits = three_steps(made(DEVICE, *CASES[case]), labelled, gpu)
    assert plain.keys() == found.keys()
    near = 1e-4 if case in WITH_ATTENTION else 0
    assert [
        key
        for key, value in plain.items()
        if (value.float() - found[key].float()).abs().max() > near
    ] == []
    assert waits == {}


@pytest.mark.parametrize("case", CASES)
def test_a_step_on_a_mac_needs_no_float64(case, monkeypatch):
    """Case 141. The same numbers but for those that elsewhere are float64."""
    monkeypatch.setattr(transfer, "NARROW", ("mps", DEVICE.type))
    labelled = case == "labels of the target"
    with pretended_gpu(refused=torch.float64):
        found, _ = three_steps(made(DEVICE, *CASES[case]), labelled)
    assert all(value.float().isfinite().all() for value in found.values())


def test_a_mac_is_said_to_be_untested_and_waits_for_its_copies():
    said = []
    reporter = mock.Mock(warn=said.append)
    devices.make_precision("fp32", torch.device("mps"), reporter=reporter)
    assert len(said) == 1 and "no run of ours" in said[0]
    assert not may_go_on(torch.device("mps")) and may_go_on(torch.device("cuda"))


@pytest.mark.parametrize("case", CASES)
def test_loss_scaling_changes_no_gradient(case):
    """Of fp16: a power of two, so that its product and quotient are exact; what a method forgets to
    scale would be too small.
    """
    labelled = case == "labels of the target"
    plain = plain_steps(case)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaled, _ = three_steps(made(CPU, *CASES[case], scaler=scaler), labelled)
    assert [key for key, value in plain.items() if not torch.equal(value, scaled[key])] == []


def test_optimisers_of_a_gpu_step_all_tensors_at_once_and_loss_scaling_waits_for_nothing(
    monkeypatch,
):
    plain, _ = three_steps(made(CPU, "fgda"))
    monkeypatch.setattr(optimizers, "FUSED", ("pretended",))
    with pretended_gpu() as gpu:
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        scaler._device = DEVICE.type
        trainer = made(DEVICE, "fgda", scaler=scaler)
        assert all(optimizer.defaults["fused"] for optimizer in trainer.state.optimizers.values())
        found, waits = three_steps(trainer, gpu=gpu)
    assert all(torch.allclose(value, found[key], atol=1e-5) for key, value in plain.items())
    assert waits == {}


def test_an_optimiser_of_the_processor_is_torchs_plain_one():
    parameter = torch.nn.Parameter(torch.zeros(2))
    for make in (optimizers.sgd, optimizers.adam, optimizers.adamw):
        assert not make([parameter], lr=0.1).defaults.get("fused")
        assert not make([{"params": []}, {"params": [parameter], "lr": 0.2}], lr=0.1).defaults.get(
            "fused"
        )


def test_readings_come_at_once_from_a_processor_and_one_step_late_from_a_gpu():
    readings = Readings()
    assert readings.put(1, [torch.tensor(2.0)]) == (1, [2.0]) and readings.rest() is None
    with pretended_gpu():
        numbers = [torch.full((), float(value), device=DEVICE) for value in range(3)]
        assert readings.put("a", numbers[:1]) is None
        assert readings.put("b", numbers[1:]) == ("a", [0.0])
        assert readings.rest() == ("b", [1.0, 2.0]) and readings.rest() is None


def test_a_loss_that_is_not_finite_ends_a_run_on_a_gpu_before_anything_broken_is_kept(
    data_root, trained, tmp_path, tiny_preset
):
    """Found one iteration late, yet the checkpoint of that very iteration is not written."""
    preset = tiny_preset("adapt.checkpoint_every=2", method="fgda")
    job = stages.Job(preset, data_root, tmp_path / "run", device="pretended", reporter=QUIET)
    original = method_class("fgda").target_losses

    def broken(self, target, size):
        terms = original(self, target, size)
        return terms | ({"entropy": terms["entropy"] * float("nan")} if broken.calls == 4 else {})

    def begin(self, iteration, total, images):
        broken.calls = iteration + 1

    method = method_class("fgda")
    with (
        pretended_gpu(),
        mock.patch.object(stages, "pick_device", lambda name: DEVICE),
        mock.patch.object(method, "target_losses", broken),
        mock.patch.object(method, "begin_iteration", begin),
        pytest.raises(
            FgdaError, match="loss 'entropy' is not finite at iteration 4; the last good checkpoint"
        ),
    ):
        stages.adapt(job, trained)
    assert checkpoint.load(tmp_path / "run/checkpoints/last.pth")["iteration"] == 2


@pytest.mark.parametrize(
    "method, overrides",
    [
        ("mic", ()),
        (
            "cycada",
            (
                "method.translation_factor=0.3",
                "method.translation_channels=4",
                "method.translation_blocks=1",
            ),
        ),
    ],
)
def test_a_whole_run_on_a_gpu_ends_in_the_same_bits(
    data_root, trained, tmp_path, tiny_preset, method, overrides
):
    job = stages.Job(
        tiny_preset("run.select=labels", *overrides, method=method),
        data_root,
        tmp_path / "cpu",
        device="cpu",
        reporter=QUIET,
    )
    plain = checkpoint.load(stages.adapt(job, trained))["model"]
    with pretended_gpu(), mock.patch.object(stages, "pick_device", lambda name: DEVICE):
        path = stages.adapt(replace(job, out=tmp_path / "gpu"), trained)
    found = checkpoint.load(path)["model"]
    assert [key for key, value in plain.items() if not torch.equal(value, found[key])] == []


def test_predictions_and_evaluation_on_a_gpu_are_the_same(data_root, trained):
    from fgda_cli.data.store import open_dataset

    model, _ = checkpoint.load_model(trained)
    data = open_dataset(data_root, "playground-street")
    images = [data.image(item) for item in data.items("val")]
    plain = Precision("fp32", CPU)
    expected = predict.predict_many(model, images, plain)
    score = evaluate.evaluate_file(trained, data, "val", precision=plain, reporter=QUIET).miou
    with pretended_gpu():
        there = Precision("fp32", DEVICE)
        found = predict.predict_many(there.to_device(model), images, there)
        assert (
            evaluate.evaluate_file(trained, data, "val", precision=there, reporter=QUIET).miou
            == score
        )
    for one, two in zip(expected, found, strict=True):
        assert np.array_equal(one["train_ids"], two["train_ids"]) and np.array_equal(
            one["entropy"], two["entropy"]
        )
