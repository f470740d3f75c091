"""Products that a method makes before training (translated images, clusters): resumable, kept and
reused.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.distributed import ProcessGroup
from ..runtime.errors import UsageError
from ..runtime.files import make_folder, write_json
from ..runtime.reporter import Reporter
from ..runtime.text import BadText, read_text

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..data.classes import ClassSet
    from ..data.loader import PairedSamples
    from ..models.segmenter import Segmenter


# the file that marks a product as whole
RECORD = "product.json"


@dataclass
class OfflineData:
    """The samples that training will draw from, and a folder for products made of them.

    A step may put another source in the place of `samples.source` (translated images, prepared as a
    data set).
    """

    samples: PairedSamples
    folder: Path
    device: torch.device
    reporter: Reporter = Reporter()
    process_group: ProcessGroup = ProcessGroup()
    # iterations of the training that follows
    iterations: int = 0
    # the encoder as it was pretrained. None: it never was
    imagenet_encoder: Callable[[], nn.Module | None] = lambda: None
    # the run's state, networks and all, is loaded afterwards
    resumed: bool = False

    def domains(self) -> dict[str, Any]:
        """Return a record of both domains' images and the source's labels, for products that depend
        on them.
        """
        from ..data.store import fingerprint

        samples = self.samples
        return {
            name: {"size": view.size, "files": fingerprint(items)}
            for name, view, items in (
                ("source", samples.settings.source, samples.source_items),
                ("target", samples.settings.target, samples.target_items),
            )
        }

    def network(self, path: Path) -> tuple[Segmenter, str]:
        """Return a checkpoint's network, on the device and in eval mode, and the hash of its
        weights.

        Raises FgdaError for one that cannot be read, UsageError for one of other classes.
        """
        from ..models.checkpoint import weights_hash

        model = network_of(path, self.samples.source.classes)
        return model.to(self.device), weights_hash(model.state_dict())

    def tensor(
        self, name: str, depends_on: dict[str, Any], make: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        """Return the tensor that `make` computes, kept as a `product`."""
        from ..models.weights import read_saved, save_tensors

        def build(folder: Path) -> None:
            save_tensors(folder / f"{name}.pth", make())

        return read_saved(self.product(name, depends_on, build) / f"{name}.pth")

    def derive_source(
        self, out: Path, change: Callable[[torch.Tensor], torch.Tensor], most: int = 8
    ) -> None:
        """Write the source's images after `change` (uint8 `[3,H,W]` to the same) as a data set,
        with a sheet of examples.
        """
        from ..data.changed_images import derive
        from ..data.images import write_image
        from ..data.loader import to_tensor
        from ..visual.pictures import grid

        def changed(image):
            return change(to_tensor(image)).permute(1, 2, 0).contiguous().numpy()

        before = self.samples.source
        after = derive(
            before, out, f"{before.name}-translated", change=changed, reporter=self.reporter
        )
        pairs = list(zip(before.items("train"), after.items("train"), strict=True))
        rows = [
            [before.image(one), after.image(two)]
            for one, two in pairs[:: max(1, len(pairs) // most)][:most]
        ]
        write_image(out.parent / "before-after.png", grid(rows, ["source", "translated"]))
        self.reporter.say(f"before and after: {out.parent / 'before-after.png'}")

    def use_source(self, folder: Path) -> None:
        """Train on this prepared data set in place of the source."""
        from ..data.store import PreparedDataset

        self.samples.use_source(PreparedDataset(folder))

    def product(self, name: str, depends_on: dict[str, Any], build: Callable[[Path], None]) -> Path:
        """Return the folder `name` that `build` fills; it is reused while `depends_on` stays the
        same.

        A build that is stopped finds what it wrote when it is called again for the same
        dependencies: it skips what is there. Raises UsageError where the run to resume was
        trained with another product of this name.
        """
        stamp = hashlib.sha256(
            json.dumps(depends_on, sort_keys=True, default=str).encode()
        ).hexdigest()[:16]
        folder = self.folder / f"{name}-{stamp}"

        def make() -> int:
            if (folder / RECORD).is_file():
                self.reporter.say(f"{name}: reusing {folder}")
                return 0
            # earlier products of the same name, made of something else
            others = [
                old
                for old in self.folder.glob(f"{name}-*")
                if old != folder and re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{16}}", old.name)
            ]
            if self.resumed:
                for old in others:
                    _refuse_other(old, depends_on)
                self.reporter.warn(
                    f"{name}: what the run to resume was trained with is gone from {self.folder},"
                    " and is made again: the result is the same only if nothing that it is made of"
                    " has changed"
                )
            for old in others:
                shutil.rmtree(old)
            make_folder(folder)
            build(folder)
            write_json(folder / RECORD, {"name": name, "depends_on": depends_on, "stamp": stamp})
            return 1

        self.process_group.first_decides(make)
        return folder


def network_of(path: Path, classes: ClassSet) -> Segmenter:
    """Return a checkpoint's network, in eval mode.

    Raises FgdaError for a file that cannot be read, UsageError for one of other classes.
    """
    from ..models.checkpoint import load_model

    model, info = load_model(path)
    if info["classes"].names != classes.names:
        raise UsageError(
            f"{path} has different classes from the source: name a checkpoint with the"
            " source's classes"
        )
    return model


def _refuse_other(old: Path, depends_on: dict[str, Any]) -> None:
    """Raise UsageError when `old` is a whole product: the run that is to be resumed was trained
    with it, and would go on with another.
    """
    if not (old / RECORD).is_file():
        return
    now = json.loads(json.dumps(depends_on, default=str))
    try:
        before = json.loads(read_text(old / RECORD))["depends_on"]
        differing = ", ".join(sorted(key for key in now if before.get(key) != now[key]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadText):
        raise UsageError(
            f"cannot read {old / RECORD}: whether the run to resume was trained with the same"
            " is not known\nuse --fresh to start over, or another --out"
        ) from None
    raise UsageError(
        f"{old} was made of something else than it would be now ({differing}), and the run to"
        " resume was trained with it\nuse --fresh to start over, or another --out"
    )
