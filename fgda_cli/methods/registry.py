"""Methods by name: a file of this folder that says `METHOD = Class` is a method, named as the file
(with dashes).
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from .. import methods
from .base import Method


@cache
def _methods() -> dict[str, type[Method]]:
    modules = (
        importlib.import_module(f"{methods.__name__}.{file.name}")
        for file in pkgutil.iter_modules(methods.__path__)
    )
    known = {
        module.__name__.rpartition(".")[2].replace("_", "-"): getattr(module, "METHOD", None)
        for module in modules
    }
    return {name: method for name, method in sorted(known.items()) if method is not None}


def method_names() -> tuple[str, ...]:
    return tuple(_methods())


def method_class(name: str) -> type[Method]:
    """Return the class of a method. Raises KeyError for an unknown name."""
    return _methods()[name]
