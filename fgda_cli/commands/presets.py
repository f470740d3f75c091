"""fgda presets"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ..runtime.errors import UsageError
from . import _options as cli

if TYPE_CHECKING:
    from ..presets import Key


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
    from ..presets import own_presets, shipped_presets

    if keys:
        if sets or method:
            raise UsageError("--keys lists keys alone: it goes without --method and --set")
        blocks = [_block(group, name or "") for group in _groups()]
        if not any(blocks):
            raise UsageError(f"--keys {name}: no key has this text, in its name or its help")
        print("\n\n".join(filter(None, blocks)))
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


def _groups() -> list[list[Key]]:
    """Return the keys of all presets, then those that several methods have alike, then each
    method's own.
    """
    from ..methods.registry import method_class, method_names
    from ..presets import keys_of

    # methods that share a setting, by the setting
    shared: dict[Key, list[str]] = {}
    for method in method_names():
        for key in keys_of(method_class(method).Settings):
            if key.name != "name":
                shared.setdefault(key, []).append(method)
    own: dict[str, list[Key]] = {}
    alike = []
    for key, methods in shared.items():
        if len(methods) == 1:
            named = key._replace(name=f"methods.{methods[0]}.{key.name}")
            own.setdefault(methods[0], []).append(named)
        else:
            whose = f" (of {', '.join(methods)})"
            alike.append(key._replace(name=f"methods.NAME.{key.name}", help=key.help + whose))
    general = [key for key in keys_of() if key.name != "source_only"]
    return [general, alike, *(own[method] for method in sorted(own))]


def _block(keys: list[Key], text: str) -> str:
    import textwrap

    lines = []
    for key in keys:
        if text.lower() in f"{key.name} {key.help}".lower():
            facts = f"{key.name:28} {key.type}; {key.default}"
            lines.append(textwrap.fill(facts, 79, subsequent_indent=" " * 29))
            lines.append(
                textwrap.fill(key.help, 79, initial_indent="    ", subsequent_indent="    ")
            )
    return "\n".join(lines)


def _lines(rows: dict[str, str]) -> str:
    import textwrap

    return "\n".join(
        textwrap.fill(f"{key:28} {text}", 79, subsequent_indent=" " * 29)
        for key, text in rows.items()
    )
