"""Networks of the mmsegmentation forks of DAFormer and MIC: a MiT encoder with DAFormer's or SegFormer's head."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from ...data.geometry import InputRule
from ...runtime.errors import FgdaError
from ..encoders import mit
from ..weights import plain_names
from .network import Foreign, blocks, classes_of, flat_state

FORMATS = ("daformer",)
CONV, NORM = r"\.conv\.", r"\.bn\."
HEADS = {
    "daformer": (
        (r"embed_layers\.(\d)\.proj\.", r"neck.embed.projections.\1."),
        (rf"fuse_layer\.aspp_modules\.0{CONV}", "neck.branches.0.0."),
        (rf"fuse_layer\.aspp_modules\.0{NORM}", "neck.branches.0.1."),
        (rf"fuse_layer\.aspp_modules\.(\d)\.depthwise_conv{CONV}", r"neck.branches.\1.0.0."),
        (rf"fuse_layer\.aspp_modules\.(\d)\.depthwise_conv{NORM}", r"neck.branches.\1.0.1."),
        (rf"fuse_layer\.aspp_modules\.(\d)\.pointwise_conv{CONV}", r"neck.branches.\1.1.0."),
        (rf"fuse_layer\.aspp_modules\.(\d)\.pointwise_conv{NORM}", r"neck.branches.\1.1.1."),
        (rf"fuse_layer\.bottleneck{CONV}", "neck.mix.0."),
        (rf"fuse_layer\.bottleneck{NORM}", "neck.mix.1."),
        (r"conv_seg\.", "head.convs.0."),
    ),
    "segformer": (
        (r"linear_c\.(\d)\.proj\.", r"neck.embed.projections.\1."),
        (rf"linear_fuse{CONV}", "neck.mix.0."),
        (rf"linear_fuse{NORM}", "neck.mix.1."),
        (r"linear_pred\.", "head.convs.0."),
        (r"conv_seg\.", ""),  # of the base class, never run
    ),
}
SIZES = {depths[2]: size for size, depths in mit.DEPTHS.items() if size not in ("b0", "b1")}  # by the blocks of stage 3


def recognise(path: Path, content: dict) -> str | None:
    return "daformer" if any(".decode_head." in f".{key}" for key in flat_state(content)) else None


def read(path: Path, content: dict, kind: str, trust: bool) -> Foreign:
    state = student(plain_names(flat_state(content)))
    if any(key.startswith("decode_head.scale_attention") for key in state):
        raise FgdaError("an HRDA network, which reads images at two resolutions: these are not read yet")
    head = "segformer" if any(key.startswith("decode_head.linear_c.") for key in state) else "daformer"
    if "backbone.block3.0.attn.q.weight" not in state or not any(key.startswith("decode_head.") for key in state):
        raise FgdaError("no MiT encoder with a decode_head: of these files DAFormer's and MIC's with MiT-B0 to B5 are read")
    found = mit.adapt_weights(
        {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}, "mit", "native"
    )
    found = {f"backbone.{key}": value for key, value in found.items()}
    found |= head_of({key.removeprefix("decode_head."): v for key, v in state.items() if key.startswith("decode_head.")}, head)
    last = found.get("head.convs.0.weight")
    if last is None:
        raise FgdaError(f"no {head} head: it has no last convolution")
    keys = {
        "backbone": f"mit:{size_of(state)}", "weights": "none", "output_stride": "native", "multi_level": False, "head": head,
        "head_width": last.shape[1], "dilations": [6, 12, 18], "align_corners": False,
    }  # fmt: skip
    iteration = (content.get("meta") or {}).get("iter") if isinstance(content.get("meta"), dict) else None
    return Foreign(
        kind, found, keys, classes_of(found, "head.convs.0.bias"), iteration if isinstance(iteration, int) else None, [],
        InputRule((1024, 512), None, "linear"),
    )  # fmt: skip


def student(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network that its authors test; teacher and ImageNet twin lie beside it in files of a whole run."""
    own = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
    return own or state


def size_of(state: dict[str, Tensor]) -> str:
    depth = blocks(state, "backbone.block3.")
    small = state["backbone.patch_embed1.proj.weight"].shape[0] == 32
    size = ("b0" if small else "b1") if depth == 2 else SIZES.get(depth)
    if size is None:
        raise FgdaError(f"an encoder with {depth} blocks in stage 3: MiT-B0 to B5 are known")
    return size


def head_of(state: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    found = {}
    for key, value in state.items():
        for theirs, ours in HEADS[kind]:
            name, count = re.subn(f"^{theirs}", ours, key)
            if count and not ours:
                break
            if count:
                is_linear = ".projections." in name and value.ndim == 2
                found[name] = value[:, :, None, None] if is_linear else value
                break
        else:
            found[f"decode_head.{key}"] = value  # said to be unexpected
    return found
