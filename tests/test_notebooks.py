"""The notebooks of docs run as they stand."""

from __future__ import annotations

import pytest

from tests.helpers import ROOT, needs

NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


@needs("nbclient", "ipykernel")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_says_what_docs_show(path, tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    for name, value in (
        ("TMPDIR", tmp_path),
        ("PYTHONPATH", ROOT),
        ("OMP_NUM_THREADS", 1),
        ("FGDA_DATA", "data"),
    ):
        monkeypatch.setenv(name, str(value))
    notebook = nbformat.read(path, as_version=4)
    shown = texts(notebook)
    for cell in notebook.cells:
        # as docs show it, but short
        if cell.cell_type == "code":
            cell.source = cell.source.replace("iterations: 160", "iterations: 8").replace(
                "iterations: 60", "iterations: 4"
            )
            cell.source = cell.source.replace("iterations: 50", "iterations: 4").replace(
                "train=60", "train=8"
            )
    NotebookClient(
        notebook,
        timeout=240,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    found = texts(notebook)
    assert len(found) == len(shown) and not any("Traceback" in text for text in [*found, *shown])
    assert sum("mIoU" in text for text in found) == sum("mIoU" in text for text in shown) > 0


def texts(notebook) -> list[str]:
    """What its code cells wrote, a text a cell."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [
        "".join(output.get("text", "") for output in cell.outputs if output.output_type == "stream")
        for cell in cells
    ]
