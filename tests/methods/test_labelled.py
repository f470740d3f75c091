"""A few labels of the target: which images, the term that every method gets, the teacher they
check, and nothing without them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fgda_cli import losses
from fgda_cli.data.labelled_subset import chosen_labels, listed_names
from fgda_cli.data.store import open_dataset
from fgda_cli.methods.pieces.self_training import PRIOR_PIXELS
from fgda_cli.methods.registry import method_class, method_names
from fgda_cli.models import checkpoint
from fgda_cli.runtime.errors import FgdaError, UsageError
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.training import stages
from tests.helpers import batch, crash_at, gradients, make, same, samples

GAME = "data.target.dataset=playground-game"
ADAPTING = [name for name in method_names() if method_class(name).uses_target]


def labelled_batch():
    data = batch()
    return data._replace(labelled=data.target, labelled_ids=data.labels.flip(-1))


def test_more_labels_hold_the_fewer(data_root):
    # whose training images have labels
    target = open_dataset(data_root, "playground-game")
    names = {n: {item.name for item in chosen_labels(target, n, 3)} for n in (1, 4, 10)}
    assert [len(found) for found in names.values()] == [1, 4, 10] and names[1] < names[4] < names[
        10
    ]
    assert names[4] != {item.name for item in chosen_labels(target, 4, 5)}
    assert len(chosen_labels(target, "all", 0)) == 10
    with pytest.raises(
        FgdaError, match="11 images are asked for, playground-game has 10 with labels"
    ):
        chosen_labels(target, 11, 0)
    bare = SimpleNamespace(
        name="street",
        items=lambda split: [
            item.__class__(**{**vars(item), "label": None}) for item in target.items(split)
        ],
    )
    with pytest.raises(FgdaError, match="street has no labels of its training images"):
        chosen_labels(bare, 1, 0)


def test_a_list_names_images_by_line_or_by_ranking(data_root, tmp_path):
    # whose training images have labels
    target = open_dataset(data_root, "playground-game")
    first, second, *_ = (item.name for item in target.items("train"))
    (tmp_path / "list.txt").write_text(f"{second}\n\n{first}\n{second}\n")
    (tmp_path / "ranking.json").write_text(
        json.dumps({"frames": [{"name": second}, {"name": first}]})
    )
    # as `ls` lists them
    (tmp_path / "files.txt").write_text(f"{second}.jpg\n{first}.PNG\n{second}\n")
    for path in (tmp_path / name for name in ("list.txt", "ranking.json", "files.txt")):
        assert [item.name for item in chosen_labels(target, str(path), 0)] == [second, first]
    (tmp_path / "bad.json").write_text("[1]")
    with pytest.raises(FgdaError, match="cannot read .*bad.json"):
        listed_names(tmp_path / "bad.json")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(FgdaError, match="lists no image"):
        listed_names(tmp_path / "empty.txt")
    (tmp_path / "other.txt").write_text("elsewhere\nnowhere\n")
    with pytest.raises(FgdaError, match=r"no labelled training image 'elsewhere' \(and 1 more\)"):
        chosen_labels(target, str(tmp_path / "other.txt"), 0)


@pytest.mark.parametrize("name", [name for name in ADAPTING if name not in ("adabn",)])
def test_every_method_gets_eq_1_on_the_targets_labels(name):
    method = make(name, True, lambda_labelled=0.5)
    data = labelled_batch()
    model = method.model
    model.zero_grad()
    if "teacher" in method.modules:
        method.modules["checked"] = torch.nn.Module()
        method.modules["checked"].register_buffer("counts", torch.zeros(2, 5))
    term = method.labelled_step(data)["labelled"]
    found = gradients(method)
    model.zero_grad()
    output = model(data.labelled)
    t = method.settings.seg_temperature
    loss = losses.segmentation_loss(output.logits, data.labelled_ids, temperature=t)
    loss = loss + method.settings.aux_seg * losses.segmentation_loss(
        output.aux_logits, data.labelled_ids, temperature=t
    )
    (0.5 * loss).backward()
    assert term.item() == pytest.approx(0.5 * loss.item())
    compared = 0
    for key, grad in gradients(method).items():
        if grad is not None and key.startswith("model"):
            torch.testing.assert_close(found[key], grad)
            compared += 1
    assert compared > 20


def test_a_teacher_is_trusted_as_often_as_it_was_right():
    method = make("fgda-st", False, torch.float32)
    data = labelled_batch()
    guess = torch.tensor([[[0, 1], [2, 2]]])
    assert method.trust(guess) == 1.0
    from fgda_cli.methods.offline import OfflineData

    offline = OfflineData(
        SimpleNamespace(labelled_items=[1]),
        None,
        torch.device("cpu"),
        reporter=Reporter(quiet=True),
    )
    method.before_training(offline)
    assert (method.trust(guess) == 1).all()  # nothing known yet
    method.modules["checked"].counts += torch.tensor(
        [[1500.0, 500, 0, 0, 0], [500.0, 500, 0, 0, 0]]
    )
    expected = (500 + PRIOR_PIXELS) / (1500 + PRIOR_PIXELS)
    assert method.trust(guess).tolist() == [[[pytest.approx(expected), 1.0], [1.0, 1.0]]]
    before = method.modules["checked"].counts.clone()
    data = data._replace(labelled_ids=torch.full_like(data.labelled_ids, 255))
    data.labelled_ids[:, :, :7] = 3
    method.labelled_step(data)
    added = method.modules["checked"].counts - before
    assert added[0].sum() == 2 * 32 * 7 and added[1].sum() == added[1, 3] == added[0, 3]


@pytest.fixture
def job(data_root, tiny_preset, tmp_path):
    torch.set_num_threads(1)
    reporter = Reporter(quiet=True, decisions=[])
    return stages.Job(
        tiny_preset(GAME, "data.target.labelled=3", method="fgda-st"),
        data_root,
        tmp_path / "run",
        device="cpu",
        reporter=reporter,
    )


def test_the_labels_used_are_said_and_change_the_run(job, trained, tiny_preset, tmp_path):
    final = stages.adapt(job, trained)
    assert (
        "labels of 3 of 10 images of playground-game are used in adaptation"
        " (data.target.labelled: 3)" in job.reporter.decisions
    )
    plain = stages.adapt(
        replace(job, preset=tiny_preset(GAME, method="fgda-st"), out=tmp_path / "plain"), trained
    )
    assert not same(final, plain)
    lines = [json.loads(line) for line in (job.out / "metrics.jsonl").read_text().splitlines()]
    assert all(line["labelled"] > 0 for line in lines if "seg" in line)


def test_a_run_with_labels_resumes_to_the_bit(job, trained, tmp_path, monkeypatch):
    whole = stages.adapt(job, trained)
    crash_at(monkeypatch, 3, lambda: stages.adapt(replace(job, out=tmp_path / "parts"), trained))
    parts = stages.adapt(replace(job, out=tmp_path / "parts"), trained)
    assert same(whole, parts)
    states = [
        checkpoint.load(path.parent / "last.pth")["train"]["modules"]["checked"]
        for path in (whole, parts)
    ]
    assert (
        torch.equal(states[0]["counts"], states[1]["counts"]) and states[0]["counts"][0].sum() > 0
    )


def test_pretraining_does_not_look_at_the_targets_labels(job, tiny_preset, tmp_path):
    first = stages.pretrain(replace(job, out=tmp_path / "a"))
    assert same(first, stages.pretrain(replace(job, preset=tiny_preset(GAME), out=tmp_path / "b")))
    assert (
        stages.pretrain(
            replace(job, preset=tiny_preset(GAME, "data.target.labelled=5"), out=tmp_path / "a")
        )
        == first
    )
    assert not any("labels of" in said for said in job.reporter.decisions)


def test_the_source_takes_no_such_key(tiny_preset):
    with pytest.raises(UsageError, match="unknown key 'data.source.labelled'"):
        tiny_preset("data.source.labelled=3")


def test_a_method_that_reads_no_target_has_no_use_for_its_labels(job, trained, tiny_preset):
    with pytest.raises(UsageError, match="method source-only reads no target"):
        stages.adapt(
            replace(job, preset=tiny_preset("data.target.labelled=3", method="source-only")),
            trained,
        )


def test_labels_of_a_data_set_of_its_own(job, trained, tiny_preset):
    stages.adapt(replace(job, preset=tiny_preset("data.target.labelled=playground-game")), trained)
    assert any("labels of 10 images of playground-game" in said for said in job.reporter.decisions)


def test_labelled_images_come_by_position(data_root):
    from fgda_cli.data.loader import Positions, batches

    # whose training images have labels
    target = open_dataset(data_root, "playground-game")
    from fgda_cli.data.store import PartOf

    part = PartOf(target, chosen_labels(target, 3, 0))
    found = [
        next(batches(samples(data_root, labelled=part), Positions(2, 3, 4), workers, pin=False))
        for workers in (0, 1)
    ]
    assert torch.equal(found[0].labelled, found[1].labelled) and torch.equal(
        found[0].labelled_ids, found[1].labelled_ids
    )
    seen = {image.numpy().tobytes() for image in found[0].labelled}
    assert 2 <= len(seen) <= 4 and np.asarray(found[0].labelled).shape[0] == 4


def test_a_list_may_begin_with_a_byte_order_mark(tmp_path):
    """Case 40."""
    (tmp_path / "list.txt").write_text("a\nb\n", encoding="utf-8-sig")
    assert listed_names(tmp_path / "list.txt") == ["a", "b"]


def test_a_truth_value_is_no_number_of_labels(tiny_preset):
    with pytest.raises(UsageError, match="data.target.labelled.*not true or false"):
        tiny_preset("data.target.labelled=true")
