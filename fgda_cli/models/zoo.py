"""Published checkpoints by name: what they are, where from, under which licence, and where `fgda
zoo get` keeps them.

Links, figures and licences are what the authors' pages said in November 2026; what a page does not
say is not said here.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..runtime.errors import FgdaError

DRIVE = "https://drive.google.com/uc?id="
HUB = "https://huggingface.co/tue-mps"
MIT_WEIGHTS = "not stated; trained from NVIDIA's MiT weights, which are for non-commercial use"
NOT_STATED = "not stated"


class Published(NamedTuple):
    """A published checkpoint."""

    method: str
    source: str
    target: str
    # on the target's validation images unless `note` says otherwise. None: not on the page
    miou: float | None
    page: str
    # None: the page must be opened by hand
    url: str | None
    format: str  # of `fgda import`
    # licence of the code
    code: str
    # licence of the weights
    weights: str = NOT_STATED
    note: str = ""
    # end of the checkpoint's name where an archive holds several files
    member: str = ""
    # bytes. None: not on the page
    size: int | None = None
    # its first digits; "": not on the page
    sha256: str = ""


def _eth(
    method: str, page: str, files: dict[str, tuple[str, float | None, str]], format: str
) -> dict[str, Published]:
    """Return the entries of DAFormer, HRDA and MIC: archives with the checkpoint and its log."""
    entries = {}
    for pair, (identity, miou, note) in files.items():
        source, _, target = pair.partition("2")
        names = {
            "gta": "GTA5",
            "synthia": "SYNTHIA",
            "city": "Cityscapes",
            "acdc": "ACDC",
            "darkzurich": "Dark Zurich",
        }
        entries[f"{method.lower()}-{pair}"] = Published(
            method,
            names[source],
            names[target],
            miou=miou,
            page=page,
            url=DRIVE + identity,
            format=format,
            code="Apache-2.0, parts under NVIDIA's non-commercial licence",
            weights=MIT_WEIGHTS,
            note=note,
            member="latest.pth",
        )
    return entries


SEEDS = "mean of three seeds; the file is the median"
SIXTEEN = f"16 classes; {SEEDS}"
TEST = f"test images; {SEEDS}"
VFMUDA = "https://github.com/tue-mps/vfm-uda-plusplus"


def _vfmuda(
    size: str, pair: str, source: str, target: str, miou: float, note: str = ""
) -> Published:
    file = f"vfmuda_plusplus_{size}_{pair}_trimmed_epoch%3D0-step%3D40000.ckpt"
    return Published(
        "VFM-UDA++",
        source,
        target,
        miou=miou,
        page=VFMUDA,
        url=f"{HUB}/vfmuda_plusplus_{size}_{pair}/resolve/main/{file}",
        format="vfmuda",
        code="MIT, parts Apache-2.0",
        weights="not stated; trained from DINOv2's, Apache-2.0",
        note=note,
    )


ENTRIES: dict[str, Published] = {  # METHOD-PAIR
    "vfmuda-gta2city": _vfmuda("large", "gta2city", "GTA5", target="Cityscapes", miou=79.8),
    "vfmuda-synth2real": _vfmuda(
        "large",
        "synth2real",
        "GTA5, SYNTHIA, Synscapes",
        target="Cityscapes and four others",
        miou=82.2,
        note="on Cityscapes' validation images",
    ),
    "vfmuda-synthia2city": _vfmuda(
        "base",
        "synthia2city",
        "SYNTHIA",
        target="Cityscapes",
        miou=69.7,
        note="it seems over 16 classes",
    ),
    "vfmuda-city2darkzurich": _vfmuda(
        "large", "city2dark", "Cityscapes", target="Dark Zurich", miou=68.7
    ),
    **_eth(
        "MIC",
        "https://github.com/lhoyer/MIC/tree/master/seg",
        {
            "gta2city": ("1p_Ytxmj8EckYsq6SdZNZJNC3sgxVRn2d", 75.9, SEEDS),
            "synthia2city": ("1-Ed0Z2APrhIdsuQTOWXNlZwJJ9Yr2-Vu", None, ""),
            "city2acdc": ("10RNOAyUY5nYKzIIbNTie458r9etzfvtc", None, ""),
            "city2darkzurich": ("1HXIwLULUsspBG4U1UAd7OQnDq1G33aTA", None, ""),
        },
        format="hrda",
    ),
    **_eth(
        "HRDA",
        "https://github.com/lhoyer/HRDA",
        {
            "gta2city": ("1O6n1HearrXHZTHxNRWp8HCMyqbulKcSW", 73.8, SEEDS),
            "synthia2city": ("1V6kSLq3FH8o-FJf-syiiQx6E74ML9Huw", 65.8, SIXTEEN),
            "city2acdc": ("1Pwb1NAKx-WeVdhKEfafn29_JP4iEyKQM", 68.0, TEST),
            "city2darkzurich": ("1QEfolITfZWA_gvtTtVgv8oa-exP9PEo0", 55.9, TEST),
        },
        format="hrda",
    ),
    **_eth(
        "DAFormer",
        "https://github.com/lhoyer/DAFormer",
        {
            "gta2city": ("1pG3kDClZDGwp1vSTEXmTchkGHmnLQNdP", 68.3, SEEDS),
            "synthia2city": ("1V9EpoTePjGq33B8MfombxEEcq9a2rBEt", 60.9, SIXTEEN),
            "city2acdc": ("16RSBkzJbGprWr04LjyNleqRzRZgCaEBn", 55.4, TEST),
            "city2darkzurich": ("1_VXKDhnp4x4sslBj5B8tqqBJXeOuI9hS", 53.8, TEST),
        },
        format="daformer",
    ),
    "fada-gta2city": Published(
        "FADA",
        "GTA5",
        "Cityscapes",
        miou=None,
        page="https://github.com/JDAI-CV/FADA",
        url="https://polybox.ethz.ch/index.php/s/jzckTds5efxbn3n/download",
        format="fada",
        code="Apache-2.0",
        note="after self-distillation",
    ),
    "advent-gta2city": Published(
        "ADVENT",
        "GTA5",
        "Cityscapes",
        miou=None,
        page="https://github.com/valeoai/ADVENT/releases",
        url=None,
        format="advent",
        code="Apache-2.0",
        note="its file is gta2cityscapes_advent.pth",
    ),
    "adaptsegnet-gta2city": Published(
        "AdaptSegNet",
        "GTA5",
        "Cityscapes",
        miou=None,
        page="https://github.com/wasidennis/AdaptSegNet",
        url="http://vllab.ucmerced.edu/ytsai/CVPR18/GTA2Cityscapes_multi-ed35151c.pth",
        format="adaptsegnet",
        code="non-commercial research only",
        weights="non-commercial research only",
        sha256="ed35151c",
    ),
    "clan-gta2city": Published(
        "CLAN",
        "GTA5",
        "Cityscapes",
        miou=None,
        page="https://github.com/RoyalVane/CLAN",
        url=f"{DRIVE}1Hl7r6fIbNfyA9A8wGUJIMOwzXVQ61ik8",
        format="clan",
        code="MIT",
    ),
    "dacs-gta2city": Published(
        "DACS",
        "GTA5",
        "Cityscapes",
        miou=53.0,
        page="https://github.com/vikolss/DACS",
        url=f"{DRIVE}17BhIMBOD85RR-ritSBePHbmMM4wFDhQy",
        format="dacs",
        code=NOT_STATED,
        note="at the end of training; 53.7 at its best",
    ),
    **{
        f"fda-gta2city-{beta}": Published(
            "FDA",
            "GTA5",
            "Cityscapes",
            miou=None,
            page="https://github.com/YanchaoYang/FDA",
            url=f"{DRIVE}1HueawBlg6RFaKNt2wAX__1vmmupKqHmS",
            format="fda",
            code=NOT_STATED,
            note="one of three, whose mean has 50.45",
            member=f"LB_0_0{beta}",
        )
        for beta in (1, 5, 9)
    },
}


def folder() -> Path:
    from .weights import weight_folder

    return weight_folder() / "zoo"


def place_of(name: str) -> Path:
    """Return where a published checkpoint lies, as one of ours, once it was fetched."""
    return folder() / f"{name}.pth"


def find(path: Path) -> Path:
    """Return a path as it is. When no file has it and it names a published checkpoint, return that
    one's place.

    Raises FgdaError for one that was not fetched yet.
    """
    if str(path) not in ENTRIES or path.exists():
        return path
    if not place_of(str(path)).is_file():
        raise FgdaError(
            f"{path} is a published checkpoint that is not here yet: fgda zoo get {path}"
        )
    return place_of(str(path))
