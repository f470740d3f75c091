"""PyCDA's network: a dilated ResNet with a deep stem and a pyramid pooling head, encoder and
decoder in two files.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ...data.geometry import InputRule
from ...runtime.errors import FgdaError
from ..weights import flat_state, plain_names, read_tensors
from .network import Foreign, blocks, classes_of, renamed

FORMATS = ("pycda",)
STEM = {
    "conv1": "conv1.0",
    "bn1": "conv1.1",
    "conv2": "conv1.3",
    "bn2": "conv1.4",
    "conv3": "conv1.6",
    "bn3": "bn1",
}
HEAD = (  # theirs, ours
    (r"ppm\.(\d)\.1\.", r"neck.levels.\1.0."),
    (r"ppm\.(\d)\.2\.", r"neck.levels.\1.1."),
    (r"conv_last\.([01])\.", r"neck.mix.\1."),
    (r"conv_last\.4\.", "head.convs.0."),
    (r"cbr_deepsup\.([01])\.", r"aux_head.mix.\1."),
    (r"conv_last_deepsup\.", "aux_head.last.convs.0."),
)
# What their synchronised batch norm keeps beside running_mean and running_var.
LEFT_OUT = ("_tmp_running_mean", "_tmp_running_var", "_running_iter")
# timm's deep-stem ResNets by the blocks of layer3
NAMES = {6: "resnet50s", 23: "resnet101s", 36: "resnet152s"}


def recognise(path: Path, content: dict) -> str | None:
    state = plain_names(flat_state(content))
    is_encoder = "conv3.weight" in state and "layer4.0.conv1.weight" in state
    return "pycda" if is_encoder or any(key.startswith("ppm.") for key in state) else None


def read(path: Path, content: dict, kind: str, trust: bool) -> Foreign:
    own = _tensors(content)
    twin = twin_of(path)
    if twin is None or not twin.is_file():
        raise FgdaError(
            "PyCDA keeps its encoder and decoder in two files: name one of them 'encoder…' and the"
            " other, beside it, 'decoder…'"
        )
    other = _tensors(read_tensors(twin, trust))
    encoder, decoder = (own, other) if path.name.startswith("encoder") else (other, own)
    depth = blocks(encoder, "layer3.")
    if depth not in NAMES or "layer1.0.conv3.weight" not in encoder:
        raise FgdaError(
            f"an encoder with {depth} blocks in layer3: 6 (ResNet-50), 23 (101) or 36 (152) are"
            " known"
        )
    state = {
        _encoder_name(key): value for key, value in encoder.items() if not key.startswith("fc.")
    }
    state |= {renamed(key, HEAD) or key: value for key, value in decoder.items()}
    keys = {
        "backbone": f"timm:{NAMES[depth]}",
        "variant": "torchvision",
        "weights": "none",
        "output_stride": 8,
        "multi_level": any(key.startswith("aux_head.") for key in state),
        "head": "pyramid",
        "head_width": 512,
        "align_corners": False,
    }
    classes = classes_of(state, "head.convs.0.bias")
    notes = [f"read with its other half, {twin.name}"]
    return Foreign(
        kind,
        state,
        keys,
        classes=classes,
        iteration=None,
        notes=notes,
        rule=InputRule((1024, 512), None, "bilinear"),
    )


def twin_of(path: Path) -> Path | None:
    """Return the file beside it that holds the other half."""
    for one, other in (("encoder", "decoder"), ("decoder", "encoder")):
        if path.name.startswith(one):
            return path.with_name(other + path.name.removeprefix(one))
    return None


def _tensors(content: dict) -> dict[str, Tensor]:
    return {
        key: value
        for key, value in plain_names(flat_state(content)).items()
        if not key.endswith(LEFT_OUT)
    }


def _encoder_name(key: str) -> str:
    head, _, rest = key.partition(".")
    return f"backbone.net.{STEM.get(head, head)}.{rest}"
