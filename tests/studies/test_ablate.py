"""The ablation is resumable by cell and says what was measured."""

from __future__ import annotations

import json

import cv2
import pytest
import yaml

from fgda_cli.metrics import COLLAPSED
from fgda_cli.models.checkpoint import load
from fgda_cli.runtime.errors import UsageError
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.studies import ablate
from fgda_cli.training import stages
from fgda_cli.visual.tables import signed
from tests.helpers import TINY, fgda, set_flags


def ablation(data_root, tmp_path, *sets) -> list:
    out = ("--out", tmp_path / "ab")
    return ["ablate", "--data-root", data_root, *out, "--device", "cpu", *set_flags(*sets)]


def test_ablation_writes_table_json_and_plot_and_does_not_repeat_cells(data_root, tmp_path):
    command = ablation(data_root, tmp_path, "adapt.iterations=2")
    first = fgda(*command, "--methods", "source-only,fgda", "--seeds", "0,1")
    assert first.returncode == 0, first.stderr
    assert max(map(len, first.stdout.splitlines())) <= 80 and "fgda" in first.stdout
    record = json.loads((tmp_path / "ab/ablation.json").read_text())
    rows = {row["method"]: row for row in record["rows"]}
    assert set(rows) == {"source-only", "fgda"} and set(rows["fgda"]["seeds"]) == {"0", "1"}
    values = list(rows["fgda"]["seeds"].values())
    assert rows["fgda"]["mean"] == sum(values) / 2
    assert (
        "| fgda |" in (tmp_path / "ab/ablation.md").read_text()
        and (tmp_path / "ab/ablation.png").stat().st_size > 1000
    )
    again = fgda(*command, "--methods", "source-only,fgda,minent", "--seeds", "0")
    assert again.returncode == 0 and again.stderr.count("finished already") >= 2
    kept = json.loads((tmp_path / "ab/ablation.json").read_text())["cells"]
    assert kept["fgda-seed1"] == record["cells"]["fgda-seed1"] and "minent-seed0" in kept


def test_a_method_with_settings_is_a_row_of_its_own(data_root, tmp_path):
    command = ablation(data_root, tmp_path, "adapt.iterations=2")
    done = fgda(
        *command,
        "--methods",
        "mic,mic+lambda_masked=0,mic+mask_block=8+adapt.lr=1e-4",
        "--seeds",
        "0",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    rows = {row["method"]: row for row in json.loads(done.stdout)["rows"]}
    assert set(rows) == {"mic", "mic+lambda_masked=0", "mic+mask_block=8+adapt.lr=1e-4"}
    without = (tmp_path / "ab/mic+lambda_masked=0-seed0/metrics.jsonl").read_text()
    assert (
        '"masked"' not in without
        and '"masked"' in (tmp_path / "ab/mic-seed0/metrics.jsonl").read_text()
    )
    assert done.stderr.count("finished already") == 3, "one source model serves all"
    for wrong, said in (
        ("mic+magic=1", "magic"),
        ("mic+data.flip=false", "a row sets keys of its method, adapt or data.target.labelled"),
        ("mic+x", "NAME=VALUE"),
        ("mic+", "NAME=VALUE"),
        ("source-only+adapt.lr=1e-4", "source-only++NAME=VALUE trains on with it"),
        ("oracle+adapt.lr=1e-4", "oracle adapts nothing"),
        ("source-only++lambda_adv=1", "lambda_adv"),
    ):
        refused = fgda(*command, "--methods", wrong, "--seeds", "0")
        assert refused.returncode == 2 and said in refused.stderr, refused.stderr


def test_rows_begin_where_adapt_start_says(data_root, tmp_path):
    """A preset of a method that is trained from the encoder's weights needs no source model."""
    command = ablation(data_root, tmp_path, "adapt.iterations=2", "adapt.start=backbone")
    done = fgda(*command, "--methods", "minent,source-only+", "--seeds", "0")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "ab").iterdir() if path.is_dir()} == {
        "minent-seed0",
        "source-only+-seed0",
    }
    record = yaml.safe_load((tmp_path / "ab/minent-seed0/preset.yaml").read_text())
    assert record["stage"]["init"] is None
    mixed = fgda(*command, "--methods", "minent,fgda+adapt.start=pretrain", "--seeds", "0")
    assert mixed.returncode == 0, mixed.stderr
    record = yaml.safe_load(
        (tmp_path / "ab/fgda+adapt.start=pretrain-seed0/preset.yaml").read_text()
    )
    assert record["stage"]["init"].endswith("source-only-seed0/checkpoints/final.pth")


def test_rows_of_an_earlier_record_are_read_though_they_are_refused_today():
    cell = {"seed": 0, "result": None, "verdict": None}
    cells = {name: {**cell, "method": name} for name in ("source-only+adapt.lr=1", "gone+x=1")}
    rows = ablate._summary("playground", "miou", cells)["rows"]
    assert [(row["method"], row["labels"]) for row in rows] == [(name, "0") for name in cells]


def test_unknown_methods_and_seeds_are_usage_errors():
    assert fgda("ablate", "--methods", "magic").returncode == 2
    assert fgda("ablate", "--seeds", "one").returncode == 2


def test_published_figures_that_were_made_otherwise_carry_a_note():
    """Parity 21."""
    from rich.console import Console

    from fgda_cli.visual.tables import ablation_table

    cells = {
        f"{m}-seed0": {"method": m, "seed": 0, "result": {"miou": 40.0}}
        for m in ("source-only", "advent", "cbst", "fgda")
    }
    summary = ablate._summary("gta2city", "miou", cells)
    console = Console(width=80, record=True)
    console.print(ablation_table(summary))
    for text in (console.export_text(), ablate.markdown(summary)):
        text = text.replace("\n", " ") if text.startswith("gta2city") else text
        assert "45.5 [1]" in text and "[1] advent: a best snapshot" in text
        assert (
            "45.2 [2]" in text
            and "[2] cbst: another backbone" in text
            and "49.5" in text
            and "49.5 [" not in text
        )
    other = ablate._summary("playground", "miou", cells)
    assert "[1]" not in ablate.markdown(other)


def test_what_harms_is_said_with_the_classes_that_lose():
    from fgda_cli.visual.tables import harms

    def cell(method, seed, **iou):
        values = [value for value in iou.values() if value is not None]
        return {
            "method": method,
            "seed": seed,
            "result": {"miou": sum(values) / len(values), "iou": iou},
        }

    cells = {
        "a": cell("source-only", 0, road=60.0, car=40.0, sky=None),
        "b": cell("source-only", 1, road=70.0, car=20.0, sky=None),
        "e": cell("fgda", 1, road=66.0, car=10.0, sky=None),
        "c": cell("fgda", 0, road=66.0, car=10.0, sky=None),
        "d": cell("fada", 0, road=65.0, car=29.5, sky=None),
    }
    summary = ablate._summary("playground", "miou", cells)
    assert summary["rows"][0]["iou"] == {"road": 65.0, "car": 30.0, "sky": None}
    # in order, whatever was trained first
    assert list(summary["rows"][1]["seeds"]) == [0, 1]
    assert harms(summary) == ["fgda is 9.5 below source-only: car -20.0"]
    gains = {row["method"]: row["gain"] for row in summary["rows"]}
    # of the same seed: 38 - 50 and 38 - 45
    assert gains["fgda"] == {"mean": -9.5, "spread": pytest.approx(12.5**0.5)}
    assert gains["fada"] == {"mean": -2.75, "spread": None} and gains["source-only"] is None
    text = ablate.markdown(summary)
    assert "| fgda | 38.0 ± 0.0 | -9.5 ± 3.5 |" in text
    assert (
        "- fgda is 9.5 below" in text
        and "| method | road | car | sky |" in text
        and "| fgda | 66.0 | 10.0 | – |" in text
    )


def test_the_papers_rows_add_up_and_stand_below_ours_by_class():
    from fgda_cli.methods.registry import method_names
    from fgda_cli.studies import published

    for preset, rows in published.ROWS.items():
        for name, row in rows.items():
            values = published.by_name(preset, row)
            assert name in method_names()
            # figures rounded to one place; AdaptPatch's add up to 40.1, printed as 40.0
            if values:
                mean = sum(values.values()) / len(values)
                assert abs(mean - row.miou) < 0.11 or f"add up to {mean:.1f}" in row.note, (
                    preset,
                    name,
                )
    assert all(name in method_names() for table in published.TABLES.values() for name in table)
    assert "siban" in published.TABLES["table1"] and "siban" not in published.ROWS["gta2city"]
    cell = {
        "method": "fgda",
        "seed": 0,
        "result": {"miou16": 40.0, "iou": {"road": 60.0, "terrain": 1.0}},
    }
    text = ablate.markdown(ablate._summary("synthia2city", "miou16", {"a": cell}))
    assert "| fgda | 60.0 | 1.0 |" in text and "| fgda, paper | 84.3 | – |" in text


def test_methods_are_ranked_without_labels(data_root, tmp_path):
    """A target without labels: rows in the order of their score, no figure by labels anywhere."""
    command = [
        "ablate",
        "--data-root",
        data_root,
        "--out",
        tmp_path / "ab",
        "--device",
        "cpu",
        "--select",
        "label-free",
    ]
    blind = set_flags("adapt.iterations=2", "data.evaluation.dataset=nowhere")
    done = fgda(
        *command,
        *blind,
        "--methods",
        "source-only,source-only+,minent,fgda",
        "--seeds",
        "0,1",
        "--json",
        tmp_path / "r.json",
    )
    assert done.returncode == 0, done.stderr
    assert (
        max(map(len, done.stdout.splitlines())) <= 80
        and "in the order of the score without labels" in done.stdout
    )
    summary = json.loads((tmp_path / "r.json").read_text())
    scores = [row["label_free"] for row in summary["rows"]]
    assert {row["method"] for row in summary["rows"]} == {
        "source-only",
        # which reads no target, and is looked at on it all the same
        "source-only+",
        "minent",
        "fgda",
    }
    assert (
        scores == sorted(scores, reverse=True)
        and 0.0 in scores
        and summary["ranked_by"] == "label-free"
    )
    assert all(row["mean"] is None and row["seeds"] == {} for row in summary["rows"])
    again = fgda(*command, *set_flags("adapt.iterations=2"), "--methods", "fgda", "--seeds", "0")
    assert again.returncode == 2 and "data.evaluation.dataset" in again.stderr
    refused = fgda("ablate", "--select", "luck")
    assert refused.returncode == 2 and "'labels', 'label-free'" in refused.stderr


def test_a_method_that_collapsed_on_one_seed_has_collapsed():
    def cell(seed, score):
        return {
            "method": "fgda",
            "seed": seed,
            "result": None,
            "verdict": {"verdict": "x", "score": score},
        }

    def score(*scores):
        (row,) = ablate._summary(
            "playground",
            "miou",
            {str(n): cell(n, s) for n, s in enumerate(scores)},
            by_labels=False,
        )["rows"]
        return row["label_free"]

    assert (
        score(3.0, 5.0) == 4.0
        and score(3.0, COLLAPSED, 5.0) == COLLAPSED
        and signed(COLLAPSED) == "collapsed"
    )


def test_a_curve_over_the_number_of_labels(data_root, tmp_path):
    command = ["ablate", "--data-root", data_root, "--out", tmp_path / "ab", "--device", "cpu"]
    game = set_flags("adapt.iterations=2", "data.target.dataset=playground-game")
    done = fgda(
        *command,
        *game,
        "--methods",
        "fgda-st",
        "--labelled",
        "0,2,all",
        "--seeds",
        "0",
        "--json",
        tmp_path / "r.json",
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert [row["labels"] for row in rows] == ["0", "2", "all"]
    assert (
        "labels of 2 of 10 images"
        in (tmp_path / "ab/fgda-st+data.target.labelled=2-seed0/log.txt").read_text()
    )
    assert cv2.imread(str(tmp_path / "ab/labels.png")).std() > 10
    assert done.stderr.count("finished already") == 3, "one source model serves all"
    refused = fgda(*command, "--labelled", "few")
    assert refused.returncode == 2 and "e.g. 0,5,20,all" in refused.stderr


def test_a_cell_that_cannot_be_is_refused_before_any_is_trained(data_root, tiny_preset, tmp_path):
    job = stages.Job(
        tiny_preset(), data_root, tmp_path / "t", device="cpu", reporter=Reporter(quiet=True)
    )
    with pytest.raises(UsageError, match="a multiple of"):
        ablate.run_ablation(
            job,
            "playground",
            [*TINY],
            rows=[ablate.Row.parse("fgda"), ablate.Row.parse("mic+adapt.accumulate=7")],
            seeds=[0],
        )
    assert not (tmp_path / "t").exists()


def test_plain_training_and_an_oracle_are_rows_beside_the_methods(data_root, tmp_path):
    """`source-only+` trains on as long as adaptation; `oracle` on the target's labels, whose gap
    the others close in part.
    """
    import shutil

    root = tmp_path / "data"
    shutil.copytree(data_root, root)
    manifest = root / "playground-street/manifest.json"
    without = ablation(root, tmp_path, "adapt.iterations=2")
    refused = fgda(*without, "--methods", "oracle", "--seeds", "0")
    assert refused.returncode == 2 and "oracle trains on the target's labels" in refused.stderr
    tree = json.loads(manifest.read_text())
    tree["splits"]["train"] = [
        {**item, "name": f"t{n}"} for n, item in enumerate(tree["splits"]["val"])
    ]
    manifest.write_text(json.dumps(tree))
    faster = "source-only++adapt.lr=0.01"
    done = fgda(
        *without, "--methods", f"source-only+,{faster},fgda,oracle", "--seeds", "0", "--json"
    )
    assert done.returncode == 0, done.stderr
    rows = {row["method"]: row for row in json.loads(done.stdout)["rows"]}
    assert set(rows) == {"source-only+", faster, "fgda", "oracle"}
    trained_on = load(tmp_path / f"ab/{faster}-seed0/checkpoints/final.pth")
    assert trained_on["stage"] == "adapt" and trained_on["preset"]["adapt"]["lr"] == 0.01
    lines = (tmp_path / "ab/source-only+-seed0/metrics.jsonl").read_text().splitlines()
    # as many iterations as adaptation has
    assert sum('"seg"' in line for line in lines) == 2
    table = fgda(*without, "--methods", "source-only,source-only+,fgda,oracle", "--seeds", "0")
    assert (
        "gap closed" in " ".join(table.stdout.split())
        and max(map(len, table.stdout.splitlines())) <= 80
    )
    record = json.loads((tmp_path / "ab/ablation.json").read_text())["rows"]
    closed = {row["method"]: row.get("gap_closed") for row in record}
    if rows["oracle"]["mean"] != record[0]["mean"]:
        assert closed["oracle"] == pytest.approx(100) and closed["source-only"] == 0
    other = json.loads(manifest.read_text())
    other["classes"] = {"names": ["road"], "palette": [[128, 64, 128]]}
    for items in other["splits"].values():
        for item in items:
            item["counts"] = [1] if item.get("counts") else item.get("counts")
    manifest.write_text(json.dumps(other))
    refused = fgda(*without, "--methods", "oracle", "--seeds", "0")
    assert refused.returncode == 2 and "different classes" in refused.stderr
