"""The one door for text: files in UTF-8, YAML as version 1.2 reads it and within bounds, names that
a terminal can show.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml

# levels of a YAML document
DEEPEST = 40
# nodes of a YAML document at most; an alias counts as often as it is used
MOST_NODES = 100_000
# bytes of a file that a person writes
LONGEST_FILE = 16_000_000


class BadText(Exception):
    """Text that cannot be used; `line` is where, from 1 on, if it is known."""

    def __init__(self, problem: str, line: int | None = None):
        super().__init__(problem if line is None else f"line {line}: {problem}")
        self.problem = problem
        self.line = line


def visible(text: str) -> str:
    """Return a text with control characters as escapes, so that no name can move the cursor or
    colour a terminal.
    """
    return "".join(
        letter if letter in "\n\t" or not _is_control(letter) else f"\\x{ord(letter):02x}"
        for letter in text
    )


def _is_control(letter: str) -> bool:
    code = ord(letter)
    # C0, delete and C1; marks that change the direction of writing.
    return code < 32 or 127 <= code < 160 or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069


def read_text(path: Path) -> str:
    """Read a file in UTF-8, with or without a byte order mark, whatever the locale is. Raises
    OSError and BadText.
    """
    with open(path, "rb") as handle:
        content = handle.read(LONGEST_FILE + 1)
    if len(content) > LONGEST_FILE:
        raise BadText(f"larger than {LONGEST_FILE // 10**6} MB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadText("not UTF-8 text: save it as UTF-8") from None


def parse_yaml(text: str) -> Any:
    """Return the plain values of a YAML document. Raises BadText."""
    node = compose_yaml(text)
    return None if node is None else construct_yaml(node)


def compose_yaml(text: str) -> yaml.Node | None:
    """Return the nodes of a YAML document, which know their lines; None for an empty one.

    Raises BadText for what is not YAML, nested too deep, too large once its aliases are followed,
    or contains itself.
    """
    import yaml

    try:
        node = yaml.compose(text, Loader=_loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise BadText(f"not valid YAML ({problem})", mark.line + 1 if mark else None) from None
    except RecursionError:
        raise BadText("nested too deep") from None
    if node is not None:
        _check_bounds(node)
    return node


def construct_yaml(node: yaml.Node) -> Any:
    """Return the plain values of a composed node; lists that are keys become tuples. Raises
    BadText.
    """
    import yaml

    loader = _loader()("")
    try:
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or node.start_mark
        raise BadText(
            getattr(error, "problem", None) or str(error).splitlines()[0], mark.line + 1
        ) from None
    except (ValueError, TypeError) as error:
        raise BadText(f"cannot be read ({str(error)[:60]})", node.start_mark.line + 1) from None
    finally:
        loader.dispose()


def _check_bounds(root: yaml.Node) -> None:
    """Raise BadText for a document that is too deep, too large, or contains itself. Aliases lead to
    one node from many places.
    """
    import yaml

    seen = 0
    above: set[int] = set()
    waiting: list[tuple[yaml.Node, int, bool]] = [(root, 1, False)]
    while waiting:
        node, depth, is_done = waiting.pop()
        if is_done:
            above.discard(id(node))
            continue
        seen += 1
        line = node.start_mark.line + 1
        if id(node) in above:
            raise BadText("contains itself by an alias", line)
        if depth > DEEPEST:
            raise BadText(f"nested deeper than {DEEPEST} levels", line)
        if seen > MOST_NODES:
            raise BadText(f"more than {MOST_NODES} values, aliases followed", line)
        if isinstance(node, yaml.ScalarNode):
            continue
        above.add(id(node))
        waiting.append((node, depth, True))
        parts = (
            node.value
            if isinstance(node, yaml.SequenceNode)
            else [part for pair in node.value for part in pair]
        )
        waiting += [(part, depth + 1, False) for part in parts]


def dump_yaml(tree: Any) -> str:
    """Return plain values as YAML that `parse_yaml` reads back, keys in their order."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    resolver = _loader()("")

    def represent(dumper: yaml.Dumper, text: str) -> yaml.Node:
        is_plain = resolver.resolve(yaml.ScalarNode, text, (True, False)) == "tag:yaml.org,2002:str"
        return dumper.represent_scalar(
            "tag:yaml.org,2002:str", text, style=None if is_plain else "'"
        )

    Dumper.add_representer(str, represent)
    return yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True)


# The scalars of YAML 1.2's core schema. Version 1.1, PyYAML's own, reads 010 as 8, 1:30 as 90 and
# `no` as false.
RESOLVERS = (
    ("tag:yaml.org,2002:null", r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("tag:yaml.org,2002:int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))",
        list("-+0123456789."),
    ),
)


@cache
def _loader() -> Any:
    """A safe loader of YAML 1.2's scalars that refuses a key that is written twice."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: dict = {}

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
            tree: dict = {}
            lines: dict = {}
            for key_node, value_node in node.value:
                key = _as_key(self.construct_object(key_node, deep=True))
                line = key_node.start_mark.line + 1
                try:
                    is_twice = key in tree
                except TypeError:
                    raise yaml.constructor.ConstructorError(
                        None, None, "a list or mapping cannot be a key here", key_node.start_mark
                    ) from None
                if is_twice:
                    problem = (
                        f"key {key} stands in line {lines[key]} and in line {line}: keep one of"
                        " them"
                    )
                    raise yaml.constructor.ConstructorError(
                        None, None, problem, key_node.start_mark
                    )
                lines[key] = line
                tree[key] = self.construct_object(value_node, deep=True)
            return tree

        def construct_int(self, node: yaml.ScalarNode) -> int:
            text = self.construct_scalar(node)
            bases = {"0o": 8, "0x": 16}
            return int(text[2:], bases[text[:2]]) if text[:2] in bases else int(text)

    for tag, pattern, first in RESOLVERS:
        Loader.add_implicit_resolver(tag, re.compile(rf"^{pattern}$"), first)
    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_int)
    Loader.add_constructor("tag:yaml.org,2002:map", Loader.construct_mapping)
    return Loader


def _as_key(value: Any) -> Any:
    return tuple(map(_as_key, value)) if isinstance(value, list) else value
