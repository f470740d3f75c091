"""Prediction on any image, the precision choice, and test-time augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fgda_cli
from fgda_cli import chunked, losses
from fgda_cli.data.classes import NAMES, named_classes
from fgda_cli.data.geometry import InputRule
from fgda_cli.data.loader import to_tensor
from fgda_cli.inference import pipeline
from fgda_cli.inference.inputs import collect
from fgda_cli.inference.outputs import Ids
from fgda_cli.inference.tta import TestTimeAugmentation, decide, view_logits
from fgda_cli.losses import entropy_map, upsample
from fgda_cli.models.segmenter import Segmenter
from fgda_cli.runtime import devices as compute
from fgda_cli.runtime.devices import Precision
from fgda_cli.runtime.errors import FgdaError, UsageError

CPU = Precision("fp32", torch.device("cpu"))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    net = Segmenter(19, "resnet18", width=8).eval()
    net.input_rule = InputRule((64, 32))
    return net


@pytest.mark.parametrize("size", [(1, 1), (64, 32), (37, 91), (3000, 40)])
def test_predict_takes_any_size(model, size):
    result = fgda_cli.predict(model, np.full((size[1], size[0], 3), 128, np.uint8))
    assert result["train_ids"].shape == result["entropy"].shape == (size[1], size[0])
    assert result["train_ids"].dtype == np.uint8 and result["entropy"].dtype == np.float32


def test_predict_equals_the_network_applied_by_hand(model):
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    logits = upsample(model(to_tensor(image)[None]).logits, (32, 64))
    result = fgda_cli.predict(model, image)
    assert (result["train_ids"] == logits[0].argmax(0).numpy()).all()
    np.testing.assert_allclose(
        result["entropy"], entropy_map(logits)[0].detach().numpy(), atol=1e-6
    )


def test_predict_refuses_other_arrays(model):
    with pytest.raises(ValueError, match="RGB uint8"):
        fgda_cli.predict(model, np.zeros((4, 4), np.float32))


def test_mirrored_test_time_augmentation_is_symmetric(model):
    image = np.random.default_rng(1).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    tta = TestTimeAugmentation(flip=True)
    turned = np.ascontiguousarray(image[:, ::-1])
    entropy, mirrored = (
        decide(view_logits(model, [x], (64, 32), precision=CPU, tta=tta), (64, 32), True).entropy
        for x in (image, turned)
    )
    np.testing.assert_allclose(entropy, mirrored[:, ::-1], atol=1e-4)


def test_deciding_by_chunks_equals_the_whole_map(monkeypatch):
    monkeypatch.setattr(chunked, "CHUNK_ELEMENTS", 500)
    views = [torch.randn(1, 5, 6, 9) for _ in range(3)]
    for some in (views[:1], views):
        probs = torch.stack(
            [torch.softmax(losses.upsample(view, (40, 55)), 1) for view in some]
        ).mean(0)
        train_ids, entropy, confidence = decide(
            some, (55, 40), with_entropy=True, with_confidence=True
        )
        assert np.mean(train_ids == probs.argmax(1)[0].numpy()) > 0.999  # ties of rounding
        np.testing.assert_allclose(entropy, losses.entropy_map(probs.log())[0].numpy(), atol=1e-5)
        np.testing.assert_allclose(confidence, probs.max(1).values[0].numpy(), atol=1e-5)


def test_collect_gives_files_of_one_name_different_results(tmp_path):
    from PIL import Image

    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert sorted(item.name for item in collect([str(tmp_path)], False)) == ["a.jpg", "a.png"]
    assert [item.name for item in collect([str(tmp_path / "*.png")], False)] == ["a"]
    with pytest.raises(FgdaError, match="no such image"):
        collect([str(tmp_path / "*.gif")], False)


@pytest.mark.parametrize(
    "bf16, expected", [(1.0, "fp32"), (0.95, "fp32"), (0.85, "bf16"), (0.5, "bf16")]
)
def test_auto_precision_takes_what_measures_faster(monkeypatch, bf16, expected):
    monkeypatch.setattr(
        compute,
        "_step_seconds",
        lambda precision, module, images: bf16 if precision.name == "bf16" else 1.0,
    )
    assert compute.make_precision("auto", torch.device("cpu")).name == expected


def test_fp16_on_the_cpu_is_refused():
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        compute.make_precision("fp16", torch.device("cpu"))


@pytest.mark.parametrize(
    "names, told",
    [
        (NAMES, None),
        (NAMES[:5], None),
        (("ground", "road"), None),
        (
            tuple(name for name in NAMES if name not in ("terrain", "truck", "train")),
            "9 is sky, Cityscapes' is terrain",
        ),
    ],
)
def test_train_ids_that_are_not_cityscapes_are_told(names, told):
    """Case 52: id 13 of a 16-class model is another class than Cityscapes' 13."""
    note = Ids("train", named_classes(names)).note()
    assert (note is None) == (told is None) and (told is None or told in note)
    assert told is None or Ids("label", named_classes(names)).note() is None


def test_large_images_wait_in_few(monkeypatch):
    """What waits is bounded by bytes, not by number alone; small images are chunks of eight as
    ever.
    """
    monkeypatch.setattr(pipeline, "MEMORY", 1000)
    begun: list[int] = []

    def read(item):
        begun.append(item)
        return np.zeros(400, np.uint8)

    waited = []
    for number, _ in enumerate(pipeline.read_ahead(read, list(range(40)), 4)):
        waited.append(len(begun) - number)
    assert max(waited[4:-4]) <= 6
    sizes = [
        [len(value) for _, value in chunk]
        for chunk in pipeline.chunks_of((n, np.zeros(400, np.uint8)) for n in range(10))
    ]
    assert [len(chunk) for chunk in sizes] == [3, 3, 2, 2]
    assert [
        len(chunk) for chunk in pipeline.chunks_of((n, np.zeros(4, np.uint8)) for n in range(20))
    ] == [8, 8, 4]
