"""Memory computed on the meta device beside that of the same step on the processor."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from fgda_cli.methods.registry import method_names
from fgda_cli.presets import load_preset
from fgda_cli.training import memory
from fgda_cli.training.memory import LiveMemory
from tests.helpers import TINY, fgda, needs

CPU = torch.device("cpu")
SMALL = {
    "vfmuda": (
        "method.distil_model=timm:vit_tiny_patch16_224",
        "method.distil_weights=none",
        "method.distil_scale=1.0",
    ),
    "adaptpatch": ("method.patch=[32,32]", "method.modes=4"),
}
TRANSFORMER = (
    "model.backbone=dinov2:tiny14",
    "model.width=64",
    "model.output_stride=native",
    "model.multi_level=false",
    "optim.kind=adamw",
)


def both(name: str, *sets: str) -> tuple[memory.Memory, memory.Memory]:
    preset = load_preset("playground", [*TINY, *SMALL.get(name, ()), *sets], name)
    stage = preset.pretrain if name == "source-only" else preset.adapt
    return tuple(
        memory.memory_of_step(preset, stage, name, num_classes=5, device=device)
        for device in (memory.META, CPU)
    )


# adabn trains nothing, and its one iteration reads the target's statistics
@pytest.mark.parametrize("name", [name for name in method_names() if name != "adabn"])
def test_every_methods_step_is_computed_without_memory(name):
    computed, measured = both(name)
    assert computed.model == measured.model and computed.others == measured.others
    assert computed.gradients == measured.gradients
    # a processor gathers maps in another way, and has other kernels
    assert computed.peak == pytest.approx(measured.peak, rel=0.2)


@pytest.mark.parametrize(
    "sets",
    [
        (),
        pytest.param(("model.tune=lora",), marks=needs("peft")),
        ("model.tune=frozen",),
        ("model.checkpoint_activations=true",),
    ],
)
def test_of_a_transformer_with_adamw(sets):
    computed, measured = both("mic", *TRANSFORMER, *sets)
    assert computed.peak == pytest.approx(measured.peak, rel=0.15)
    assert computed.optimizers >= 2 * computed.gradients
    if "frozen" in str(sets):
        assert computed.gradients < computed.model / 2


def test_live_memory_counts_storages_once_and_lets_go_of_them():
    with LiveMemory() as live:
        x = torch.zeros(1000)
        view = x.view(10, 100).t()
        assert live.live == 4000
        y = x + 1
        assert live.live == 8000
        del y
        assert live.live == 4000 and live.peak == 8000
        del x, view
    assert live.live == 0


def test_doctor_tells_which_gpu_holds_a_preset():
    done = fgda("doctor", "--preset", "playground")
    assert done.returncode == 0, done.stderr
    assert "teacher, discriminators" in done.stdout and "a GPU of 8 GB or more" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    found = json.loads(fgda("doctor", "--preset", "playground", "--json").stdout)
    parts = found["stages"]["adapt"]
    assert parts["peak"] >= parts["model"] + parts["gradients"] + parts["optimizers"]
    assert fgda("doctor", "--set", "run.seed=1").returncode == 2


def test_a_stage_that_will_not_fit_its_gpu_is_told(monkeypatch):
    preset = load_preset("playground", TINY)
    device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for size, fits in ((memory.OVERHEAD, False), (2**36, True)):
        properties = SimpleNamespace(total_memory=size)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _, p=properties: p)
        told = memory.too_large(preset, preset.adapt, "fgda", device)
        assert (told is None) == fits
        assert fits or "the GPU has 1 GB" in told
