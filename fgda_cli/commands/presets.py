"""fgda presets"""

from __future__ import annotations

from typing import Annotated, Optional

import typer


def presets(
    name: Annotated[Optional[str], typer.Argument(help="Show this preset, resolved.")] = None,
    keys: Annotated[bool, typer.Option("--keys", help="List every key with one line of help.")] = False,
) -> None:
    """List presets, show one resolved, or list all keys."""
    from ..config.presets import load_preset, preset_names, valid_keys
    from ..methods.registry import method_class, method_names

    if keys:
        rows = {key: text for key, text in valid_keys().items() if key != "method"}
        print(_lines(rows))
        for method in method_names():
            print(f"\nmethod.name: {method}")
            settings = valid_keys(method_class(method).Settings, "method.")
            print(_lines({key: text for key, text in settings.items() if key != "method.name"}))
    elif name is not None:
        print(load_preset(name).to_yaml(), end="")
    else:
        print("\n".join(preset_names()))


def _lines(rows: dict[str, str]) -> str:
    import textwrap

    return "\n".join(textwrap.fill(f"{key:28} {text}", 79, subsequent_indent=" " * 29) for key, text in rows.items())
