"""fgda export"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from ..runtime.errors import UsageError
from ..runtime.reporter import Reporter
from . import _options as cli

if TYPE_CHECKING:
    import numpy as np

    from ..inference.export import Exported, Form

Format = Literal["onnx", "torchscript", "openvino"]
Numbers = Literal["fp32", "half", "int8"]
BY_SUFFIX: dict[str, Format] = {
    ".onnx": "onnx",
    ".pt": "torchscript",
    ".ts": "torchscript",
    ".xml": "openvino",
}


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
        Optional[Format],
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
    kind = _format(out, format_)
    numbers = _numbers(kind, half, int8=int8, calibrate=calibrate)
    from ..inference.export import SUFFIXES, Form
    from ..inference.export import export as write
    from ..runtime.written import own_files

    form = Form(kind, argmax, dynamic, numbers=numbers, opset=opset)
    out = out or (cli.folder_of(checkpoint) / "model").with_suffix(SUFFIXES[kind])
    frames = None if calibrate is None else _calibration_frames(calibrate, int8)
    also = [out.with_suffix(".bin")] if kind == "openvino" else []
    with own_files(out, *also):
        made = write(checkpoint, out, form, size=pixels, frames=frames)
    _say(out, form, made, looked_at=len(frames or ()))


def _format(out: Path | None, asked: Format | None) -> Format:
    """Return the format by `--format` and the name of `--out`, which must agree."""
    if out is None:
        return asked or "onnx"
    named = BY_SUFFIX.get(out.suffix.lower())
    if named is None or asked not in (None, named):
        raise UsageError(f"--out {out}: name it *.onnx, *.pt (torchscript) or *.xml (openvino)")
    return named


def _numbers(kind: Format, half: bool, int8: bool, calibrate: str | None) -> Numbers:
    """Return the numbers of the weights by `--half` and `--int8`, where the format can hold
    them.
    """
    if half and int8:
        raise UsageError("--half and --int8: one of them")
    if int8 and (kind != "onnx" or calibrate is None):
        raise UsageError(
            "--int8 is for onnx, and needs --calibrate IMAGES: frames like those it will see"
        )
    if half and kind == "torchscript":
        raise UsageError("--half is for onnx and openvino")
    return "half" if half else "int8" if int8 else "fp32"


def _calibration_frames(images: str, int8: bool) -> list[np.ndarray]:
    """Read the frames for `--int8` and for the comparison; warn where ranges would come from
    few.
    """
    from ..inference.export import CALIBRATION, FEW_FRAMES
    from ..inference.inputs import different_frames, spread_images

    frames = spread_images(images, CALIBRATION, reporter=Reporter())
    if int8 and (count := different_frames(frames)) < FEW_FRAMES:
        Reporter().warn(
            f"--int8 takes its ranges from {count} different frames: give it {CALIBRATION} like"
            " those it will see"
        )
    return frames


def _say(out: Path, form: Form, made: Exported, looked_at: int) -> None:
    """Print what goes in and comes out, and how near the file is to torch."""
    width, height = ("W", "H") if form.dynamic else made.size
    results = (
        f"train ids uint8 and entropy [B,{height},{width}]"
        if form.argmax
        else f"logits [B,{made.classes},{height},{width}]"
    )
    print(f"{out}: RGB uint8 [B,3,{height},{width}] -> {results}")
    if made.rule.rows is not None and made.size == made.rule.size:
        whole = "{}x{}".format(*made.rule.whole_size)
        print(f"{made.rule.rows_in_words()}: it takes these; --size {whole} takes whole frames")
    where = f"{looked_at} frames" if looked_at else "noise (--calibrate IMAGES: on real frames)"
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
