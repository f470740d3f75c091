"""The card of a checkpoint: figures where labels are at hand, else said; licences; the same tree in
an exported file.
"""

from __future__ import annotations

import json

import pytest

from fgda_cli.data.store import open_dataset
from fgda_cli.inference.card_content import make_card
from fgda_cli.models import checkpoint
from fgda_cli.models.checkpoint import load_model
from fgda_cli.studies.model_card import card_markdown, licences_of
from fgda_cli.training import stages
from tests.helpers import QUIET, fgda, needs


@pytest.fixture(scope="module")
def adapted(data_root, tiny_preset, trained, tmp_path_factory):
    job = stages.Job(
        tiny_preset("adapt.iterations=2"),
        data_root,
        tmp_path_factory.mktemp("a") / "run",
        device="cpu",
        reporter=QUIET,
    )
    return stages.adapt(job, trained)


def test_card_with_figures(adapted, data_root, tmp_path):
    done = fgda("card", adapted, "--out", tmp_path, "--data-root", data_root)
    assert done.returncode == 0 and "card.md, card.json" in done.stdout, done.stderr
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["name"] == "playground-fgda-seed0" and card[
        "weights_hash"
    ] == checkpoint.weights_hash(checkpoint.load(adapted)["model"])
    assert (
        card["evaluation"]["intervals"]["images"] == 3
        and card["evaluation"]["calibration"]["ece"] >= 0
    )
    assert (
        card["training"]["target_labels"] == "none"
        and card["training"]["settings"]["optim"]["lr"] == 0.02
    )
    assert (
        card["verdict_without_labels"]["verdict"]
        and card["data_licences"]["playground-game"] == "drawn by fgda, none"
    )
    text = (tmp_path / "card.md").read_text()
    assert card["evaluation"]["intervals"]["miou"] is None  # of three images
    assert f"| **mean** | **{card['evaluation']['miou']:.1f}** | – |" in text
    assert "Did adaptation help, without labels?" in text and "## Limits" in text


def test_a_run_its_checkpoint_and_its_card_say_which_pixels_it_read(adapted, data_root, tmp_path):
    """Two tables can be told to come from the same pixels, wherever they lay."""
    wanted = {
        name: open_dataset(data_root, name).pixels("train")
        for name in ("playground-game", "playground-street")
    }
    content = checkpoint.load(adapted)
    assert [(domain, name, split) for domain, name, split, _ in content["pixels"]] == [
        ("source", "playground-game", "train"),
        ("target", "playground-street", "train"),
    ]
    assert {name: pixels for _, name, _, pixels in content["pixels"]} == wanted
    log = (adapted.parent.parent / "log.txt").read_text()
    assert f"source: playground-game of train, pixels {wanted['playground-game']}" in log
    done = fgda("card", adapted, "--out", tmp_path / "card", "--data-root", tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(pixels in (tmp_path / "card/card.md").read_text() for pixels in wanted.values())


def test_card_without_labels_says_so(adapted, tmp_path):
    done = fgda("card", adapted, "--out", tmp_path, "--data-root", tmp_path)
    assert done.returncode == 0 and "the card has no scores" in done.stderr
    card = json.loads((tmp_path / "card.json").read_text())
    assert (
        card["evaluation"] is None
        and "Not evaluated for this card" in (tmp_path / "card.md").read_text()
    )


def test_licences_are_those_of_the_layouts(tmp_path):
    preset = {
        "data": {"source": {"dataset": ["gta5", "mine"]}, "target": {"dataset": "cityscapes"}}
    }
    found = licences_of(preset)
    assert (
        set(found) == {"gta5", "mine", "cityscapes"}
        and found["mine"] == "yours to say"
        and found["gta5"] != found["mine"]
    )


@needs("onnx")
def test_an_exported_file_carries_its_card(adapted, tmp_path):
    assert fgda("export", adapted, "--out", tmp_path / "m.onnx").returncode == 0
    facts = checkpoint.load(tmp_path / "m.onnx", exported=True)
    assert facts["card"]["name"] == "playground-fgda-seed0" and facts["card"]["limits"]


def test_a_source_only_model_has_no_verdict(trained):
    _, info = load_model(trained)
    card = make_card(info)
    assert card["verdict_without_labels"] is None and "adapted" not in card["task"]
    assert "Did adaptation help" not in card_markdown(card)


def test_a_card_of_an_imported_file_says_what_is_not_known(trained):
    """Case 33: the preset that it was put into was told as its training."""
    info = load_model(trained)[1] | {
        "stage": "import",
        "method": "fada",
        "origin": "g2c.pth",
        "iteration": None,
    }
    card = make_card(info, licences=licences_of(info["preset"]))
    training = card["training"]
    assert {training[key] for key in ("source", "target", "seed", "target_labels")} == {"not known"}
    assert (
        training["settings"] is None
        and card["data_licences"] == {}
        and card["architecture"]["weights_from"] == "not known"
    )
    text = card_markdown(card)
    assert (
        "fada checkpoint g2c.pth" in text
        and "playground-game" not in text
        and "labels used: none" not in text
    )
