"""Imports go down only: a room knows the rooms below it and none above."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fgda_cli"
# From the bottom up, as docs/architecture.md draws them. A room may import from its own line and
# from those before it.
LAYERS = (
    {"_version", "runtime", "settings"},
    {"data"},
    {"chunked", "losses", "metrics", "models"},
    {"visual"},
    {"methods"},
    {"presets"},
    {"inference", "signals"},
    {"training"},
    {"studies"},
    {"commands"},
    {"app", "api", "__main__"},
)


def room_of(module: str) -> str | None:
    """`data.layouts.gta5` -> `data`; None for the package itself."""
    return module.split(".")[0] or None


def imports_of(path: Path) -> list[str]:
    """Modules of the package that a file imports, anywhere in it, as dotted names below the
    package.
    """
    here = path.relative_to(PACKAGE).with_suffix("").parts
    package = here[:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [
                *package[: len(package) - node.level + 1],
                *(node.module.split(".") if node.module else []),
            ]
            names = [".".join([*base, alias.name]) for alias in node.names]
            found += [".".join(base)] if base else names
        elif (
            isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("fgda_cli.")
        ):
            found.append(node.module.removeprefix("fgda_cli."))
        elif isinstance(node, ast.Import):
            found += [
                a.name.removeprefix("fgda_cli.")
                for a in node.names
                if a.name.startswith("fgda_cli.")
            ]
    return found


def level(room: str) -> int:
    return next(number for number, rooms in enumerate(LAYERS) if room in rooms)


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_room_stands_in_the_order():
    rooms = {room_of(".".join(path.relative_to(PACKAGE).with_suffix("").parts)) for path in FILES}
    assert rooms - {"__init__"} == {room for layer in LAYERS for room in layer}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    own = room_of(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    if own == "__init__":
        return
    upward = [module for module in imports_of(path) if level(room_of(module)) > level(own)]
    assert not upward, f"{path.relative_to(PACKAGE)} imports {', '.join(upward)}"


def test_the_check_sees_what_goes_up():
    assert "methods.base" in imports_of(PACKAGE / "training/stages.py")
    assert level("training") > level("inference") > level("methods")


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "training").glob("*.py")), ids=lambda path: path.name
)
def test_the_engine_names_no_method(path):
    from fgda_cli.methods.registry import method_names

    words = {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
    }
    assert not words & (set(method_names()) - {"source-only"})


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "methods").glob("*.py")), ids=lambda path: path.name
)
def test_no_method_knows_a_file_format(path):
    forbidden = {"cv2", "PIL", "yaml"}
    found = {
        alias.name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert not found & forbidden
