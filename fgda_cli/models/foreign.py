"""Published checkpoints of other projects, rewritten as ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ..config.presets import load_preset
from ..data.classes import CITYSCAPES, NOT_IN_SYNTHIA16, ClassSet
from ..runtime.errors import FgdaError
from .checkpoint import build_model
from .weights import plain_names, read_tensors

# Where each format keeps the two heads: ADVENT and AdaptSegNet number them as layers of one flat network.
HEADS = {"layer6.conv2d_list": "head.convs", "layer5.conv2d_list": "aux_head.convs", "conv2d_list": "head.convs"}


def detect(content: dict) -> str:
    """The format of a loaded file. Raises FgdaError when it is none that is known."""
    if {"feature_extractor", "classifier"} <= content.keys():
        return "fada"
    keys = plain_names(_state(content)).keys()
    if any(key.startswith("layer6.conv2d_list") for key in keys):
        return "advent"
    raise FgdaError("neither a FADA file (feature_extractor, classifier) nor a DeeplabMulti state dict (layer5, layer6)")


def _state(content: dict) -> dict:
    """The flat state dict; some files wrap it once."""
    for key in ("state_dict", "model"):
        if isinstance(content.get(key), dict):
            return content[key]
    return content


def translate(content: dict, kind: str) -> dict[str, Tensor]:
    """Our parameter names for a file of format `fada`, `advent` or `adaptsegnet`; discriminators are left out."""
    if kind == "fada":
        try:
            body, head = plain_names(content["feature_extractor"]), plain_names(content["classifier"])
        except (KeyError, AttributeError) as error:
            raise FgdaError("no FADA checkpoint: it needs feature_extractor and classifier") from error
        flat = {key.removeprefix("backbone."): value for key, value in body.items()} | head
    else:
        flat = plain_names(_state(content))
    result = {}
    for key, value in flat.items():
        prefix = next((p for p in HEADS if key.startswith(f"{p}.")), None)
        if prefix is not None:
            result[HEADS[prefix] + key.removeprefix(prefix)] = value
        elif not key.startswith("fc."):
            result[f"backbone.{key}"] = value
    return result


def convert(path: Path, kind: str) -> dict[str, Any]:
    """A checkpoint's content from a foreign file. Raises FgdaError when names or shapes do not fit."""
    content = read_tensors(path)
    try:
        kind = detect(content) if kind == "auto" else kind
        state = translate(content, kind)
        classes = _classes(state)
    except FgdaError as error:
        raise FgdaError(f"{path}: {error}") from None
    variant = "torchvision" if kind == "fada" else "caffe"
    levels = "true" if any(key.startswith("aux_head.") for key in state) else "false"
    backbone = _backbone(state)
    preset = load_preset("gta2city", [f"model.{key}" for key in (f"variant={variant}", f"multi_level={levels}",
                                                                 f"backbone={backbone}", "weights=none")])  # fmt: skip
    model = build_model(preset.model, len(classes))
    wanted = {key for key in model.state_dict() if not key.startswith("normalise.")}
    absent, unexpected = (
        sorted(key for key in keys if not key.endswith("num_batches_tracked"))
        for keys in (wanted - state.keys(), state.keys() - wanted)
    )
    if absent or unexpected:
        raise FgdaError(f"{path}: not a {kind} {backbone}: missing {absent[:2] or 'none'}, unexpected {unexpected[:2] or 'none'}")
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise FgdaError(f"{path}: {' '.join(str(error).split())[:160]}") from error
    iteration = content.get("iteration")
    return {"stage": "import", "method": kind, "iteration": iteration if isinstance(iteration, int) else None,
            "classes": classes.to_json(), "preset": preset.to_json(), "model": model.state_dict()}  # fmt: skip


def _classes(state: dict[str, Tensor]) -> ClassSet:
    """By the head's outputs: Cityscapes' 19, or the 16 shared with SYNTHIA."""
    bias = state.get("head.convs.0.bias")
    count = 0 if bias is None else len(bias)
    if count == len(CITYSCAPES):
        return CITYSCAPES
    kept = [k for k in range(len(CITYSCAPES)) if k not in NOT_IN_SYNTHIA16]
    if count == len(kept):
        return ClassSet(tuple(CITYSCAPES.names[k] for k in kept), tuple(CITYSCAPES.palette[k] for k in kept))
    raise FgdaError(f"a head of {count} classes: 19 or 16 are known")


def _backbone(state: dict[str, Tensor]) -> str:
    blocks = {int(key.split(".")[2]) for key in state if key.startswith("backbone.layer3.")}
    return "resnet101" if len(blocks) == 23 else "resnet50"
