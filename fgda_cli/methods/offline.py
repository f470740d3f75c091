"""What a method may make before training (translated images, pseudo-labels, clusters, prototypes): resumable, kept, reused."""

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
from ..runtime.files import write_json
from ..runtime.reporter import Reporter

if TYPE_CHECKING:
    import torch

    from ..data.loader import PairedSamples

RECORD = "product.json"  # its presence says that the product is whole


@dataclass
class OfflineData:
    """The samples that training will draw from, and a place for what is made of them.

    A step may put another source in the place of `samples.source` (translated images, prepared as a data set).
    """

    samples: PairedSamples
    folder: Path
    device: torch.device
    reporter: Reporter = Reporter()
    process_group: ProcessGroup = ProcessGroup()

    def product(self, name: str, depends_on: dict[str, Any], build: Callable[[Path], None]) -> Path:
        """The folder `name` that `build` fills; made by the first process, reused while `depends_on` (JSON-able) stays the same.

        A build that is stopped finds what it wrote when it is called again for the same dependencies: it skips what is there.
        """
        stamp = hashlib.sha256(json.dumps(depends_on, sort_keys=True, default=str).encode()).hexdigest()[:16]
        place = self.folder / f"{name}-{stamp}"

        def make() -> int:
            if (place / RECORD).is_file():
                self.reporter.say(f"{name}: reusing {place}")
                return 0
            for old in self.folder.glob(f"{name}-*"):
                if old != place and re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{16}}", old.name):  # of other dependencies
                    shutil.rmtree(old)
            place.mkdir(parents=True, exist_ok=True)
            build(place)
            write_json(place / RECORD, {"name": name, "depends_on": depends_on, "stamp": stamp})
            return 1

        self.process_group.first_decides(make, self.device)
        return place
