"""Methods by name: `methods/NAME.py` (dashes become underscores) holds one subclass of Method."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache

from .. import methods
from .base import Method

NOT_METHODS = {"base", "offline", "optimizers", "pieces", "registry"}


@cache
def method_names() -> tuple[str, ...]:
    files = (module.name for module in pkgutil.iter_modules(methods.__path__))
    return tuple(sorted(name.replace("_", "-") for name in files if name not in NOT_METHODS))


@cache
def method_class(name: str) -> type[Method]:
    """The class of a method. Raises KeyError for an unknown name."""
    if name not in method_names():
        raise KeyError(name)
    module = importlib.import_module(f"{methods.__name__}.{name.replace('-', '_')}")
    own = [c for _, c in inspect.getmembers(module, inspect.isclass) if issubclass(c, Method) and c.__module__ == module.__name__]
    return own[0]
