"""An exported network (ONNX) in the place of one of ours: it predicts and evaluates, by
onnxruntime.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.geometry import InputRule, Size
from ..runtime.errors import FgdaError
from . import metadata
from .segmenter import Output

# key of our facts in an exported file's metadata
KEY = "fgda"
VERSION = 1


def runtime() -> Any:
    """Import onnxruntime. Raises FgdaError that says how to install it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise FgdaError(
            "an exported model needs the package onnxruntime: pip install 'fgda[export]'"
        ) from error
    return onnxruntime


def open_session(path: Path) -> Any:
    """Open an ONNX file. Raises FgdaError for a file that onnxruntime cannot run."""
    library = runtime()
    options = library.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return library.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - onnxruntime raises a dozen kinds of its own
        raise FgdaError(
            f"{path}: not an ONNX model that can be run ({' '.join(str(error).split())[:120]})"
        ) from error


def read_facts(path: Path, session: Any) -> dict[str, Any]:
    """Return the file's metadata as a checkpoint's content without weights. Raises FgdaError for a
    file that is not ours.
    """
    try:
        text = session.get_modelmeta().custom_metadata_map[KEY]
        facts = json.loads(text)
        if facts["version"] != VERSION:
            raise ValueError(f"version {facts['version']}")
        metadata.check(facts)
        InputRule.from_json({"size": facts["size"]})
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise FgdaError(
            f"{path} was not written by fgda export ({' '.join(str(error).split())[:100]})"
        ) from error
    return facts


@dataclass(frozen=True)
class FixedSize(InputRule):
    """The checkpoint's own rule, in a file that computes at one size: images that would enter at
    another are refused.
    """

    file_size: Size = (0, 0)

    def __call__(self, width: int, height: int) -> Size:
        wanted = super().__call__(width, height)
        if wanted != self.file_size:
            entered = "{}x{}".format(*wanted)
            computed = "{}x{}".format(*self.file_size)
            raise FgdaError(
                f"an image of {width}x{height} enters the network at {entered}, and this exported"
                f" file computes at {computed} alone\n"
                "use its checkpoint, or export one with --size for such images"
            )
        return wanted


class ExportedModel(nn.Module):
    """Reads images of one size; `Output.logits` `[B,K,h,w]` alone is filled in."""

    def __init__(self, path: Path, session: Any, facts: dict[str, Any]):
        super().__init__()
        self.path = path
        self.session = session
        self.facts = facts
        self.num_classes = len(facts["classes"]["names"])
        self.align_corners = bool(facts["align_corners"])
        rule = InputRule.from_json(facts["input"])
        self.size = tuple(facts["size"])
        self.input_rule: InputRule | None = FixedSize(**vars(rule), file_size=self.size)
        self.is_dynamic = bool(facts["dynamic"])

    def forward(self, images: Tensor) -> Output:
        width = images.shape[-1]
        height = images.shape[-2]
        if (width, height) != self.size:
            wanted = "x".join(map(str, self.size))
            raise FgdaError(
                f"{self.path} takes images of {wanted}, not {width}x{height}: export it with"
                " --size, or use the checkpoint"
            )
        pixels = images.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        (coarse,) = self.session.run(["coarse"], {"images": pixels})
        return Output(torch.from_numpy(coarse).float(), None, None, aux_features=None)


def open_exported(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content, with the network itself in the place of its weights."""
    session = open_session(path)
    facts = read_facts(path, session)
    return facts | {"exported": ExportedModel(path, session, facts)}
