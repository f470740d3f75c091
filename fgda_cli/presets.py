"""Presets: YAML -> validated, frozen settings. `extends`, `--set`, and errors that name key, file
and line.
"""

from __future__ import annotations

import difflib
import itertools
import json
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from .methods.base import MethodSettings
from .methods.registry import method_class, method_names
from .runtime.errors import UsageError
from .runtime.text import BadText, compose_yaml, construct_yaml, parse_yaml, read_text
from .settings import IdleSetting, Preset, seconds

PACKAGED = Path(__file__).parent / "_presets"
DEFAULT_METHOD = "fgda"
FOLDER = PACKAGED if PACKAGED.is_dir() else Path(__file__).parents[1] / "presets"


OF_RECORD = -1


@dataclass(frozen=True)
class Value:
    """A YAML scalar or list with the place it was written at."""

    value: Any
    place: str
    # presets are laid over those that they extend, --set over all; OF_RECORD: of a run's record
    layer: int = 0


def preset_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def shipped_presets() -> dict[str, str]:
    """Return what each shipped preset is for, by its name."""
    return {name: _purpose(read_text(FOLDER / f"{name}.yaml")) for name in preset_names()}


def own_presets(folder: Path) -> dict[str, str]:
    """Return the presets that lie in a folder, YAML files that extend another, and what they are
    for. Files that cannot be read as text are none.
    """
    found = {}
    for path in sorted(folder.glob("*.yaml")):
        with suppress(OSError, BadText):
            text = read_text(path)
            if re.search(r"^extends:", text, re.M):
                found[str(path)] = _purpose(text)
    return found


def _purpose(text: str) -> str:
    """The first sentence of the comment that a preset begins with."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    comment = " ".join(line.removeprefix("#").strip() for line in lines)
    # "et al. 2019" ends no sentence
    return re.split(r"\.(?= [A-Z]|$)", comment, maxsplit=1)[0].rstrip(":")


def load_preset(
    name: str,
    overrides: tuple[str, ...] | list[str] = (),
    method: str | None = None,
) -> Preset:
    """Return the preset `name` (or path/to.yaml) with `key=value` overrides and, if given, another
    method.

    `method.KEY=VALUE` sets a key of the method that is chosen in the end, `methods.NAME.KEY=VALUE`
    one of any method. An inherited setting is dropped if a setting laid over it leaves it without
    an effect: who changes `batch_norm` need not know what belonged to its former mode.

    Raises UsageError.
    """
    tree = _load_tree(_find(name), ())
    tree.setdefault("name", Value(Path(name).stem, name))
    if method is not None:
        tree["method"] = Value(method, "--method")
    explicit: dict = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {override}: write it as key=value, e.g. --set optim.lr=1e-4")
        try:
            value = parse_yaml(text)
        except BadText as error:
            raise UsageError(f"--set {override[:200]}: {error.problem}") from None
        keys = key.strip().split(".")
        _put(
            explicit,
            ["method", "name"] if keys == ["method"] else keys,
            _located(value, f"--set {key.strip()}"),
        )
    of_method = explicit.pop("method", {})
    _lay_over(tree, explicit)
    if "name" in of_method:
        tree["method"] = of_method.pop("name")
    preset = _validate(tree, _in_layer(of_method, _highest_layer(tree) + 1))
    own = getattr(preset.method, "sampling", None)
    if own is not None and "sampling" in explicit.get("data", {}):
        raise UsageError(
            f"--set data.sampling: method {preset.method.name} draws source images by its own"
            f" sampling, {own}\nset method.sampling, or method.sampling=null to follow"
            " data.sampling"
        )
    return preset


def from_json(tree: dict, where: str) -> Preset:
    """Return a resolved preset as a checkpoint or a run folder holds it, of this version or an
    earlier one. Raises UsageError.
    """
    located = _in_layer(_located(tree, where), OF_RECORD)
    for *sections, key in RETIRED:
        section = located
        for name in sections:
            section = section.get(name, {}) if isinstance(section, dict) else {}
        if isinstance(section, dict):
            section.pop(key, None)
    _check_methods(located)
    return _validate(located, {})


# Keys that did nothing where they stood, or gained nothing: records of earlier runs hold them.
RETIRED = (
    ("data", "source", "labelled"),
    ("data", "source", "border"),
    ("data", "target", "validation"),
    *(
        ("methods", method, key)
        for method in ("fada", "fgda", "fgda-st", "mic", "vfmuda")
        for key in (
            "class_weighting",
            "class_weighting_power",
            "min_confidence",
            "entropy_min_share",
        )
    ),
)


def _find(name: str, beside: Path | None = None) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        candidates = [beside / path] if beside else []
        file = next((p for p in [*candidates, path] if p.is_file()), None)
        if file is None:
            raise UsageError(f"no preset file {path}")
        return file
    near = [beside / f"{name}.yaml"] if beside else []
    for candidate in [*near, FOLDER / f"{name}.yaml", Path(f"{name}.yaml")]:
        if candidate.is_file():
            return candidate
    hint = difflib.get_close_matches(name, preset_names(), 1, cutoff=0.5)
    raise UsageError(
        f"no preset '{name}'"
        + (f": did you mean '{hint[0]}'?" if hint else f" (known: {', '.join(preset_names())})")
    )


def _load_tree(path: Path, chain: tuple[Path, ...]) -> dict:
    if path.resolve() in chain:
        raise UsageError(f"{path}: extends goes in a circle")
    try:
        node = compose_yaml(read_text(path))
    except OSError as error:
        raise UsageError(f"cannot read preset {path}: {error}") from error
    except BadText as error:
        raise UsageError(
            f"{path}{f', line {error.line}' if error.line else ''}: {error.problem}"
        ) from error
    tree = _convert(node, path) if node is not None else {}
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: a preset is a mapping of keys")
    # a run's own record, which says in `stage` what the run is
    if isinstance(tree.get("stage"), dict):
        tree.pop("stage")
    parent = tree.pop("extends", None)
    base = {}
    if parent is not None:
        if not isinstance(parent, Value) or not isinstance(parent.value, str):
            raise UsageError(f"{path}: extends takes the name of one preset")
        base = _load_tree(_find(parent.value, path.parent), (*chain, path.resolve()))
        base.pop("name", None)
    _check_methods(tree)
    _lay_over(base, tree)
    return base


def _check_methods(tree: dict) -> None:
    """Refuse what `method:` and `methods:` of one file may not be. Raises UsageError."""
    misplaced = tree.get("method")
    if isinstance(misplaced, dict):
        first = _first_value(misplaced)
        raise UsageError(
            f"{first.place if first else 'preset'}: method: write the name of one method; its"
            " settings go to methods.NAME, e.g. methods: {fgda: {eta: 0.5}}"
        )
    methods = tree.get("methods", {})
    if isinstance(methods, Value):
        raise UsageError(
            f"{methods.place}: methods: write it as a mapping, e.g. methods: {{fgda: {{eta: 0.5}}}}"
        )
    for name, settings in methods.items():
        if isinstance(settings, Value):
            raise UsageError(
                f"{settings.place}: methods.{name}: write its settings as a mapping,"
                " e.g. {eta: 0.5}"
            )


def _first_value(tree) -> Value | None:
    """Return the first leaf of a tree, which knows where it was written; None for an empty one."""
    while isinstance(tree, dict):
        if not tree:
            return None
        tree = next(iter(tree.values()))
    return tree


def _convert(node: yaml.Node, path: Path, name: str = "preset"):
    """A composed YAML node to nested dicts whose leaves are `Value`s."""
    origin = f"{path}, line {node.start_mark.line + 1}"
    if not isinstance(node, yaml.MappingNode):
        try:
            return Value(construct_yaml(node), origin)
        except BadText as error:
            raise UsageError(
                f"{origin}: {name}: only plain numbers, texts and lists are read"
            ) from error
    tree: dict = {}
    for key_node, value_node in node.value:
        key = str(key_node.value)
        line = key_node.start_mark.line + 1
        if key in tree:
            raise UsageError(f"{path}, line {line}: key '{key}' is written twice")
        value = _convert(value_node, path, key)
        tree[key] = (
            Value(value.value, f"{path}, line {line}") if isinstance(value, Value) else value
        )
    return tree


def _located(value, origin: str):
    if isinstance(value, dict):
        return {str(key): _located(inner, origin) for key, inner in value.items()}
    return Value(value, origin)


def _put(tree: dict, keys: list[str], value) -> None:
    for key in keys[:-1]:
        if not isinstance(tree.get(key), dict):
            tree[key] = {}
        tree = tree[key]
    tree[keys[-1]] = value


def _merge(base: dict, over: dict) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _lay_over(base: dict, over: dict) -> None:
    """Merge `over` into `base`, as a layer above it."""
    _merge(base, _in_layer(over, _highest_layer(base) + 1))


def _in_layer(tree, layer: int):
    if isinstance(tree, dict):
        return {key: _in_layer(inner, layer) for key, inner in tree.items()}
    return replace(tree, layer=layer)


def _highest_layer(tree) -> int:
    if isinstance(tree, dict):
        return max(map(_highest_layer, tree.values()), default=0)
    return tree.layer


def _drop_if_inherited(error: ValidationError, tree: dict) -> bool:
    """Remove the first setting that does nothing if the one that makes it so lies in a layer above
    it, or if it is of a run's record: an earlier version took it without a word.
    """
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if not isinstance(cause, IdleSetting):
        return False
    section = tree
    for key in first["loc"]:
        section = section.get(key, {}) if isinstance(section, dict) else {}
    if not isinstance(section, dict):
        return False
    idle = section.get(cause.key)
    by = section.get(cause.by)
    if not isinstance(idle, Value) or not isinstance(by, Value):
        return False
    if by.layer <= idle.layer != OF_RECORD:
        return False
    del section[cause.key]
    return True


def _values(tree):
    return (
        {key: _values(inner) for key, inner in tree.items()}
        if isinstance(tree, dict)
        else tree.value
    )


def _validate(tree: dict, of_method: dict) -> Preset:
    """Return the preset of a tree; `of_method` holds what --set gives the chosen method. Raises
    UsageError.
    """
    per_method = tree.pop("methods", {})
    wanted = tree.pop("method", Value(DEFAULT_METHOD, "default"))
    if not isinstance(wanted, Value) or not isinstance(per_method, dict):
        raise UsageError("method: write the name of one method; its settings go to methods.NAME")
    for name, place in {
        **{key: _first_value(value) for key, value in per_method.items()},
        str(wanted.value): wanted,
    }.items():
        if name not in method_names():
            hint = difflib.get_close_matches(name, method_names(), 1, cutoff=0.4)
            known = f"did you mean '{hint[0]}'?" if hint else f"known: {', '.join(method_names())}"
            raise UsageError(
                f"{place.place if place else 'methods'}: unknown method '{name}' ({known})"
            )
    settings = {
        name: _method_settings(name, own, ("methods", name)) for name, own in per_method.items()
    }
    name = str(wanted.value)
    if of_method:
        settings[name] = _method_settings(
            name, {**per_method.get(name, {}), **of_method}, ("method",)
        )
    if "source_only" in tree:
        place = _first_value(tree["source_only"])
        raise UsageError(
            f"{place.place if place else 'preset'}: unknown key 'source_only': did you mean"
            " 'methods.source-only'?"
        )
    resolved = {"method": name, "source_only": "source-only"}
    methods = {key: settings.get(own) or _defaults(own) for key, own in resolved.items()}
    try:
        return Preset.model_validate(_values(tree) | methods)
    except ValidationError as error:
        if _drop_if_inherited(error, tree):
            return _validate(tree | {"methods": per_method, "method": wanted}, of_method)
        raise UsageError(_explain(error, tree, Preset, prefix=())) from None


def _defaults(name: str) -> MethodSettings:
    return method_class(name).Settings(name=name)


def _method_settings(name: str, own: dict, section: tuple[str, ...]) -> MethodSettings:
    """Return a method's settings: its defaults and `own`, which stand in a section of the preset.
    Raises UsageError.
    """
    schema = method_class(name).Settings
    try:
        return schema.model_validate(_values(own) | {"name": name})
    except ValidationError as error:
        if _drop_if_inherited(error, own):
            return _method_settings(name, own, section)
        tree: dict = {}
        _put(tree, list(section), own)
        raise UsageError(_explain(error, tree, schema, prefix=section)) from None


def _explain(error: ValidationError, tree: dict, schema: type[BaseModel], prefix: tuple) -> str:
    """The first problem of a validation as one line: place, key, what is wrong, the nearest valid
    key.
    """
    first = error.errors()[0]
    keys = [*prefix, *(str(part) for part in first["loc"])]
    node = tree
    for key in keys:
        if not isinstance(node, dict) or key not in node:
            break
        node = node[key]
    # A check of a whole section names the key at fault first.
    named = re.match(r"Value error, ([a-z_]+)\b", first["msg"])
    if named and isinstance(node, dict) and named[1] in node:
        node = node[named[1]]
        keys.append(named[1])
    node = _first_value(node)
    dotted = ".".join(keys)
    origin = f"{node.place}: " if node is not None and node.place != f"--set {dotted}" else ""
    if not origin and node is not None:
        dotted = f"--set {dotted}"
    if first["type"] == "extra_forbidden":
        return f"{origin or '--set: '}unknown key '{'.'.join(keys)}'" + _nearest(
            keys, schema, prefix
        )
    if first["type"] == "missing":
        return f"preset lacks the key '{dotted}'"
    given = (
        f" (given: {repr(first['input'])[:60]})"
        if not isinstance(first["input"], (dict, BaseModel))
        else ""
    )
    problem = first["msg"].removeprefix("Value error, ")
    return f"{origin}{dotted}: {problem[0].lower()}{problem[1:]}{given}"


def _nearest(keys: list[str], schema: type[BaseModel], prefix: tuple) -> str:
    """A hint: the closest key of the same section, else the closest anywhere, else the section's
    keys.
    """
    known = [key.name for key in keys_of(schema, "".join(f"{part}." for part in prefix))]
    section = ".".join(keys[:-1])
    # last part of a key -> the key; of several, the one that the settings have first
    anywhere = {key.rpartition(".")[2]: key for key in reversed(known)}
    siblings = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == section}
    for choices, cutoff in ((siblings, 0.6), (anywhere, 0.8)):
        close = difflib.get_close_matches(keys[-1], choices, 1, cutoff=cutoff)
        if close:
            return f": did you mean '{choices[close[0]]}'?"
    if not siblings:
        sections = sorted({key.partition(".")[0] for key in known})
        return f" (valid: {', '.join(sections)})"
    where = f" in {section}" if section else ""
    return f" (valid{where}: {', '.join(sorted(siblings))})"


def within_budget(text: str) -> list[str]:
    """Return the overrides that `--budget` stands for. Raises UsageError for what is no time."""
    limit = seconds(text)
    if not isinstance(limit, float) or not limit:
        raise UsageError(
            f"--budget {text}: write a number and its unit, s, m or h, e.g. 90s, 30m or 2h"
        )
    return ["run.select=label-free", f"run.time_limit={limit}"]


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
    # bounds of a number; pydantic itself tells the length of a list
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
