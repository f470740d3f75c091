"""What is published: metadata, every file that a wheel needs, the container's steps, pages for
every command.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from fgda_cli import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Wheel and sdist, by the build backend itself."""
    hatchling = pytest.importorskip(
        "hatchling.build", reason="the build backend is installed by `python -m build` alone"
    )
    import os

    out = tmp_path_factory.mktemp("dist")
    here = os.getcwd()
    os.chdir(ROOT)
    try:
        return out / hatchling.build_wheel(str(out)), out / hatchling.build_sdist(str(out))
    finally:
        os.chdir(here)


def test_the_wheel_holds_the_package_and_the_presets(built):
    names = set(zipfile.ZipFile(built[0]).namelist())
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "fgda_cli").rglob("*.*")
        if "__pycache__" not in path.parts
    }
    assert package <= names
    assert {f"fgda_cli/_presets/{path.name}" for path in (ROOT / "presets").glob("*.yaml")} <= names
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)


def test_the_sdist_is_complete(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("no git checkout")
    assert {name for name in tracked.stdout.split() if (ROOT / name).is_file()} - {
        ".gitignore"
    } <= names | {".gitignore"}


def test_metadata_say_who_what_and_under_which_licence():
    assert (
        PROJECT["license"] == "Apache-2.0"
        and PROJECT["authors"] == [{"name": "fgda developers"}]
        and "urls" not in PROJECT
    )
    oldest = PROJECT["requires-python"].removeprefix(">=3.")
    named = {line.rpartition("3.")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line}
    assert oldest in named and all(int(minor) >= int(oldest) for minor in named)
    assert PROJECT["license"] in (ROOT / "CITATION.cff").read_text()
    assert f"version: {__version__.partition('.dev')[0]}" in (ROOT / "CITATION.cff").read_text()
    assert (ROOT / "LICENSE").read_text().lstrip().startswith("Apache License")
    pinned = {
        re.split(r"==", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    for need in (
        *PROJECT["dependencies"],
        *(
            need
            for extra in ("export", "mit", "video")
            for need in PROJECT["optional-dependencies"][extra]
        ),
    ):
        assert re.split(r"[<>=]", need)[0].lower() in pinned, need


def test_errors_name_extras_that_exist():
    named = set()
    for path in (ROOT / "fgda_cli").rglob("*.py"):
        named |= {
            name
            for found in re.findall(r"fgda\[([a-z0-9,]+)\]", path.read_text())
            for name in found.split(",")
        }
    assert named and named <= set(PROJECT["optional-dependencies"])


def test_the_container_copies_what_there_is_and_installs_what_exists():
    lines = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text()).splitlines()
    sources = [part for line in lines if line.startswith("COPY") for part in line.split()[1:-1]]
    assert sources and all((ROOT / source).exists() for source in sources)
    extras = (
        next(line for line in lines if line.startswith("ARG EXTRAS")).partition("=")[2].split(",")
    )
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    assert {"BASE", "TORCH_INDEX", "EXTRAS"} == {
        line.split()[1].partition("=")[0] for line in lines if line.startswith("ARG")
    }
    assert any(line.startswith("USER") for line in lines) and 'ENTRYPOINT ["fgda"]' in lines


def test_the_containers_file_is_linted():
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}") or shutil.which(
        "hadolint"
    )
    if linter is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([linter, str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_page_is_in_the_table_of_contents():
    index = (ROOT / "docs/index.md").read_text()
    listed = {
        line.strip()
        for block in re.findall(r"```\{toctree\}(.*?)```", index, re.S)
        for line in block.splitlines()
    }
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    pages |= {f"notebooks/{path.stem}" for path in (ROOT / "docs/notebooks").glob("*.ipynb")}
    assert pages | {"generated/commands"} == {
        name for name in listed if name and not name.startswith(":")
    }
