"""fgda doctor"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from .._version import __version__
from ..runtime.errors import FgdaError, UsageError
from . import _options as cli


def doctor(
    context: typer.Context,
    preset: Annotated[
        Optional[str],
        typer.Option(
            "--preset",
            "-p",
            metavar="NAME|FILE",
            help="Compute the peak memory of a preset's training instead, and which GPUs hold it.",
            rich_help_panel="Preset",
        ),
    ] = None,
    sets: cli.SetValues = None,
    data_root: cli.DataRoot = None,
    json: cli.Json = None,
) -> None:
    """Report versions, devices, the fastest precision, and the weights and data sets found."""
    if preset is not None:
        _report_memory(preset, sets or [], json)
        return
    if sets:
        raise UsageError("--set goes with --preset")
    import platform

    import cv2
    import torch
    import torchvision

    from ..data import store
    from ..runtime.devices import measure_precision, pick_device

    device = pick_device("auto")
    root = store.data_root(data_root)
    seconds = measure_precision(device)
    report = {
        "fgda": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "opencv": cv2.__version__,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "fastest_precision": min(seconds, key=seconds.get),
        "weights": _weights(),
        **_gpu(device),
        "data_root": str(root),
        "datasets": sorted(path.parent.name for path in root.glob("*/manifest.json")),
    }
    if json is not None:
        cli.emit_json(report, json)
        return
    for key, value in report.items():
        print(f"{key:18} {', '.join(value) or 'none' if isinstance(value, list) else value}")


def _report_memory(name: str, sets: list[str], json: str | None) -> None:
    """Print what a preset's stages take, and the usual GPUs that hold them."""
    from ..presets import load_preset
    from ..training.memory import OVERHEAD, gpu_memory, memory_of_stages

    preset = load_preset(name, sets)
    found = memory_of_stages(preset)
    most = max(memory.peak for memory in found.values()) + OVERHEAD
    here = gpu_memory()
    if json is not None:
        report = {"preset": preset.name, "gpu_bytes": here, "overhead": OVERHEAD}
        stages = {stage: memory.to_json() for stage, memory in found.items()}
        cli.emit_json(report | {"stages": stages}, json)
        return
    from ..visual.tables import memory_table

    table = {_heading(preset, stage): memory.to_json() for stage, memory in found.items()}
    cli.Reporter().console(stderr=False).print(memory_table(preset.name, table))
    fitting = [size for size in GPUS if most <= size * 2**30]
    fits = f"a GPU of {fitting[0]} GB or more" if fitting else f"no GPU of {GPUS[-1]} GB"
    print(f"with about 1 GB for the driver and its kernels: {fits}")
    if here is not None:
        verb = "holds" if most <= here else "does not hold"
        print(f"the GPU here has {here / 2**30:.0f} GB and {verb} it")


def _heading(preset, stage: str) -> str:
    settings = getattr(preset, stage)
    parts = f" in {settings.accumulate} parts" if settings.accumulate > 1 else ""
    return f"{stage}, batch {settings.batch_size}{parts}"


# memory of common GPUs, GB
GPUS = (8, 12, 16, 24, 32, 40, 48, 80, 141)


def _gpu(device) -> dict[str, str]:
    """Its name and memory, and what fp32 means for its convolutions; nothing for a processor."""
    import torch

    if device.type != "cuda":
        return {}
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB",
        "cuda": torch.version.cuda,
        "fp32_convolutions": "tf32" if torch.backends.cudnn.allow_tf32 else "fp32",
    }


def _weights() -> list[str]:
    """The weight files that are there; why there is no folder for them."""
    from ..models.weights import weight_folder

    try:
        return _files(weight_folder())
    except FgdaError as error:
        return [f"none: {error}"]


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.pth"))
