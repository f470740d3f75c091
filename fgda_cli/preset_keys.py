"""The keys that a preset can have: names, types or choices, defaults, and what they are for."""

from __future__ import annotations

import json
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .settings import Preset

NAMES_OF_TYPES = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    type(None): "null",
}
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


class Key(NamedTuple):
    """A dotted key: its type or choices with bounds, its default, and one line of help."""

    name: str
    type: str
    default: str
    help: str


def keys_of(schema: type[BaseModel] = Preset, prefix: str = "") -> list[Key]:
    """Return every key of a schema, those of its sections among them."""
    keys: list[Key] = []
    for name, field in schema.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += keys_of(field.annotation, f"{prefix}{name}.")
        else:
            kind = ", ".join([_named(field.annotation), *_bounds(field)])
            text = field.description or ""
            keys.append(Key(f"{prefix}{name}", kind, default=_default(field), help=text))
    return keys


def _bounds(field: FieldInfo) -> list[str]:
    # of a number; those of a list's length are pydantic's business
    return [
        f"{sign} {getattr(part, name):g}"
        for part in field.metadata
        for name, sign in SIGNS.items()
        if isinstance(getattr(part, name, None), (int, float))
    ]


def _named(annotation: Any) -> str:
    """Return a type in a user's words: a closed choice by its values."""
    origin = get_origin(annotation)
    parts = get_args(annotation)
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin is Annotated:
        return _named(parts[0])
    if origin in (Union, UnionType):
        return " | ".join(dict.fromkeys(map(_named, parts)))
    if origin is tuple:
        inner = [_named(part) for part in parts if part is not Ellipsis]
        if Ellipsis in parts or len(set(inner)) == 1:
            count = "" if Ellipsis in parts else f"{len(inner)} x "
            return f"list of {count}{inner[0]}"
        return f"list of {', '.join(inner)}"
    if origin is list:
        return f"list of {_named(parts[0])}"
    return NAMES_OF_TYPES.get(annotation, "mapping")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    return f"default {json.dumps(value, default=str)}"
