"""The same picture is decided alike wherever it enters: validation, evaluate, predict, compare,
report, export.
"""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import fgda_cli
from fgda_cli.data.geometry import InputRule
from fgda_cli.data.images import write_image
from fgda_cli.data.layouts.base import OwnFiles
from fgda_cli.data.playground.looks import STREET
from fgda_cli.data.playground.scene import draw
from fgda_cli.data.prepare import How, prepare_own
from fgda_cli.data.store import PreparedDataset, open_dataset
from fgda_cli.inference.evaluate import Manner, evaluate_file, evaluate_model, with_protocol
from fgda_cli.inference.outputs import Ids, SavedIds
from fgda_cli.inference.predict import network_size
from fgda_cli.inference.tta import TestTimeAugmentation, view_logits
from fgda_cli.losses import upsample
from fgda_cli.models.checkpoint import load
from fgda_cli.models.segmenter import Segmenter
from fgda_cli.runtime.devices import Precision
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.runtime.written import Written
from tests.helpers import QUIET, fgda

CPU = Precision("fp32", torch.device("cpu"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Street scenes as 4:3 photographs, and the same as a prepared data set with labels; the
    network is one of 2:1.
    """
    root = tmp_path_factory.mktemp("photos")
    for number in range(4):
        image, ids = draw(STREET, 0, number)
        write_image(
            root / f"i/{number}.png", cv2.resize(image, (200, 150), interpolation=cv2.INTER_AREA)
        )
        write_image(
            root / f"l/{number}.png",
            cv2.resize(ids, (200, 150), interpolation=cv2.INTER_NEAREST_EXACT),
        )
    prepare_own(
        "folder",
        OwnFiles(root / "i", root / "l", label_ids="train", split="val"),
        "x",
        how=How(root, (64, 32), 1, reporter=QUIET),
    )
    return root


def test_evaluate_and_predict_decide_the_same_pixels(trained, photos, tmp_path):
    """Case 12."""
    done = fgda(
        "evaluate", trained, "--data", photos / "x", "--save-predictions", tmp_path / "e", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert (
        fgda("predict", trained, photos / "i", "--out", tmp_path / "p", "--save", "ids").returncode
        == 0
    )
    for number in range(4):
        evaluated, predicted = (
            Image.open(tmp_path / name) for name in (f"e/{number}.png", f"p/{number}_ids.png")
        )
        assert (
            evaluated.size == predicted.size == (200, 150)
            and (np.asarray(evaluated) == np.asarray(predicted)).all()
        )
    model, info = fgda_cli.load_model(trained)
    image = np.asarray(Image.open(photos / "i/0.png"))
    assert (
        fgda_cli.predict(model, image)["train_ids"]
        == np.asarray(Image.open(tmp_path / "p/0_ids.png"))
    ).all()
    assert json.loads(done.stdout)["input"] == info["input"].to_json()


def test_the_rule_follows_what_the_target_was_trained_at(data_root, tiny_preset):
    """Case 11: an evaluation size that was inherited no longer decides."""
    preset = tiny_preset()
    assert tiny_preset(
        "data.evaluation.size=null", "data.target.size=[96, 48]"
    ).data.evaluation.size == (96, 48)
    from fgda_cli.training.datasets import make_rule

    reporter = Reporter(quiet=True, decisions=[])
    evaluation = PreparedDataset(data_root / "playground-street")
    rule = make_rule(
        tiny_preset("data.evaluation.size=[128, 64]"), evaluation, evaluation, reporter=reporter
    )
    assert (
        rule.size == (128, 64)
        and "evaluated at 128x64, the target is trained at 64x32" in reporter.decisions[0]
    )
    assert make_rule(preset, evaluation, evaluation, reporter=QUIET).size == (64, 32)


def test_whole_frames_enter_as_large_as_the_rows_that_were_trained_on(
    trained, photos, tiny_preset, tmp_path
):
    """A target prepared with --rows, and `predict` on the footage itself: everything was smaller
    than in training.
    """
    from fgda_cli.training.datasets import make_rule

    def prepared(split, rows):
        files = OwnFiles(photos / "i", photos / "l", label_ids="train", split=split)
        prepare_own("folder", files, f"{split}{rows}", how=How(tmp_path, (64, 32), 1, rows=rows))
        return PreparedDataset(tmp_path / f"{split}{rows}")

    middle = (20.0, 80.0)
    rule = make_rule(tiny_preset(), prepared("val", middle), None, reporter=QUIET)
    assert rule == InputRule((64, 32), (200, 90), rows=middle)
    assert rule(200, 90) == (64, 32) and rule(200, 150) == (64, 56)
    content = load(trained) | {"input": rule.to_json()}
    torch.save(content, tmp_path / "rows.pth")
    done = fgda("predict", tmp_path / "rows.pth", photos / "i", "--out", tmp_path / "p")
    assert done.returncode == 0, done.stderr
    assert "trained on rows 20 to 80 % of each frame: whole frames enter at 64x56" in done.stderr
    # a file of one size says which part of a frame it is for
    done = fgda("export", tmp_path / "rows.pth", "--out", tmp_path / "rows.pt")
    assert done.returncode == 0, done.stderr
    assert "of each frame: it takes these; --size 64x56 takes whole frames" in done.stdout
    done = fgda("export", tmp_path / "rows.pth", "--size", "64x56", "--out", tmp_path / "all.pt")
    assert done.returncode == 0 and "of each frame" not in done.stdout, done.stderr


def test_a_squeezed_target_is_squeezed_alike_later(photos, tiny_preset):
    from fgda_cli.training.datasets import make_rule

    dataset = PreparedDataset(photos / "x")
    rule = make_rule(tiny_preset(), dataset, dataset, reporter=QUIET)
    assert (
        rule.trained_on == (200, 150) and rule(200, 150) == (64, 32) and rule(800, 600) == (64, 32)
    )
    assert rule(64, 64) not in ((64, 32),)


def test_a_cache_smaller_than_the_training_size_is_warned_of_with_the_command(
    data_root, tiny_preset, capsys
):
    """Case 15."""
    from fgda_cli.settings import Domain
    from fgda_cli.training.datasets import _say_sizes

    dataset = PreparedDataset(data_root / "playground-game")
    _say_sizes(Domain(dataset="x", size=(256, 128)), dataset, QUIET)
    assert (
        "prepared at 64x32 and is enlarged to 256x128; better: fgda prepare … --size 256x128"
        in capsys.readouterr().err
    )
    _say_sizes(Domain(dataset="x", size=(64, 32)), dataset, QUIET)
    assert not capsys.readouterr().err


def test_the_papers_protocol_is_pillows_bicubic_at_the_size(photos):
    """Parity 4: equal to an independent evaluation as published, pixel by pixel."""
    torch.manual_seed(0)
    model = Segmenter(19, "resnet18", width=8).eval()
    model.input_rule = with_protocol(InputRule((64, 32), (200, 150)), "paper")
    dataset = PreparedDataset(photos / "x")
    kept = {}
    keep = Manner(
        on_prediction=lambda item, decision, _: kept.update({item.name: decision.train_ids})
    )
    evaluate_model(
        model, dataset.classes, dataset, split="val", precision=CPU, reporter=QUIET, manner=keep
    )
    for number in range(4):
        image = (
            Image.open(photos / f"i/{number}.png")
            .convert("RGB")
            .resize((64, 32), Image.Resampling.BICUBIC)
        )
        tensor = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None]
        with torch.no_grad():
            logits = torch.nn.functional.interpolate(
                model(tensor).logits, size=(150, 200), mode="bilinear", align_corners=True
            )
        assert (kept[str(number)] == logits[0].argmax(0).numpy()).mean() > 0.9999


def test_evaluate_protocol_is_an_option_and_stands_in_the_json(trained, photos):
    done = fgda("evaluate", trained, "--data", photos / "x", "--protocol", "paper", "--json")
    rule = json.loads(done.stdout)["input"]
    assert rule["resample"] == "bicubic" and rule["squeeze_all"]
    wrong = fgda("evaluate", trained, "--data", photos / "x", "--protocol", "papers")
    assert wrong.returncode == 2 and "not one of 'fgda', 'paper'" in wrong.stderr


def test_comparison_cells_have_the_pictures_own_aspect(trained, photos, tmp_path):
    """Case 22."""
    done = fgda("compare", trained, "--images", photos / "i/0.png", "--out", tmp_path / "a.png")
    assert done.returncode == 0, done.stderr
    from fgda_cli.data.classes import CITYSCAPES
    from fgda_cli.visual.pictures import GAP, HEAD, legend

    sheet = cv2.imread(str(tmp_path / "a.png"))
    key = legend(CITYSCAPES, columns=max(2, sheet.shape[1] // 170), width=sheet.shape[1])
    assert sheet.shape[0] - key.shape[0] == HEAD + 2 * (192 + GAP) + GAP  # 256 x 192: 4:3


def test_a_subset_of_classes_is_evaluated_by_name_and_writes_label_ids(photos, tmp_path):
    """Cases 8 and 10."""
    from fgda_cli.data.classes import NAMES, NOT_IN_SYNTHIA16, named_classes

    sixteen = named_classes([name for name in NAMES if name not in NOT_IN_SYNTHIA16])
    shuffled = named_classes(sixteen.names[::-1])
    torch.manual_seed(0)
    model = Segmenter(16, "resnet18", width=8).eval()
    model.input_rule = InputRule((64, 32))
    dataset = PreparedDataset(photos / "x")
    results = []
    turned = Segmenter(16, "resnet18", width=8).eval()
    turned.load_state_dict(
        {
            k: v.flip(0) if k.startswith(("head.", "aux_head.")) else v
            for k, v in model.state_dict().items()
        }
    )
    turned.input_rule = model.input_rule
    for network, classes in ((model, sixteen), (turned, shuffled)):
        save = SavedIds(tmp_path / "label", Ids("label", classes), Written(tmp_path / "label"))
        keep = Manner(on_prediction=lambda item, decision, _, save=save: save(item, decision))
        results.append(
            evaluate_model(
                network, classes, dataset, split="val", precision=CPU, reporter=QUIET, manner=keep
            ).to_json()
        )
    first, second = results
    assert (
        first["iou"] == second["iou"]
        and first["miou16"] is not None
        and first["miou13"] == second["miou13"]
    )
    assert first["evaluated"] == list(sixteen.names) and first["miou"] == first["miou16"]
    written = np.unique(np.asarray(Image.open(tmp_path / "label/0.png")))
    assert set(written) <= set(sixteen.label_ids())


@pytest.mark.parametrize(
    ("source", "target", "stage", "labelled", "said"),
    [
        ("game", "street", "pretrain", None, "was trained on labels of game / train"),
        ("other", "game", "pretrain", None, None),
        ("other", ["street", "game"], "adapt", None, "was adapted to the images of game / train"),
        ("other", "game", "adapt", 3, "was trained on labels of game / train"),
        ("other", "street", "adapt", "game", "was trained on labels of game / train"),
        ("other", "street", "adapt", 3, None),
    ],
)
def test_scores_on_images_that_trained_are_called_so(
    trained, data_root, source, target, stage, labelled, said
):
    content = load(trained) | {"stage": stage}
    data = content["preset"]["data"]
    data["source"]["dataset"] = source
    data["target"] |= {"dataset": target, "labelled": labelled}
    dataset = open_dataset(data_root, "playground-game")
    dataset.name = "game"
    reporter = Reporter(quiet=True, decisions=[])
    evaluate_file(trained, dataset, "train", precision=CPU, reporter=reporter, content=content)
    found = "".join(text for text in reporter.decisions if "game / train" in text)
    assert (said in found) if said else not found


def test_the_mean_of_two_checkpoints_is_that_of_their_probabilities(trained, photos, tmp_path):
    content = torch.load(trained, weights_only=True)
    torch.manual_seed(0)
    content["model"] = {
        k: v + 0.02 * torch.randn_like(v) if "head" in k else v for k, v in content["model"].items()
    }
    torch.save(content, tmp_path / "other.pth")
    both = ("evaluate", trained, tmp_path / "other.pth", "--mean", "--data", photos / "x")
    done = fgda(*both, "--save-predictions", tmp_path / "e", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["checkpoint"] == str(trained) and result["with"] == [str(tmp_path / "other.pth")]
    models = [fgda_cli.load_model(path)[0] for path in (trained, tmp_path / "other.pth")]
    differ = 0
    for number in range(4):
        image = np.asarray(Image.open(photos / f"i/{number}.png"))
        one_view = TestTimeAugmentation()
        views = [
            view_logits(each, [image], network_size(each, image), precision=CPU, tta=one_view)[0]
            for each in models
        ]
        probs = sum(torch.softmax(upsample(view, (150, 200)), 1) for view in views) / 2
        found = np.asarray(Image.open(tmp_path / f"e/{number}.png"))
        assert (found == probs.argmax(1)[0].numpy()).mean() > 0.9999
        differ += (found != upsample(views[0], (150, 200)).argmax(1)[0].numpy()).sum()
    assert differ > 0, "the other network would not show"
    together = ("predict", trained, photos / "i", "--with", tmp_path / "other.pth")
    predicted = fgda(*together, "--out", tmp_path / "p", "--save", "ids")
    assert predicted.returncode == 0, predicted.stderr
    for number in range(4):
        found, scored = (
            np.asarray(Image.open(tmp_path / name))
            for name in (f"p/{number}_ids.png", f"e/{number}.png")
        )
        assert (found == scored).mean() > 0.9999
    alone = fgda("evaluate", trained, "--mean", "--data", photos / "x")
    assert alone.returncode == 2 and "--mean needs two checkpoints" in alone.stderr
    # under another name, and with another history: in the mean it would count twice
    torch.save(content | {"iteration": 0}, tmp_path / "again.pth")
    twice = fgda(*both[:3], tmp_path / "again.pth", *both[3:])
    assert twice.returncode == 2 and "again.pth holds the same network as" in twice.stderr
    twice = fgda(*together, "--with", trained, "--out", tmp_path / "q")
    assert twice.returncode == 2 and not (tmp_path / "q").exists()
    content["preset"]["model"]["align_corners"] = False
    torch.save(content, tmp_path / "odd.pth")
    odd = fgda("evaluate", trained, tmp_path / "odd.pth", "--mean", "--data", photos / "x")
    assert odd.returncode == 2 and "other align_corners: their mean cannot be taken" in odd.stderr
