"""The Python interface: the commands' results, errors that can be caught, torch not loaded by an
import.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import fgda_cli
from fgda_cli.runtime.errors import FgdaError, UsageError
from tests.helpers import TINY


@pytest.fixture(scope="module")
def run(data_root, tmp_path_factory):
    """A pretrain and an adaptation by functions."""
    out = tmp_path_factory.mktemp("api")
    start = fgda_cli.pretrain(
        "playground", sets=TINY, data_root=data_root, out=out / "pre", device="cpu", quiet=True
    )
    sets = {"adapt.iterations": 2, "data.source.size": [64, 32], "run.precision": "fp32"}
    more = [entry for entry in TINY if not entry.startswith(tuple(sets))]
    sets |= dict(entry.split("=", 1) for entry in more)
    how = {"data_root": str(data_root), "out": out / "ad", "device": "cpu", "quiet": True}
    final = fgda_cli.adapt("playground", method="minent", init=start, sets=sets, **how)
    return start, final


def test_functions_train_adapt_and_evaluate(run, data_root, capfd):
    start, final = run
    _, info = fgda_cli.load_model(final)
    assert info["method"] == "minent" and info["iteration"] == 2 and info["verdict"]["verdict"]
    result = fgda_cli.evaluate(
        final, data_root=data_root, boundary=True, intervals=True, device="cpu", quiet=True
    )
    assert (
        result["dataset"] == "playground-street"
        and result["intervals"]["images"] == 3
        and result["boundary"]["miou"] is not None
    )
    assert capfd.readouterr().out == ""


def test_the_same_call_is_the_same_run(run, data_root):
    start, _ = run
    again = fgda_cli.pretrain(
        "playground",
        sets=TINY,
        data_root=data_root,
        out=start.parent.parent,
        device="cpu",
        quiet=True,
    )
    assert again == start


def test_a_file_is_predicted_as_its_pixels_are(run, raw_playground, tmp_path):
    model, _ = fgda_cli.load_model(run[1])
    path = next((raw_playground / "street/leftImg8bit/val").rglob("*.png"))
    found = fgda_cli.predict(model, path)
    assert np.array_equal(
        found["train_ids"], fgda_cli.predict(model, np.asarray(Image.open(path)))["train_ids"]
    )
    (tmp_path / "broken.png").write_bytes(b"none")
    with pytest.raises(FgdaError, match="broken.png"):
        fgda_cli.predict(model, str(tmp_path / "broken.png"))


def test_seed_and_budget_are_settings_of_the_run(run, data_root, tmp_path):
    start, _ = run
    how = {"data_root": data_root, "device": "cpu", "quiet": True, "sets": TINY}
    other = fgda_cli.pretrain("playground", seed=5, out=tmp_path / "pre", **how)
    assert fgda_cli.load_model(other)[1]["preset"]["run"]["seed"] == 5
    final = fgda_cli.adapt(
        "playground", method="minent", init=start, budget="60s", out=tmp_path / "ad", **how
    )
    run = fgda_cli.load_model(final)[1]["preset"]["run"]
    assert run["time_limit"] == 60 and run["select"] == "label-free"
    with pytest.raises(UsageError, match="--budget soon"):
        fgda_cli.adapt("playground", init=start, budget="soon", **how)


def test_errors_can_be_caught(data_root, tmp_path):
    with pytest.raises(UsageError, match="magic"):
        fgda_cli.adapt("playground", sets={"optim.magic": 1}, data_root=data_root)
    with pytest.raises(FgdaError):
        fgda_cli.evaluate(tmp_path / "none.pth", data_root=data_root)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fgda_cli.nothing  # noqa: B018


def test_importing_loads_no_torch():
    code = (
        "import sys, fgda_cli, fgda_cli.api; sys.exit('torch' in sys.modules or 'cv2' in"
        " sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_notebook_sees_a_bar(monkeypatch):
    """In a notebook stderr is no terminal, but rich draws there."""
    import rich.console

    from fgda_cli.runtime.reporter import Reporter, _Plain

    with Reporter().progress("x", 3) as advance:
        assert isinstance(advance, _Plain)
    monkeypatch.setattr(rich.console.Console, "is_jupyter", True, raising=False)
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    monkeypatch.setitem(sys.modules, "IPython", type(sys)("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", type(sys)("IPython.display"))
    sys.modules["IPython.display"].display = lambda *_, **__: None
    with Reporter().progress("x", 3) as advance:
        assert not isinstance(advance, _Plain)


def test_the_package_shows_what_it_has():
    code = "import fgda_cli; print(fgda_cli.losses.entropy_loss.__name__, *dir(fgda_cli))"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    ).stdout.split()
    assert shown[0] == "entropy_loss" and {
        "adapt",
        "evaluate",
        "load_model",
        "losses",
        "predict",
        "pretrain",
    } <= set(shown)


def test_a_pillow_image_is_predicted_as_its_pixels(run):
    model, _ = fgda_cli.load_model(run[1])
    pixels = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    found = fgda_cli.predict(model, Image.fromarray(pixels))
    assert (found["train_ids"] == fgda_cli.predict(model, pixels)["train_ids"]).all()
    assert fgda_cli.predict(model, Image.fromarray(pixels).convert("L"))["train_ids"].shape == (
        32,
        64,
    )
    with pytest.raises(ValueError, match="predict takes RGB uint8"):
        fgda_cli.predict(model, [1.0, 2.0])


def test_training_leaves_the_callers_random_numbers_alone(data_root, tmp_path):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    fgda_cli.pretrain(
        "playground",
        sets=[*TINY, "pretrain.iterations=1"],
        data_root=data_root,
        out=tmp_path / "r",
        device="cpu",
        quiet=True,
    )
    assert torch.equal(torch.rand(3), wanted)
