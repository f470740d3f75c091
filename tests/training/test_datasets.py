"""Data sets of a stage beside one another: what is in two roles is said or refused."""

from __future__ import annotations

import pytest

from fgda_cli.data.store import PreparedDataset
from fgda_cli.methods.registry import method_class
from fgda_cli.runtime.errors import UsageError
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.training.datasets import open_datasets


@pytest.fixture
def said(data_root, tiny_preset, capsys):
    """What opening the data sets of a preset warns of and decides."""

    def open_with(*sets: str) -> str:
        decisions = []
        preset = tiny_preset(*sets)
        reporter = Reporter(quiet=True, decisions=decisions)
        open_datasets(preset, data_root, method_class("fgda"), reporter=reporter)
        return capsys.readouterr().err + "\n".join(decisions)

    return open_with


GAME = "playground-game"
STREET = "playground-street"


@pytest.mark.parametrize(
    "sets, words",
    [
        ([f"data.target.dataset={GAME}"], "10 images are in the source and in the target, e.g."),
        (
            [f"data.evaluation.dataset={GAME}", "data.evaluation.split=train"],
            "10 images whose labels training uses are also evaluated on, e.g.",
        ),
        (
            [f"data.target.dataset={GAME}", f"data.target.labelled={GAME}"],
            "labels of 10 images of playground-game are used in adaptation",
        ),
        (
            ["data.source.crop=[64,300]"],
            f"crops of 64x300 of {GAME} are larger than its images (64x32 at the largest scale)",
        ),
    ],
)
def test_images_in_two_roles_and_crops_beyond_images_are_said(said, sets, words):
    assert words in said(*sets)


def test_other_rows_of_the_frames_in_validation_are_warned_of(
    said, raw_playground, data_root, monkeypatch
):
    warning = (
        f"{STREET} is trained on rows 20 to 80 %, and {STREET} / val evaluated on whole frames:"
        " prepare both alike"
    )
    assert "prepare both alike" not in said()
    original = PreparedDataset.made_from

    def made_from(self, split):
        made = original(self, split)
        cut = self.name == STREET and split == "train"
        return made | {"options": made["options"] | {"rows": [20.0, 80.0]}} if cut else made

    monkeypatch.setattr(PreparedDataset, "made_from", made_from)
    assert warning in said()
    # a part of the domain is trained on whole frames too
    assert "prepare both alike" not in said(f"data.target.dataset=[{STREET},{GAME}]")


def test_data_sets_that_share_nothing_are_not_mentioned(said):
    text = said()
    assert "images are" not in text and "evaluated on" not in text and "crops" not in text


@pytest.mark.parametrize(
    "key, words",
    [
        (f"data.source.dataset=[{GAME},{GAME}]", "one data set is named twice"),
        ("data.source.validation=train", "train is the split that is trained on"),
    ],
)
def test_a_data_set_twice_and_validation_on_what_is_trained_on_are_refused(said, key, words):
    with pytest.raises(UsageError, match=words):
        said(key)
