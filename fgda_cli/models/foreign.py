"""Published checkpoints of other projects: which kind a file is, and its weights under our names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data.classes import CITYSCAPES, NOT_IN_SYNTHIA16, ClassSet, named_classes
from ..runtime.errors import FgdaError, UsageError
from .weights import check_finite, plain_names, read_tensors

# Where each format keeps its heads: the flat networks number them as layers.
HEADS = {"layer6.conv2d_list": "head.convs", "layer5.conv2d_list": "aux_head.convs", "conv2d_list": "head.convs"}
SINGLE_HEADS = {"layer5.conv2d_list": "head.convs"}  # FDA's and DACS's networks have one head, on layer4
SINGLE_LEVEL = ("fda", "dacs")
# AdaptSegNet's and DACS's forwards return inside the loop over a head's branches, after dilations 6 and 12.
TWO_BRANCHES, UNTRAINED_BRANCHES = ("adaptsegnet", "dacs"), (2, 3)


class Foreign(NamedTuple):
    """A published network in our terms."""

    kind: str
    state: dict[str, Tensor]
    model_keys: dict[str, Any]  # of the preset's `model` section
    classes: ClassSet
    iteration: int | None
    notes: list[str]  # what was decided that a person should know


def read_foreign(path: Path, kind: str, trust: bool = False) -> Foreign:
    """Raises FgdaError when names do not fit, UsageError when the format must be told."""
    content = read_tensors(path, trust)
    try:
        kind = detect(content) if kind == "auto" else kind
        state = translate(content, kind)
        classes = classes_of(state)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except FgdaError as error:
        raise FgdaError(f"{path}: {error}") from None
    check_finite(state, str(path))
    eps = eps_of(content, kind)
    keys = {
        "backbone": "resnet101" if _blocks(state) == 23 else "resnet50",
        "variant": "torchvision" if kind == "fada" else "caffe",
        "multi_level": any(key.startswith("aux_head.") for key in state),
        "weights": "none",
        "batch_norm_eps": "null" if eps is None else eps,
    }
    notes = []
    if eps is not None:
        notes.append("its frozen batch norm adds no eps to the variance (the file has no num_batches_tracked): eps is 0")
    if kind in TWO_BRANCHES:
        notes.append("of its heads only dilations 6 and 12 were ever computed: the other two are set to zero")
    iteration = content.get("iteration")
    return Foreign(kind, state, keys, classes, iteration if isinstance(iteration, int) else None, notes)


def detect(content: dict) -> str:
    """The format of a loaded file. Raises FgdaError when it is none that is known, UsageError when it may be two."""
    if {"feature_extractor", "classifier"} <= content.keys():
        return "fada"
    state = plain_names(_state(content))
    if not any(key.startswith(("layer5.conv2d_list", "layer6.conv2d_list")) for key in state):
        raise FgdaError("neither a FADA file (feature_extractor, classifier) nor a DeepLab state dict (layer5, layer6)")
    if not any(key.startswith("layer6.conv2d_list") for key in state):
        if {"model", "config"} <= content.keys():
            return "dacs"  # which keeps its settings beside the network
        raise UsageError(
            "FDA and DACS networks have the same keys, but other heads were run in them: say which\n"
            "with --format fda, or --format dacs (whose dilations 18 and 24 were never computed)"
        )
    first, second = (state.get(f"layer{n}.conv2d_list.0.weight") for n in (5, 6))
    if first is not None and second is not None and first.shape == second.shape:
        return "clan"  # both heads on layer4
    raise UsageError(
        "ADVENT and AdaptSegNet files have the same keys, but other heads were run in them: say which\n"
        "with --format advent, or --format adaptsegnet (whose dilations 18 and 24 were never computed)"
    )


def eps_of(content: dict, kind: str) -> float | None:
    """0 for FADA's frozen batch norm, which divides by sqrt(var) alone and leaves no counter in its files; else torch's own."""
    if kind != "fada":
        return None
    body = plain_names(content["feature_extractor"])
    return None if any(key.endswith("num_batches_tracked") for key in body) else 0.0


def _state(content: dict) -> dict:
    """The flat state dict; some files wrap it once."""
    for key in ("state_dict", "model"):
        if isinstance(content.get(key), dict):
            return content[key]
    return content


def translate(content: dict, kind: str) -> dict[str, Tensor]:
    """Our parameter names for a file of a format of `--format`; discriminators are left out."""
    if kind == "fada":
        try:
            body, head = plain_names(content["feature_extractor"]), plain_names(content["classifier"])
        except (KeyError, AttributeError) as error:
            raise FgdaError("no FADA checkpoint: it needs feature_extractor and classifier") from error
        flat = {key.removeprefix("backbone."): value for key, value in body.items()} | head
    else:
        flat = plain_names(_state(content))
    if kind == "clan":
        flat = _sum_heads(flat)
    result, heads = {}, SINGLE_HEADS if kind in SINGLE_LEVEL else HEADS
    for key, value in flat.items():
        prefix = next((p for p in heads if key.startswith(f"{p}.")), None)
        if prefix is not None:
            result[heads[prefix] + key.removeprefix(prefix)] = value
        elif not key.startswith("fc."):
            result[f"backbone.{key}"] = value
    if kind in TWO_BRANCHES:
        result = {key: torch.zeros_like(value) if _is_untrained(key) else value for key, value in result.items()}
    return result


def _sum_heads(flat: dict[str, Tensor]) -> dict[str, Tensor]:
    """CLAN's network is judged by the sum of two linear heads: one head with summed weights and biases."""
    summed = {}
    for key, value in flat.items():
        if key.startswith("layer5."):
            continue
        twin = flat.get(key.replace("layer6.", "layer5.", 1)) if key.startswith("layer6.") else None
        if key.startswith("layer6.") and (twin is None or twin.shape != value.shape):
            raise FgdaError(f"no CLAN file: {key} has no twin in layer5 to be summed with")
        summed[key] = value if twin is None else value + twin
    return summed


def _is_untrained(key: str) -> bool:
    return any(key.startswith(f"{head}.convs.{branch}.") for head in ("head", "aux_head") for branch in UNTRAINED_BRANCHES)


def classes_of(state: dict[str, Tensor]) -> ClassSet:
    """By the head's outputs: Cityscapes' 19, or the 16 shared with SYNTHIA."""
    bias = state.get("head.convs.0.bias")
    count = 0 if bias is None else len(bias)
    kept = [name for name in CITYSCAPES.names if name not in NOT_IN_SYNTHIA16]
    if count not in (len(CITYSCAPES), len(kept)):
        raise FgdaError(f"a head of {count} classes: 19 or 16 are known")
    return CITYSCAPES if count == len(CITYSCAPES) else named_classes(kept)


def _blocks(state: dict[str, Tensor]) -> int:
    return len({key.split(".")[2] for key in state if key.startswith("backbone.layer3.")})
