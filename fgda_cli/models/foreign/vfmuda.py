"""VFM-UDA++'s network: DINOv2 with a ViT-Adapter and its head; student and teacher in one file
([VFMUDA++]).
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ...data.geometry import InputRule
from ...runtime.errors import FgdaError
from ..encoders.adapter import SIZES
from ..weights import flat_state, plain_names
from .network import Foreign, classes_of, renamed

# the authors validate and publish the student
FORMATS = {"vfmuda": "network.", "vfmuda-teacher": "network_ema."}
PARTS = ((r"encoder\.", "backbone."), (r"upscale\.", "neck."), (r"out\.", "head.convs.0."))


def recognise(path: Path, content: dict) -> str | None:
    return (
        "vfmuda" if "network.encoder.interactions.0.injector.gamma" in flat_state(content) else None
    )


def read(path: Path, content: dict, kind: str, trust: bool) -> Foreign:
    prefix = FORMATS[kind]
    tensors = plain_names(flat_state(content))
    own = {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }
    if not own:
        raise FgdaError(
            f"no tensors under '{prefix}': this file holds no"
            f" {'teacher' if kind != 'vfmuda' else 'student'}"
        )
    state = {renamed(key, PARTS) or key: value for key, value in own.items()}
    if "head.convs.0.weight" not in state:
        raise FgdaError(
            "no head 'out': a file of the adapter's ImageNet training is a start (model.weights),"
            " not a network"
        )
    keys = {
        "backbone": f"adapter:{size_of(state)}",
        "weights": "none",
        "output_stride": "native",
        "multi_level": False,
        "head": "upscale",
        "head_width": state["head.convs.0.weight"].shape[1],
        "align_corners": False,
    }
    notes = [
        "its authors slide windows: evaluate and predict with --sliding 1024x1024 --overlap 0.5"
        " --blend mean"
    ]
    classes = classes_of(state, "head.convs.0.weight")
    return Foreign(
        kind,
        state,
        keys,
        classes=classes,
        iteration=None,
        notes=notes,
        rule=InputRule((2048, 1024), None, "bilinear"),
    )


def size_of(state: dict[str, Tensor]) -> str:
    channels = state["backbone.pos_embed"].shape[-1]
    names = [name for name, (width, _) in SIZES.items() if width == channels]
    if not names:
        raise FgdaError(f"a ViT of {channels} channels: 384, 768 and 1024 are known")
    return names[0]
