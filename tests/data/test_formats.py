"""Label files of every kind: exact values or a refusal by name, nothing silently else; what ids
mean is settled or asked.
"""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from fgda_cli.data.formats import count_values, read_label_values
from fgda_cli.data.images import BadFile, write_image
from fgda_cli.data.layouts.base import OwnFiles
from fgda_cli.data.prepare import How, prepare_layout, prepare_own
from fgda_cli.data.store import PreparedDataset
from fgda_cli.runtime.errors import FgdaError, UsageError
from fgda_cli.runtime.reporter import Reporter
from tests.helpers import QUIET, Listening, fgda

IDS = np.array([[0, 1, 2, 3], [3, 2, 1, 0]])


def save_png(path, values, bits):
    """A grey PNG of 1, 2 or 4 bit, which Pillow cannot write."""
    import struct
    import zlib

    rows = b""
    for row in values:
        packed = "".join(format(int(v), f"0{bits}b") for v in row)
        packed += "0" * (-len(packed) % 8)
        rows += b"\0" + bytes(int(packed[i : i + 8], 2) for i in range(0, len(packed), 8))

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def palette(ids):
    image = Image.fromarray(ids.astype(np.uint8))
    image.putpalette([(7 * i) % 256 for i in range(768)])
    return image


def with_alpha(ids, mode):
    channels = 1 if mode == "LA" else 3
    pixels = np.repeat(ids.astype(np.uint8)[..., None], channels, axis=2)
    return Image.fromarray(
        np.concatenate([pixels, np.full((*ids.shape, 1), 130, np.uint8)], axis=2), mode
    )


WRITERS = {
    "grey 8 bit": lambda path: Image.fromarray(IDS.astype(np.uint8)).save(path.with_suffix(".png")),
    "grey 2 bit": lambda path: save_png(path.with_suffix(".png"), IDS, 2),
    "grey 4 bit": lambda path: save_png(path.with_suffix(".png"), IDS, 4),
    "grey 16 bit": lambda path: cv2.imwrite(str(path.with_suffix(".png")), IDS.astype(np.uint16)),
    "colour 16 bit": lambda path: cv2.imwrite(
        str(path.with_suffix(".png")), np.dstack([IDS.astype(np.uint16)] * 3)
    ),
    "colour 16 bit TIFF": lambda path: cv2.imwrite(
        str(path.with_suffix(".tif")), np.dstack([IDS.astype(np.uint16)] * 3)
    ),
    "colour and alpha 16 bit": lambda path: cv2.imwrite(
        str(path.with_suffix(".png")), np.dstack([IDS.astype(np.uint16)] * 4)
    ),
    "palette": lambda path: palette(IDS).save(path.with_suffix(".png")),
    "palette 2 bit": lambda path: palette(IDS).save(path.with_suffix(".png"), bits=2),
    "grey and alpha": lambda path: with_alpha(IDS, "LA").save(path.with_suffix(".png")),
    "colour and alpha": lambda path: with_alpha(IDS, "RGBA").save(path.with_suffix(".png")),
    "float": lambda path: Image.fromarray(IDS.astype(np.float32)).save(path.with_suffix(".tif")),
    "32 bit": lambda path: Image.fromarray(IDS.astype(np.int32)).save(path.with_suffix(".tif")),
    "grey TIFF 16 bit": (
        lambda path: Image.fromarray(IDS.astype(np.uint16)).save(path.with_suffix(".tif"))
    ),
    "BMP": lambda path: Image.fromarray(IDS.astype(np.uint8)).save(path.with_suffix(".bmp")),
    "lossless WebP": lambda path: (
        with_alpha(IDS, "RGBA").convert("RGB").save(path.with_suffix(".webp"), lossless=True)
    ),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_values_are_those_of_the_file(tmp_path, kind):
    WRITERS[kind](tmp_path / "x")
    (path,) = tmp_path.iterdir()
    values = read_label_values(path)
    grey = values if values.ndim == 2 else values[..., 0]
    assert grey.tolist() == IDS.tolist()
    assert values.ndim == 2 or (values == grey[..., None]).all()


def test_one_bit_and_large_values(tmp_path):
    Image.fromarray(IDS > 0).save(tmp_path / "bool.png")
    assert read_label_values(tmp_path / "bool.png").tolist() == (IDS > 0).astype(int).tolist()
    cv2.imwrite(str(tmp_path / "large.png"), np.dstack([(IDS * 10000).astype(np.uint16)] * 3))
    assert read_label_values(tmp_path / "large.png")[..., 0].tolist() == (IDS * 10000).tolist()


@pytest.mark.parametrize(
    "name, save, words",
    [
        ("x.jpg", lambda p: Image.fromarray(IDS.astype(np.uint8)).save(p), "JPEG"),
        ("x.png", lambda p: Image.fromarray(IDS.astype(np.uint8)).save(p, "JPEG"), "JPEG"),
        ("x.webp", lambda p: Image.new("RGB", (8, 8)).save(p), "lossy WebP"),
        (
            "x.tif",
            lambda p: Image.new("RGB", (8, 8)).save(p, compression="jpeg"),
            "lossy compression",
        ),
        ("y.tif", lambda p: Image.new("CMYK", (8, 8)).save(p), "CMYK"),
        ("z.tif", lambda p: Image.fromarray(np.full((2, 2), 0.5, np.float32)).save(p), "fractions"),
        (
            "n.tif",
            lambda p: Image.fromarray(np.full((2, 2), -5, np.int32)).save(p),
            "outside 0 to 65535",
        ),
        ("e.png", lambda p: p.write_bytes(b""), "empty"),
    ],
)
def test_what_cannot_hold_labels_exactly_is_refused(tmp_path, name, save, words):
    save(tmp_path / name)
    with pytest.raises(BadFile, match=words):
        read_label_values(tmp_path / name)


# From files to a prepared data set


@pytest.fixture
def raw(tmp_path):
    """`write(label, label, …)` makes images and labels of a folder; `run(mapping)` prepares
    them.
    """
    images = tmp_path / "i"
    labels = tmp_path / "l"

    class Raw:
        out = tmp_path / "out"

        def write(self, *written):
            for number, label in enumerate(written, 1):
                write_image(images / f"{number}.png", np.full((64, 128, 3), 90, np.uint8))
                path = labels / f"{number}.png"
                path.parent.mkdir(exist_ok=True)
                label(path) if callable(label) else cv2.imwrite(str(path), label)

        def run(self, mapping=None, label_ids=None, split="train", reporter=QUIET, only=()):
            if mapping is not None:
                (tmp_path / "m.yaml").write_text(mapping)
            how = How(self.out, (64, 32), 1, reporter=reporter)
            chosen = tmp_path / "m.yaml" if mapping is not None else None
            files = OwnFiles(
                images, labels, mapping=chosen, label_ids=label_ids, split=split, only=only
            )
            summary = prepare_own("folder", files, "x", how=how)
            return summary, PreparedDataset(self.out / "x")

    return Raw()


ONES = np.ones((64, 128), np.uint8)


def first_label(dataset, split="train"):
    return dataset.label(dataset.items(split)[0])


def test_ids_that_may_be_two_things_are_asked_for(raw):
    """Case 1: train ids read as label ids lose the sky and turn cars into fences."""
    raw.write(np.tile(np.arange(19, dtype=np.uint8), (64, 7))[:, :128])
    readings = (
        r"train ids \(7 traffic sign, 8 vegetation, 11 person.*label ids \(7 road, 8 sidewalk, 11"
        r" building"
    )
    with pytest.raises(
        UsageError, match=readings + r".*\n.*--label-ids train or --label-ids label"
    ):
        raw.run()
    _, dataset = raw.run(label_ids="train")
    assert set(np.unique(first_label(dataset))) == set(range(19))
    _, dataset = raw.run(label_ids="label")
    assert 13 not in np.unique(first_label(dataset))


def test_ids_that_can_be_one_thing_alone_are_read_so_and_that_is_said(raw):
    reporter = Reporter(quiet=True, decisions=[])
    raw.write(np.full((64, 128), 26, np.uint8))
    _, dataset = raw.run(reporter=reporter)
    assert (first_label(dataset) == 13).all()
    assert any("read as Cityscapes label ids" in said for said in reporter.decisions)
    assert dataset.manifest["decisions"]


def test_a_repacked_gta5_with_train_ids_is_refused(tmp_path):
    write_image(tmp_path / "images/1.png", np.full((64, 128, 3), 90, np.uint8))
    write_image(tmp_path / "labels/1.png", np.tile(np.arange(16, dtype=np.uint8), (64, 8)))
    with pytest.raises(
        UsageError, match="GTA5 has label ids; for train ids: prepare folder --label-ids train"
    ):
        prepare_layout("gta5", tmp_path, How(tmp_path / "out", (64, 32), 1, reporter=QUIET))


def test_another_mapping_converts_again(raw):
    """Case 2."""
    raw.write(ONES)
    assert (first_label(raw.run("1: road")[1]) == 0).all()
    summary, dataset = raw.run("1: car")
    assert summary.skipped == 0 and (first_label(dataset) == 13).all()
    assert dataset.manifest["class_pixels"]["train"]["car"] == 64 * 128
    assert raw.run("1: car")[0].skipped == 1


def test_another_class_list_converts_again_where_no_other_split_keeps_the_old_one(raw):
    raw.write(ONES)
    raw.run("1: road")
    summary, dataset = raw.run("classes: [ground, air]\n1: air\n0: ground")
    assert (
        summary.skipped == 0
        and dataset.classes.names == ("ground", "air")
        and (first_label(dataset) == 1).all()
    )
    raw.write(ONES, ONES + 1)
    raw.run("classes: [ground, air]\n2: air", split="val", only=("2.png",))
    with pytest.raises(FgdaError, match="splits val .* different classes"):
        raw.run("1: road", only=("1.png",))


@pytest.mark.parametrize("what", ["read_label", "version of the layout"])
def test_what_else_a_conversion_depends_on_converts_again(
    raw_playground, tmp_path, monkeypatch, what
):
    from fgda_cli.data import convert
    from fgda_cli.data.layouts.published import LAYOUTS

    def run():
        return prepare_layout(
            "gta5", raw_playground / "game", How(tmp_path, (64, 32), 1, reporter=QUIET), name="game"
        ).skipped

    run()
    assert run() == 10
    if what == "read_label":
        monkeypatch.setattr(convert, "CONVERSION", convert.CONVERSION + 1)
    else:
        monkeypatch.setitem(LAYOUTS, "gta5", replace(LAYOUTS["gta5"], version=99))
    assert run() == 0


def test_16_bit_colour_labels_keep_their_values(raw):
    """Case 3."""
    raw.write(np.dstack([ONES.astype(np.uint16)] * 3))
    summary, dataset = raw.run("0: ignore\n1: road")
    assert (first_label(dataset) == 0).all() and summary.labelled["train"] == 100


def test_colours_of_16_bit_are_told_apart(raw):
    # BGR in the file's order: RGB (1, 300, 3)
    raw.write(np.dstack([ONES.astype(np.uint16) * v for v in (3, 300, 1)]))
    _, dataset = raw.run("[1, 300, 3]: road")
    assert (first_label(dataset) == 0).all()
    with pytest.raises(FgdaError, match="refused"):
        raw.run("[1, 44, 3]: road")  # 300 cut to 8 bit


def test_one_bit_labels_are_0_and_1(raw):
    """Case 4."""
    raw.write(lambda path: Image.fromarray(ONES > 0).save(path))
    _, dataset = raw.run("1: road")
    assert (first_label(dataset) == 0).all()


def test_any_error_in_one_file_refuses_that_file_alone(raw, monkeypatch):
    from fgda_cli.data.mapping import Mapping

    original = Mapping.read_label

    def breaks(self, path):
        if path.name == "2.png":
            raise IndexError("what nobody foresaw")
        return original(self, path)

    monkeypatch.setattr(Mapping, "read_label", breaks)
    raw.write(ONES, ONES, ONES)
    summary, dataset = raw.run("1: road")
    (problem,) = json.loads((raw.out / "x/problems.json").read_text())
    assert (
        problem["file"].endswith("l/2.png")
        and "IndexError: what nobody foresaw" in problem["reason"]
    )
    assert summary.images == {"train": 2} and len(dataset.items("train")) == 2


def test_what_labels_hold_is_told_after_each_preparation(raw):
    label = ONES * 2
    label[0, :64] = 1
    raw.write(label, lambda path: path.write_bytes(b""))
    summary, _ = raw.run("1: road\n2: ignore\n3: car")
    assert summary.labelled == {"train": round(100 * 64 / (64 * 128), 2)}
    assert "car" in summary.absent["train"] and "road" not in summary.absent["train"]
    assert summary.reasons == {"the file is empty": 1}
    assert any("only 0.8 % of the pixels are labelled" in w for w in summary.warnings)
    assert any("mapped, but never seen: car" in w for w in summary.warnings)


def test_the_command_prints_the_table_and_writes_what_was_decided_into_json(raw, tmp_path):
    raw.write(np.full((64, 128), 26, np.uint8))
    command = (
        "prepare",
        "folder",
        "--images",
        tmp_path / "i",
        "--labels",
        tmp_path / "l",
        "--name",
        "x",
        "--data-root",
        tmp_path / "o",
    )
    done = fgda(*command, "--json", tmp_path / "s.json")
    assert done.returncode == 0 and max(map(len, done.stdout.splitlines()[1:])) <= 80
    assert "labelled pixels" in done.stdout and "classes without a pixel" in done.stdout
    tree = json.loads((tmp_path / "s.json").read_text())
    assert tree["datasets"][0]["labelled_percent"] == {"train": 100.0}
    assert any("read as Cityscapes label ids" in said for said in tree["decisions"])


def test_known_names_keep_their_colours_and_a_mapping_may_give_others(raw):
    """Case 21."""
    raw.write(ONES)
    _, dataset = raw.run("classes: {road: , tree: [1, 2, 3], vegetation: , shed: }\n1: road")
    colours = dict(zip(dataset.classes.names, dataset.classes.palette, strict=True))
    assert (
        colours["road"] == (128, 64, 128)
        and colours["vegetation"] == (107, 142, 35)
        and colours["tree"] == (1, 2, 3)
    )
    assert len(set(colours.values())) == 4


def test_labels_of_an_earlier_version_are_asked_to_be_prepared_again(raw):
    raw.write(ONES)
    raw.run("1: road")
    manifest = raw.out / "x/manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version": 1}))
    with pytest.raises(FgdaError, match="half a pixel off their images: run fgda prepare again"):
        PreparedDataset(raw.out / "x")
    assert raw.run("1: road")[1].items("train")


@pytest.mark.parametrize(
    "mapping, words",
    [
        ("1: road\n1: car\n", "key 1 stands in line 1 and in line 2"),
        ("1: road\n0x1: car\n", "key 1 stands in line 1 and in line 2"),
        ("[1, 2, 3]: road\n4: car\n[1, 2, 3]: car\n", r"line 1 and in line 3"),
        (
            "classes: [road]\n1: road\nclasses: [car]\n",
            "key classes stands in line 1 and in line 3",
        ),
        ("car: [1, 2]\n2: road\n", r"2 in 'car: \[...\]' stands for 'road' too"),
        ("car: [1, 1]\n", r"1 in 'car: \[...\]' stands for 'car' too"),
        ("car: [{a: 1}]\n", "is no id, colour or name"),
        ("wagon: [1]\n", "'wagon' is not a class"),
        ("0: car\nroad: sky\n", "'road' stands for id 0, which is there too"),
    ],
)
def test_a_mapping_that_contradicts_itself_is_refused(raw, mapping, words):
    """Case 50."""
    raw.write(ONES)
    with pytest.raises(UsageError, match=words):
        raw.run(mapping)


def test_classes_alone_are_matched_by_name_with_cityscapes_ids(raw):
    """Case 51: train ids of one class set were taken for those of another (sky became person)."""
    reporter = Reporter(quiet=True, decisions=[])
    # road, sky, car, person
    raw.write(np.repeat(np.array([[7, 23, 26, 24]], np.uint8), 64, 0).repeat(32, 1))
    _, dataset = raw.run("classes: [sky, car, road]", reporter=reporter)
    assert first_label(dataset)[0, ::16].tolist() == [2, 0, 1, 255]
    assert any("matched by name" in decision for decision in reporter.decisions)
    raw.write(np.repeat(np.array([[0, 10, 13, 11]], np.uint8), 64, 0).repeat(32, 1))
    _, dataset = raw.run("classes: [sky, car, road]", label_ids="train")
    assert first_label(dataset)[0, ::16].tolist() == [2, 0, 1, 255]
    with pytest.raises(UsageError, match="no class has a name of Cityscapes'"):
        raw.run("classes: [ground, air]")


def test_why_every_image_was_refused_is_said_on_the_spot(raw):
    """Case 43."""
    colours = np.full((64, 128, 3), (3, 2, 1), np.uint8)
    raw.write(colours, colours)
    with pytest.raises(
        FgdaError, match=r"2 of 2 as .*1\.png: 1 unknown label colours .*\(add `\[1, 2, 3\]: CLASS`"
    ):
        raw.run("[9, 9, 9]: road")
    raw.write(ONES, ONES * 9)
    with pytest.raises(
        FgdaError,
        match=(
            r"label ids? (1|9|1, 9) (is|are) not in the mapping \(add `[19]: CLASS`, or `[19]:"
            r" ignore`"
        ),
    ):
        raw.run("2: road")


def test_the_size_of_a_large_cache_is_said_before_it_is_written(monkeypatch, tmp_path):
    """GTA5 at 1280x720 is 69 GB of raw pixels; a disk that lacks them is refused, with the smaller
    kind named.
    """
    from fgda_cli.data import cache as module
    from fgda_cli.data.convert import Task

    reporter = Listening()
    task = Task("gta5", tmp_path, (1280, 720), num_classes=19, read_label=lambda path: None)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**12))
    module._check_space(task, 24966, reporter)
    assert reporter.said == [
        f"gta5: 24966 images need about 69.0 GB in {tmp_path}, --cache png about 23.0 GB"
    ]
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=3 * 10**10))
    with pytest.raises(FgdaError, match="69.0 GB .* 30.0 GB are free\nuse --cache png"):
        module._check_space(task, 24966, reporter)


def test_values_are_counted_by_id_and_by_colour_of_8_and_16_bits():
    ids = np.array([[7, 7], [300, 255]], np.uint16)
    assert count_values(ids) == {7: 2, 255: 1, 300: 1}
    colours = np.array([[[0, 1, 0], [0, 0, 256], [0, 1, 0]]], np.uint16)
    assert count_values(colours) == {(0, 1, 0): 2, (0, 0, 256): 1}
    assert count_values(np.array([[[128, 64, 128]]], np.uint8)) == {(128, 64, 128): 1}


@pytest.mark.parametrize("how", [cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_NEAREST])
def test_labels_that_were_resized_by_interpolation_are_said(tmp_path, how):
    """Ids between 7 (road) and 21 (vegetation) are other classes, in a strip along every edge."""
    classes = np.random.default_rng(0).choice([7, 11, 21, 23, 26], (4, 6))
    label = np.kron(classes, np.ones((25, 25), int)).astype(np.uint8)
    for number in range(3):
        moved = np.roll(label, 3 * number, axis=1)
        write_image(tmp_path / f"l/{number}.png", cv2.resize(moved, (107, 71), interpolation=how))
        write_image(tmp_path / f"i/{number}.png", np.zeros((71, 107, 3), np.uint8))
    done = fgda(
        *("prepare", "folder", "--images", tmp_path / "i", "--labels", tmp_path / "l"),
        *("--label-ids", "label", "--size", "64x32", "--name", "x", "--data-root", tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert ("labels look resized by interpolation (3 of 3)" in done.stderr) == (
        how != cv2.INTER_NEAREST
    )
