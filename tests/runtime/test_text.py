"""Text of a person's files: UTF-8 in any locale, YAML as version 1.2 reads it, bounded; names that
no terminal obeys.
"""

from __future__ import annotations

import pytest

from fgda_cli.runtime.text import BadText, compose_yaml, dump_yaml, parse_yaml, read_text, visible


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("1:30", "1:30"),
        ("no", "no"),
        ("off", "off"),
        ("y", "y"),
        ("2026-11-29", "2026-11-29"),
        ("0x1F", 31),
        ("0o17", 15),
        ("1_000", "1_000"),
        ("1e-4", 1e-4),
        ("2.5e-4", 2.5e-4),
        ("true", True),
        ("~", None),
        ("'010'", "010"),
    ],
)
def test_scalars_are_those_of_version_1_2(text, value):
    found = parse_yaml(f"key: {text}")["key"]
    assert found == value and type(found) is type(value)


def test_what_is_written_is_read_back():
    tree = {
        "a": ["no", "010", 10, 1e-5, None, True, "1:30"],
        "b c": {"Straße": "ü: 1", "[x]": "~"},
        "n": "null",
    }
    assert parse_yaml(dump_yaml(tree)) == tree and list(parse_yaml(dump_yaml(tree))) == list(tree)


def test_a_key_twice_names_both_lines():
    with pytest.raises(BadText, match="key a stands in line 1 and in line 3"):
        parse_yaml("a: 1\nb: 2\na: 3\n")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("&a [*a]", "contains itself"),
        ("[" * 60 + "]" * 60, "nested deeper than 40"),
        ("[" * 5000 + "]" * 5000, "nested"),
        (
            "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
            + "".join(
                f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 10)}]\n"
                for n in range(8)
            ),
            "aliases followed",
        ),
        ("a: [1", "not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: !!int x", "cannot be read"),
        ("? {a: 1}\n: 2", "cannot be a key"),
    ],
)
def test_documents_out_of_bounds_are_refused(text, problem):
    with pytest.raises(BadText, match=problem):
        parse_yaml(text)


def test_an_empty_document_and_lists_as_keys():
    assert compose_yaml("# nothing\n") is None and parse_yaml("") is None
    assert parse_yaml("[0, 0, 70]: car") == {(0, 0, 70): "car"}


def test_files_are_utf_8_with_or_without_a_mark(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("Straße\n".encode("utf-8-sig"))
    assert read_text(path) == "Straße\n"
    path.write_bytes("Straße".encode("latin-1"))
    with pytest.raises(BadText, match="not UTF-8"):
        read_text(path)
    path.write_bytes(b"a" * 16_000_001)
    with pytest.raises(BadText, match="larger than 16 MB"):
        read_text(path)


def test_names_cannot_move_the_cursor():
    assert visible("a\x1b[2Jb\x07\x9bc\u202ed\r") == "a\\x1b[2Jb\\x07\\x9bc\\x202ed\\x0d"
    assert visible("Zürich [b]\tx\n") == "Zürich [b]\tx\n"
