"""Published checkpoints of other projects: which kind a file is, and its weights under our names.

Each module here reads the formats of one network: `FORMATS` are their names, `recognise(path,
content)` gives the name of a loaded file (None: another module's; UsageError: it may be two),
`read(path, content, kind, trust)` a `Foreign`.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ...runtime.errors import FgdaError, UsageError
from ..weights import check_finite, read_tensors
from . import deeplab, mmseg, pspnet, vfmuda
from .network import Foreign

READERS = (vfmuda, mmseg, pspnet, deeplab)
# under which published files hold tensors
KNOWN_KEYS = ("state_dict", "model", "feature_extractor", "classifier")


def read_foreign(path: Path, kind: str, trust: bool = False) -> Foreign:
    """Read a published checkpoint. Raises FgdaError when names do not fit, UsageError when the
    format must be told.
    """
    content = read_tensors(path, trust)
    inner = [
        key for key, value in content.items() if isinstance(value, dict) and _holds_tensors(value)
    ]
    if len(inner) == 1 and inner[0] not in KNOWN_KEYS and not _holds_tensors(content):
        raise FgdaError(
            f"{path} holds its tensors under '{inner[0]}', which no known format does: save that"
            " part alone"
        )
    try:
        kind = detect(path, content) if kind == "auto" else kind
        reader = next(reader for reader in READERS if kind in reader.FORMATS)
        foreign = reader.read(path, content, kind, trust)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except FgdaError as error:
        raise FgdaError(f"{path}: {error}") from None
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise FgdaError(
            f"{path}: the names or shapes fit no known network ({type(error).__name__}:"
            f" {_short(error)})"
        ) from error
    check_finite(foreign.state, str(path))
    return foreign


def _holds_tensors(content: dict) -> bool:
    return any(isinstance(value, Tensor) for value in content.values())


def detect(path: Path, content: dict) -> str:
    """Return a file's format. Raises FgdaError for an unknown one, UsageError when it may be
    two.
    """
    for reader in READERS:
        kind = reader.recognise(path, content)
        if kind is not None:
            return kind
    raise FgdaError(
        "neither a FADA file (feature_extractor, classifier), nor a DeepLab (layer5, layer6),"
        " PyCDA, DAFormer or VFM-UDA++ state dict"
    )


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:100]
