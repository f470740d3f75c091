"""Sphinx: `make docs` builds build/docs from these pages, the commands' own help and the
docstrings.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from fgda_cli import __version__  # noqa: E402
from fgda_cli.app import GROUPS  # noqa: E402

project, author, release = "fgda", "fgda developers", __version__
extensions = ["myst_nb", "sphinx.ext.autodoc"]
html_theme, html_title = "furo", f"fgda {__version__}"
exclude_patterns = ["generated/README.md"]
nb_execution_mode = "off"  # outputs are in the notebooks; tests/test_notebooks.py runs them
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
suppress_warnings = ["myst.header", "autosectionlabel.*"]


def write_commands(_app) -> None:
    """generated/commands.md: every command's --help as it is printed."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    lines = ["# Commands", "", "What `fgda COMMAND --help` prints.", ""]
    for group, commands in GROUPS.items():
        lines += [f"## {group}", ""]
        for name in commands:
            run = [sys.executable, "-m", "fgda_cli", name, "--help"]
            text = subprocess.run(
                run, env=environment, capture_output=True, text=True, check=True
            ).stdout
            body = "\n".join(line.rstrip() for line in text.strip("\n").splitlines())
            lines += [f"### fgda {name}", "", "```text", body, "```", ""]
    place = Path(__file__).parent / "generated" / "commands.md"
    place.parent.mkdir(exist_ok=True)
    text = "\n".join(lines)
    if not place.is_file() or place.read_text() != text:
        place.write_text(text)


def setup(app) -> None:
    app.connect("builder-inited", write_commands)
