"""fgda: fine-grained domain adaptation for semantic segmentation.

`load_model(path) -> (model, info)` and `predict(model, image) -> dict` are the Python API's front door; importing the
package alone loads no torch.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.2.0.dev0"
__all__ = ["__version__", "load_model", "predict"]


def __getattr__(name: str) -> Any:
    if name == "load_model":
        from functools import partial

        from .models.checkpoint import load_model

        return partial(load_model, exported=True)
    if name == "predict":
        from .inference.predict import predict

        return predict
    raise AttributeError(f"module 'fgda_cli' has no attribute '{name}'")
