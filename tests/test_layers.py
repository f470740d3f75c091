"""Imports go down only: a room knows the rooms below it and none above."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fgda_cli"
# From the bottom up, as docs/architecture.md draws them. A room may import from those before it.
ROOMS = (
    "_version",
    "runtime",
    "settings",
    "data",
    "chunked",
    "losses",
    "metrics",
    "models",
    "visual",
    "methods",
    "presets",
    "inference",
    "signals",
    "training",
    "studies",
    "commands",
    "app",
    "api",
    "__main__",
)


def room_of(module: str) -> str | None:
    """`data.layouts.gta5` -> `data`; None for the package itself."""
    return module.split(".")[0] or None


def imports_of(path: Path) -> list[str]:
    """Files of the package that a file imports, anywhere in it (for type checkers too), as dotted
    names below the package.
    """
    package = path.relative_to(PACKAGE).parts[:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [
                *package[: len(package) - node.level + 1],
                *(node.module.split(".") if node.module else []),
            ]
            for alias in node.names:
                below = ".".join([*base, alias.name])
                found.append(below if is_file(below) else ".".join(base) or alias.name)
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


def is_file(module: str) -> bool:
    """Whether a dotted name is a file or a folder of the package."""
    path = PACKAGE.joinpath(*module.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def module_of(path: Path) -> str:
    """`data/layouts/__init__.py` -> `data.layouts`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_room_stands_in_the_order():
    rooms = {room_of(module_of(path)) for path in FILES}
    assert rooms - {"__init__"} == set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    own = room_of(module_of(path))
    if own == "__init__":
        return
    upward = [
        module
        for module in imports_of(path)
        if room_of(module) != own and ROOMS.index(room_of(module)) > ROOMS.index(own)
    ]
    assert not upward, f"{path.relative_to(PACKAGE)} imports {', '.join(upward)}"


def test_no_files_import_each_other_in_a_circle():
    waiting = {module_of(path): set(imports_of(path)) - {module_of(path)} for path in FILES}
    while waiting:
        free = {module for module, needed in waiting.items() if not needed & waiting.keys()}
        assert free, f"a circle among {', '.join(sorted(waiting))}"
        waiting = {module: needed for module, needed in waiting.items() if module not in free}


def test_the_check_sees_what_goes_up():
    assert "methods.base" in imports_of(PACKAGE / "training/stages.py")
    assert ROOMS.index("training") > ROOMS.index("inference") > ROOMS.index("methods")


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
