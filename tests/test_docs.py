"""The examples of docs/adding.md run as they are printed; the README is short; what the docs link
to is there.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fgda_cli.data.images import write_image
from tests.helpers import set_flags, with_preset

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with the files of docs/adding.md in their places."""
    copy = tmp_path_factory.mktemp("project")
    for part in ("fgda_cli", "presets"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    method, preset, layout, data_preset, encoder = re.findall(
        r"```(?:python|yaml)\n(.*?)```", (ROOT / "docs/adding.md").read_text(), re.S
    )
    for place, text in {
        "fgda_cli/methods/sharpen.py": method,
        "presets/playground-sharpen.yaml": preset,
        "presets/simstreet.yaml": data_preset,
        "fgda_cli/data/layouts/simstreet.py": layout,
        "fgda_cli/models/encoders/tinynet.py": encoder,
    }.items():
        (copy / place).write_text(text)
    return copy


def run(project, *commands):
    """The commands, one after another in one process of the copy; returns what they print."""
    environment = {
        "PATH": "",
        "PYTHONPATH": str(project),
        "OMP_NUM_THREADS": "1",
        "HOME": str(project),
    }
    code = (
        "import sys, json; from fgda_cli.app import main; sys.exit(max(map(main,"
        " json.loads(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, json.dumps([with_preset(words) for words in commands])]
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_method(project, data_root, tmp_path):
    """The commands of the page as they are printed, made short by settings alone; the playground is
    drawn already.
    """
    page = (ROOT / "docs/adding.md").read_text()
    printed = re.findall(r"^```(\w*)\n(.*?)^```", page, re.S | re.M)
    printed = next(
        block for language, block in printed if not language and "playground-sharpen" in block
    )
    commands = [line.split()[1:] for line in printed.splitlines()]
    assert [command[0] for command in commands] == ["prepare", "pretrain", "adapt"]
    shutil.copytree(project / "fgda_cli", tmp_path / "fgda_cli")
    shutil.copytree(project / "presets", tmp_path / "presets")
    shutil.copytree(data_root, tmp_path / "data")
    short = ("--device", "cpu", *set_flags("pretrain.iterations=2", "adapt.iterations=2"))
    keys = run(tmp_path, *([*command, *short] for command in commands[1:]), ["presets", "--keys"])
    assert (
        '"sharp"'
        in (tmp_path / "runs/playground-sharpen/adapt-sharpen-seed0/metrics.jsonl").read_text()
    )
    assert "methods.sharpen.lambda_sharp" in keys


def test_the_data_set(project, tmp_path):
    for number in range(2):
        write_image(tmp_path / f"raw/rgb/{number}.png", np.full((64, 128, 3), 90, np.uint8))
        write_image(tmp_path / f"raw/ids/{number}.png", np.full((64, 128), number, np.uint8))
    prepare = ("prepare", "simstreet", "--root", tmp_path / "raw", "--data-root", tmp_path / "data")
    said = run(project, prepare, ("presets", "simstreet"), ("prepare", "--list"))
    assert "2 train" in said and "dataset: simstreet" in said
    assert "simstreet: Simstreet, prepared at 256x128" in said


def test_the_encoder(project, data_root, tmp_path):
    flags = set_flags("model.backbone=tinynet", "pretrain.iterations=2", "model.weights=none")
    run(project, ("pretrain", "--data-root", data_root, "--out", tmp_path / "r", *flags))


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_named_files_and_functions_exist():
    """Backticked `room/file.py` paths and `losses.x` names in the docs are real."""
    import fgda_cli.losses as losses

    for page in PAGES:
        text = page.read_text()
        for path in re.findall(r"`((?:fgda_cli/)?[a-z_]+/[a-z_/]+\.py)`", text):
            names = path.removeprefix("fgda_cli/")
            known = any((ROOT / base / names).exists() for base in ("fgda_cli", "."))
            assert known or path.startswith("fgda_cli/") and page.name == "adding.md", (
                page.name,
                path,
            )
        for name in set(re.findall(r"`losses\.([a-z_]+)`", text)) - {"py"}:
            assert hasattr(losses, name), (page.name, name)


def test_the_docs_know_every_method_and_data_set():
    from fgda_cli.data.layouts import OWN, all_layouts
    from fgda_cli.methods.registry import method_names

    pages = {page.name: page.read_text() for page in PAGES}
    missing = [name for name in method_names() if f"### {name}\n" not in pages["methods.md"]]
    assert not missing, f"docs/methods.md has no heading for {', '.join(missing)}"
    count = len(method_names())
    assert f"**Methods**: {count}, " in pages["README.md"]
    assert f"the {count} methods" in pages["choosing.md"]
    assert f"{count - 3} others" in pages["glossary.md"]
    published = [name for name in all_layouts() if name not in OWN]
    assert f"**Data**: {len(published)} published data sets" in pages["README.md"]
    for name in published:
        assert f"`{name}`" in pages["data.md"], f"docs/data.md does not name {name}"


EXAMPLES = [
    (page.name, example)
    for page in PAGES
    for example in re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    if re.search(r"^print\(.*\)  # ", example, re.M)
]


@pytest.mark.parametrize("page, example", EXAMPLES, ids=[page for page, _ in EXAMPLES])
def test_an_example_prints_what_it_says(page, example, capsys):
    exec(compile(example, page, "exec"), {})
    said = re.findall(r"^print\(.*\)  # (.*)$", example, re.M)
    assert capsys.readouterr().out.splitlines() == said


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 1000


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name not in ("README.md", "index.md")],
    ids=lambda page: page.name,
)
def test_a_page_begins_with_who_needs_it(page):
    first = page.read_text().split("\n\n")[1]
    assert re.search(r"(is for|Read it when)", first), first
