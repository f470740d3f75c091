"""Exported files: torch's results, run by onnxruntime, torch and OpenVINO; they predict and
evaluate as their checkpoint does.
"""

from __future__ import annotations

import copy
import json
import re
import sys
from unittest import mock

import numpy as np
import pytest
import torch

import fgda_cli
from fgda_cli.data.images import write_image
from fgda_cli.data.store import open_dataset
from fgda_cli.inference import export
from fgda_cli.inference.export import Form
from fgda_cli.inference.inputs import spread_images
from fgda_cli.losses import entropy_map, upsample
from fgda_cli.models import checkpoint
from fgda_cli.runtime.errors import FgdaError
from tests.helpers import fgda, needs

pytestmark = needs("onnx", "onnxruntime", "openvino")


@pytest.fixture(scope="module", autouse=True)
def programs():
    """Each ONNX program of `trained` is made once: torch takes seconds for it, and half, int8 and
    OpenVINO are made from it.
    """
    made = {}
    make = export._onnx_program

    def remembered(network, images, form):
        key = (form.argmax, form.dynamic, tuple(images.shape[-2:]))
        if key not in made:
            made[key] = make(network, images, form)
        return copy.deepcopy(made[key])

    with mock.patch.object(export, "_onnx_program", remembered):
        yield


@pytest.fixture(scope="module")
def frames(data_root, tmp_path_factory):
    """A folder of street images, 64x32."""
    folder = tmp_path_factory.mktemp("frames")
    dataset = open_dataset(data_root, "playground-street")
    for number, item in enumerate(dataset.items("train")):
        write_image(folder / f"f{number}.png", dataset.image(item))
    return folder


@pytest.fixture(scope="module")
def files(trained, frames, tmp_path_factory):
    """One file of each kind."""
    out = tmp_path_factory.mktemp("exported")
    images = spread_images(str(frames), 64)
    for name, form in {
        "plain.onnx": Form(),
        "ids.onnx": Form(argmax=True),
        "any.onnx": Form(argmax=True, dynamic=True),
        "half.onnx": Form(numbers="half"),
        "int8.onnx": Form(numbers="int8"),
        "trace.pt": Form("torchscript", argmax=True),
        "vino.xml": Form("openvino", numbers="half"),
    }.items():
        export.export(trained, out / name, form, frames=images)
    return out


def test_the_command_says_what_goes_in_and_how_near_it_is(trained, frames, tmp_path):
    done = fgda(
        "export",
        trained,
        "--out",
        tmp_path / "m.onnx",
        "--argmax",
        "--dynamic",
        "--calibrate",
        frames,
    )
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert "RGB uint8 [B,3,H,W] -> train ids uint8 and entropy [B,H,W]" in first
    assert second.startswith("100.00 % of the pixels as by torch, on 10 frames")
    assert re.match(r"\d+ ms an image of \d+x\d+ on this processor", third)


def run(path, images, names=None):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(names, {"images": images}), session


def expected(trained, images):
    model, _ = fgda_cli.load_model(trained)
    with torch.no_grad():
        coarse = model(torch.from_numpy(images)).logits
    return coarse.numpy(), upsample(coarse, images.shape[-2:])


def noise(batch, height=32, width=64):
    return np.random.default_rng(batch).integers(0, 256, (batch, 3, height, width), dtype=np.uint8)


def test_logits_are_torchs_for_any_batch(files, trained):
    for batch in (1, 3):
        (coarse, logits), session = run(files / "plain.onnx", noise(batch))
        wanted, full = expected(trained, noise(batch))
        np.testing.assert_allclose(coarse, wanted, atol=1e-4 * max(1.0, np.abs(wanted).max()))
        np.testing.assert_allclose(logits, full.numpy(), atol=1e-4 * max(1.0, np.abs(wanted).max()))
    assert [output.name for output in session.get_outputs()] == ["coarse", "logits"]


def test_decisions_in_place_of_logits(files, trained):
    (_, ids, entropy), session = run(files / "ids.onnx", noise(2))
    _, full = expected(trained, noise(2))
    assert ids.dtype == np.uint8 and ids.shape == entropy.shape == (2, 32, 64)
    assert (ids == full.argmax(1).numpy()).mean() > 0.999
    np.testing.assert_allclose(entropy, entropy_map(full).numpy(), atol=1e-4)


def test_images_of_any_size_are_resized_inside(files):
    for height, width in ((32, 64), (50, 70), (129, 257)):
        (coarse, ids, entropy), _ = run(files / "any.onnx", noise(1, height, width))
        assert ids.shape == entropy.shape == (1, height, width) and coarse.shape == (1, 19, 4, 8)
    flat = np.full((1, 3, 96, 200), 99, np.uint8)
    resized, own = (
        run(files / name, images, ["coarse"])[0][0]
        for name, images in (("any.onnx", flat), ("ids.onnx", flat[..., :32, :64]))
    )
    np.testing.assert_allclose(resized, own, atol=1e-4)


def test_what_the_file_says_of_itself(files, trained):
    facts = checkpoint.load(files / "ids.onnx", exported=True)
    assert facts["classes"]["names"][0] == "road" and len(facts["classes"]["palette"]) == 19
    assert (
        facts["size"] == [64, 32]
        and facts["outputs"] == ["coarse", "train_ids", "entropy"]
        and "none" in facts["preprocessing"]
    )
    assert (
        facts["metrics"] == checkpoint.load(trained)["metrics"]
        and facts["preset"]["name"] == "playground"
    )
    extra = {"fgda.json": ""}
    torch.jit.load(str(files / "trace.pt"), _extra_files=extra)
    assert json.loads(extra["fgda.json"])["classes"] == facts["classes"]


def test_a_trace_and_openvino_give_torchs_results(files, trained):
    _, full = expected(trained, noise(2))
    traced = torch.jit.load(str(files / "trace.pt"))
    assert (traced(torch.from_numpy(noise(2)))[1].numpy() == full.argmax(1).numpy()).mean() > 0.999
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(str(files / "vino.xml"), "CPU")
    assert (compiled(noise(2))["logits"].argmax(1) == full.argmax(1).numpy()).mean() > 0.98


def test_smaller_numbers_make_smaller_files(files):
    sizes = {name: (files / f"{name}.onnx").stat().st_size for name in ("plain", "half", "int8")}
    assert sizes["half"] < 0.75 * sizes["plain"] and sizes["int8"] < sizes["plain"]
    import onnx

    kinds = {node.op_type for node in onnx.load(str(files / "int8.onnx")).graph.node}
    assert "QuantizeLinear" in kinds
    assert checkpoint.load(files / "int8.onnx", exported=True)["numbers"] == "int8"


@pytest.mark.parametrize("name", ["plain.onnx", "ids.onnx", "any.onnx"])
def test_an_exported_model_predicts_and_evaluates_as_its_checkpoint(
    files, trained, data_root, frames, tmp_path, name
):
    figures = []
    for which in (trained, files / name):
        done = fgda("evaluate", which, "--data-root", data_root, "--json")
        assert done.returncode == 0, done.stderr
        figures.append(json.loads(done.stdout))
    assert figures[1]["miou"] == pytest.approx(figures[0]["miou"], abs=0.05) and figures[1][
        "checkpoint"
    ].endswith(name)
    for which, out in ((trained, "a"), (files / name, "b")):
        assert (
            fgda("predict", which, frames, "--out", tmp_path / out, "--save", "ids").returncode == 0
        )
    import cv2

    pairs = [
        (cv2.imread(str(path), 0), cv2.imread(str(tmp_path / "b" / path.name), 0))
        for path in (tmp_path / "a").glob("*_ids.png")
    ]
    assert len(pairs) == 10 and np.mean([(one == two).mean() for one, two in pairs]) > 0.999


def test_entropy_maps_and_the_python_interface(files, frames, tmp_path):
    done = fgda("entropy-map", files / "plain.onnx", frames, "--out", tmp_path)
    assert done.returncode == 0 and "10 maps" in done.stdout
    model, info = fgda_cli.load_model(files / "plain.onnx")
    found = fgda_cli.predict(model, np.full((64, 128, 3), 80, np.uint8))
    assert (
        found["train_ids"].shape == found["entropy"].shape == (64, 128)
        and info["classes"].names[0] == "road"
    )


def test_what_needs_weights_asks_for_the_checkpoint(files, trained, frames, data_root, tmp_path):
    for command in (
        ("rank", files / "plain.onnx", frames),
        ("export", files / "plain.onnx", "--out", tmp_path / "x.onnx"),
        (
            "adapt",
            "--init",
            files / "plain.onnx",
            "--data-root",
            data_root,
            "--out",
            tmp_path / "r",
        ),
    ):
        done = fgda(*command)
        assert done.returncode == 1 and "name its checkpoint" in done.stderr, done.stderr


def test_files_that_are_none_of_ours(tmp_path, frames):
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Identity", ["images"], ["coarse"])],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("coarse", TensorProto.UINT8, [1, 3, 4, 4])],
    )
    other = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(other, str(tmp_path / "other.onnx"))
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    for facts in (
        "{}",
        "[" * 5000,
        json.dumps({"version": 1, "classes": {"names": ["a"], "palette": [[0, 0, 0]]}}),
    ):
        helper.set_model_props(other, {"fgda": facts})
        onnx.save(other, str(tmp_path / "odd.onnx"))
        done = fgda("predict", tmp_path / "odd.onnx", frames, "--out", tmp_path / "o")
        assert (
            done.returncode == 1
            and "was not written by fgda export" in done.stderr
            and done.stderr.count("\n") == 1
        )
    for name, said in (
        ("other", "was not written by fgda export"),
        ("broken", "not an ONNX model that can be run"),
    ):
        done = fgda("predict", tmp_path / f"{name}.onnx", frames, "--out", tmp_path / "o")
        assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr


def test_a_model_that_differs_is_not_written(trained, tmp_path, monkeypatch):
    for found, said in (
        ((0.5, 10.0, 1.0), "its logits differ from torch's by"),
        ((0.0, 10.0, 0.5), "50.00 % of the pixels"),
    ):
        monkeypatch.setattr(export, "_compare", lambda *_, found=found: found)
        with pytest.raises(FgdaError, match=said):
            export.export(trained, tmp_path / "m.onnx", Form())
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        FgdaError, match=r"needs the package onnxruntime: pip install 'fgda\[export\]'"
    ):
        export.export(trained, tmp_path / "m.onnx", Form())
    with pytest.raises(
        FgdaError, match=r"needs the package onnxruntime: pip install 'fgda\[export\]'"
    ):
        checkpoint.load(tmp_path / "m.onnx", exported=True)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        FgdaError, match=r"needs the package openvino: pip install 'fgda\[openvino\]'"
    ):
        export.export(trained, tmp_path / "m.xml", Form("openvino"))


@pytest.mark.parametrize(
    "options, said",
    [
        (("--out", "m.weights"), "name it *.onnx, *.pt (torchscript) or *.xml (openvino)"),
        (("--format", "tflite"), "'onnx', 'torchscript', 'openvino'"),
        (("--format", "onnx", "--out", "m.pt"), "name it *.onnx"),
        (("--half", "--int8"), "one of them"),
        (("--int8",), "needs --calibrate"),
        (("--out", "m.pt", "--half"), "--half is for onnx and openvino"),
    ],
)
def test_options_that_do_not_go_together(trained, tmp_path, options, said):
    done = fgda("export", trained, *options, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "inputs, outputs", [(64, 32), (70, 32), (20, 32), (33, 32), (32, 32), (257, 64)]
)
def test_weights_of_resizing_are_torchs_antialiased_ones(inputs, outputs):
    images = torch.rand(1, 3, inputs, 40, generator=torch.Generator().manual_seed(0)) * 255
    rows = export.bilinear_weights(inputs, outputs, images)
    columns = export.bilinear_weights(40, 24, images)
    wanted = torch.nn.functional.interpolate(
        images, (outputs, 24), mode="bilinear", align_corners=False, antialias=True
    )
    torch.testing.assert_close(rows @ images @ columns.T, wanted, atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", ["any.xml", "any.pt", "any.onnx"])
def test_an_export_for_any_size_is_checked_on_images_that_shrink_and_grow(
    trained, frames, tmp_path, name, monkeypatch
):
    """Case 26: OpenVINO shrank images without antialiasing, and was checked at one size alone."""
    form = Form(
        {".xml": "openvino", ".pt": "torchscript", ".onnx": "onnx"}[name[3:]],
        argmax=True,
        dynamic=True,
    )
    images = spread_images(str(frames), 4)
    seen = []
    before = export._compare
    monkeypatch.setattr(
        export,
        "_compare",
        lambda run, network, groups: seen.extend(groups) or before(run, network, groups),
    )
    found = export.export(trained, tmp_path / name, form, frames=images)
    assert found.same > 0.999 and sorted(tuple(group.shape[-2:]) for group in seen) == [
        (32, 45),
        (32, 64),
        (54, 102),
    ]
