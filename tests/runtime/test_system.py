"""Nothing that one operating system has is needed: each is taken away, and the work goes on."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from fgda_cli.data.store import PreparedDataset
from fgda_cli.runtime import devices, system
from fgda_cli.runtime.devices import Precision, make_precision, measure_precision, tune_for_training
from fgda_cli.runtime.reporter import Reporter
from tests.helpers import set_flags

ROOT = Path(__file__).parent.parent.parent


def test_cores_without_an_affinity(monkeypatch):
    assert 1 <= system.usable_cores() <= (os.cpu_count() or 1)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert system.usable_cores() == (os.cpu_count() or 1)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert system.usable_cores() == 1


@pytest.mark.parametrize("cores, threads", [(1, 2), (2, 2), (8, 2), (12, 4), (16, 5), (64, 6)])
def test_threads_follow_the_cores_unless_they_are_asked_for(monkeypatch, cores, threads):
    monkeypatch.setattr(system, "usable_cores", lambda: cores)
    assert system.io_threads() == threads and system.io_threads(3) == 3


@pytest.mark.parametrize("what", ["no mallopt", "no C library", "another system"])
def test_memory_without_mallopt(monkeypatch, what):
    if what == "another system":
        monkeypatch.setattr(system.sys, "platform", "win32")
    else:

        def library(_):
            if what == "no C library":
                raise OSError("none")
            return object()

        monkeypatch.setattr(ctypes, "CDLL", library)
    assert system.keep_freed_memory() is False


@pytest.mark.parametrize(
    "name, allowed, said",
    [("fp32", True, "TF32"), ("fp32", False, "full fp32"), ("bf16", True, None)],
)
def test_what_fp32_means_on_a_gpu_is_said(monkeypatch, name, allowed, said):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    reporter = Reporter(quiet=True, decisions=[])
    tune_for_training(Precision(name, torch.device("cuda")), True, reporter)
    assert torch.backends.cudnn.benchmark is True
    assert [f"convolutions in {said}" in line for line in reporter.decisions] == (
        [] if said is None else [True]
    )


def test_a_processor_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    tune_for_training(Precision("fp32", torch.device("cpu")), True, Reporter(quiet=True))
    assert torch.backends.cudnn.benchmark is False


def test_signals_that_are_missing_or_out_of_reach(monkeypatch):
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert system.stop_signals() == (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert system.stop_signals() == (signal.SIGINT, signal.SIGTERM)  # under nohup
    finally:
        signal.signal(signal.SIGHUP, hangup)
    monkeypatch.delattr(signal, "SIGHUP")
    monkeypatch.delattr(signal, "SIGTERM")
    assert system.stop_signals() == (signal.SIGINT,)
    system.on_signal("SIGTERM", signal.SIG_DFL)  # does nothing
    failures = []

    def elsewhere():
        try:
            # only the main thread may
            system.on_signal("SIGINT", signal.SIG_IGN)
        except ValueError as error:
            failures.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert not failures


BARE = """
import ctypes, multiprocessing, os, signal, sys

def main():
    multiprocessing.set_start_method("spawn")
    del os.sched_getaffinity
    for name in ("SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2"):
        delattr(signal, name)
    real = ctypes.CDLL
    def without_this_process(name, *a, **k):
        if name is None:
            raise OSError
        return real(name, *a, **k)
    ctypes.CDLL = without_this_process
    from fgda_cli.app import main as fgda
    sys.exit(fgda(sys.argv[1:]))

if __name__ == "__main__":
    main()
"""


def bare(tmp_path, *arguments):
    """fgda where worker processes are spawned, not forked, and calls of Linux alone are missing."""
    (tmp_path / "bare.py").write_text(BARE)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    command = [sys.executable, str(tmp_path / "bare.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_prepare_with_spawned_workers(tmp_path, raw_playground):
    done = bare(
        tmp_path,
        "prepare",
        "gta5",
        "--root",
        raw_playground / "game",
        "--data-root",
        tmp_path,
        "--size",
        "64x32",
        "--workers",
        2,
    )
    assert done.returncode == 0, done.stderr
    assert len(PreparedDataset(tmp_path / "gta5").items("train")) == 10


def test_training_with_spawned_readers(tmp_path, data_root):
    flags = set_flags("run.workers=1", "pretrain.iterations=2")
    done = bare(
        tmp_path,
        "pretrain",
        "--preset",
        "playground",
        "--data-root",
        data_root,
        "--out",
        tmp_path / "run",
        "--device",
        "cpu",
        *flags,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/checkpoints/final.pth").is_file()


def test_auto_precision_is_measured_on_the_model_at_hand_without_touching_it_and_said(monkeypatch):
    from fgda_cli.models.segmenter import Segmenter
    from fgda_cli.runtime import devices

    model = Segmenter(3, "resnet18", width=8).train()
    seen = []
    reporter = Reporter(quiet=True, decisions=[])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    original = devices._step_seconds

    def watched(precision, module, images):
        seen.append(type(module))
        original(precision, module, images)
        return {"fp32": 1.0, "bf16": 0.5}[precision.name]

    monkeypatch.setattr(devices, "_step_seconds", watched)
    state = torch.random.get_rng_state()
    found = make_precision("auto", torch.device("cpu"), model=model, reporter=reporter)
    assert (
        found.name == "bf16"
        and set(seen) == {Segmenter}
        and "precision bf16: bf16 measured 2.00 times as fast" in reporter.decisions[0]
    )
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())
    assert measure_precision(torch.device("cpu")) == {"fp32": 1.0, "bf16": 0.5} and isinstance(
        found, Precision
    )


@pytest.mark.parametrize(
    ("device", "wanted"), [("cpu", (1, 3, 128, 256)), ("cuda", (2, 3, 512, 512))]
)
def test_a_gpu_is_measured_at_the_steps_own_shape(monkeypatch, device, wanted):
    """Small images leave a large GPU idle, so that both precisions take the same time; a processor
    would take minutes.
    """
    asked = []
    monkeypatch.setattr(
        devices,
        "measure_precision",
        lambda *how: asked.append(how[2]) or {"fp32": 1.0, "bf16": 0.5},
    )
    assert make_precision(
        "auto", torch.device(device), step=(2, 3, 512, 512)
    ).name == "bf16" and asked == [wanted]


def test_processes_beside_the_first_warn_of_their_own_files_alone(capsys):
    reporter = Reporter(quiet=True, warns=False)
    reporter.warn("of all")
    reporter.warn("of my share", of_own_share=True)
    assert capsys.readouterr().err == "fgda: warning: of my share\n"


def test_kernel_1_convolutions_of_one_thread_run_in_onednn_with_the_same_result(monkeypatch):
    from torch.autograd.profiler import profile

    layers = torch.nn.Sequential(
        torch.nn.Conv2d(16, 8, 1), torch.nn.Conv2d(8, 4, 1, groups=2), torch.nn.Conv2d(4, 4, 3)
    )
    images = torch.randn(1, 16, 96, 128)
    found = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for wide in (False, True):
            monkeypatch.setattr(Precision, "channels_last", wide)
            make_precision("fp32", torch.device("cpu")).to_device(layers).zero_grad()
            with profile() as calls:
                output = layers(images)
            output.square().sum().backward()
            found.append(
                (output.detach(), *(parameter.grad.clone() for parameter in layers.parameters()))
            )
    finally:
        torch.set_num_threads(threads)
    assert "aten::_slow_conv2d_forward" not in {call.key for call in calls.key_averages()}
    for before, after in zip(*found, strict=True):
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
