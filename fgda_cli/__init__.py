"""fgda: fine-grained domain adaptation for semantic segmentation.

`load_model(path) -> (model, info)`, `predict(model, image) -> dict`, `pretrain`, `adapt` and `evaluate` are the Python API's
front door; importing the package alone loads no torch.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.2.0.dev0"
__all__ = ["__version__", "adapt", "evaluate", "load_model", "predict", "pretrain"]


def __getattr__(name: str) -> Any:
    if name in ("adapt", "evaluate", "pretrain"):
        from . import api

        return getattr(api, name)
    if name == "load_model":
        from functools import partial

        from .models.checkpoint import load_model

        return partial(load_model, exported=True)
    if name == "predict":
        from .inference.predict import predict

        return predict
    raise AttributeError(f"module 'fgda_cli' has no attribute '{name}'")
