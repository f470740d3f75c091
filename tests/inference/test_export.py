"""ONNX files: the same logits as torch, and nothing left behind when they are not."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

import fgda_cli
from fgda_cli.inference import export
from fgda_cli.losses import upsample
from fgda_cli.runtime.errors import FgdaError
from tests.conftest import fgda


def test_onnxruntime_gives_torchs_logits_for_any_batch(trained, tmp_path):
    import onnxruntime

    done = fgda("export", trained, "--out", tmp_path / "m.onnx", "--size", "96x64")
    assert done.returncode == 0, done.stderr
    assert "images [B,3,64,96] RGB 0-255 float32 -> logits [B,19,64,96]" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80 + len(str(tmp_path))
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    model, _ = fgda_cli.load_model(trained)
    for batch in (1, 3):
        images = torch.randint(0, 256, (batch, 3, 64, 96)).float()
        (found,) = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            expected = upsample(model(images).logits, (64, 96)).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4 * max(1.0, np.abs(expected).max()))
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["size"] == "96x64" and json.loads(facts["classes"])["names"][0] == "road"


def test_a_model_that_differs_is_not_written(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_compare", lambda *_: (0.5, 10.0))
    with pytest.raises(FgdaError, match="was not written: onnxruntime's logits differ"):
        export.export_onnx(trained, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(FgdaError, match=r"needs the package onnxruntime: pip install 'fgda\[export\]'"):
        export.export_onnx(trained, tmp_path / "m.onnx")


def test_another_suffix_is_a_usage_error(trained, tmp_path):
    done = fgda("export", trained, "--out", tmp_path / "m.pt")
    assert done.returncode == 2 and "name it *.onnx" in done.stderr
