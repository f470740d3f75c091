"""fgda zoo"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Optional

import typer

from ..runtime.errors import UsageError
from . import _options as cli


class Action(str, Enum):
    list = "list"
    get = "get"


def zoo(
    context: typer.Context,
    action: Annotated[Action, typer.Argument(help="list what is known, or get one.")] = Action.list,
    name: Annotated[
        Optional[str], typer.Argument(help="A name of the list, or a part of some.")
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Run code in the file, if it asks to: for authors you trust alone."
        ),
    ] = False,
    json: cli.Json = None,
) -> None:
    """List published checkpoints by name, or get one for predict, evaluate, export and card."""
    from ..models.zoo import ENTRIES, PAGES, place_of

    show = cli.reporter(context)
    if action is Action.get:
        if name is None:
            raise UsageError("fgda zoo get NAME: fgda zoo lists the names")
        from ..studies.zoo import get

        ours = get(name, show, trust)
        show.say(f"next: fgda predict {name} photos/ --out predicted")
        print(ours)
        return
    from ..visual.tables import zoo_table

    rows = [
        {
            "name": key,
            **entry._asdict(),
            "seen": PAGES.get(entry.page, ""),
            "protocol": entry.protocol,
            "here": place_of(key).is_file(),
        }
        for key, entry in ENTRIES.items()
        if (name or "") in key
    ]
    if not rows:
        raise UsageError(f"no published checkpoint's name holds '{name}': fgda zoo lists all")
    if json is not None:
        cli.emit_json({"checkpoints": rows}, json, show)
    if json != "-":
        show.console(stderr=False).print(zoo_table(rows))
