"""The commands of docs/paper.md, run as they stand there, on the playground in the data's place."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import cv2
import pytest

from fgda_cli.studies.published import TABLES
from tests.helpers import ROOT, fgda, set_flags

PAGE = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ((?:Table|Figure) \d) \| `(fgda [^`]+)` \|", PAGE, re.MULTILINE)
COMMANDS = {name: shlex.split(command)[1:] for name, command in ROWS}
# the playground's domains stand for the paper's
INSTEAD = {
    "gta2city": "playground",
    "synthia2city": "playground",
    "cityscapes": "playground-street",
}
SMALL = (
    "adapt.iterations=2",
    "pretrain.iterations=2",
    "methods.cycada.translation_channels=4",
    "methods.cycada.translation_blocks=1",
    "methods.cycada.translation_crop=32",
    "methods.fgda.discriminator_widths=[8, 8]",
)


def test_the_page_has_a_command_for_every_table_and_figure():
    assert [*COMMANDS] == ["Table 1", "Table 2", "Table 3", "Figure 3", "Figure 6", "Figure 7"]


@pytest.fixture(scope="module")
def tables(data_root, tmp_path_factory) -> Path:
    """The folder in which all tables were made: figures read their checkpoints."""
    folder = tmp_path_factory.mktemp("paper")
    for name in ("Table 1", "Table 2", "Table 3"):
        command = [INSTEAD.get(word, word) for word in COMMANDS[name]]
        out = f"{name.replace(' ', '').lower()}.json"
        done = fgda(
            *command,
            *set_flags(*SMALL),
            "--data-root",
            data_root,
            "--device",
            "cpu",
            "--json",
            out,
            cwd=folder,
        )
        assert done.returncode == 0, f"{name}: {done.stderr}"
    return folder


@pytest.mark.parametrize("name", ["Table 1", "Table 2", "Table 3"])
def test_a_table_has_the_papers_rows(tables, name):
    key = name.replace(" ", "").lower()
    rows = json.loads((tables / f"{key}.json").read_text())["rows"]
    assert {row["method"] for row in rows} == set(TABLES[key])
    assert all(row["mean"] is not None and list(row["seeds"]) == ["0"] for row in rows)
    assert (tables / "runs/playground/ablation/ablation.md").read_text().startswith("# playground")


@pytest.mark.parametrize("name", ["Figure 3", "Figure 6", "Figure 7"])
def test_a_figure_is_a_sheet_of_the_tables_checkpoints(tables, data_root, name):
    words = [re.sub("|".join(INSTEAD), lambda m: INSTEAD[m[0]], w) for w in COMMANDS[name]]
    done = fgda(*words, "--data-root", data_root, "--device", "cpu", cwd=tables)
    assert done.returncode == 0, done.stderr
    sheet = cv2.imread(str(tables / words[words.index("--out") + 1]))
    # image, truth, three predictions and their entropies
    assert sheet.shape[0] > 100 and sheet.shape[1] > 5 * 100


def test_presets_of_the_page_exist():
    from fgda_cli.presets import load_preset

    names = set(re.findall(r"`((?:gta|synthia)2city[a-z0-9-]*)`", PAGE))
    assert len(names) > 8
    for name in names:
        load_preset(name)
