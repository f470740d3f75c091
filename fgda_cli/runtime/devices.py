"""Device, precision (measured, not assumed) and determinism."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .distributed import ProcessGroup, ranks
from .errors import UsageError
from .reporter import Reporter


def pick_device(name: str) -> torch.device:
    """Return the device `auto`, `cpu`, `cuda`, `cuda:1` or `mps`. Raises UsageError for one that
    this machine lacks.
    """
    if name in ("auto", "cuda") and torch.cuda.is_available() and ranks()[1] > 1:
        name = f"cuda:{ranks()[2]}"
    if name == "auto":
        # a Mac's GPU, which is untested, only where it is asked for
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: known are auto, cpu, cuda, cuda:N, mps") from None
    if device.type == "cuda" and (
        not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()
    ):
        raise UsageError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices; use"
            " --device cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: not available on this machine; use --device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"--device {name}: known are auto, cpu, cuda, cuda:N, mps")
    return device


@dataclass(frozen=True)
class Precision:
    """A resolved precision; bf16 and fp16 run convolutions in autocast, losses stay fp32."""

    name: str
    device: torch.device
    # torch.amp.GradScaler for fp16
    scaler: Any = None

    def autocast(self):
        if self.name == "fp32":
            return nullcontext()
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16 if self.name == "bf16" else torch.float16
        )

    @property
    def scale(self) -> Callable:
        return self.scaler.scale if self.scaler is not None else lambda loss: loss

    def to_device(self, module: nn.Module) -> nn.Module:
        """Move to the device, in the memory format that computes fastest there
        (benchmarks/step.py).
        """
        module = module.to(self.device)
        if not self.channels_last:
            return module.to(memory_format=torch.contiguous_format)
        if self.device.type == "cpu" and torch.get_num_threads() == 1:
            use_onednn(module)
        return module.to(memory_format=torch.channels_last)

    @property
    def channels_last(self) -> bool:
        """Return whether channels last pays: with reduced precision, and in fp32 on a CPU with
        AVX-512 (by 4 %; with AVX2 it costs 10 %).
        """
        wide = self.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX512"
        return self.name != "fp32" or wide


def use_onednn(module: nn.Module) -> None:
    """Give convolutions of kernel 1 a dilation, which changes nothing but the kernels that PyTorch
    takes.

    In a single thread it computes undilated ones by its matrix product, which on an AMD processor
    with AVX-512 reaches 0.4 of oneDNN's speed (benchmarks/presets.py: steps of ResNet-101 and
    EfficientNet take 0.7 to 0.8 of the time).
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
            layer.dilation = (2, 2)


Shape = tuple[int, int, int, int]
SMALL: Shape = (1, 3, 128, 256)


def make_precision(
    name: str,
    device: torch.device,
    process_group: ProcessGroup = ProcessGroup(),
    model: nn.Module | None = None,
    reporter: Reporter = Reporter(quiet=True),
    step: Shape | None = None,
) -> Precision:
    """Resolve a precision. `auto` is measured by the first process for all, on the model at hand if
    there is one, and reported. `step` is the shape of a training step's images, at which a GPU is
    measured: small images leave it idle in any precision.

    Raises UsageError for fp16 on a CPU, which lacks kernels for it.
    """
    if name == "auto":
        name = MEASURED[
            process_group.first_decides(lambda: _faster(device, model, reporter, step=step))
        ]
    if device.type == "mps":
        reporter.warn(
            "--device mps: no run of ours was on a Mac's GPU; it computes in float32 what elsewhere"
            " is float64"
        )
    if name == "fp16" and device.type == "cpu":
        raise UsageError("--precision fp16 needs a GPU: use bf16 or fp32 on the CPU")
    scaler = torch.amp.GradScaler(device.type) if name == "fp16" and device.type == "cuda" else None
    return Precision(name, device, scaler)


def tune_for_training(precision: Precision, one_size: bool, reporter: Reporter) -> None:
    """Let a GPU find its convolution kernels by trial when images keep one size, and report what
    fp32 means there.
    """
    if precision.device.type != "cuda":
        return
    torch.backends.cudnn.benchmark = one_size
    if precision.name == "fp32":
        how = "TF32 (10 bits of mantissa)" if torch.backends.cudnn.allow_tf32 else "full fp32"
        reporter.decide(f"precision fp32: convolutions in {how}, all else in full fp32")


MEASURED = ("fp32", "bf16")
# bf16 is less exact: it is taken where it is at least so many times as fast
WORTH = 1.1


def _faster(
    device: torch.device, model: nn.Module | None, reporter: Reporter, step: Shape | None
) -> int:
    """The index in MEASURED of what is taken; how much faster it is is said."""
    seconds = measure_precision(device, model, step if device.type != "cpu" and step else SMALL)
    ratio = seconds["fp32"] / seconds["bf16"]
    index = int(ratio > WORTH)
    reporter.decide(
        f"precision {MEASURED[index]}: bf16 measured {ratio:.2f} times as fast as fp32 here"
        " (--precision says otherwise)"
    )
    return index


def measure_precision(
    device: torch.device, model: nn.Module | None = None, shape: Shape = SMALL
) -> dict[str, float]:
    """Measure seconds of forward and backward by precision: of images `[B,3,H,W]` through `model`,
    else of a dilated layer.
    """
    state = torch.random.get_rng_state()
    if model is None:
        module = nn.Sequential(
            nn.Conv2d(64, 64, 3, padding=2, dilation=2), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1)
        )
        images = torch.randn(2, 64, 48, 96)
    else:
        module = copy.deepcopy(model).eval()
        images = torch.full(shape, 128, dtype=torch.uint8)
    torch.random.set_rng_state(state)
    seconds = {}
    for name in MEASURED:
        precision = Precision(name, device)
        module = precision.to_device(module)
        images = images.to(device)
        seconds[name] = min(_step_seconds(precision, module, images) for _ in range(4))
    return seconds


def _step_seconds(precision: Precision, module: nn.Module, images: torch.Tensor) -> float:
    start = time.perf_counter()
    with precision.autocast():
        output = module(images)
    logits = output[0] if isinstance(output, tuple) else output
    logits.float().square().mean().backward()
    if precision.device.type == "cuda":
        torch.cuda.synchronize(precision.device)
    return time.perf_counter() - start
