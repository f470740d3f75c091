"""Option types, the context, and the conversion of errors to one line and an exit code, for all
commands.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand
from typer.models import ArgumentInfo, OptionInfo

from ..runtime.distributed import ranks
from ..runtime.errors import FgdaError, Terminated, UsageError
from ..runtime.reporter import Reporter, tell

# commands that torchrun may start
SEVERAL_PROCESSES = ("pretrain", "adapt", "evaluate", "predict", "entropy-map")
GLOBAL_FLAGS = ("--debug", "--quiet", "--no-color")
# options by the names they had up to 0.3: they are read for one more version, and said
FORMER = {
    "ablate": {"--labels": "--labelled"},
    "compare": {"--inputs": "--images", "--most": "--frames"},
    "gap": {"--images": "--frames"},
    "prepare": {"--out": "--data-root"},
}

COMPUTE = "Compute"
DATA = "Data"
RESULT = "Result"


def complete_presets() -> list[str]:
    from ..presets import preset_names

    return preset_names()


def complete_methods() -> list[str]:
    from ..methods.registry import method_names

    return method_names()


PresetName = Annotated[
    Optional[str],
    typer.Option(
        "--preset",
        "-p",
        help="Preset name or path/to.yaml (fgda presets lists them).",
        rich_help_panel="Preset",
        autocompletion=complete_presets,
    ),
]
SetValues = Annotated[
    Optional[list[str]],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key, e.g. optim.lr=1e-4; repeatable.",
        rich_help_panel="Preset",
    ),
]
MethodName = Annotated[
    Optional[str],
    typer.Option(
        "--method",
        "-m",
        help="fgda, fada, … Default: the preset's.",
        rich_help_panel="Preset",
        autocompletion=complete_methods,
    ),
]
Out = Annotated[
    Optional[Path],
    typer.Option(
        help="Run folder. Default: runs/PRESET/pretrain-seedN or runs/PRESET/adapt-METHOD-seedN.",
        rich_help_panel=RESULT,
    ),
]
OutFolder = Annotated[
    Path, typer.Option("--out", help="Folder for the results.", rich_help_panel=RESULT)
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Start over instead of resuming.", rich_help_panel=RESULT)
]
DataRoot = Annotated[
    Optional[Path],
    typer.Option(
        help="Folder of prepared data sets. Default: $FGDA_DATA or ./data.", rich_help_panel=DATA
    ),
]
IdKind = Literal["train", "label"]
Ids = Annotated[
    IdKind,
    typer.Option(help="Ids to write: train ids, or Cityscapes' label ids.", rich_help_panel=RESULT),
]
Flip = Annotated[
    bool,
    typer.Option("--flip", help="Also average over the mirrored image.", rich_help_panel=COMPUTE),
]
Scale = Annotated[
    Optional[list[float]],
    typer.Option(
        help="Average over images of this scale; repeatable.",
        min=0.1,
        max=16,
        rich_help_panel=COMPUTE,
    ),
]
Sliding = Annotated[
    Optional[str],
    typer.Option(
        metavar="WxH",
        help="Slide a window of this size over the image instead of one forward pass.",
        rich_help_panel=COMPUTE,
    ),
]
Overlap = Annotated[
    float,
    typer.Option(
        min=0,
        max=0.9,
        help="Overlap of sliding windows, as a share of their size.",
        rich_help_panel=COMPUTE,
    ),
]
BlendKind = Literal["taper", "mean"]
Blend = Annotated[
    BlendKind,
    typer.Option(
        help="Weights of sliding windows: fade at borders, or a mean, as in published evaluations.",
        rich_help_panel=COMPUTE,
    ),
]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.", rich_help_panel=COMPUTE)
]
NumberFormat = Literal["auto", "fp32", "bf16", "fp16"]
PrecisionName = Annotated[
    Optional[NumberFormat],
    typer.Option(
        "--precision", help="Number format. Default: the preset's.", rich_help_panel=COMPUTE
    ),
]
ComputedIn = Annotated[
    Optional[NumberFormat],
    typer.Option("--precision", help="Number format. Default: fp32.", rich_help_panel=COMPUTE),
]
Workers = Annotated[
    Optional[int],
    typer.Option(min=0, max=256, help="Processes that read data.", rich_help_panel=COMPUTE),
]
Threads = Annotated[
    Optional[int],
    typer.Option(
        "--workers",
        min=1,
        max=256,
        help="Threads that read and write images. Default: 2 to 6, by the number of cores.",
        rich_help_panel=COMPUTE,
    ),
]
MaxPixels = Annotated[
    Optional[int],
    typer.Option(
        min=1,
        metavar="N",
        help="Read images of up to N pixels. Default: 180 million.",
        rich_help_panel=COMPUTE,
    ),
]
Recursive = Annotated[
    bool,
    typer.Option("--recursive", "-r", help="Include folders inside folders.", rich_help_panel=DATA),
]
LabelMaps = Annotated[
    bool,
    typer.Option(
        "--label-maps", help="Also take label maps that lie among images.", rich_help_panel=DATA
    ),
]
Extend = Annotated[
    bool,
    typer.Option(
        "--extend",
        help="Continue a finished run up to the iterations of the preset.",
        rich_help_panel=RESULT,
    ),
]
Seed = Annotated[
    Optional[int],
    typer.Option(min=0, help="Random seed. Default: the preset's.", rich_help_panel=COMPUTE),
]
Json = Annotated[
    Optional[str],
    typer.Option(
        "--json",
        metavar="[FILE.json]",
        help="Result as JSON to stdout, or to FILE.",
        rich_help_panel=RESULT,
    ),
]


TYPE_NAMES = {str: "TEXT", int: "N", float: "X", Path: "PATH", bool: ""}


def name_types(command: Callable) -> Callable:
    """Give the options of a command short names of their types for --help, flags none, and
    arguments their own name.
    """
    command.__annotations__ = get_type_hints(command, include_extras=True)
    for name, hint in command.__annotations__.items():
        for info in getattr(hint, "__metadata__", ()):
            if isinstance(info, ArgumentInfo):
                info.metavar = info.metavar or name.upper()
            elif isinstance(info, OptionInfo) and info.metavar is None:
                info.metavar = TYPE_NAMES.get(_plain_type(hint.__origin__))
    return command


def help_of(command: Callable) -> str:
    """Return a command's docstring, a line for each paragraph."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _plain_type(hint: Any) -> Any:
    """The type inside Optional[...] and list[...]."""
    while get_origin(hint) in (Union, UnionType, list, tuple):
        hint = get_args(hint)[0]
    return hint


class Command(TyperCommand):
    """A command whose --help does not list itself in a box above all others, and names arguments
    without Python's types.
    """

    def get_params(self, ctx):
        params = super().get_params(ctx)
        for param in params:
            if param.param_type_name == "argument":
                param.display_type_rich = lambda ctx: None
        return params

    def get_help_option(self, ctx):
        option = super().get_help_option(ctx)
        if option is not None:
            option.hidden = True
        return option


def reporter(context: typer.Context) -> Reporter:
    return context.obj or Reporter(decisions=[])


def overrides(sets, seed, precision, workers) -> list[str]:
    """Return the values of --set and of the short options as key=value overrides of a preset."""
    extra = {"run.seed": seed, "run.precision": precision, "run.workers": workers}
    return [*(sets or []), *(f"{key}={value}" for key, value in extra.items() if value is not None)]


def preset_from(
    name: str | None, sets=None, seed=None, precision=None, workers=None, method: str | None = None
):
    """Load the preset with the command line's short options applied as overrides. Raises UsageError
    for none, with those that lie here.
    """
    from ..presets import load_preset, own_presets

    if name is None:
        own = ", ".join(own_presets(Path(".")))
        here = f"here is {own}" if own else "the toy of the demo is --preset playground"
        raise UsageError(f"which preset? name one by --preset ({here}; fgda presets lists all)")
    return load_preset(name, overrides(sets, seed, precision, workers=workers), method)


def job_of(
    context: typer.Context, settings, data_root: Path | None, out: Path | None, device: str, **how
):
    """Return a training job. This loads torch, so the preset is checked before."""
    from ..data import store
    from ..training.stages import Job

    return Job(
        settings, store.data_root(data_root), out, device=device, reporter=reporter(context), **how
    )


def precision_for(name: str | None, device: str, show: Reporter, model=None):
    """Return the precision of commands that only predict: fp32 unless the user asks for another, so
    that results do not depend on the machine.
    """
    from ..runtime.devices import make_precision, pick_device

    return make_precision(name or "fp32", pick_device(device), model=model, reporter=show)


def check_checkpoints(paths: list[Path]) -> None:
    """Raise UsageError for the first path that is no file and names no published checkpoint."""
    from ..models.zoo import ENTRIES

    for path in paths:
        if not path.exists() and str(path) not in ENTRIES:
            raise UsageError(f"no such checkpoint: {path}")


def folder_of(checkpoint: Path) -> Path:
    """Return the folder of what is told of a checkpoint: its run's, or else the file's own."""
    from ..runtime.record import run_of

    return run_of(checkpoint) or checkpoint.parent


def plain_name(name: str) -> str:
    """Check that --name is the name of a folder. Raises UsageError for a path that leads
    elsewhere.
    """
    if Path(name).name != name or name in (".", ".."):
        raise UsageError(
            f"--name {name}: write a name without folders, e.g. {Path(name).name or 'mine'}"
        )
    return name


def views(
    flip: bool,
    scale: list[float] | None,
    sliding: str | None = None,
    overlap: float = 0.25,
    blend: BlendKind = "taper",
):
    """Return the test-time augmentation of --flip, --scale, --sliding, --overlap and --blend.
    Raises UsageError.
    """
    from ..data.geometry import parse_size

    window = parse_size(sliding, "--sliding")
    from ..inference.sliding import SlidingWindow
    from ..inference.tta import TestTimeAugmentation

    return TestTimeAugmentation(
        flip, tuple(scale or (1.0,)), SlidingWindow(window, overlap, blend) if window else None
    )


def emit_json(value, where: str, show: Reporter | None = None) -> None:
    """Write a result as JSON to stdout ("-") or to the named file, from the first process. The
    decisions that were made for the user are included.
    """
    import json

    from ..runtime.files import write_json

    if show is not None and show.decisions:
        decided = {"decisions": show.decisions}
        value = (
            {**value, **decided}
            if isinstance(value, dict)
            else [{**one, **decided} for one in value]
        )
    if where == "-":
        print(json.dumps(value, ensure_ascii=False))
    elif ranks()[0] == 0:
        write_json(Path(where), value)


def arrange(arguments: list[str]) -> list[str]:
    """Let global flags stand anywhere on the command line, give options their names of today, and
    read a bare `--json` as stdout.

    `--json` takes the next word only where that is a file for JSON (`*.json`, a device, `-`); any
    other name is given as `--json=FILE`.
    """
    head = []
    tail = []
    command = next((word for word in arguments if not word.startswith("-")), "")
    former = FORMER.get(command, {})
    rest = iter(range(len(arguments)))
    for index in rest:
        argument = arguments[index]
        option, equals, value = argument.partition("=")
        if option in former:
            tell(f"note: {option} is called {former[option]} now")
            argument = former[option] + equals + value
        if argument == "--":
            tail += arguments[index:]
            break
        if argument in GLOBAL_FLAGS:
            head.append(argument)
        elif argument == "--json":
            following = arguments[index + 1] if index + 1 < len(arguments) else ""
            is_value = (
                following == "-"
                or following.lower().endswith(".json")
                or following.startswith("/dev/")
            )
            tail.append(f"--json={following if is_value else '-'}")
            if is_value:
                next(rest, None)
        else:
            tail.append(argument)
    return head + tail


def report(error: BaseException) -> int:
    """Print an error as one or two lines; returns the exit code."""
    code, text = describe(error)
    if text:
        tell(f"fgda: {text}")
    return code


def describe(error: BaseException) -> tuple[int, str]:
    if isinstance(error, (FgdaError, Terminated)):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 130, "stopped"
    if isinstance(error, BrokenPipeError):
        sys.stdout = open(os.devnull, "w")
        return 1, ""
    if isinstance(error, ImportError) and any(
        word in str(error) for word in ("failed to map", "allocate memory")
    ):
        return (
            1,
            (
                f"not enough memory to load {error.name or 'a library'}: the memory limit of this"
                " process is too small"
            ),
        )
    if isinstance(error, OSError):
        return 1, f"{error.filename or 'input/output'}: {error.strerror or error}"
    if isinstance(error, MemoryError):
        return 1, "out of memory: use a smaller size or batch"
    if "out of memory" in str(error):
        return 1, "the device is out of memory: use a smaller size or batch"
    first = str(error).splitlines()[0] if str(error) else ""
    return 1, f"internal error: {type(error).__name__}: {first}\n(--debug shows where)"


def terminate(signum, _frame):
    """Handle SIGTERM and SIGHUP outside training, where nothing needs to be saved."""
    raise Terminated(signum, "terminated" if signum == signal.SIGTERM else "the terminal is gone")
