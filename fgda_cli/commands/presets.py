"""fgda presets"""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from ..runtime.errors import UsageError
from . import _options as cli


def presets(
    context: typer.Context,
    name: Annotated[Optional[str], typer.Argument(help="Show this preset, resolved.")] = None,
    sets: cli.SetValues = None,
    method: cli.MethodName = None,
    keys: Annotated[bool, typer.Option("--keys", help="List every key with one line of help.")] = False,
) -> None:
    """List presets, show what would run with one (--method, --set), or list all keys."""
    from ..methods.registry import method_class, method_names
    from ..presets import preset_names, valid_keys

    if keys:
        print(_lines({key: text for key, text in valid_keys().items() if key != "source_only"}))
        for name in method_names():
            prefix = f"methods.{name}."
            settings = valid_keys(method_class(name).Settings, prefix)
            print(f"\n{_lines({key: text for key, text in settings.items() if key != f'{prefix}name'})}")
    elif name is not None:
        print(cli.preset_from(context, name, sets, None, None, None, method).to_yaml(), end="")
    elif sets or method:
        raise UsageError("--method and --set need a preset: fgda presets NAME")
    else:
        print("\n".join(preset_names()))


def _lines(rows: dict[str, str]) -> str:
    import textwrap

    return "\n".join(textwrap.fill(f"{key:28} {text}", 79, subsequent_indent=" " * 29) for key, text in rows.items())
