"""The Typer app: registers commands, nothing else. Importing it loads no torch."""

from __future__ import annotations

import os
import sys
import threading
import traceback
import warnings
from typing import Annotated

import typer

from ._version import __version__
from .commands import _options as cli
from .commands import (
    ablate,
    adapt,
    backbones,
    card,
    compare,
    demo,
    doctor,
    entropy_map,
    evaluate,
    export,
    gap,
    import_,
    predict,
    prepare,
    presets,
    pretrain,
    rank,
    report,
    start,
    status,
    verdict,
    zoo,
)
from .runtime.distributed import ranks
from .runtime.errors import UsageError
from .runtime.reporter import Reporter, tell
from .runtime.system import keep_freed_memory, on_signal

app = typer.Typer(
    name="fgda",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Adapt segmentation models from labelled synthetic to unlabelled real street scenes.",
)

DATA = "Data"
TRAIN = "Train"
JUDGE = "Judge"
USE = "Use"
ABOUT = "Look up"
GROUPS = {
    DATA: {"start": start.start, "prepare": prepare.prepare, "gap": gap.gap},
    TRAIN: {
        "demo": demo.demo,
        "pretrain": pretrain.pretrain,
        "adapt": adapt.adapt,
        "import": import_.import_,
    },
    JUDGE: {
        "evaluate": evaluate.evaluate,
        "compare": compare.compare,
        "ablate": ablate.ablate,
        "report": report.report,
        "status": status.status,
        "verdict": verdict.verdict,
        "rank": rank.rank,
    },
    USE: {
        "predict": predict.predict,
        "entropy-map": entropy_map.entropy_map,
        "export": export.export,
        "card": card.card,
    },
    ABOUT: {
        "presets": presets.presets,
        "zoo": zoo.zoo,
        "backbones": backbones.backbones,
        "doctor": doctor.doctor,
    },
}
for group, commands in GROUPS.items():
    for name, function in commands.items():
        register = app.command(
            name, cls=cli.Command, help=cli.help_of(function), rich_help_panel=group
        )
        register(cli.name_types(function))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"fgda {__version__}")
        raise typer.Exit()


@app.callback()
def globals_(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Only results, warnings and errors.")
    ] = False,
    no_color: Annotated[
        bool, typer.Option("--no-color", help="No colours (as the NO_COLOR variable).")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    rank, processes, _ = ranks()
    if processes > 1 and context.invoked_subcommand not in cli.SEVERAL_PROCESSES:
        raise UsageError(
            f"{context.invoked_subcommand} runs in one process: start it without torchrun"
        )
    if rank > 0:
        # the first process speaks for all
        sys.stdout = open(os.devnull, "w")
        warnings.simplefilter("ignore")
    context.obj = Reporter(
        quiet or rank > 0, not (no_color or "NO_COLOR" in os.environ), decisions=[], warns=rank == 0
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    open_streams()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for name in ("SIGTERM", "SIGHUP"):
        on_signal(name, cli.terminate)
    if hasattr(sys.stdout, "reconfigure"):
        # names of files that are not UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    for library, silent in (("OPENCV_LOG_LEVEL", "OFF"), ("OPENCV_FFMPEG_LOGLEVEL", "-8")):
        # OpenCV and FFmpeg would report damaged files in their own words
        os.environ.setdefault(library, silent)
    if "--no-color" in arguments:
        os.environ["NO_COLOR"] = "1"
    if "--debug" not in arguments:
        threading.excepthook = _thread_failed
    command = typer.main.get_command(app)
    try:
        _refuse_empty(arguments)
        arguments = cli.arrange(arguments)
        result = command.main(args=arguments, prog_name="fgda", standalone_mode=False)
        sys.stdout.flush()
        # Typer turns Ctrl-C into this code without a word
        if result == 130:
            return _exit_code(KeyboardInterrupt())
        return result if isinstance(result, int) else 0
    except BaseException as error:  # noqa: BLE001 - the one place where every error becomes a line and a code
        if "--debug" in arguments and not isinstance(error, SystemExit):
            traceback.print_exc()
        return _exit_code(error)


def _refuse_empty(arguments: list[str]) -> None:
    """Raise UsageError for an empty word, as a shell's unset variable leaves: a path of none would
    be the working folder.
    """
    for before, word in zip(["fgda", *arguments], arguments, strict=False):
        if word == "" or (word.startswith("--") and word.endswith("=")):
            raise UsageError(
                f"the word after {before} is empty" if word == "" else f"{word} has no value"
            )


def open_streams() -> None:
    """Give standard streams that are closed (daemons, cron) the null device: else files that are
    opened take their places.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """Ignore an error in a library's thread (TensorBoard's writer on a full disk): the main thread
    meets the same error and reports it once.
    """
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    # the command line parser's own errors
    if hasattr(error, "format_message"):
        if type(error).__name__ == "NoArgsIsHelpError":
            tell(error.format_message())
            return 2
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        message = error.format_message().replace(": Value error, ", ": ")
        tell(f"fgda: {' '.join(message.split())}{hint}")
        return getattr(error, "exit_code", 2)
    if type(error).__name__ == "Abort":
        error = KeyboardInterrupt()
    return cli.report(error)


def run() -> None:
    """Run the console script `fgda`, whose process is its own: a caller of the API keeps the memory
    settings it has.
    """
    keep_freed_memory()
    sys.exit(main())
