"""Checkpoints: one dictionary of tensors and plain values, written whole, read without running
code.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..data.classes import ClassSet
from ..data.geometry import InputRule
from ..runtime.errors import FgdaError, UsageError
from ..settings import FUNCTION_KEYS, Model
from . import metadata, zoo
from .exported import open_exported
from .resolutions import TwoResolutions
from .segmenter import Segmenter
from .tuning import frozen_ids, load_trained, plain_state, tune
from .weights import check_finite, load_backbone, read_tensors, save_tensors

# keys of `model` that a Segmenter does not take
NOT_OF_THE_NETWORK = ("weights", "checkpoint_activations", "detail", "tune", "lora")
# 1 had no input rule; its weights are still read
FORMAT = "fgda-checkpoint"
VERSION = 2


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all; its tensors come to the processor's memory. Raises
    FgdaError.
    """
    save_tensors(path, {"format": FORMAT, "version": VERSION, **_on_host(content)})


def _on_host(content: Any) -> Any:
    """Return the content with its tensors in the processor's memory, since files are read on
    machines without the device.
    """
    if isinstance(content, Tensor):
        return content.cpu()
    if isinstance(content, dict):
        return {key: _on_host(value) for key, value in content.items()}
    return [_on_host(value) for value in content] if isinstance(content, list) else content


def load(path: Path, exported: bool = False, whole: bool = True) -> dict[str, Any]:
    """Load a checkpoint by its path, or by the name of a published one that was fetched (`fgda
    zoo`). A file of adapters alone is completed by the weights that they were trained beside,
    unless `whole` is False.

    Raises FgdaError for a file that is not an fgda checkpoint. With `exported`, a model that `fgda
    export` wrote is one too.
    """
    path = zoo.find(Path(path))
    if path.suffix == ".onnx":
        if not exported:
            raise FgdaError(
                f"{path} is an exported model, which predicts and evaluates alone: name its"
                " checkpoint"
            )
        return open_exported(path)
    if path.suffix == ".xml" or is_torchscript(path):
        what = "OpenVINO" if path.suffix == ".xml" else "TorchScript"
        raise FgdaError(
            f"{path} is an exported model ({what}), which {what} runs; fgda reads its checkpoint,"
            " or an ONNX export"
        )
    if path.is_dir():
        raise FgdaError(
            f"{path} is a folder: name a checkpoint in it, e.g. {path}/checkpoints/final.pth"
        )
    content = read_tensors(path)
    if content.get("format") != FORMAT:
        raise FgdaError(f"{path} is not an fgda checkpoint (a published one: fgda import)")
    if content.get("version") != VERSION:
        raise FgdaError(
            f"{path} has checkpoint version {content.get('version')}, this fgda reads {VERSION}"
        )
    try:
        metadata.check(content)
    except ValueError as error:
        raise FgdaError(f"{path}: the checkpoint's metadata are damaged ({error})") from None
    return completed(content, path) if whole and "model" not in content else content


def completed(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return a checkpoint with its whole model, of which the file holds the adapters alone.

    Raises FgdaError where the encoder's own weights cannot be had, or are not those.
    """
    try:
        settings = Model.model_validate(content["preset"]["model"])
        model = build_model(settings, len(ClassSet.from_json(content["classes"])))
        init = content.get("init")
        if init is not None:
            model.load_state_dict(load(Path(init))["model"])
        elif settings.weights == "none":
            raise FgdaError("they were trained beside random weights, which are in final.pth alone")
        else:
            load_own_weights(model.backbone, settings)
        tune(model, settings)
        if frozen_hash(model) != content["frozen"]:
            raise FgdaError(
                "the encoder's own weights are not those beside which they were trained"
            )
        load_trained(model, content["adapters"], frozen_ids(model))
    except (KeyError, TypeError, ValueError, RuntimeError, FgdaError) as error:
        raise FgdaError(f"{path} holds adapters alone: {_one_line(error)}") from error
    return content | {"model": plain_state(model, model.state_dict())}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript trace, such as `fgda export` writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(
                name.endswith(("/constants.pkl", "/extra/fgda.json")) for name in archive.namelist()
            )
    # errors that damaged archives raise
    except (OSError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile):
        return False


def load_own_weights(encoder: nn.Module, settings: Model) -> None:
    """Put the weights that `model.weights` names into an encoder. Raises FgdaError on a misfit."""
    load_backbone(
        encoder,
        settings.backbone,
        settings.variant,
        weights=settings.weights,
        output_stride=settings.output_stride,
    )


def build_model(settings: Model, num_classes: int) -> Segmenter:
    """Return a network with random weights. Raises UsageError for an unknown backbone."""
    network = {
        key: getattr(settings, key) for key in Model.model_fields if key not in NOT_OF_THE_NETWORK
    }
    try:
        if settings.detail is None:
            return Segmenter(num_classes, **network)
        return TwoResolutions(num_classes, settings.detail, **network)
    except KeyError as error:
        raise UsageError(
            f"model.backbone: no encoder {error} (our resnets, or timm:NAME: fgda backbones lists"
            " them)"
        ) from None
    except ValueError as error:
        raise UsageError(f"model.backbone: {error}") from None


class _Unfilled(TorchFunctionMode):
    """Inside, layers are made with whatever their memory holds in place of random weights, which
    take longer than loading those that replace them.

    Whole functions of nn.init alone: an encoder may draw a tensor's values by itself until they
    please it.
    """

    FILLS = frozenset(
        {
            nn.init.uniform_,
            nn.init.normal_,
            nn.init.trunc_normal_,
            nn.init.kaiming_uniform_,
            nn.init.kaiming_normal_,
            nn.init.xavier_uniform_,
            nn.init.xavier_normal_,
        }
    )

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in self.FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def build_to_load(settings: Model, num_classes: int) -> Segmenter:
    """Return a network all of whose weights are loaded next; nothing is drawn at random."""
    with _Unfilled():
        return build_model(settings, num_classes)


def input_rule(content: dict[str, Any]) -> InputRule:
    """Return the checkpoint's input rule. Raises ValueError or KeyError for one that is damaged."""
    return InputRule.from_json(content["input"])


def restore_model(content: dict[str, Any], path: Path) -> Segmenter:
    """Return the segmentation model of a checkpoint, in eval mode. Raises FgdaError on a misfit."""
    try:
        settings = Model.model_validate(content["preset"]["model"])
        classes = ClassSet.from_json(content["classes"])
        # Names and shapes are compared before a network that a damaged file describes takes memory.
        with torch.device("meta"):
            _check_shapes(content["model"], build_model(settings, len(classes)).state_dict())
        model = build_to_load(settings, len(classes))
        if any(tensor.is_complex() for tensor in content["model"].values()):
            raise ValueError("complex weights")
        check_finite(content["model"], str(path))
        model.load_state_dict(content["model"])
        model.input_rule = input_rule(content)
    except FgdaError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise FgdaError(
            f"{path}: the checkpoint is inconsistent ({' '.join(str(error).split())[:120]})"
        ) from error
    return model.eval()


def _check_shapes(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Raise ValueError unless weights have the network's names and shapes."""
    missing = sorted(wanted.keys() - state.keys())
    unknown = sorted(state.keys() - wanted.keys())
    if missing or unknown:
        some = ", ".join([*missing[:1], *unknown[:1]])
        raise ValueError(
            f"{len(missing)} weights are missing, {len(unknown)} are of no layer: {some}"
        )
    for name, value in wanted.items():
        if state[name].shape != value.shape:
            raise ValueError(
                f"{name} has the shape {tuple(state[name].shape)}, not {tuple(value.shape)}"
            )


def load_model(
    path: str | Path, device: str = "cpu", exported: bool = False
) -> tuple[Segmenter, dict[str, Any]]:
    """Return `(model, info)`: the network in eval mode (input RGB 0-255 `[B,3,H,W]`) and the
    checkpoint's description.

    info: `stage`, `method`, `iteration`, `preset` (dict), `classes` (ClassSet), `size` (width,
    height at which images enter), `input` (InputRule), `verdict` (what adaptation did, without
    labels). An `exported` model (ONNX) is run by onnxruntime.
    """
    model, info = model_of(load(Path(path), exported), Path(path))
    return model.to(device), info


def model_of(content: dict[str, Any], path: Path) -> tuple[Segmenter, dict[str, Any]]:
    """Return `load_model` of a file that is loaded already."""
    model = content["exported"] if "exported" in content else restore_model(content, path)
    info = {
        key: content.get(key)
        for key in (
            "stage",
            "method",
            "iteration",
            "preset",
            "metrics",
            "verdict",
            "origin",
            "pixels",
            "untaught",
        )
    }
    info["classes"] = ClassSet.from_json(content["classes"])
    info["input"] = model.input_rule
    info["size"] = model.input_rule.size
    return model, info


def differing_keys(settings: Model, content: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return keys of `model` that make another function of the same weights: name -> (the preset's
    value, the checkpoint's).
    """
    theirs = Model.model_validate(content["preset"]["model"])
    pairs = {key: (getattr(settings, key), getattr(theirs, key)) for key in FUNCTION_KEYS}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def weights_hash(state: dict[str, Tensor]) -> str:
    """Return a short hash of a model's weights, which tells whether a run's start is still the
    same.
    """
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        digest.update(
            value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()[:16]


def refuse_same(networks: Iterable[tuple[Path, nn.Module]]) -> None:
    """Raise UsageError when two files hold the same weights: in a mean of networks, one that is
    named twice would count twice.
    """
    seen: dict[str, Path] = {}
    for path, network in networks:
        state = network.state_dict()
        # an exported network has no weights to look at
        identity = weights_hash(state) if state else str(path.resolve())
        if identity in seen:
            raise UsageError(
                f"{path} holds the same network as {seen[identity]}: in their mean it would count"
                " twice; name each once"
            )
        seen[identity] = path


def frozen_hash(model: Segmenter) -> str | None:
    """Return the hash of what `model.tune` froze; None where all is trained."""
    held = {name: p for name, p in model.named_parameters() if name in model.frozen}
    return weights_hash(held) if held else None


def reorder_head(state: dict[str, Tensor], order: list[int]) -> dict[str, Tensor]:
    """Return the weights with their classes in another order: `order[k]` is the old position of new
    class k.
    """
    # layers of a head before these do not depend on the classes
    last = re.compile(r"(aux_|attention_)?head\.(\w+\.)*convs\.")
    return {
        name: value[order] if last.match(name) and value.ndim else value
        for name, value in state.items()
    }
