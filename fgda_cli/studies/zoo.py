"""`fgda zoo get`: a published checkpoint is fetched, checked, and made one of ours."""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..data.geometry import InputRule
from ..models import checkpoint, zoo
from ..models.checkpoint import build_to_load
from ..models.foreign import read_foreign
from ..models.zoo import Published
from ..presets import load_preset
from ..runtime.errors import FgdaError, UsageError
from ..runtime.files import BLOCK, file_hash, make_folder, writing
from ..runtime.reporter import Reporter

# the preset with the sizes that the published networks were trained at
PRESET = "gta2city"


def import_checkpoint(
    path: Path, kind: str, reporter: Reporter = Reporter(), trust: bool = False
) -> dict[str, Any]:
    """Return a checkpoint's content from a foreign file. Raises FgdaError when names or shapes do
    not fit.
    """
    foreign = read_foreign(path, kind, trust)
    for note in foreign.notes:
        reporter.decide(note)
    preset = load_preset(
        PRESET, [f"model.{key}={str(value).lower()}" for key, value in foreign.model_keys.items()]
    )
    model = build_to_load(preset.model, len(foreign.classes))
    state = foreign.state
    wanted = {key for key in model.state_dict() if not key.startswith("normalise.")}
    absent, unexpected = (
        sorted(key for key in keys if not key.endswith("num_batches_tracked"))
        for keys in (wanted - state.keys(), state.keys() - model.state_dict().keys())
    )
    if absent or unexpected:
        raise FgdaError(
            f"{path}: not a {foreign.kind} {preset.model.backbone}: missing {absent[:2] or 'none'},"
            f" unexpected {unexpected[:2] or 'none'}"
        )
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise FgdaError(f"{path}: {' '.join(str(error).split())[:160]}") from error
    # the authors resize by bicubic
    rule = foreign.rule or InputRule(preset.data.evaluation.size, None, "bicubic")
    facts = {"stage": "import", "origin": path.name}
    return {
        **facts,
        "method": foreign.kind,
        "iteration": foreign.iteration,
        "classes": foreign.classes.to_json(),
        "input": rule.to_json(),
        "preset": preset.to_json(),
        "model": model.state_dict(),
    }


SUFFIXES = (".pth", ".ckpt", ".pt", ".pth.tar")
# attempts of a download; seconds to wait for an answer
RETRIES = 2
TIMEOUT = 30


def get(name: str, reporter: Reporter, trust: bool = False) -> Path:
    """Return the place of our checkpoint, fetched and converted where it is not there yet.

    A download that was cut short goes on where it stopped. Raises UsageError for an unknown name,
    FgdaError for a file that cannot be had, is not what it should be, or does not fit.
    """
    entry = _entry(name)
    ours = zoo.place_of(name)
    reporter.say(f"{name}: {entry.method}, {entry.source} to {entry.target}, from {entry.page}")
    reporter.say(f"licence of the code: {entry.code}; of the weights: {entry.weights}")
    if ours.is_file():
        return ours
    make_folder(zoo.folder())
    published = zoo.folder() / f"{name}.published"
    # a file that was there before is a person's, and stays
    is_ours = not published.is_file()
    if is_ours:
        _download(entry, published, reporter)
    _check(entry, published, is_ours)
    with _checkpoint_in(entry, published) as file:
        content = import_checkpoint(file, entry.format, reporter, trust=trust)
    checkpoint.save(
        ours, content | {"method": name.partition("-")[0], "origin": f"{name}, {entry.page}"}
    )
    return ours


def _entry(name: str) -> Published:
    if name not in zoo.ENTRIES:
        import difflib

        near = difflib.get_close_matches(name, zoo.ENTRIES, 3, cutoff=0.4)
        raise UsageError(
            f"no published checkpoint '{name}' is known"
            + (f": did you mean {', '.join(near)}?" if near else "")
        )
    return zoo.ENTRIES[name]


def _by_hand(entry: Published, path: Path) -> str:
    return f"fetch it from {entry.page} by hand and put it at {path}"


def _download(entry: Published, path: Path, reporter: Reporter) -> None:
    if entry.url is None:
        raise FgdaError(
            f"{entry.method}'s authors give no link to the file"
            f" itself{f' ({entry.note})' if entry.note else ''}\n" + _by_hand(entry, path)
        )
    try:
        import gdown
        from gdown.exceptions import DownloadError
        from requests import RequestException
    except ImportError:
        raise FgdaError(
            f"downloads need gdown: pip install 'fgda[zoo]'\nor {_by_hand(entry, path)}"
        ) from None
    with reporter.progress("downloading, MB", None) as advance:
        done = 0

        def progress(so_far: int, total: int | None) -> None:
            nonlocal done
            step = so_far // 2**20 - done
            done = so_far // 2**20
            advance(step, total=max(1, -(-total // 2**20)) if total else None)

        # requests' errors are OSErrors too
        with writing(path):
            try:
                gdown.download(
                    entry.url,
                    str(path),
                    quiet=True,
                    use_cookies=False,
                    resume=True,
                    progress=progress,
                    timeout=TIMEOUT,
                    retries=RETRIES,
                )
            except (DownloadError, RequestException) as error:
                text = " ".join(str(error).split())[:160]
                reason = "no connection" if "Max retries exceeded" in text else text
                raise FgdaError(
                    f"cannot download {entry.url} ({reason})\n{_by_hand(entry, path)}, or try again"
                    " later"
                ) from error


def _check(entry: Published, file: Path, is_ours: bool) -> None:
    """Check a file. Raises FgdaError when it is a page of HTML, or has another size or checksum
    than published; a download of ours is deleted then.
    """
    with open(file, "rb") as opened:
        start = opened.read(512).lstrip().lower()
        problem = _problem(entry, file, start, opened=opened)
    if problem and is_ours:
        file.unlink()
        raise FgdaError(
            f"{entry.url or file} {problem}; it was deleted\n{_by_hand(entry, file)}, or try again"
            " later"
        )
    if problem:
        raise FgdaError(
            f"{file} {problem}\n{_by_hand(entry, file)}, or delete it to have it fetched"
        )


def _problem(entry: Published, file: Path, start: bytes, opened: BinaryIO) -> str | None:
    if start.startswith((b"<!doctype html", b"<html")):
        return "is a page of HTML in place of a file (a drive does so when its quota is used up)"
    if entry.size is not None and file.stat().st_size != entry.size:
        return f"has {file.stat().st_size} bytes, not the {entry.size} that are published"
    if entry.sha256:
        checksum = file_hash(opened)
        if not checksum.startswith(entry.sha256):
            return f"has the checksum {checksum[: max(8, len(entry.sha256))]}…, not {entry.sha256}…"
    return None


@contextmanager
def _checkpoint_in(entry: Published, file: Path) -> Iterator[Path]:
    """The checkpoint of a published file: the file itself, or the one in an archive, unpacked
    beside it while it is read.
    """
    unpacked = file.with_suffix(".unpacked")
    try:
        yield unpacked if _unpack(entry, file, unpacked) else file
    finally:
        unpacked.unlink(missing_ok=True)


def _unpack(entry: Published, file: Path, unpacked: Path) -> bool:
    """Write the checkpoint of an archive; return whether the file is one. Raises FgdaError for a
    damaged or swollen one.
    """
    with ExitStack() as stack:
        with _reading(entry, file):
            found = _member(entry, file, stack)
        if found is None:
            return False
        archive, member, size = found
        # Weights hardly shrink in an archive.
        if size > 4 * file.stat().st_size + BLOCK:
            raise FgdaError(
                f"{file} would unpack to {size / 2**30:.1f} GiB, far more than it holds: it is no"
                " checkpoint's"
            )
        free = shutil.disk_usage(unpacked.parent).free
        if size > free:
            raise FgdaError(
                f"{file} unpacks to {size / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"
                " beside it"
            )
        with writing(unpacked), open(unpacked, "wb") as out:
            while block := _next_block(entry, file, member):
                out.write(block)
        # The checksums of a compressed tar stand at its end.
        while isinstance(archive, tarfile.TarFile) and _next_block(entry, file, archive.fileobj):
            pass
    return True


def _next_block(entry: Published, file: Path, member: BinaryIO) -> bytes:
    with _reading(entry, file):
        return member.read(BLOCK)


DAMAGED = (
    EOFError,
    OSError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
)


@contextmanager
def _reading(entry: Published, file: Path) -> Iterator[None]:
    """Say of what an archive's reader raises that the file is damaged. Raises FgdaError."""
    try:
        yield
    except DAMAGED as error:
        text = " ".join(str(error).split())[:80]
        advice = f"{_by_hand(entry, file)}, or delete it to have it fetched"
        raise FgdaError(f"{file} is a damaged archive ({text})\n{advice}") from error


def _member(entry: Published, file: Path, stack: ExitStack) -> tuple[Any, BinaryIO, int] | None:
    """Return an archive, its checkpoint, open, and that one's size in bytes; None for a file that
    is the checkpoint itself.
    """
    if tarfile.is_tarfile(file):
        archive = stack.enter_context(tarfile.open(file))
        packed = {one.name: one for one in archive.getmembers() if one.isfile()}
        chosen = packed[_chosen(entry, file, list(packed))]
        return archive, archive.extractfile(chosen), chosen.size
    if zipfile.is_zipfile(file):
        archive = stack.enter_context(zipfile.ZipFile(file))
        names = archive.namelist()
        # torch's own files are archives too.
        if not any(name.endswith("data.pkl") for name in names):
            chosen = archive.getinfo(_chosen(entry, file, names))
            return archive, archive.open(chosen), chosen.file_size
    return None


def _chosen(entry: Published, file: Path, names: list[str]) -> str:
    """The member of an archive that is the checkpoint. Raises FgdaError where none or several could
    be.
    """
    fitting = [name for name in names if entry.member or name.endswith(SUFFIXES)]
    fitting = [name for name in fitting if entry.member in name.rsplit("/", 1)[-1]]
    if len(fitting) != 1:
        what = f"'{entry.member}'" if entry.member else "a checkpoint"
        raise FgdaError(
            f"{file} holds {len(fitting)} files that could be {what}: unpack it, and use fgda"
            " import"
        )
    return fitting[0]
