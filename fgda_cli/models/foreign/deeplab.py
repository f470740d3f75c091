"""DeepLab-V2 networks: FADA's, ADVENT's (IntraDA's), AdaptSegNet's, CLAN's, DISE's, FDA's (BDL's),
CRST's, SAC's and DACS's.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...data.geometry import InputRule
from ...runtime.errors import FgdaError, UsageError
from ..encoders import IMAGENET
from ..weights import flat_state, plain_names
from .network import Foreign, blocks, classes_of

TWO_HEADS = {"layer6.conv2d_list": "head.convs", "layer5.conv2d_list": "aux_head.convs"}
ONE_HEAD = {"layer5.conv2d_list": "head.convs"}  # on layer4
UNTRAINED_BRANCHES = (2, 3)
# prefix of SAC's network; its momentum network lies under slow_net
SAC_PREFIX = "backbone.model."


class Format(NamedTuple):
    """Names of a project's heads, and what its code computes differently with the same weights."""

    heads: dict[str, str]
    variant: str = "caffe"
    # the forward returns inside the loop over a head's branches, after dilations 6 and 12
    two_branches: bool = False
    # BGR less the Caffe mean, divided by this
    divided_by: float = 1.0
    # ImageNet's RGB mean and deviation before a network of the Caffe kind
    rgb: bool = False
    rule: InputRule | None = None


FORMATS = {
    "fada": Format({"conv2d_list": "head.convs"}, "torchvision"),
    "advent": Format(TWO_HEADS),
    "adaptsegnet": Format(TWO_HEADS, two_branches=True),
    "clan": Format(TWO_HEADS),
    "dise": Format(
        {"final2.conv2d_list": "head.convs", "final1.conv2d_list": "aux_head.convs"},
        two_branches=True,
        divided_by=128.0,
    ),
    "fda": Format(ONE_HEAD, rule=InputRule((1344, 576), (2048, 1024), "bicubic")),
    "crst": Format(ONE_HEAD, rgb=True, rule=InputRule((2048, 1024))),
    "sac": Format(ONE_HEAD, rgb=True, rule=InputRule((2048, 1024))),
    "dacs": Format(ONE_HEAD, two_branches=True, rule=InputRule((1024, 512), None, "bilinear")),
}


def recognise(path: Path, content: dict) -> str | None:
    if {"feature_extractor", "classifier"} <= content.keys():
        return "fada"
    state = plain_names(flat_state(content))
    if any(key.startswith("final2.conv2d_list") for key in state):
        return "dise"
    if f"{SAC_PREFIX}layer5.conv2d_list.0.weight" in state:
        return "sac"
    first, second = (state.get(f"layer{n}.conv2d_list.0.weight") for n in (5, 6))
    if second is None:
        if first is None:
            return None
        if {"model", "config"} <= content.keys():
            # only DACS's files hold a `config` beside `model`
            return "dacs"
        raise UsageError(
            "FDA, CRST, DACS and AdaptSegNet's single-level networks have the same keys, but take"
            " images and run heads in other ways: say which\nwith --format fda (BDL too), crst"
            " (CBST's PyTorch code too; RGB), dacs or adaptsegnet (whose dilations 18 and 24 were"
            " never computed)"
        )
    if first is not None and first.shape == second.shape:
        # both heads on layer4
        return "clan"
    raise UsageError(
        "ADVENT and AdaptSegNet files have the same keys, but other heads were run in them: say"
        " which\nwith --format advent, or --format adaptsegnet (whose dilations 18 and 24 were"
        " never computed)"
    )


def read(path: Path, content: dict, kind: str, trust: bool) -> Foreign:
    how = FORMATS[kind]
    flat = flat_of(content, kind)
    # a network of one level: layer5 is the head on layer4
    if how.heads is TWO_HEADS and not any(key.startswith("layer6.") for key in flat):
        how = how._replace(heads=ONE_HEAD)
    state = translate(flat, how)
    eps = eps_of(content, kind)
    keys = {
        "backbone": "resnet101" if blocks(state, "backbone.layer3.") == 23 else "resnet50",
        "variant": how.variant,
        "multi_level": any(key.startswith("aux_head.") for key in state),
        "weights": "none",
        "batch_norm_eps": "null" if eps is None else eps,
    }
    notes = []
    if eps is not None:
        notes.append(
            "its frozen batch norm adds no eps to the variance (the file has no"
            " num_batches_tracked): eps is 0"
        )
    if how.two_branches:
        notes.append(
            "of its heads only dilations 6 and 12 were ever computed: the other two are set to zero"
        )
    if kind == "fada":
        notes.append(
            "its authors test at 1024x512, but self-distilled files at 2048x1024: --scale 2"
        )
    if how.rgb:
        notes.append("it takes RGB by ImageNet's mean and deviation, not the Caffe network's BGR")
    iteration = content.get("iteration")
    classes = classes_of(state, "head.convs.0.bias")
    return Foreign(
        kind,
        state,
        keys,
        classes=classes,
        iteration=iteration if isinstance(iteration, int) else None,
        notes=notes,
        rule=how.rule,
    )


def eps_of(content: dict, kind: str) -> float | None:
    """Return the eps of batch norm: 0 for FADA's frozen one, which divides by sqrt(var) alone and
    leaves no counter in its files; else torch's own.
    """
    if kind != "fada":
        return None
    body = plain_names(content["feature_extractor"])
    return None if any(key.endswith("num_batches_tracked") for key in body) else 0.0


def flat_of(content: dict, kind: str) -> dict[str, Tensor]:
    """Return one state dict of torchvision's names and the file's own heads; discriminators are
    left out.
    """
    if kind == "fada":
        try:
            body = plain_names(content["feature_extractor"])
            head = plain_names(content["classifier"])
        except (KeyError, AttributeError) as error:
            raise FgdaError(
                "not a FADA checkpoint: it needs feature_extractor and classifier"
            ) from error
        return {key.removeprefix("backbone."): value for key, value in body.items()} | head
    flat = plain_names(flat_state(content))
    if kind == "clan":
        return _sum_heads(flat)
    if kind == "sac":
        return {
            key.removeprefix(SAC_PREFIX): value
            for key, value in flat.items()
            if key.startswith(SAC_PREFIX)
        }
    # the stem is a sequence there
    if kind == "dise":
        return {
            key.replace("layer0.0.", "conv1.").replace("layer0.1.", "bn1."): value
            for key, value in flat.items()
        }
    return flat


def translate(flat: dict[str, Tensor], how: Format) -> dict[str, Tensor]:
    """Rename weights to our parameter names."""
    result = {}
    for key, value in flat.items():
        prefix = next((p for p in how.heads if key.startswith(f"{p}.")), None)
        if prefix is not None:
            result[how.heads[prefix] + key.removeprefix(prefix)] = value
        elif not key.startswith("fc."):
            result[f"backbone.{key}"] = value
    if how.two_branches:
        result = {
            key: torch.zeros_like(value) if _is_untrained(key) else value
            for key, value in result.items()
        }
    return result | _input_of(result, how)


def _input_of(state: dict[str, Tensor], how: Format) -> dict[str, Tensor]:
    """Return the input normalisation of a project that does not use the Caffe network's (BGR,
    0-255).
    """
    if how.divided_by != 1:
        return {"normalise.std": torch.full((1, 3, 1, 1), how.divided_by)}
    weight = state.get("backbone.conv1.weight")
    if not how.rgb or weight is None or weight.ndim != 4:
        return {}
    bgr = {
        name: torch.tensor(getattr(IMAGENET, name)).flip(0).view(1, 3, 1, 1) * IMAGENET.scale
        for name in ("mean", "std")
    }
    return {
        "backbone.conv1.weight": weight.flip(1),
        "normalise.mean": bgr["mean"],
        "normalise.std": bgr["std"],
    }


def _sum_heads(flat: dict[str, Tensor]) -> dict[str, Tensor]:
    """CLAN's network is judged by the sum of two linear heads: one head with summed weights and
    biases.
    """
    summed = {}
    for key, value in flat.items():
        if key.startswith("layer5."):
            continue
        twin = flat.get(key.replace("layer6.", "layer5.", 1)) if key.startswith("layer6.") else None
        if key.startswith("layer6.") and (twin is None or twin.shape != value.shape):
            raise FgdaError(f"not a CLAN file: {key} has no twin in layer5 to be summed with")
        summed[key] = value if twin is None else value + twin
    return summed


def _is_untrained(key: str) -> bool:
    return any(
        key.startswith(f"{head}.convs.{branch}.")
        for head in ("head", "aux_head")
        for branch in UNTRAINED_BRANCHES
    )
