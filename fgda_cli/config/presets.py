"""Presets: YAML -> validated, frozen settings. `extends`, `--set`, and errors that name key, file and line."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ..methods.base import MethodSettings
from ..methods.registry import method_class, method_names
from ..runtime.errors import UsageError
from .schema import Preset

PACKAGED = Path(__file__).parents[1] / "_presets"
FOLDER = PACKAGED if PACKAGED.is_dir() else Path(__file__).parents[2] / "presets"


@dataclass(frozen=True)
class Value:
    """A YAML scalar or list with the place it was written at."""

    value: Any
    place: str


def preset_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_preset(name: str, overrides: tuple[str, ...] | list[str] = (), method: str | None = None) -> Preset:
    """The preset `name` (or path/to.yaml) with `key=value` overrides. Raises UsageError."""
    tree = _load_tree(_find(name), ())
    tree.setdefault("name", Value(Path(name).stem, name))
    if method is not None:
        _put(tree, ["method", "name"], Value(method, "--method"))
    explicit: dict = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {override}: write it as key=value, e.g. --set optim.lr=1e-4")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UsageError(f"--set {override}: the value is no YAML") from None
        _put(explicit, key.strip().split("."), _located(value, f"--set {key.strip()}"))
    _merge(tree, {key: value for key, value in explicit.items() if key != "method"})
    return _validate(tree, explicit.get("method", {}))


def from_json(tree: dict, where: str) -> Preset:
    """A resolved preset as it lies in a checkpoint or a run folder. Raises UsageError."""
    return _validate(_located(tree, where), {})


def _find(name: str, beside: Path | None = None) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        candidates = [beside / path] if beside else []
        found = next((p for p in [*candidates, path] if p.is_file()), None)
        if found is None:
            raise UsageError(f"no preset file {path}")
        return found
    near = [beside / f"{name}.yaml"] if beside else []
    for candidate in [*near, FOLDER / f"{name}.yaml"]:
        if candidate.is_file():
            return candidate
    hint = difflib.get_close_matches(name, preset_names(), 1, 0.5)
    raise UsageError(
        f"no preset '{name}'" + (f": did you mean '{hint[0]}'?" if hint else f" (known: {', '.join(preset_names())})")
    )


def _load_tree(path: Path, chain: tuple[Path, ...]) -> dict:
    if path.resolve() in chain:
        raise UsageError(f"{path}: extends goes in a circle")
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read preset {path}: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{path}{line}: no valid YAML ({getattr(error, 'problem', None) or type(error).__name__})") from error
    tree = _convert(node, path) if node is not None else {}
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: a preset is a mapping of keys")
    parent = tree.pop("extends", None)
    if parent is None:
        return tree
    if not isinstance(parent, Value) or not isinstance(parent.value, str):
        raise UsageError(f"{path}: extends takes the name of one preset")
    base = _load_tree(_find(parent.value, path.parent), (*chain, path.resolve()))
    base.pop("name", None)
    _merge(base, tree)
    return base


def _convert(node: yaml.Node, path: Path, name: str = "preset"):
    """A composed YAML node to nested dicts whose leaves are `Value`s."""
    place = f"{path}, line {node.start_mark.line + 1}"
    if not isinstance(node, yaml.MappingNode):
        try:
            return Value(_plain(node), place)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise UsageError(f"{place}: {name}: only plain numbers, texts and lists are read") from error
    tree: dict = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in tree:
            raise UsageError(f"{path}, line {line}: key '{key}' is written twice")
        value = _convert(value_node, path, key)
        tree[key] = Value(value.value, f"{path}, line {line}") if isinstance(value, Value) else value
    return tree


def _plain(node: yaml.Node):
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _located(value, place: str):
    if isinstance(value, dict):
        return {str(key): _located(inner, place) for key, inner in value.items()}
    return Value(value, place)


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


def _values(tree):
    return {key: _values(inner) for key, inner in tree.items()} if isinstance(tree, dict) else tree.value


def _validate(tree: dict, method_overrides: dict) -> Preset:
    per_method = tree.pop("methods", {})
    settings = _method_settings(tree.pop("method", {}), per_method, method_overrides)
    try:
        return Preset.model_validate(_values(tree) | {"method": settings})
    except ValidationError as error:
        raise UsageError(_explain(error, tree, Preset, ())) from None


def _method_settings(common, per_method, overrides) -> MethodSettings:
    """Settings of the chosen method: its defaults, `method:` (keys of other methods left out), `methods.NAME:`, --set."""
    if not isinstance(common, dict) or not isinstance(per_method, dict) or not isinstance(overrides, dict):
        raise UsageError("method: write it as a mapping, e.g. method: {name: fgda}")
    chosen = overrides.pop("name", None) or common.pop("name", Value("fgda", "default"))
    common.pop("name", None)
    for key in [str(chosen.value), *per_method]:
        if key not in method_names():
            hint = difflib.get_close_matches(key, method_names(), 1, 0.4)
            known = f"did you mean '{hint[0]}'?" if hint else f"known: {', '.join(method_names())}"
            raise UsageError(f"{chosen.place}: unknown method '{key}' ({known})")
    schema = method_class(chosen.value).Settings
    elsewhere = {key for name in method_names() for key in method_class(name).Settings.model_fields}
    merged = {key: value for key, value in common.items() if key in schema.model_fields or key not in elsewhere}
    own = per_method.get(chosen.value, {})
    _merge(merged, own if isinstance(own, dict) else {})
    _merge(merged, overrides)
    try:
        return schema.model_validate(_values(merged) | {"name": chosen.value})
    except ValidationError as error:
        raise UsageError(_explain(error, {"method": merged}, schema, ("method",))) from None


def _explain(error: ValidationError, tree: dict, schema: type[BaseModel], prefix: tuple) -> str:
    """The first problem of a validation as one line: place, key, what is wrong, the nearest valid key."""
    first = error.errors()[0]
    keys = [*prefix, *(str(part) for part in first["loc"])]
    node = tree
    for key in keys:
        if not isinstance(node, dict) or key not in node:
            break
        node = node[key]
    while isinstance(node, dict) and node:
        node = next(iter(node.values()))
    place = f"{node.place}: " if isinstance(node, Value) else ""
    dotted = ".".join(keys)
    if first["type"] == "extra_forbidden":
        return f"{place}unknown key '{dotted}'" + _nearest(keys, schema, prefix)
    if first["type"] == "missing":
        return f"preset lacks the key '{dotted}'"
    given = f" (given: {first['input']!r})" if not isinstance(first["input"], (dict, BaseModel)) else ""
    return f"{place}{dotted}: {first['msg'][0].lower()}{first['msg'][1:]}{given}"


def valid_keys(schema: type[BaseModel] = Preset, prefix: str = "") -> dict[str, str]:
    """Every dotted key of a schema with its one line of help."""
    keys: dict[str, str] = {}
    for name, field in schema.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys |= valid_keys(field.annotation, f"{prefix}{name}.")
        else:
            keys[f"{prefix}{name}"] = field.description or ""
    return keys


def _nearest(keys: list[str], schema: type[BaseModel], prefix: tuple) -> str:
    """A hint: the closest key of the same section, else the closest anywhere, else the section's keys."""
    known = list(valid_keys(schema, "".join(f"{part}." for part in prefix)))
    section = ".".join(keys[:-1])
    siblings = {key.rsplit(".", 1)[-1]: key for key in known if key.rpartition(".")[0] == section}
    anywhere = {key.rsplit(".", 1)[-1]: key for key in reversed(known)}
    for choices, cutoff in ((siblings, 0.6), (anywhere, 0.8)):
        close = difflib.get_close_matches(keys[-1], choices, 1, cutoff)
        if close:
            return f": did you mean '{choices[close[0]]}'?"
    names = sorted(siblings) or sorted({key.split(".")[0] for key in known})
    return f" (valid{' in ' + section if siblings and section else ''}: {', '.join(names)})"
