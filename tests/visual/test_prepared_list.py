"""What `fgda prepare --list` says of a data set can be typed again."""

from __future__ import annotations

import shlex

from fgda_cli.data.layouts.base import OwnFiles
from fgda_cli.data.prepare import How, prepare_own
from fgda_cli.data.store import PreparedDataset
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.visual.tables import prepared_list
from tests.helpers import fgda


def test_options_are_listed_as_they_are_typed(raw_playground, tmp_path):
    files = OwnFiles(
        images=raw_playground / "game/images",
        labels=raw_playground / "game/labels",
        label_ids="label",
        split="val",
        only=("0000[0-4]*", "0000[5-9]*"),
    )
    how = How(tmp_path, size=(64, 32), rows=(25.0, 75.5), cut=True, workers=1)
    prepare_own("folder", files, "mine", how=how)
    text = prepared_list(tmp_path, [PreparedDataset(tmp_path / "mine")])
    line = next(line for line in text.splitlines() if "prepare folder" in line)
    words = shlex.split(line)
    assert words[words.index("--name") + 1] == "mine"
    assert words[words.index("--images") + 1] == str(files.images)
    assert words[words.index("--labels") + 1] == str(files.labels)
    assert words[words.index("--split") + 1] == "val"
    assert words[words.index("--size") + 1] == "64x32"
    assert words[words.index("--rows") + 1] == "25:75.5"
    assert [words[n + 1] for n, word in enumerate(words) if word == "--only"] == list(files.only)
    assert words[words.index("--cut") + 1].startswith("--")
    result = fgda(*words[1:], "--data-root", tmp_path / "again")
    assert result.returncode == 0, result.stderr
    again = PreparedDataset(tmp_path / "again/mine")
    assert again.pixels("val") == PreparedDataset(tmp_path / "mine").pixels("val")
    assert words[words.index("--label-ids") + 1] == "label"


def test_the_mapping_is_listed_and_another_name_of_it_is_no_change(raw_playground, tmp_path):
    """Two data sets of other classes would look alike without it."""
    mappings = [tmp_path / "first.yaml", tmp_path / "second.yaml"]
    for path in mappings:
        path.write_text("classes: [road, sky]\n7: road\n23: sky\nrest: ignore\n")
    said = []
    for mapping in mappings:
        files = OwnFiles(
            images=raw_playground / "game/images",
            labels=raw_playground / "game/labels",
            mapping=mapping,
        )
        reporter = Reporter(quiet=True, decisions=said)
        how = How(tmp_path, size=(64, 32), workers=1, reporter=reporter)
        prepare_own("folder", files, "mine", how=how)
        text = prepared_list(tmp_path, [PreparedDataset(tmp_path / "mine")])
        assert f"--mapping {mapping}" in text
    assert not [line for line in said if "now" in line], said
