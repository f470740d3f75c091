"""`benchmarks/gpu.py` where there is no GPU: it runs, checks what it says it checks, and keeps what
it has when time is up.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers import batch, make
from tests.pretend import DEVICE, needs_pretended_gpu, pretended_gpu

ROOT = Path(__file__).parent.parent
PARTS = [
    "methods",
    "waits",
    "resume and evaluate",
    "schedule",
    "presets",
    "predict",
    "loader",
    "compiled",
]


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    """Its modules import each other by name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the script in this process; returns what it wrote."""
    import gpu

    def main(*options) -> dict:
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path), *map(str, options)])
        gpu.main()
        return json.loads((tmp_path / "gpu.json").read_text())

    return main


def test_every_part_runs_on_a_processor_and_is_right(run, tmp_path, data_root):
    tree = run("--device", "cpu", "--quick", "--real", "--data-root", data_root)
    assert list(tree["parts"]) == [*PARTS, "real"]
    assert not any("error" in part for part in tree["parts"].values()) and tree["left_out"] == []
    assert all(
        row["right"]
        for name in ("methods", "resume and evaluate")
        for row in tree["parts"][name]["rows"]
    )
    assert (
        tree["parts"]["resume and evaluate"]["rows"][0][
            "resumed run, largest difference of a weight"
        ]
        == 0
    )
    schedule = tree["parts"]["schedule"]["rows"][0]
    assert schedule["minutes"] == pytest.approx(
        (20_000 * schedule["pretrain iteration, s"] + 40_000 * schedule["adapt iteration, s"]) / 60
    )
    *trained, missing = tree["parts"]["real"]["rows"]
    assert [row["method"] for row in trained] == ["source-only", "fgda"] and all(
        0 <= row["mIoU"] <= 100 for row in trained
    )
    assert missing["encoder"] == "resnet101" and "resnet101-63fe2227.pth" in missing["failed"]
    assert "| method | fp32 | bf16 | fp16 | right |" in (tmp_path / "gpu.md").read_text()


def test_what_time_does_not_allow_is_named(run, tmp_path):
    tree = run("--device", "cpu", "--quick", "--minutes", "0")
    assert tree["parts"] == {} and tree["left_out"] == PARTS
    assert "Left out for time: methods, waits" in (tmp_path / "gpu.md").read_text()


def test_a_missing_gpu_is_said_at_once(run, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match="2"):
        run()
    assert "there is no CUDA device here" in capsys.readouterr().err


def test_a_part_that_fails_is_a_finding_and_the_others_go_on(tmp_path):
    import gpu

    report = gpu.Report(tmp_path, torch.device("cpu"), 1)
    report.part("bad", 0, lambda: 1 / 0)
    report.part("good", 0, lambda: [{"a": 1.0, "b": None}])

    def cut_off():
        yield {"measured": 1}
        assert json.loads((tmp_path / "gpu.json").read_text())["parts"]["cut off"]["rows"] == [
            {"measured": 1}
        ]
        raise RuntimeError("out of memory")

    report.part("cut off", 0, cut_off)
    tree = json.loads((tmp_path / "gpu.json").read_text())
    assert "ZeroDivisionError" in tree["parts"]["bad"]["error"] and tree["parts"]["good"][
        "rows"
    ] == [{"a": 1.0, "b": None}]
    assert (
        tree["parts"]["cut off"]["rows"] == [{"measured": 1}]
        and "out of memory" in tree["parts"]["cut off"]["error"]
    )
    assert (
        "**failed**" in (tmp_path / "gpu.md").read_text()
        and "| 1 | – |" in (tmp_path / "gpu.md").read_text()
    )


@needs_pretended_gpu
def test_its_parts_run_where_a_device_is_not_the_processor(tmp_path, monkeypatch):
    """What a first run on a GPU would stumble over: tensors left behind, files that cannot be read
    again.
    """
    from contextlib import nullcontext

    import gpu_checks as checks
    import gpu_speed as speed

    from fgda_cli.runtime.devices import Precision
    from fgda_cli.training import stages

    bench = checks.Bench(DEVICE, True, tmp_path)
    monkeypatch.setattr(stages, "pick_device", lambda name: DEVICE)
    monkeypatch.setattr(Precision, "autocast", lambda self: nullcontext())
    with pretended_gpu():
        # methods and waits: tests/training/test_gpu.py
        parts = (checks.resume_part, speed.schedule_part, speed.predict_part)
        rows = {part.__name__: list(part(bench)) for part in parts}
    assert all(row["right"] for row in rows["resume_part"])
    assert rows["schedule_part"][0]["times as fast"] > 0 and rows["predict_part"][0]["images/s"] > 0


def test_a_teacher_that_knows_the_truth_labels_by_it(monkeypatch):
    """`benchmarks/oracle.py`: the target's part of a mixed image has its true labels."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks/methods"))
    from oracle_teacher import OracleTeacher

    given = batch()
    labelled = torch.randint(0, 256, given.target.shape, dtype=torch.uint8)
    truth = torch.randint(0, 5, labelled[:, 0].shape, dtype=torch.uint8)
    truth[:, :4] = 255
    given = given._replace(labelled=labelled, labelled_ids=truth)
    model = make("dacs", False, torch.float32).model
    method = OracleTeacher(model, OracleTeacher.Settings(name="oracle-teacher"))
    seen = {}
    mixed = method.mix
    method.mix = lambda *how: seen.setdefault("mixed", mixed(*how))
    terms = method.step(given)
    images, labels, weight, _ = seen["mixed"]
    pasted = (images != labelled).any(1)
    assert pasted.any() and not pasted.all()
    assert torch.equal(labels[~pasted], truth[~pasted].long())
    assert not weight[~pasted & (truth == 255)].any()
    assert all(torch.isfinite(term) for term in terms.values())
