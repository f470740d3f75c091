"""ImageNet weights: from a file the user names, the cache, or the network."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn

from ..runtime.errors import FgdaError
from . import encoders as backbones


def weight_folder() -> Path:
    """`$FGDA_WEIGHTS`, else ~/.cache/fgda/weights."""
    return Path(os.environ.get("FGDA_WEIGHTS", "~/.cache/fgda/weights")).expanduser()


def read_tensors(path: Path) -> dict:
    """A checkpoint's contents without running code from it. Raises FgdaError when it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of foreign pickles before it refuses them
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FgdaError(f"no such file: {path}") from None
    except OSError as error:
        raise FgdaError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # torch raises pickle, zip, runtime and type errors for foreign bytes
        raise FgdaError(f"{path} is no checkpoint that can be loaded safely (damaged, or not made by torch.save)") from error
    if not isinstance(content, dict):
        raise FgdaError(f"{path} holds no dictionary of tensors")
    return content


def plain_names(state: dict) -> dict[str, Tensor]:
    """The tensors of a state dict, without the prefixes that wrappers leave (`module.`, `Scale.`)."""
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    return {re.sub(r"^(module\.|Scale\.)+", "", key): value for key, value in tensors.items()}


def find_weights(name: str, variant: str, weights: str) -> Path:
    """The file of `weights`: a path, or "imagenet" for the variant's published ones (downloaded once)."""
    if weights != "imagenet":
        path = Path(weights).expanduser()
        if not path.is_file():
            raise FgdaError(f"no weight file {path} (model.weights)")
        return path
    url = backbones.family(name).WEIGHTS.get((name, variant))
    if url is None:
        raise FgdaError(f"no ImageNet weights are known for {name} ({variant}): set model.weights to a file, or to none")
    path = weight_folder() / url.rsplit("/", 1)[1]
    if not path.is_file():
        download(url, path)
    return path


def download(url: str, path: Path) -> None:
    """Fetch to a temporary name and rename; the file name's hash is checked by torch.hub."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    digest = path.stem.rsplit("-", 1)[-1]
    try:
        torch.hub.download_url_to_file(url, str(partial), hash_prefix=digest, progress=True)
        partial.replace(path)
    except (URLError, OSError, RuntimeError) as error:
        reason = getattr(error, "reason", error)
        raise FgdaError(f"cannot download {url} ({reason})\nfetch it elsewhere and put it at {path}") from error
    finally:
        partial.unlink(missing_ok=True)


def load_backbone(backbone: nn.Module, name: str, variant: str, weights: str) -> None:
    """Put ImageNet (or given) weights into a backbone; "none" leaves the random ones. Raises FgdaError on a misfit."""
    if weights == "none":
        return
    path = find_weights(name, variant, weights)
    state = backbones.family(name).adapt_weights(plain_names(read_tensors(path)))
    wanted = backbone.state_dict()
    state = {key: value for key, value in state.items() if key in wanted}
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    wrong = [key for key, value in state.items() if value.shape != wanted[key].shape]
    if missing or wrong:
        key = (missing or wrong)[0]
        raise FgdaError(f"{path} does not fit {name} ({variant}): {len(missing)} missing, {len(wrong)} misshapen, e.g. {key}")
    backbone.load_state_dict(state, strict=False)
