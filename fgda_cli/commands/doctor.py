"""fgda doctor"""

from __future__ import annotations

from pathlib import Path

import typer

from .._version import __version__
from ..runtime.errors import FgdaError
from . import _options as cli


def doctor(context: typer.Context, data_root: cli.DataRoot = None, json: cli.Json = None) -> None:
    """Report versions, devices, the fastest precision, and the weights and data sets found."""
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
