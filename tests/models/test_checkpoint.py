"""Checkpoints: whole or not there, never running code, clear about what is wrong."""

from __future__ import annotations

import pickle
import zipfile

import pytest
import torch

from fgda_cli.models import checkpoint, weights
from fgda_cli.models.foreign import read_foreign
from fgda_cli.models.segmenter import Segmenter
from fgda_cli.runtime import files
from fgda_cli.runtime.errors import FgdaError


class Evil:
    def __reduce__(self):
        return (open, ("/tmp/fgda-evil", "w"))


@pytest.mark.parametrize(
    "content", [b"", b"just text\n", b"PK\x03\x04 broken zip", pickle.dumps({"a": 1})]
)
def test_files_that_are_no_checkpoint(tmp_path, content):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(FgdaError, match="x.pth"):
        checkpoint.load(path)


def test_malicious_pickles_do_not_run(tmp_path):
    torch.save({"format": "fgda-checkpoint", "x": Evil()}, tmp_path / "x.pth")
    with pytest.raises(FgdaError, match=r"asks to run io\.open.*\n.*--trust"):
        checkpoint.load(tmp_path / "x.pth")


def test_a_failing_write_leaves_the_old_checkpoint_and_no_remains(trained, tmp_path, monkeypatch):
    path = tmp_path / "last.pth"
    content = checkpoint.load(trained)
    checkpoint.save(path, content | {"iteration": 1})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(FgdaError, match="No space left on device"):
        checkpoint.save(path, content | {"iteration": 2})
    assert checkpoint.load(path)["iteration"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.pth"]


def test_a_folder_names_the_file_in_it(tmp_path):
    with pytest.raises(FgdaError, match="is a folder"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("head", ["aspp", "fused", "pyramid"])
def test_classes_in_another_order_leave_every_layer_before_the_last(head):
    torch.manual_seed(0)
    net = Segmenter(5, "resnet18", width=8, head=head, head_width=16, dilations=(1, 2)).train()
    order = [3, 1, 4, 0, 2]
    images = torch.randint(0, 256, (2, 3, 64, 64))
    turned = Segmenter(5, "resnet18", width=8, head=head, head_width=16, dilations=(1, 2)).train()
    turned.load_state_dict(checkpoint.reorder_head(net.state_dict(), order))
    found = turned(images)
    expected = net(images)
    torch.testing.assert_close(found.logits, expected.logits[:, order])
    torch.testing.assert_close(found.aux_logits, expected.aux_logits[:, order])


def test_our_own_exports_are_named_as_what_they_are(tmp_path):
    """Case 45: "damaged"."""
    (tmp_path / "a.xml").write_text("<net/>")
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "a.pt"))
    for name, kind in (("a.xml", "OpenVINO"), ("a.pt", "TorchScript")):
        with pytest.raises(FgdaError, match=rf"an exported model \({kind}\)"):
            checkpoint.load(tmp_path / name)


def test_our_own_checkpoint_is_no_encoders_weights(trained):
    """Case 53: "520 missing"."""
    encoder = torch.nn.Linear(1, 1)
    with pytest.raises(
        FgdaError, match=r"is an fgda checkpoint, not an encoder's weights: start from it by --init"
    ):
        weights.load_backbone(encoder, "resnet18", "torchvision", weights=str(trained))


def test_tensors_below_an_unknown_key_are_named(tmp_path):
    torch.save({"net": {"a.weight": torch.zeros(2)}}, tmp_path / "x.pth")
    with pytest.raises(FgdaError, match="holds its tensors under 'net'"):
        read_foreign(tmp_path / "x.pth", "advent")


ODD = {
    "iteration": b"\xff",
    "method": 5,
    "stage": ["adapt"],
    "preset.data": 5,
    "preset.data.source": [],
    "preset.data.source.dataset": {"a": 1},
    "preset.data.evaluation.split": 3.5,
    "preset.data.evaluation.size": [0, 64],
    "preset.name": None,
    "preset.run.seed": "0",
    "preset.model": [1],
    "preset.model.backbone": 18,
    "classes": "road",
    "classes.palette": [[1, 2]],
    "input": {"size": [16384, 16384]},
    "input.size": "128x64",
    "metrics": {"miou13": None},
    "metrics.miou": float("nan"),
    "verdict": [1, 2],
    "verdict.words": "none",
    "untaught": 7,
    "source_validation": [5],
    "model": [torch.zeros(1)],
}


@pytest.mark.parametrize("key", ODD)
def test_odd_metadata_are_one_line_that_names_the_key(trained, tmp_path, key):
    content = checkpoint.load(trained)
    good = {"verdict": "improved", "score": 1.0, "confidence": 0.5, "words": []}
    content = {**content, "verdict": good, "metrics": {"miou": 1.0}}
    *path, last = key.split(".")
    inside = content
    for part in path:
        inside = inside[part]
    inside[last] = ODD[key]
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(FgdaError, match="metadata are damaged") as caught:
        checkpoint.load(tmp_path / "odd.pth")
    assert "\n" not in str(caught.value) and f"({(path or [last])[0]}" in str(caught.value)


def test_a_small_file_takes_little_memory(trained, tmp_path):
    """Names, shapes and sizes are compared before anything that a damaged file describes is
    made.
    """
    content = checkpoint.load(trained)
    few = torch.zeros(1).expand(5 * 10**9)
    torch.save(
        content | {"model": content["model"] | {"head.convs.0.bias": few}}, tmp_path / "spread.pth"
    )
    with pytest.raises(FgdaError, match="5000000000 numbers in fewer bytes"):
        checkpoint.load(tmp_path / "spread.pth")
    wide = content["preset"] | {
        "model": content["preset"]["model"] | {"width": 8192, "head_width": 8192}
    }
    torch.save(content | {"preset": wide}, tmp_path / "wide.pth")
    loaded = checkpoint.load(tmp_path / "wide.pth")
    with pytest.raises(FgdaError, match="has the shape"):
        checkpoint.restore_model(loaded, tmp_path / "wide.pth")
    with (
        zipfile.ZipFile(trained) as stored,
        zipfile.ZipFile(tmp_path / "deflated.pth", "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for entry in stored.namelist():
            archive.writestr(entry, stored.read(entry))
    with pytest.raises(FgdaError, match="compressed archive"):
        checkpoint.load(tmp_path / "deflated.pth")


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module._orig_mod.", "model.", "backbone.", "model.module."]
)
def test_prefixes_that_all_weights_have_are_taken_away(prefix):
    state = {"conv1.weight": torch.zeros(2), "layer1.0.bn1.bias": torch.zeros(1)}
    assert (
        weights.plain_names({prefix + key: value for key, value in state.items()}).keys()
        == state.keys()
    )
    other = {"backbone.conv1.weight": torch.zeros(2), "decode_head.conv.weight": torch.zeros(2)}
    assert weights.plain_names(other).keys() == other.keys()
