"""ImageNet weights: from a file the user names, the cache, or the network."""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from ..runtime.errors import FgdaError, UsageError
from ..runtime.files import whole_file, writing
from . import encoders


def weight_folder() -> Path:
    """Return `$FGDA_WEIGHTS`, else ~/.cache/fgda/weights. Raises FgdaError for a user without a
    home.
    """
    named = os.environ.get("FGDA_WEIGHTS")
    try:
        return Path(named or "~/.cache/fgda/weights").expanduser()
    # a container's user may have no home
    except RuntimeError:
        raise FgdaError(
            "this user has no home folder: say where weights are kept, FGDA_WEIGHTS=/a/folder"
        ) from None


def save_tensors(path: Path, content: dict | Tensor) -> None:
    """Write atomically: a crash, a full disk or a kill leaves the previous file. Raises
    FgdaError.
    """
    with whole_file(path) as partial, writing(path, RuntimeError):
        torch.save(content, partial)


def read_tensors(path: Path, trust: bool = False) -> dict:
    """Read a checkpoint's contents as `read_saved` does. Raises FgdaError when they are no
    dictionary.
    """
    content = read_saved(path, trust)
    if not isinstance(content, dict):
        raise FgdaError(f"{path} does not hold a dictionary of tensors")
    return content


def read_saved(path: Path, trust: bool = False) -> dict | Tensor:
    """Read what `save_tensors` wrote, onto the CPU, without running code from it, unless the user
    trusts the file (`trust`).

    Raises FgdaError when it cannot be read, or when it needs code, naming what it asks for.
    """
    try:
        with open(path, "rb") as handle:
            handle.read(1)
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}") from None
    except OSError as error:
        raise FgdaError(f"cannot read {path}: {error.strerror or error}") from error
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    _refuse_compressed(path)
    try:
        with warnings.catch_warnings():
            # torch warns of foreign pickles before it refuses them
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=not trust)
    # torch raises pickle, zip, runtime, type and even OS errors for foreign bytes
    except Exception as error:
        raise FgdaError(_why_refused(path, str(error))) from error
    _refuse_spread([content], path)
    return content


def _refuse_compressed(path: Path) -> None:
    """Raise FgdaError for an archive that would grow in memory: torch.save compresses nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            if all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist()):
                return
    except (OSError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile):
        # No archive: of torch's older format, or damaged, as torch will say.
        return
    raise FgdaError(
        f"{path} is a compressed archive, which torch.save does not write: unpack it first"
    )


def _refuse_spread(content: Any, path: Path) -> None:
    """Raise FgdaError for a tensor that repeats few numbers of the file as many: copying it would
    take any amount of memory.
    """
    values = (
        content.values()
        if isinstance(content, dict)
        else content
        if isinstance(content, (list, tuple))
        else ()
    )
    for value in values:
        if (
            isinstance(value, Tensor)
            and value.layout == torch.strided
            and value.device.type == "cpu"
        ):
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise FgdaError(
                    f"{path} holds a tensor of {value.numel()} numbers in fewer bytes: it is"
                    " damaged"
                )
        else:
            _refuse_spread(value, path)


def _read_safetensors(path: Path) -> dict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError) as error:
        raise FgdaError(f"{path} is not a readable safetensors file ({error})") from error


def _why_refused(path: Path, message: str) -> str:
    """Say in one or two lines why a file was refused: it asks for code, or it is no checkpoint."""
    wanted = re.search(r"(?:GLOBAL|global|function|type) ([A-Za-z_][\w]*(?:\.[\w]+)+)", message)
    if wanted and "weights_only" in message:
        return (
            f"{path} asks to run {wanted[1]}, which is not done for files of others\n"
            "save its tensors alone, or, if the file is your own: fgda import --trust"
        )
    return f"{path} is no checkpoint that can be loaded safely (damaged, or not made by torch.save)"


def flat_state(content: dict) -> dict:
    """Return the flat state dict; some files wrap it once."""
    for key in ("state_dict", "model"):
        if isinstance(content.get(key), dict):
            return content[key]
    return content


# prefixes of keys by torch.compile, Lightning and mmsegmentation
WRAPPERS = ("_orig_mod.", "model.", "backbone.", "encoder.")


def plain_names(state: dict) -> dict[str, Tensor]:
    """Return the tensors of a state dict, without the prefixes that wrappers leave: `module.` and
    `Scale.` of any, those of WRAPPERS where all tensors have them.
    """
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    while tensors:
        tensors = {
            re.sub(r"^(module\.|Scale\.)+", "", key): value for key, value in tensors.items()
        }
        common = next(
            (prefix for prefix in WRAPPERS if all(key.startswith(prefix) for key in tensors)), None
        )
        if common is None:
            break
        tensors = {key.removeprefix(common): value for key, value in tensors.items()}
    return tensors


RECIPES = ("imagenet", "imagenet-v2", "package", "dinov2")


def find_weights(name: str, variant: str, weights: str) -> Path:
    """Return the file of `weights`: a path, or one of RECIPES, downloaded once. Raises FgdaError
    with a remedy.
    """
    if weights not in RECIPES:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise FgdaError(
                f"no weight file {path} (model.weights: {', '.join(RECIPES)}, none, or a file)"
            )
        return path
    family = encoders.family(name)
    if hasattr(family, "locate"):
        return family.locate(name, weights, weight_folder())
    url = family.WEIGHTS.get((name, variant, weights))
    if url is None:
        raise FgdaError(
            f"no {weights} weights are known for {name} ({variant}): set model.weights to a file,"
            " or to none"
        )
    path = weight_folder() / url.rsplit("/", 1)[1]
    if not path.is_file():
        download(url, path)
    return path


def download(url: str, path: Path) -> None:
    """Fetch to a temporary name and rename; the file name's hash is checked by torch.hub."""
    partial = path.with_suffix(".part")
    digest = path.stem.rsplit("-", 1)[-1]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(partial), hash_prefix=digest, progress=True)
        partial.replace(path)
    except (URLError, OSError, RuntimeError) as error:
        reason = getattr(error, "reason", error)
        raise FgdaError(
            f"cannot download {url} ({reason})\nfetch it elsewhere and put it at {path}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def load_backbone(
    backbone: nn.Module, name: str, variant: str, weights: str, output_stride: int | str = 8
) -> None:
    """Put ImageNet (or given) weights into a backbone; "none" leaves the random ones. Raises
    FgdaError on a misfit.
    """
    if weights == "none":
        return
    path = find_weights(name, variant, weights)
    content = read_tensors(path)
    if content.get("format") == "fgda-checkpoint":
        raise FgdaError(
            f"model.weights: {path} is an fgda checkpoint, not an encoder's weights: start from it"
            f" by --init {path}"
        )
    try:
        state = encoders.family(name).adapt_weights(
            plain_names(flat_state(content)), name, output_stride
        )
    except (ValueError, KeyError) as error:
        raise FgdaError(f"{path} does not fit {name}: {error}") from error
    wanted = backbone.state_dict()
    state = {key: value for key, value in state.items() if key in wanted}
    missing = [
        key for key in wanted if key not in state and not key.endswith("num_batches_tracked")
    ]
    wrong = [key for key, value in state.items() if value.shape != wanted[key].shape]
    if missing or wrong:
        key = (missing or wrong)[0]
        raise FgdaError(
            f"{path} does not fit {name} ({variant}): {len(missing)} missing, {len(wrong)}"
            f" misshapen, e.g. {key}"
        )
    check_finite(state, str(path))
    backbone.load_state_dict(state, strict=False)


def non_finite(state: dict[str, Tensor]) -> list[str]:
    """Return names of the tensors that hold a NaN or an infinity."""
    return [
        key
        for key, value in state.items()
        if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]


def check_finite(state: dict[str, Tensor], where: str) -> None:
    """Raise FgdaError for weights that hold a NaN or an infinity: nothing good can be computed with
    them.
    """
    bad = non_finite(state)
    if bad:
        raise FgdaError(
            f"{where}: {len(bad)} tensors hold NaN or infinity, e.g. {bad[0]}: take an earlier"
            " checkpoint"
        )
