"""VFM-UDA's network, DINOv2 and two transposed convolutions ([VFMUDA]), and VFM-UDA++'s, DINOv2
with a ViT-Adapter ([VFMUDA++]); student and teacher lie in one file.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ...data.geometry import InputRule
from ...runtime.errors import FgdaError
from ..encoders.dinov2 import SIZES
from ..weights import flat_state, plain_names
from .network import Foreign, classes_of, renamed

# the authors validate and publish the student
FORMATS = {"vfmuda": "network.", "vfmuda-teacher": "network_ema."}
# read in the transformer's own pretraining, or in masked training passes alone
MASK_TOKENS = ("backbone.mask_token", "token_masking.mask_token")
PARTS = ((r"encoder\.", "backbone."), (r"upscale\.", "neck."), (r"out\.", "head.convs.0."))


def recognise(path: Path, content: dict) -> str | None:
    state = flat_state(content)
    is_known = "network.encoder.pos_embed" in state and any(
        key.startswith("network.upscale.") for key in state
    )
    return "vfmuda" if is_known else None


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
    has_adapter = "backbone.interactions.0.injector.gamma" in state
    for token in MASK_TOKENS:
        state.pop(token, None)
    keys = {
        "backbone": f"{'adapter' if has_adapter else 'dinov2'}:{size_of(state)}",
        "weights": "none",
        "output_stride": "native",
        "multi_level": False,
        "head": "upscale" if has_adapter else "transposed",
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
