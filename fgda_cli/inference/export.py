"""A checkpoint's network as ONNX, checked against torch by onnxruntime before the file appears."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..losses import upsample
from ..models.checkpoint import load_model
from ..models.segmenter import Segmenter
from ..runtime.errors import FgdaError
from ..runtime.files import whole_file

TOLERANCE = 1e-4  # of the logits, relative to the largest where that is above 1


class Exported(NamedTuple):
    """What was written, and how far onnxruntime's logits are from torch's."""

    size: tuple[int, int]
    classes: int
    difference: float
    largest: float


class FullSize(nn.Module):
    """RGB 0-255 float `[B,3,H,W]` -> logits `[B,K,H,W]` at the images' own size."""

    def __init__(self, model: Segmenter):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return upsample(self.model(images).logits, images.shape[-2:], self.model.align_corners)


def export_onnx(path: Path, out: Path, size: tuple[int, int] | None = None) -> Exported:
    """Write the network for images of `size` (width, height) and any batch size; names, palette and size go in as metadata.

    Raises FgdaError when a package is missing, or when the file's logits differ by more than 1e-4.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter writes through it
    except ImportError as error:
        raise FgdaError(f"fgda export needs the package {error.name}: pip install 'fgda[export]'") from error
    model, info = load_model(path)
    width, height = size or info["size"]
    network = FullSize(model).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, height, width), generator=generator).float()
    with _quiet():
        program = torch.onnx.export(
            network, (images,), dynamo=True, input_names=["images"], output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        )  # fmt: skip
    proto = program.model_proto
    facts = {"classes": json.dumps(info["classes"].to_json()), "method": str(info["method"]), "size": f"{width}x{height}",
             "input": json.dumps(info["input"].to_json())}  # fmt: skip
    onnx.helper.set_model_props(proto, facts)
    with whole_file(out) as partial:
        onnx.save(proto, str(partial))
        session = onnxruntime.InferenceSession(str(partial), providers=["CPUExecutionProvider"])
        difference, largest = _compare(session, network, images)
        if difference > TOLERANCE * max(1.0, largest):
            raise FgdaError(f"{out} was not written: onnxruntime's logits differ from torch's by {difference:.1e}")
    return Exported((width, height), model.num_classes, difference, largest)


def _compare(session, network: nn.Module, images: Tensor) -> tuple[float, float]:
    """Largest difference and largest logit, over a batch of two and one of one."""
    differences, largest = [], 0.0
    for batch in (images, images[:1] * 0.5):
        with torch.inference_mode():
            wanted = network(batch).numpy()
        (found,) = session.run(None, {"images": batch.numpy()})
        differences.append(float(np.abs(found - wanted).max()))
        largest = max(largest, float(np.abs(wanted).max()))
    return max(differences), largest


@contextlib.contextmanager
def _quiet():
    """The exporter talks on stdout and through warnings; what matters comes as exceptions."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
