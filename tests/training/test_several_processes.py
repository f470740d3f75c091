"""Two processes (gloo) give what one gives: training to rounding, evaluation and prediction
exactly.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fgda_cli.data.images import visible_files
from fgda_cli.methods.registry import method_names
from fgda_cli.models import checkpoint
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.training import stages
from tests.helpers import TORCHRUN, distance, fgda, python, set_flags
from tests.training import several

ROOT = Path(__file__).parent.parent.parent
METHODS = (*method_names(), "fgda-st+target", "cbst+target", "fgda+train+timm")


@pytest.fixture(scope="module")
def pretrained(data_root, tiny_preset, tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("several") / "pre"
    return stages.pretrain(
        stages.Job(tiny_preset(), data_root, out, device="cpu", reporter=Reporter(quiet=True))
    )


def test_a_run_of_two_processes_equals_that_of_one(data_root, pretrained, tmp_path):
    several.main(data_root, pretrained, tmp_path / "one", *METHODS)
    done = python(
        several.__file__, data_root, pretrained, tmp_path / "two", *METHODS, launcher=TORCHRUN
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for method in METHODS:
        one, two = (
            checkpoint.load(tmp_path / name / method / "checkpoints/last.pth")["train"]
            for name in ("one", "two")
        )
        # timm's began at random
        start = None if "timm" in method else checkpoint.load(pretrained)["model"]
        apart = distance(one["model"], two["model"])
        moved = distance(one["model"], start)
        assert moved > 1e-2, f"{method} learnt nothing: the comparison would not see a difference"
        # As one vector: single weights may differ more, where a rounding error turns a ReLU on or
        # off. Adam's first steps have a gradient's sign, also where it is mere rounding: DISE's
        # encoders, from whose images the network learns. All other methods are 3e-6 apart at most.
        # CBST's thresholds may fall on the other side of a pixel's confidence: 2e-4 on a processor
        # with AMX.
        close, closest = {"dise": (2e-2, 1e-2), "cbst+target": (1e-3, 1e-3)}.get(
            method, (1e-4, 1e-3)
        )
        assert (
            apart <= (1e-5 if start else 1e-4) * distance(one["model"]) and apart <= close * moved
        ), (method, apart, moved)
        # in norm: Adam divides gradients near zero by their own size
        for name, module in one["modules"].items():
            for key, value in module.items():
                apart = (two["modules"][name][key].double() - value.double()).norm()
                # of forwards, which processes share in CBST's rounds
                counter = key.endswith("num_batches_tracked")
                assert counter or apart <= closest * value.double().norm().clamp(min=1), (
                    method,
                    name,
                    key,
                    float(apart),
                )
        logs = [
            (tmp_path / name / method / "metrics.jsonl").read_text().splitlines()
            for name in ("one", "two")
        ]
        assert [json.loads(line)["iteration"] for line in logs[0]] == [
            json.loads(line)["iteration"] for line in logs[1]
        ]


def test_evaluation_and_prediction_are_the_same_to_the_bit(
    data_root, raw_playground, pretrained, tmp_path
):
    photos = raw_playground / "street/leftImg8bit"
    for name in ("one", "two"):
        out = tmp_path / name
        for command in (
            (
                "evaluate",
                pretrained,
                "--data",
                "playground-game",
                "--split",
                "train",
                "--data-root",
                data_root,
                "--json",
                out / "result.json",
                "--save-predictions",
                out / "saved",
            ),
            ("predict", pretrained, photos, "--recursive", "--out", out / "predicted"),
        ):
            done = (
                fgda(*command)
                if name == "one"
                else python("-m", "fgda_cli", *command, launcher=TORCHRUN)
            )
            assert done.returncode == 0, done.stderr[-3000:]
            # the folder's name, and one line in all
            assert command[0] != "predict" or done.stdout.count(" predicted\n") == 1
    files = [
        {p.relative_to(tmp_path / n): p.read_bytes() for p in visible_files(tmp_path / n)}
        for n in ("one", "two")
    ]
    assert files[0].keys() == files[1].keys() and len(files[0]) > 30
    results = [json.loads(part.pop(Path("result.json"))) for part in files]
    assert np.sum(results[0]["confusion"]) > 0 and results[0]["images"] == 10
    assert all({**r, "seconds": 0} == {**results[0], "seconds": 0} for r in results)
    assert files[0] == files[1]


def test_a_signal_to_one_process_stops_both_and_one_process_can_go_on(data_root, tmp_path):
    flags = set_flags("pretrain.iterations=60", "pretrain.checkpoint_every=1000")
    command = (
        "-m",
        "fgda_cli",
        "pretrain",
        "--preset",
        "playground",
        "--data-root",
        data_root,
        "--device",
        "cpu",
        *flags,
        "--out",
    )
    process = python(*command, tmp_path / "run", launcher=TORCHRUN, popen=True)
    log = tmp_path / "run/metrics.jsonl"
    deadline = time.monotonic() + 120
    while (
        not (log.is_file() and log.read_text().count("\n") >= 3)
        and time.monotonic() < deadline
        and process.poll() is None
    ):
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGTERM)
    process.communicate(timeout=120)
    stopped = checkpoint.load(tmp_path / "run/checkpoints/last.pth")["train"]["iteration"]
    assert 3 <= stopped < 60
    done = fgda(*command[2:], tmp_path / "run")
    assert (
        done.returncode == 0
        and f"resuming {tmp_path / 'run'} at iteration {stopped} of 60" in done.stderr
    )


def test_what_cannot_be_shared_is_refused_before_anything_is_written(data_root, tmp_path):
    done = python(
        "-m",
        "fgda_cli",
        "pretrain",
        "--preset",
        "playground",
        "--data-root",
        data_root,
        "--out",
        tmp_path / "run",
        *set_flags("pretrain.batch_size=3"),
        launcher=TORCHRUN,
    )
    assert (
        "pretrain.batch_size is 3, over all processes: it must be a multiple of their number, 2"
        in done.stderr
    )
    assert done.returncode != 0 and not (tmp_path / "run").exists()
    environment = {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29555",
    }
    before = dict(os.environ)
    try:
        os.environ.update(environment)
        alone = fgda("demo", "--out", tmp_path / "demo")
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert alone.returncode == 2 and "demo runs in one process" in alone.stderr
