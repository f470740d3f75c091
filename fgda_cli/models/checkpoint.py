"""Checkpoints: one dictionary of tensors and plain values, written whole, read without running code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from ..config import schema
from ..data.classes import ClassSet
from ..data.files import whole_file
from ..runtime.errors import FgdaError, UsageError
from .segmenter import DeepLabV2
from .weights import read_tensors

FORMAT, VERSION = "fgda-checkpoint", 1


def save(path: Path, content: dict[str, Any]) -> None:
    """Write atomically: a crash, a full disk or a kill leaves the previous file."""
    with whole_file(path) as partial:
        try:
            torch.save({"format": FORMAT, "version": VERSION, **content}, partial)
        except RuntimeError as error:  # torch's writer reports a failed write so
            raise FgdaError(f"cannot write {path}: the write failed (is the disk full?)") from error


def load(path: Path) -> dict[str, Any]:
    """Raises FgdaError for a file that is no fgda checkpoint."""
    path = Path(path)
    if path.is_dir():
        raise FgdaError(f"{path} is a folder: name a checkpoint in it, e.g. {path}/checkpoints/final.pth")
    content = read_tensors(path)
    if content.get("format") != FORMAT:
        raise FgdaError(f"{path} is no fgda checkpoint")
    if content.get("version") != VERSION:
        raise FgdaError(f"{path} has checkpoint version {content.get('version')}, this fgda reads {VERSION}")
    return content


def build_model(settings: schema.Model, num_classes: int) -> DeepLabV2:
    """A network with random weights. Raises UsageError for an unknown backbone."""
    try:
        return DeepLabV2(
            num_classes, settings.backbone, settings.variant, settings.output_stride, settings.width,
            settings.multi_level, settings.dilations,
        )  # fmt: skip
    except (KeyError, ValueError) as error:
        raise UsageError(f"model.backbone: {error}") from None


def restore_model(content: dict[str, Any], path: Path) -> DeepLabV2:
    """The segmentation model of a checkpoint, in eval mode. Raises FgdaError on a misfit."""
    try:
        settings = schema.Model.model_validate(content["preset"]["model"])
        model = build_model(settings, len(ClassSet.from_json(content["classes"])))
        if any(tensor.is_complex() for tensor in content["model"].values()):
            raise ValueError("complex weights")
        model.load_state_dict(content["model"])
        model.input_size = TypeAdapter(schema.Size).validate_python(content["preset"]["data"]["evaluation"]["size"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise FgdaError(f"{path}: the checkpoint is inconsistent ({' '.join(str(error).split())[:120]})") from error
    return model.eval()


def load_model(path: str | Path, device: str = "cpu") -> tuple[DeepLabV2, dict[str, Any]]:
    """`(model, info)`: the network in eval mode (RGB 0-255 `[B,3,H,W]` in) and what the checkpoint says of itself.

    info: `stage`, `method`, `iteration`, `preset` (dict), `classes` (ClassSet), `size` (width, height of evaluation).
    """
    content = load(Path(path))
    model = restore_model(content, Path(path)).to(device)
    info = {key: content.get(key) for key in ("stage", "method", "iteration", "preset", "metrics")}
    info["classes"] = ClassSet.from_json(content["classes"])
    info["size"] = model.input_size
    return model, info
