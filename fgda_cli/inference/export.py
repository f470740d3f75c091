"""A checkpoint's network as ONNX, TorchScript or OpenVINO, checked against torch before the file
appears.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.geometry import InputRule
from ..losses import entropy_map, upsample
from ..models.checkpoint import load_model
from ..models.exported import KEY, VERSION
from ..models.segmenter import Segmenter
from ..runtime.errors import FgdaError
from ..runtime.files import whole_files, writing
from ..runtime.system import median_seconds
from .card_content import make_card

# the IR version of ONNX files: opset 18 came with it
OLDEST_IR = 8
SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt", "openvino": ".xml"}
# largest difference of coarse fp32 logits, relative to the largest logit if that is above 1
TOLERANCE = 1e-4
# least share of pixels of the same class; int8 is said, not judged
SAME = {"fp32": 0.999, "half": 0.99, "int8": 0.0}
# frames from which int8 takes its ranges; fewer different ones are worth a warning
CALIBRATION = 64
FEW_FRAMES = 8


@dataclass(frozen=True)
class Form:
    """Form of an export: the file's format, decisions in place of logits, images of any size,
    smaller numbers.
    """

    format: str = "onnx"
    argmax: bool = False
    dynamic: bool = False
    numbers: str = "fp32"  # half, int8
    # the oldest that the exporter writes: older runtimes (Jetson's, Triton's) read it
    opset: int = 18

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("coarse", "train_ids", "entropy") if self.argmax else ("coarse", "logits")


class Exported(NamedTuple):
    """Result of an export: its size and the rule of its network, the largest difference of its
    coarse logits from torch's, the share of pixels of the same class, and the median seconds an
    image on this processor.
    """

    size: tuple[int, int]
    rule: InputRule
    classes: int
    difference: float
    largest: float
    same: float
    seconds: float


class Network(nn.Module):
    """RGB uint8 `[B,3,H,W]` -> the network's own logits `[B,K,h,w]`, and at the images' size logits
    `[B,K,H,W]`, or train ids uint8 and entropy `[B,H,W]`. With `size`, images of any other are
    resized to it inside (bilinear, antialiased).

    The resizing is two products with matrices of weights: runtimes disagree on what an antialiased
    `Resize` is (OpenVINO leaves the antialiasing out).
    """

    def __init__(self, model: Segmenter, argmax: bool, size: tuple[int, int] | None):
        super().__init__()
        self.model = model
        self.argmax = argmax
        self.size = size

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = images.float()
        if self.size is not None:
            rows, columns = (
                bilinear_weights(x.shape[axis], side, x)
                for axis, side in ((2, self.size[1]), (3, self.size[0]))
            )
            x = rows @ x @ columns.T
        coarse = self.model(x).logits
        full = upsample(coarse, images.shape[-2:], self.model.align_corners)
        return (
            (coarse, full.max(1).indices.to(torch.uint8), entropy_map(full))
            if self.argmax
            else (coarse, full)
        )


def bilinear_weights(inputs: int, outputs: int, like: Tensor) -> Tensor:
    """Return the weights `[outputs,inputs]` of an antialiased bilinear resize along one axis, as
    torch and Pillow compute it: a triangle around each output pixel's centre, as wide as an output
    pixel, and at least as wide as an input pixel.
    """
    # the centres of the input pixels
    places = torch.arange(inputs, dtype=like.dtype, device=like.device) + 0.5
    # input pixels an output pixel; a tensor: what is traced and exported follows the image's size
    step = (places[-1] + 0.5) / outputs
    centres = (torch.arange(outputs, dtype=like.dtype, device=like.device) + 0.5) * step
    distances = (places[None] - centres[:, None]).abs()
    weights = (1 - distances / step.clamp(min=1)).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)


def export(
    path: Path,
    out: Path,
    form: Form,
    size: tuple[int, int] | None = None,
    frames: list[np.ndarray] | None = None,
) -> Exported:
    """Write the network for images of `size` (width, height) and any batch size; classes, palette,
    input rule, preset, figures and licences go in as metadata. `frames` (RGB at any size) calibrate
    int8 and are what the file is checked on.

    Raises FgdaError when a package is missing, or when the file's results differ from torch's.
    """
    model, info = load_model(path)
    width, height = size or info["size"]
    network = Network(model, form.argmax, (width, height) if form.dynamic else None).eval()
    images = _examples(model, frames, (width, height))
    facts = _facts(info, model, (width, height), form=form)
    write = {"onnx": write_onnx, "torchscript": write_torchscript, "openvino": write_openvino}[
        form.format
    ]
    with _folder_beside(out) as folder:
        made, run = write(network, images, facts, form, folder)
        apart = _compare(run, network, _in_other_sizes(images) if form.dynamic else [images])
        if form.numbers == "fp32" and apart[0] > TOLERANCE * max(1.0, apart[1]):
            raise FgdaError(
                f"{out} was not written: its logits differ from torch's by {apart[0]:.1e}"
            )
        if apart[2] < SAME[form.numbers]:
            raise FgdaError(
                f"{out} was not written: {100 * (1 - apart[2]):.2f} % of the pixels have another"
                " class than by torch"
            )
        image = images[:1].numpy()
        seconds = median_seconds(lambda _: run(image), 5)
        # The file that was named; what else belongs to it (OpenVINO's weights) beside it.
        targets = [out, *(out.with_suffix(file.suffix) for file in made[1:])]
        with whole_files(*targets) as partials:
            for file, partial in zip(made, partials, strict=True):
                file.replace(partial)
    return Exported((width, height), info["input"], model.num_classes, *apart, seconds=seconds)


@contextlib.contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """A temporary folder on the disk that the user named."""
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fgda-export-", dir=out.parent) as folder:
            yield Path(folder)


def _examples(model: Segmenter, frames: list[np.ndarray] | None, size: tuple[int, int]) -> Tensor:
    """uint8 `[n,3,H,W]`: the frames at the network's size, else smooth noise."""
    from .tta import batch_of

    if frames:
        return batch_of(model, frames, size)
    generator = torch.Generator().manual_seed(0)
    coarse = (
        torch.rand(2, 3, max(2, size[1] // 16), max(2, size[0] // 16), generator=generator) * 255
    )
    return (
        F.interpolate(coarse, (size[1], size[0]), mode="bilinear", align_corners=False)
        .round()
        .to(torch.uint8)
    )


def _facts(
    info: dict[str, Any], model: Segmenter, size: tuple[int, int], form: Form
) -> dict[str, Any]:
    """Return the file's metadata, which `models/exported.py` reads."""
    from .._version import __version__

    return {
        "version": VERSION,
        "made_by": f"fgda {__version__}",
        "size": list(size),
        "dynamic": form.dynamic,
        "numbers": form.numbers,
        "outputs": list(form.outputs),
        "preprocessing": "none: RGB uint8 0-255, normalised inside",
        "align_corners": model.align_corners,
        "classes": info["classes"].to_json(),
        "input": info["input"].to_json(),
        "card": {key: value for key, value in make_card(info).items() if key != "training"},
        **{
            key: info[key]
            for key in ("stage", "method", "iteration", "preset", "metrics", "verdict")
        },
    }


Run = Callable[[np.ndarray], list[np.ndarray]]


def write_onnx(
    network: Network, images: Tensor, facts: dict[str, Any], form: Form, folder: Path
) -> tuple[list[Path], Run]:
    """Write `model.onnx` into the folder, and return a function that runs it."""
    onnx, onnxruntime = _libraries("onnx", "onnxruntime", "onnxscript")[:2]
    made = folder / "model.onnx"
    proto = _onnx_program(network, images, form)
    if form.numbers == "half":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        with _quiet():
            proto = convert_float_to_float16(
                proto, keep_io_types=True, op_block_list=["Resize", "GroupNormalization"]
            )
    onnx.helper.set_model_props(proto, {KEY: json.dumps(facts)})
    onnx.save(proto, str(made))
    if form.numbers == "int8":
        made = _quantised(made, images, folder)
    session = onnxruntime.InferenceSession(str(made), providers=["CPUExecutionProvider"])
    return [made], lambda batch: session.run(list(form.outputs), {"images": batch})


def _onnx_program(network: Network, images: Tensor, form: Form):
    batch = torch.export.Dim("batch", min=1)
    free = {}
    if form.dynamic:
        free = {
            2: torch.export.Dim("height", min=32, max=16384),
            3: torch.export.Dim("width", min=32, max=16384),
        }
    example = images[:2] if len(images) > 1 else images.repeat(2, 1, 1, 1)
    # another size than the network's own, or the exporter takes them for one
    if form.dynamic:
        example = F.interpolate(example.float(), scale_factor=1.25).to(torch.uint8)
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=["images"],
            output_names=list(form.outputs),
            dynamic_shapes=({0: batch, **free},),
            opset_version=form.opset,
        )
    proto = program.model_proto
    proto.ir_version = min(proto.ir_version, OLDEST_IR)
    return proto


def _quantised(path: Path, images: Tensor, folder: Path) -> Path:
    """Convolutions and products in int8, ranges from the frames; metadata are kept."""
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.rest = iter(images[:CALIBRATION])

        def get_next(self):
            image = next(self.rest, None)
            return None if image is None else {"images": image[None].numpy()}

    before = folder / "prepared.onnx"
    after = folder / "int8.onnx"
    with _quiet():
        quant_pre_process(str(path), str(before), skip_symbolic_shape=True)
        quantize_static(
            str(before),
            str(after),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=["Conv", "MatMul"],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            nodes_to_exclude=_kept_exact(onnx.load(str(before))),
        )
    proto = onnx.load(str(after))
    onnx.helper.set_model_props(
        proto, {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    )
    made = folder / "model-int8.onnx"
    onnx.save(proto, str(made))
    return made


def _kept_exact(model: Any) -> list[str]:
    """Names of the first convolution and of the first three depthwise ones, whose channels range
    widest: in 8 bits they cost most of what is lost (of EfficientNet-Lite0 18 % of the pixels in
    all, 3 % without them).
    """
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    grouped = [
        node
        for node in convolutions
        if any(entry.name == "group" and entry.i > 1 for entry in node.attribute)
    ]
    return [node.name for node in (*convolutions[:1], *grouped[:3])]


def write_torchscript(
    network: Network, images: Tensor, facts: dict[str, Any], form: Form, folder: Path
) -> tuple[list[Path], Run]:
    """Write `model.pt`, a trace with the metadata as the extra file `fgda.json`."""
    made = folder / "model.pt"
    with _quiet(), torch.no_grad():
        traced = torch.jit.trace(network, images[:1], check_trace=False)
        # torch's own writer ends the process if the disk is full
        saved = io.BytesIO()
        torch.jit.save(traced, saved, _extra_files={"fgda.json": json.dumps(facts)})
        made.write_bytes(saved.getbuffer())
        again = torch.jit.load(str(made))

    def run(batch: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return [value.numpy() for value in again(torch.from_numpy(batch))]

    return [made], run


def write_openvino(
    network: Network, images: Tensor, facts: dict[str, Any], form: Form, folder: Path
) -> tuple[list[Path], Run]:
    """Write `model.xml` and `model.bin` by way of ONNX; `half` stores the weights in 16 bits."""
    (openvino,) = _libraries("openvino", extra="openvino")
    plain = Form("onnx", form.argmax, form.dynamic, opset=form.opset)
    (onnx_file,), _ = write_onnx(network, images, facts, form=plain, folder=folder)
    made = folder / "model.xml"
    with _quiet():
        model = openvino.convert_model(str(onnx_file))
        for key, value in facts.items():
            model.set_rt_info(json.dumps(value), [KEY, key])
        with writing(folder.parent, RuntimeError):
            openvino.save_model(model, str(made), compress_to_fp16=form.numbers == "half")
        compiled = openvino.Core().compile_model(
            str(made), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
    return [made, made.with_suffix(".bin")], lambda batch: [
        compiled(batch)[name] for name in form.outputs
    ]


def _libraries(*names: str, extra: str = "export") -> list[Any]:
    import importlib

    try:
        return [importlib.import_module(name) for name in names]
    except ImportError as error:
        raise FgdaError(
            f"fgda export needs the package {error.name}: pip install 'fgda[{extra}]'"
        ) from error


def _in_other_sizes(images: Tensor) -> list[Tensor]:
    """Images at the network's own size, larger ones (which shrink inside) and smaller ones (which
    grow).
    """
    height, width = images.shape[-2:]
    sizes = [
        (round(1.7 * height), round(1.6 * width)),
        (max(32, round(0.6 * height)), max(32, round(0.7 * width))),
    ]
    how = {"mode": "bilinear", "align_corners": False, "antialias": True}
    return [
        images,
        *(F.interpolate(images[:4].float(), size, **how).round().to(torch.uint8) for size in sizes),
    ]


def _compare(run: Run, network: Network, groups: list[Tensor]) -> tuple[float, float, float]:
    """Largest difference and largest coarse logit, and the least share of pixels of the same class
    of any group; batches of two and of one."""
    differences = []
    largest = 0.0
    shares = []
    for images in groups:
        same = []
        for batch in (*images[:16].split(2), images[:1]):
            with torch.inference_mode():
                wanted = [value.numpy() for value in network(batch)]
            outputs = run(batch.numpy())
            differences.append(float(np.abs(outputs[0] - wanted[0]).max()))
            largest = max(largest, float(np.abs(wanted[0]).max()))
            classes = [
                values[1] if network.argmax else values[1].argmax(1) for values in (outputs, wanted)
            ]
            same.append(float((classes[0] == classes[1]).mean()))
        shares.append(float(np.mean(same)))
    return max(differences), largest, min(shares)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters talk on stdout and through warnings; what matters comes as exceptions."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
