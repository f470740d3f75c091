"""The command line as a person meets it: exit codes, one clear line, files whole or absent, golden
output.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
import typer

from fgda_cli.app import GROUPS, app
from fgda_cli.commands._options import arrange
from fgda_cli.data.images import visible_files, write_image
from tests.helpers import fgda, set_flags


@pytest.fixture(scope="module")
def checkpoint(data_root, tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "pre"
    done = fgda("pretrain", "--data-root", data_root, "--out", out, "--device", "cpu", *set_flags())
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out / "checkpoints/final.pth")
    return out / "checkpoints/final.pth"


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    rng = np.random.default_rng(0)
    write_image(folder / "beach.png", rng.integers(0, 256, (90, 130, 3), dtype=np.uint8))
    write_image(folder / "trip/Zürich 1.png", rng.integers(0, 256, (70, 50, 3), dtype=np.uint8))
    return folder


def assert_clear(done: subprocess.CompletedProcess, code: int, *parts: str):
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.strip().splitlines() if "warning" not in line]
    assert 1 <= len(lines) <= 2 and "Traceback" not in done.stderr, done.stderr
    assert lines[0].startswith("fgda: ")
    for part in parts:
        assert part in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["adapt", "--help"],
        ["--version"],
        ["adapt", "--preset", "nope"],
        ["adapt", "--set", "method.etta=1"],
        ["presets", "gta2city"],
    ],
)
def test_help_and_usage_errors_load_no_torch(arguments):
    heavy = "any(m in sys.modules for m in ('torch', 'cv2', 'torchvision'))"
    code = f"import sys; from fgda_cli.app import main; main({arguments!r}); sys.exit({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["adapt", "--preset", "gta2cty"], ["no preset 'gta2cty'", "gta2city"]),
        (["adapt", "--set", "optim.lrr=1"], ["--set: unknown key 'optim.lrr'", "optim.lr"]),
        (["adapt", "--set", "optim.lr=fast"], ["optim.lr", "number"]),
        (["adapt", "--method", "fdga"], ["unknown method 'fdga'", "fgda"]),
        (["pretrain", "--seed", "-1"], ["--seed"]),
        (["nonsense"], ["nonsense"]),
        (["evaluate"], ["CKPT"]),
        (["evaluate", "nowhere.pth"], ["no such checkpoint: nowhere.pth"]),
        (["verdict", "nowhere.pth"], ["no such checkpoint: nowhere.pth"]),
        (
            ["compare", "nowhere.pth", "--images", ".", "--out", "a.png"],
            ["no such checkpoint: nowhere.pth"],
        ),
        (["prepare", "gta5"], ["--root"]),
        (["prepare", "gta5", "--root", ".", "--size", "12"], ["--size 12"]),
        (
            ["predict", "a.pth", "b.png", "--out", "x", "--save", "colour"],
            ["--save colour", "color,ids,overlay"],
        ),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(arguments, parts, tmp_path):
    assert_clear(fgda(*arguments, cwd=tmp_path), 2, *parts)
    assert not list(tmp_path.iterdir())


def test_failures_are_one_line_and_exit_1(tmp_path, data_root):
    (tmp_path / "text.pth").write_text("hello")
    write_image(tmp_path / "photo.png", np.zeros((40, 40, 3), np.uint8))
    assert_clear(
        fgda("predict", "text.pth", "photo.png", "--out", "out", cwd=tmp_path),
        1,
        "text.pth",
        "no checkpoint",
    )
    assert_clear(
        fgda("prepare", "gta5", "--root", "nowhere", cwd=tmp_path), 2, "nowhere", "no such folder"
    )
    assert_clear(
        fgda("pretrain", "--preset", "gta2city", cwd=tmp_path),
        1,
        "'gta5' is not prepared",
        "fgda prepare gta5",
    )
    no_weights = set_flags("model.weights=imagenet", "model.width=64", "model.backbone=resnet18")
    done = fgda(
        "pretrain",
        "--data-root",
        data_root,
        "--out",
        tmp_path / "run",
        "--device",
        "cpu",
        *no_weights,
        cwd=tmp_path,
    )
    assert_clear(done, 1, "resnet18-f37072fd.pth", "put it at")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.rglob("*.part"))


def test_cuda_that_is_not_there(data_root, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    done = fgda(
        "pretrain",
        "--data-root",
        data_root,
        "--out",
        tmp_path / "r",
        "--device",
        "cuda",
        *set_flags(),
    )
    assert_clear(done, 2, "--device cuda")


def test_debug_shows_the_traceback(tmp_path):
    done = fgda("evaluate", "nowhere.pth", "--debug", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" in done.stderr


def test_evaluate_prints_the_table_and_writes_the_json(checkpoint, data_root, tmp_path):
    done = fgda(
        "evaluate",
        checkpoint,
        "--data-root",
        data_root,
        "--json",
        tmp_path / "r.json",
        "--save-predictions",
        tmp_path / "p",
    )
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "traffic light" in done.stdout and "mIoU (16)" in done.stdout
    result = json.loads((tmp_path / "r.json").read_text())
    counted = [
        "checkpoint",
        "dataset",
        "split",
        "images",
        "classes",
        "iou",
        "miou",
        "miou16",
        "miou13",
        "pixel_accuracy",
    ]
    assert list(result) == [
        *counted,
        "confusion",
        "seconds",
        "evaluated",
        "input",
        "data",
        "protocol",
        "views",
    ]
    assert result["evaluated"] == result["classes"] and result["input"]["size"] == [64, 32]
    assert result["images"] == 3 and len(result["confusion"]) == 19
    assert len(list((tmp_path / "p").rglob("*.png"))) == 3


def test_json_alone_goes_to_stdout_and_several_checkpoints_compare(checkpoint, data_root):
    done = fgda("evaluate", checkpoint, checkpoint, "--data-root", data_root, "--json")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert first["confusion"] == second["confusion"]


def test_evaluate_matches_an_independent_count(checkpoint, data_root, tmp_path):
    done = fgda(
        "evaluate", checkpoint, "--data-root", data_root, "--json", "--save-predictions", tmp_path
    )
    counts = np.zeros((19, 19), np.int64)
    for path in tmp_path.rglob("*.png"):
        (folder,) = (data_root / "playground-street").glob("val-*/labels")
        truth = cv2.imread(str(folder / path.relative_to(tmp_path)), cv2.IMREAD_UNCHANGED)
        found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        for t, p in zip(truth.ravel(), found.ravel(), strict=True):
            if t != 255:
                counts[t, p] += 1
    assert json.loads(done.stdout)["confusion"] == counts.tolist()


def test_predict_keeps_sizes_folders_and_names(checkpoint, photos, tmp_path):
    done = fgda(
        "predict", checkpoint, photos, "--recursive", "--out", tmp_path / "out", "--ids", "label"
    )
    assert done.returncode == 0, done.stderr
    found = {p.relative_to(tmp_path / "out").as_posix() for p in visible_files(tmp_path / "out")}
    kinds = ("color", "ids", "overlay")
    assert found == {"legend.png"} | {
        f"{name}_{kind}.png" for name in ("beach", "trip/Zürich 1") for kind in kinds
    }
    ids = cv2.imread(str(tmp_path / "out/beach_ids.png"), cv2.IMREAD_UNCHANGED)
    assert ids.shape == (90, 130) and set(np.unique(ids)) <= {
        7,
        8,
        11,
        12,
        13,
        17,
        *range(19, 29),
        31,
        32,
        33,
    }


def test_predict_goes_on_past_a_damaged_image_and_ends_with_1(checkpoint, photos, tmp_path):
    (photos / "cut.png").write_bytes((photos / "beach.png").read_bytes()[:500])
    done = fgda("predict", checkpoint, photos, "--out", tmp_path / "out", "--save", "ids")
    assert done.returncode == 1 and "cut.png" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "out/beach_ids.png").is_file() and not (
        tmp_path / "out/cut_ids.png"
    ).exists()


def test_entropy_map_writes_pictures_arrays_and_means(checkpoint, photos, tmp_path):
    done = fgda("entropy-map", checkpoint, photos / "beach.png", "--out", tmp_path / "out", "--raw")
    assert done.returncode == 0, done.stderr
    values = np.load(tmp_path / "out/beach_entropy.npy")
    assert (
        values.shape == (90, 130)
        and values.dtype == np.float32
        and 0 <= values.min() <= values.max() <= 1
    )
    assert json.loads((tmp_path / "out/entropy.json").read_text())["beach"] == pytest.approx(
        values.mean(), abs=1e-6
    )
    assert cv2.imread(str(tmp_path / "out/beach_entropy.png")).shape[0] == 90


def test_adapt_without_init_takes_the_newest_pretrain_and_says_so(data_root, tmp_path):
    assert_clear(
        fgda("adapt", "--data-root", data_root, *set_flags(), cwd=tmp_path),
        1,
        "no finished pretrain",
    )
    assert fgda("pretrain", "--data-root", data_root, *set_flags(), cwd=tmp_path).returncode == 0
    done = fgda("adapt", "--data-root", data_root, *set_flags(), cwd=tmp_path)
    assert (
        done.returncode == 0
        and "starting from runs/playground/pretrain-seed0/checkpoints/final.pth" in done.stderr
    )
    assert (tmp_path / "runs/playground/adapt-fgda-seed0/checkpoints/final.pth").is_file()
    again = fgda("adapt", "--data-root", data_root, *set_flags(), cwd=tmp_path)
    assert again.returncode == 0 and "finished already" in again.stderr


def test_prepare_playground_draws_and_prepares_both_domains(tmp_path):
    from fgda_cli.data import prepare
    from fgda_cli.runtime.reporter import Reporter

    how = prepare.How(tmp_path / "data", reporter=Reporter(quiet=True))
    summaries = prepare.prepare_playground(tmp_path / "raw", how, scenes=(4, 2))
    assert [s.images for s in summaries] == [{"train": 4}, {"train": 4, "val": 2}]


def test_presets_prints_what_can_be_read_again(tmp_path):
    done = fgda("presets", "gta2city")
    (tmp_path / "copy.yaml").write_text(done.stdout)
    assert fgda("presets", tmp_path / "copy.yaml").stdout == done.stdout
    assert {"gta2city", "playground", "synthia2city"} <= set(fgda("presets").stdout.split())


# names of values, which stay small where a help line begins with them
STARTS = {
    "acdc",
    "auto",
    "carla",
    "fgda",
    "folder",
    "onnx",
    "playground",
    "raw",
    "table1",
    "taper",
    "train",
}


@pytest.mark.parametrize("command", [name for group in GROUPS.values() for name in group])
def test_help_fits_80_columns_and_explains_every_option(command):
    done = fgda(command, "--help")
    assert done.returncode == 0 and max(map(len, done.stdout.splitlines())) <= 80
    shown = " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.stdout).split())
    for parameter in typer.main.get_command(app).commands[command].params:
        if parameter.param_type_name == "option" and not parameter.hidden:
            assert parameter.opts[0] in shown, parameter.opts
            text = (parameter.help or "").strip()
            assert (
                text[:1].isupper() or text[:1].isdigit() or text.split()[0].rstrip(":,") in STARTS
            ), f"{parameter.opts}: {text}"
            assert text.endswith((".", "…")), f"{parameter.opts[0]}: {text}"


@pytest.mark.parametrize(
    "given, expected",
    [
        (["evaluate", "a.pth", "--json"], ["evaluate", "a.pth", "--json=-"]),
        (["evaluate", "--json", "r.json", "a.pth"], ["evaluate", "--json=r.json", "a.pth"]),
        (["evaluate", "--json", __file__], ["evaluate", "--json=-", __file__]),
        (["adapt", "--debug", "--seed", "1"], ["--debug", "adapt", "--seed", "1"]),
        (["predict", "--", "--debug"], ["predict", "--", "--debug"]),
        (["compare", "a", "--inputs", "b"], ["compare", "a", "--images", "b"]),
        (
            ["--quiet", "prepare", "gta5", "--out=x"],
            ["--quiet", "prepare", "gta5", "--data-root=x"],
        ),
        (["predict", "a", "b", "--out", "x"], ["predict", "a", "b", "--out", "x"]),
        # a folder that is named as a command
        (["predict", "a", "prepare", "--out", "x"], ["predict", "a", "prepare", "--out", "x"]),
    ],
)
def test_arrange(given, expected):
    assert arrange(given) == expected


def test_former_names_are_read_and_said(capsys):
    assert arrange(["ablate", "--labels", "0,5"]) == ["ablate", "--labelled", "0,5"]
    assert capsys.readouterr().err == "note: --labels is called --labelled now\n"


@pytest.mark.parametrize(
    "typed, expected",
    [
        ("fgda ada", {"adapt"}),
        ("fgda adapt --preset gta2city-a", {"gta2city-adaptsegnet", "gta2city-advent"}),
        ("fgda adapt --method fgda", {"fgda", "fgda-st"}),
        ("fgda prepare city", {"cityscapes"}),
    ],
)
def test_shell_completion(typed, expected):
    environment = {
        **os.environ,
        "_FGDA_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(typed.count(" ")),
    }
    command = [sys.executable, "-c", "from fgda_cli.app import run; run()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert set(done.stdout.split()) == expected


def test_a_video_becomes_one_result_a_frame_and_a_broken_one_is_named(checkpoint, tmp_path):
    writer = cv2.VideoWriter(
        str(tmp_path / "drive.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 32)
    )
    assert writer.isOpened()
    for shade in range(5):
        writer.write(np.full((32, 64, 3), 40 * shade, np.uint8))
    writer.release()
    done = fgda(
        "predict",
        checkpoint,
        tmp_path / "drive.avi",
        "--out",
        tmp_path / "out",
        "--save",
        "ids,overlay",
    )
    assert done.returncode == 0 and "5 predicted" in done.stdout, done.stderr
    names = {
        path.relative_to(tmp_path / "out").as_posix() for path in tmp_path.glob("out/drive/*.png")
    }
    assert names == {
        f"drive/{number:06d}_{kind}.png" for number in range(1, 6) for kind in ("ids", "overlay")
    }
    assert cv2.imread(str(tmp_path / "out/drive/000001_overlay.png")).shape == (32, 64, 3)
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    done = fgda(
        "--quiet", "predict", checkpoint, tmp_path / "broken.mp4", "--out", tmp_path / "out2"
    )
    warning, error = done.stderr.splitlines()
    assert (
        done.returncode == 1
        and "broken.mp4: no video that can be read" in warning
        and "1 of 1 inputs" in error
    )


def test_no_command_trains_the_toy_because_no_preset_was_named(tmp_path, monkeypatch, capsys):
    from fgda_cli.app import main

    monkeypatch.chdir(tmp_path)
    for command in ("pretrain", "adapt", "ablate"):
        assert main([command]) == 2
        assert "which preset?" in capsys.readouterr().err
    (tmp_path / "mine.yaml").write_text("# My footage.\nextends: playground\n")
    assert main(["adapt"]) == 2 and "here is mine.yaml" in capsys.readouterr().err
    assert main(["presets"]) == 0
    listed = capsys.readouterr().out
    listed = " ".join(listed.split())
    assert "mine.yaml My footage" in listed and "75.9 mIoU published" in listed


def test_choices_are_choices_and_flags_are_flags(capsys):
    from fgda_cli.app import main

    assert main(["predict", "a.pth", "b", "--out", "c", "--ids", "x"]) == 2
    assert "'--ids': 'x' is not one of 'train', 'label'" in capsys.readouterr().err
    main(["predict", "--help"])
    shown = capsys.readouterr().out
    assert "train|label" in shown and "<bool>" not in shown and "range" not in shown
