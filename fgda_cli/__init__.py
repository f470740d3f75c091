"""fgda: fine-grained domain adaptation for semantic segmentation.

`load_model(path) -> (model, info)`, `predict(model, image) -> dict`, `pretrain`, `adapt`,
`evaluate`, and the modules `losses` and `metrics` are the Python API's front door; importing the
package alone loads no torch.
"""

from __future__ import annotations

from typing import Any

from ._version import __version__

__all__ = [
    "__version__",
    "adapt",
    "evaluate",
    "load_model",
    "losses",
    "metrics",
    "predict",
    "pretrain",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in ("adapt", "evaluate", "pretrain"):
        return getattr(import_module(f"{__name__}.api"), name)
    if name in ("losses", "metrics"):
        return import_module(f"{__name__}.{name}")
    if name == "load_model":
        from functools import partial

        from .models.checkpoint import load_model

        return partial(load_model, exported=True)
    if name == "predict":
        from .inference.predict import predict

        return predict
    raise AttributeError(f"module 'fgda_cli' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
