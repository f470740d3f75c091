"""`fgda zoo` against a server on 127.0.0.1: whole, cut off and resumed, and every kind of file that
is not what it should be.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import get_args

import pytest
import torch

import fgda_cli
from fgda_cli.models import zoo
from fgda_cli.models.segmenter import Segmenter
from fgda_cli.runtime.errors import FgdaError
from fgda_cli.studies import zoo as study
from tests.helpers import QUIET, fgda, needs

pytestmark = needs("gdown")
# the method, and then the pair
NAME = "mic-tiny2city"


class Server(ThreadingHTTPServer):
    """Gives `content`, from the byte asked for; `cut`: closes after so many bytes, once."""

    content = b""
    status = 200
    cut = None
    asked = ()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        start = 0
        server.asked = [*server.asked, self.headers.get("Range")]
        wanted = self.headers.get("Range")
        if wanted:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
        body = server.content[start:]
        self.send_response(206 if wanted and server.status == 200 else server.status)
        if wanted:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
            )
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/octet-stream")
        self.end_headers()
        self.wfile.write(body if server.cut is None else body[: server.cut])
        server.cut = None

    def log_message(self, *_):
        """Nothing on stderr."""


@pytest.fixture(scope="module")
def published() -> bytes:
    """A small file as VFM-UDA++'s authors publish theirs."""
    torch.manual_seed(0)
    net = Segmenter(
        19,
        "adapter:tiny14",
        output_stride="native",
        multi_level=False,
        head="upscale",
        head_width=8,
    )
    theirs = (
        ("backbone.", "network.encoder."),
        ("neck.", "network.upscale."),
        ("head.convs.0.", "network.out."),
    )
    state = {}
    for key, value in net.state_dict().items():
        for ours, prefix in theirs:
            if key.startswith(ours):
                state[prefix + key.removeprefix(ours)] = value
    buffer = io.BytesIO()
    torch.save({"state_dict": state}, buffer)
    return buffer.getvalue()


@pytest.fixture
def server(published, monkeypatch, tmp_path):
    """The server, whose file the zoo knows as NAME; weights are kept below tmp_path."""
    found = Server(("127.0.0.1", 0), Handler)
    found.content = published
    threading.Thread(target=found.serve_forever, daemon=True).start()
    monkeypatch.setenv("FGDA_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(study, "RETRIES", 0)
    offer(monkeypatch, url=f"http://127.0.0.1:{found.server_port}/model.ckpt")
    yield found
    found.shutdown()
    found.server_close()


def offer(monkeypatch, **facts):
    known = {
        "method": "VFM-UDA++",
        "source": "GTA5",
        "target": "Cityscapes",
        "miou": 79.8,
        "page": "https://example.org/page",
        "format": "vfmuda",
        "code": "MIT",
        "weights": "of their own",
    }
    entry = zoo.ENTRIES.get(NAME, zoo.Published(**known, url=None))._replace(**facts)
    monkeypatch.setitem(zoo.ENTRIES, NAME, entry)


def test_a_checkpoint_is_fetched_and_used_by_its_name(server, raw_playground, tmp_path):
    photo = next((raw_playground / "street/leftImg8bit/val").rglob("*.png"))
    done = fgda("predict", NAME, photo, "--out", tmp_path / "early")
    assert (
        done.returncode == 1
        and f"not here yet: fgda zoo get {NAME}" in done.stderr
        and not server.asked
    )
    done = fgda("zoo", "get", NAME)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert said[:2] == [
        f"{NAME}: VFM-UDA++, GTA5 to Cityscapes, from https://example.org/page",
        "licence of the code: MIT; of the weights: of their own",
    ]
    assert (
        done.stdout.strip() == str(tmp_path / f"weights/zoo/{NAME}.pth")
        and f"fgda predict {NAME} photos/" in done.stderr
    )
    model, info = fgda_cli.load_model(NAME)
    assert (
        info["method"] == "mic"
        and info["origin"] == f"{NAME}, https://example.org/page"
        and len(info["classes"]) == 19
    )
    done = fgda("predict", NAME, photo, "--out", tmp_path / "out")
    assert done.returncode == 0 and len(list((tmp_path / "out").rglob("*.png"))) > 0, done.stderr
    # what is there is not fetched again
    assert fgda("zoo", "get", NAME).returncode == 0 and len(server.asked) == 1
    rows = json.loads(fgda("zoo", "list", NAME, "--json").stdout)["checkpoints"]
    assert [(row["name"], row["here"]) for row in rows] == [(NAME, True)]
    done = fgda("card", NAME, "--out", tmp_path / "card")
    assert (
        done.returncode == 0
        and f"{NAME}, https://example.org/page" in (tmp_path / "card/card.md").read_text()
    ), done.stderr


def test_a_download_that_was_cut_off_goes_on_where_it_stopped(server, tmp_path):
    server.cut = 2_500_000
    with pytest.raises(
        FgdaError,
        match=(
            r"cannot download http://127.0.0.1:\d+/model.ckpt .*\nfetch it from https://example.org"
        ),
    ):
        study.get(NAME, QUIET)
    assert not zoo.place_of(NAME).exists()
    assert study.get(NAME, QUIET).is_file()
    start = int(server.asked[-1].removeprefix("bytes=").removesuffix("-"))
    assert 1_000_000 < start <= 2_500_000 and server.asked[0] is None


def test_a_stop_leaves_what_was_fetched(server, monkeypatch):
    import gdown

    real = gdown.download

    def stopped(*arguments, progress, **how):
        def once(so_far, total):
            raise KeyboardInterrupt

        return real(*arguments, progress=once, **how)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(gdown, "download", stopped)
        study.get(NAME, QUIET)
    study.get(NAME, QUIET)
    assert server.asked[0] is None and server.asked[-1].startswith("bytes=")


CHECKSUM = r"has the checksum [0-9a-f]{8}…, not 0123abcd…; it was deleted"


@pytest.mark.parametrize(
    "change, why",
    [({"sha256": "0123abcd"}, CHECKSUM), ({"size": 17}, "not the 17 that are published")],
)
def test_another_file_than_published_is_deleted(server, monkeypatch, change, why):
    offer(monkeypatch, **change)
    with pytest.raises(FgdaError, match=why):
        study.get(NAME, QUIET)
    assert not list(zoo.folder().iterdir())


def test_a_wrong_file_that_a_person_put_there_stays(server, monkeypatch):
    offer(monkeypatch, size=17)
    file = zoo.folder() / f"{NAME}.published"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"mine")
    with pytest.raises(
        FgdaError, match=r"published has 4 bytes, not the 17 that are published\n.*or delete it"
    ):
        study.get(NAME, QUIET)
    assert file.read_bytes() == b"mine" and not server.asked


def test_the_right_size_and_checksum_pass(server, monkeypatch, published):
    offer(monkeypatch, sha256=hashlib.sha256(published).hexdigest()[:12], size=len(published))
    assert study.get(NAME, QUIET).is_file()


def test_a_page_of_html_is_no_checkpoint(server):
    server.content = b"<!DOCTYPE html><html><body>Quota exceeded</body></html>"
    with pytest.raises(FgdaError, match="is a page of HTML in place of a file .*quota"):
        study.get(NAME, QUIET)
    assert not list(zoo.folder().iterdir())


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_that_refuses_is_one_line_with_the_page(server, status):
    server.status = status
    server.content = b"no"
    with pytest.raises(
        FgdaError,
        match=(
            rf"{status}.*\nfetch it from https://example.org/page by hand and put it at .*published"
        ),
    ):
        study.get(NAME, QUIET)
    assert not zoo.place_of(NAME).exists()


def test_no_network_no_link_and_no_library_say_which_file_goes_where(
    server, monkeypatch, published
):
    where = zoo.folder() / f"{NAME}.published"
    offer(monkeypatch, url="http://127.0.0.1:9/model.ckpt")
    with pytest.raises(FgdaError, match=f"put it at {where}"):
        study.get(NAME, QUIET)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "gdown", None)
        with pytest.raises(
            FgdaError, match=rf"pip install 'fgda\[zoo\]'\nor fetch it from .* put it at {where}"
        ):
            study.get(NAME, QUIET)
    offer(monkeypatch, url=None, note="its file is x.pth")
    with pytest.raises(
        FgdaError,
        match=rf"no link to the file itself \(its file is x.pth\)\nfetch it .* put it at {where}",
    ):
        study.get(NAME, QUIET)
    where.write_bytes(published)
    assert study.get(NAME, QUIET).is_file() and not server.asked


def test_a_full_disk_is_named(server, monkeypatch):
    import gdown

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gdown, "download", full)
    with pytest.raises(FgdaError, match=rf"cannot write .*{NAME}.published.*No space left"):
        study.get(NAME, QUIET)


def archived(kind: str, files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=buffer, mode=f"w:{kind}") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_the_checkpoint_of_an_archive_is_read_and_nothing_is_unpacked_beside_it(
    server, monkeypatch, published, kind, tmp_path
):
    offer(monkeypatch, member="latest.pth")
    server.content = archived(
        kind, {"../../escape.log": b"log", "run/latest.pth": published, "run/best.pth": b"another"}
    )
    assert study.get(NAME, QUIET).is_file()
    assert {path.name for path in zoo.folder().iterdir()} == {f"{NAME}.pth", f"{NAME}.published"}
    assert not list(tmp_path.rglob("escape.log")) and not list(tmp_path.parent.glob("escape.log"))


def test_an_archive_with_several_checkpoints_is_not_guessed_at(server):
    server.content = archived("zip", {"a.pth": b"1", "b.pth": b"2"})
    with pytest.raises(
        FgdaError, match="holds 2 files that could be a checkpoint: unpack it, and use fgda import"
    ):
        study.get(NAME, QUIET)


def test_names_are_told_and_refused():
    done = fgda("zoo")
    assert (
        done.returncode == 0
        and max(map(len, done.stdout.splitlines())) <= 80
        and "mic-gta2city" in done.stdout
    )
    assert (
        "75.9" in done.stdout
        and "https://github.com/lhoyer/HRDA" in done.stdout
        and "non-commercial" in done.stdout
    )
    done = fgda("zoo", "get", "mic-gta2cty")
    assert done.returncode == 2 and "did you mean mic-gta2city" in done.stderr
    assert (
        fgda("zoo", "get").returncode == 2
        and fgda("zoo", "list", "nothing-of-this").returncode == 2
    )


def test_every_entry_can_be_imported_and_has_a_page():
    from fgda_cli.commands.import_ import Format

    for name, entry in zoo.ENTRIES.items():
        assert (
            entry.format in get_args(Format)
            and entry.page.startswith("https://")
            and entry.code
            and entry.weights
        ), name
        assert entry.url is None or entry.url.startswith(
            ("https://", "http://vllab.ucmerced.edu/")
        ), name
        assert "." not in name and "/" not in name, name
        # no link stands without the page, and the state of it, that was read
        assert entry.page in zoo.PAGES, name
    assert set(zoo.PAGES) == {entry.page for entry in zoo.ENTRIES.values()}
    links = [entry.url for entry in zoo.ENTRIES.values() if entry.url and not entry.member]
    assert len(links) == len(set(links))


@pytest.mark.parametrize("kind", ["zip", "gz", "xz"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_archive_is_one_line_and_stays(server, monkeypatch, published, kind, damage):
    """One that a person put there is not deleted either."""
    offer(monkeypatch, member="latest.pth")
    whole = bytearray(archived(kind, {"latest.pth": published}))
    if damage == "cut":
        del whole[len(whole) * 2 // 3 :]
    else:
        whole[len(whole) // 2] ^= 0x10
    placed = zoo.folder() / f"{NAME}.published"
    placed.parent.mkdir(parents=True, exist_ok=True)
    placed.write_bytes(whole)
    with pytest.raises(FgdaError) as caught:
        study.get(NAME, QUIET)
    assert str(placed) in str(caught.value) and str(caught.value).count("\n") <= 1
    assert [path.name for path in zoo.folder().iterdir()] == [placed.name]


def test_an_archive_is_not_unpacked_to_far_more_than_it_holds(server, monkeypatch):
    offer(monkeypatch, member="latest.pth")
    placed = zoo.folder() / f"{NAME}.published"
    placed.parent.mkdir(parents=True, exist_ok=True)
    placed.write_bytes(archived("gz", {"latest.pth": bytes(2**25)}))
    with pytest.raises(FgdaError, match="would unpack to 0.0 GiB, far more than it holds"):
        study.get(NAME, QUIET)
    assert [path.name for path in zoo.folder().iterdir()] == [placed.name]
