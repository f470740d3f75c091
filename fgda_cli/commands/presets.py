"""fgda presets"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ..runtime.errors import UsageError
from . import _options as cli


def presets(
    name: Annotated[
        Optional[str],
        typer.Argument(help="Preset to show, resolved; with --keys: a text to search for."),
    ] = None,
    sets: cli.SetValues = None,
    method: cli.MethodName = None,
    keys: Annotated[
        bool,
        typer.Option("--keys", help="List keys with one line of help: all, or those with a text."),
    ] = False,
) -> None:
    """List presets with what they are for, show what would run with one (--method, --set), or list
    all keys.
    """
    from ..methods.registry import method_class, method_names
    from ..presets import own_presets, shipped_presets, valid_keys

    if keys:
        if sets or method:
            raise UsageError("--keys lists keys alone: it goes without --method and --set")
        groups = [{key: text for key, text in valid_keys().items() if key != "source_only"}]
        for each in method_names():
            prefix = f"methods.{each}."
            settings = valid_keys(method_class(each).Settings, prefix)
            groups.append({key: text for key, text in settings.items() if key != f"{prefix}name"})
        blocks = [_lines(rows) for group in groups if (rows := _with_text(group, name or ""))]
        if not blocks:
            raise UsageError(f"--keys {name}: no key has this text, in its name or its help")
        print("\n\n".join(blocks))
    elif name is not None:
        print(
            cli.preset_from(name, sets, method=method).to_yaml(),
            end="",
        )
    elif sets or method:
        raise UsageError("--method and --set need a preset: fgda presets NAME")
    else:
        print(_lines(own_presets(Path(".")) | shipped_presets()))
        print("\ngta2city* and synthia2city* are sized for a GPU, all others for two CPU cores.")


def _with_text(rows: dict[str, str], text: str) -> dict[str, str]:
    return {key: help for key, help in rows.items() if text.lower() in f"{key} {help}".lower()}


def _lines(rows: dict[str, str]) -> str:
    import textwrap

    return "\n".join(
        textwrap.fill(f"{key:28} {text}", 79, subsequent_indent=" " * 29)
        for key, text in rows.items()
    )
