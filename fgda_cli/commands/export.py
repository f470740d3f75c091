"""fgda export"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from ..runtime.errors import UsageError
from ..runtime.reporter import Reporter
from . import _options as cli

BY_SUFFIX = {".onnx": "onnx", ".pt": "torchscript", ".ts": "torchscript", ".xml": "openvino"}


def export(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint.")],
    out: Annotated[
        Optional[Path],
        typer.Option(
            help="File to write. Default: model.onnx (.pt, .xml) in the run's folder.",
            rich_help_panel="Result",
        ),
    ] = None,
    format_: Annotated[
        Optional[Literal["onnx", "torchscript", "openvino"]],
        typer.Option(
            "--format",
            help="Format of the file. Default: by --out.",
            rich_help_panel="Result",
        ),
    ] = None,
    size: Annotated[
        Optional[str],
        typer.Option(
            metavar="WxH",
            help="Input size of the network. Default: as trained.",
            rich_help_panel="Result",
        ),
    ] = None,
    argmax: Annotated[
        bool,
        typer.Option(
            "--argmax",
            help="Write train ids and entropy instead of logits.",
            rich_help_panel="Result",
        ),
    ] = False,
    dynamic: Annotated[
        bool,
        typer.Option(
            "--dynamic",
            help="Accept images of any size and resize them inside the file.",
            rich_help_panel="Result",
        ),
    ] = False,
    adapters: Annotated[
        bool,
        typer.Option(
            "--adapters",
            help="Write what model.tune: lora or frozen trained, alone (*.pth).",
            rich_help_panel="Result",
        ),
    ] = False,
    half: Annotated[
        bool, typer.Option("--half", help="16-bit weights.", rich_help_panel="Result")
    ] = False,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="8-bit convolutions (onnx); needs --calibrate.", rich_help_panel="Result"
        ),
    ] = False,
    opset: Annotated[
        int,
        typer.Option(
            min=18,
            max=23,
            help="ONNX operator set: 18 runs on runtimes from 1.14 on.",
            rich_help_panel="Result",
        ),
    ] = 18,
    calibrate: Annotated[
        Optional[str],
        typer.Option(
            metavar="IMAGES",
            help="Images for the ranges of --int8 and for the comparison with torch.",
            rich_help_panel="Data",
        ),
    ] = None,
) -> None:
    """Write the network as ONNX, TorchScript or OpenVINO, compared with torch on real frames."""
    if adapters:
        if argmax or dynamic or half or int8 or format_ or size or calibrate:
            raise UsageError("--adapters writes weights as they were trained: it takes --out alone")
        _write_adapters(checkpoint, out or cli.folder_of(checkpoint) / "adapters.pth")
        return
    from ..data.geometry import parse_size

    pixels = parse_size(size)
    suffix = None if out is None else out.suffix.lower()
    kind = format_ or (BY_SUFFIX.get(suffix) if out is not None else "onnx")
    if kind is None or (out is not None and BY_SUFFIX.get(suffix) != kind):
        raise UsageError(f"--out {out}: name it *.onnx, *.pt (torchscript) or *.xml (openvino)")
    if half and int8:
        raise UsageError("--half and --int8: one of them")
    if int8 and (kind != "onnx" or calibrate is None):
        raise UsageError(
            "--int8 is for onnx, and needs --calibrate IMAGES: frames like those it will see"
        )
    if half and kind == "torchscript":
        raise UsageError("--half is for onnx and openvino")
    from ..inference.export import CALIBRATION, FEW_FRAMES, SUFFIXES, Form
    from ..inference.export import export as write
    from ..inference.inputs import different_frames, spread_images
    from ..runtime.written import own_files

    form = Form(
        kind, argmax, dynamic, numbers="half" if half else "int8" if int8 else "fp32", opset=opset
    )
    out = out or (cli.folder_of(checkpoint) / "model").with_suffix(SUFFIXES[kind])
    frames = (
        spread_images(calibrate, CALIBRATION, reporter=Reporter())
        if calibrate is not None
        else None
    )
    if int8 and (count := different_frames(frames)) < FEW_FRAMES:
        Reporter().warn(
            f"--int8 takes its ranges from {count} different frames: give it {CALIBRATION} like"
            " those it will see"
        )
    also = [out.with_suffix(".bin")] if kind == "openvino" else []
    with own_files(out, *also):
        made = write(checkpoint, out, form, size=pixels, frames=frames)
    width, height = ("W", "H") if dynamic else made.size
    results = (
        f"train ids uint8 and entropy [B,{height},{width}]"
        if argmax
        else f"logits [B,{made.classes},{height},{width}]"
    )
    print(f"{out}: RGB uint8 [B,3,{height},{width}] -> {results}")
    where = f"{len(frames)} frames" if frames else "noise (--calibrate IMAGES: on real frames)"
    print(
        f"{100 * made.same:.2f} % of the pixels as by torch, on {where}; logits differ by"
        f" {made.difference:.1e} at most (up to {made.largest:.1f})"
    )
    print(
        f"{1000 * made.seconds:.0f} ms an image of {made.size[0]}x{made.size[1]} on this processor;"
        " docs/deploy.md shows how to run the file"
    )


def _write_adapters(path: Path, out: Path) -> None:
    """Write a checkpoint's trained part. Raises UsageError for one that was trained whole."""
    from ..models import checkpoint
    from ..runtime.written import own_files

    content = checkpoint.load(path, whole=False)
    if "adapters" not in content:
        raise UsageError(f"{path} was trained whole: --adapters is for model.tune: lora and frozen")
    if out.suffix != ".pth":
        raise UsageError(f"--out {out}: name it *.pth")
    left_out = ("model", "train", "format", "version")
    with own_files(out):
        checkpoint.save(out, {key: value for key, value in content.items() if key not in left_out})
    count = sum(value.numel() for value in content["adapters"].values())
    print(f"{out}: {count / 1e6:.2f} M parameters; --init and predict take it as a checkpoint")
