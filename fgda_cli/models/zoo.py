"""Published checkpoints by name: what they are, where from, under which licence, and where `fgda
zoo get` keeps them.

Links, figures and licences are what the authors' pages say at the commits of `PAGES`, read on
2026-11-29; what a page does not say is not said here.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..runtime.errors import FgdaError

DRIVE = "https://drive.google.com/uc?id="
HUB = "https://huggingface.co/tue-mps"
MIT_WEIGHTS = "not stated; trained from NVIDIA's MiT weights, which are for non-commercial use"
NOT_STATED = "not stated"


# The authors' pages, each with the commit that was read and its date.
PAGES = {
    "https://github.com/tue-mps/vfm-uda-plusplus": "effbb03, 2025-10-08",
    "https://github.com/tue-mps/vfm-uda": "e154d8f, 2025-04-29",
    "https://github.com/lhoyer/MIC/tree/master/seg": "2f932a9, 2024-08-10",
    "https://github.com/lhoyer/HRDA": "c370b5b, 2024-08-10",
    "https://github.com/lhoyer/DAFormer": "e6f6e04, 2024-08-10",
    "https://github.com/chen742/PiPa": "71f60af, 2024-07-23",
    "https://github.com/BIT-DA/SePiCo": "bce38ed, 2023-11-30",
    "https://github.com/xiaoachen98/DDB": "878e07f, 2023-03-29",
    "https://github.com/brdav/refign": "4efc6a8, 2023-08-09",
    "https://github.com/visinf/da-sac": "80c1c08, 2021-11-09",
    "https://github.com/DZhaoXd/DT-ST": "0fbfe0f, 2024-02-29",
    "https://github.com/JDAI-CV/FADA": "a1c6403, 2020-09-30",
    "https://github.com/feipan664/IntraDA": "070b0b7, 2020-12-14",
    "https://github.com/valeoai/ADVENT": "3e58d45, 2020-02-24",
    "https://github.com/wasidennis/AdaptSegNet": "fca9ff0, 2020-08-13",
    "https://github.com/RoyalVane/CLAN": "c40ab0b, 2021-03-13",
    "https://github.com/vikolss/DACS": "cc6a87f, 2021-03-08",
    "https://github.com/YanchaoYang/FDA": "b9a0cdf, 2020-07-01",
}
# What `fgda evaluate` needs to follow the authors' protocol, by format. The others' is in the file:
# an imported network keeps the size and the filter at which its authors test.
SLIDING = "--sliding 1024x1024 --overlap 0.5 --blend mean"
PROTOCOLS = {
    "hrda": SLIDING,
    "vfmuda": SLIDING,
    "fada": "--protocol paper",
    "advent": "--protocol paper",
    "adaptsegnet": "--protocol paper",
    "clan": "--protocol paper",
}


class Published(NamedTuple):
    """A published checkpoint."""

    method: str
    source: str
    target: str
    # published mIoU on the target's validation images (or as `note` says); None: not published
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
    # the first digits of the file's hash; "": not published
    sha256: str = ""

    @property
    def protocol(self) -> str:
        """Return the command that evaluates it as its authors do, but for its name and the data."""
        return f"fgda evaluate NAME --data TARGET {PROTOCOLS.get(self.format, '')}".strip()


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


def _sepico(network: str, format: str, gta: float, synthia: float) -> dict[str, Published]:
    """Return SePiCo's DistCL networks, whose links are folders."""
    return {
        f"sepico-{pair}2city-{network}": Published(
            "SePiCo",
            source,
            "Cityscapes",
            miou=miou,
            page="https://github.com/BIT-DA/SePiCo",
            url=None,
            format=format,
            code="Apache-2.0",
            weights=MIT_WEIGHTS if format == "daformer" else NOT_STATED,
            note=f"its file is sepico_distcl_{word}2city_{network}.pth{more}",
        )
        for pair, word, source, miou, more in (
            ("gta", "gta", "GTA5", gta, ""),
            ("synthia", "syn", "SYNTHIA", synthia, "; 16 classes"),
        )
    }


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
    **{
        f"vfmuda1-gta2city-{size}": Published(
            "VFM-UDA",
            "GTA5",
            "Cityscapes",
            miou=miou,
            page="https://github.com/tue-mps/vfm-uda",
            url=f"{HUB}/vfmuda_{size}_gta2city/resolve/main/vfmuda_{size}_gta2city_{file}.ckpt",
            format="vfmuda",
            code="MIT, parts Apache-2.0",
            weights="not stated; trained from DINOv2's, Apache-2.0",
        )
        for size, miou, file in (
            ("base", 77.1, "771miou_step40000"),
            ("large", 78.4, "784miou_step40000"),
        )
    },
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
    **{
        f"pipa-{pair}2city": Published(
            "PiPa",
            source,
            "Cityscapes",
            miou=miou,
            page="https://github.com/chen742/PiPa",
            url=DRIVE + identity,
            format="hrda",
            code=NOT_STATED,
            weights=MIT_WEIGHTS,
            note=note,
        )
        for pair, source, miou, identity, note in (
            ("gta", "GTA5", 75.6, "1YhhVtuODGl3vCcE5wvWf8kwvMOSr4QaU", ""),
            ("synthia", "SYNTHIA", 68.2, "1m4bhr52tLmLwBTpHY9sA_kyH_IviajQi", "16 classes"),
        )
    },
    **_sepico("daformer", "daformer", gta=70.3, synthia=64.3),
    **_sepico("dlv2", "dlv2", gta=61.0, synthia=58.1),
    "ddb-gta2city": Published(
        "DDB",
        "GTA5",
        "Cityscapes",
        miou=62.7,
        page="https://github.com/xiaoachen98/DDB",
        url=None,
        format="dlv2",
        code=NOT_STATED,
        note="its file is weight.pth, in a folder r2-ckd-pro-bs1x4",
    ),
    **{
        f"refign-city2{pair}": Published(
            "Refign",
            "Cityscapes",
            target,
            miou=miou,
            page="https://github.com/brdav/refign",
            url=(
                "https://www.research-collection.ethz.ch/bitstream/handle/20.500.11850/626140/"
                f"refign_daformer_{pair}.ckpt"
            ),
            format="refign",
            code="MIT",
            weights=MIT_WEIGHTS,
            note="test images",
        )
        for pair, target, miou in (("acdc", "ACDC", 65.5), ("darkzurich", "Dark Zurich", 56.2))
    },
    **{
        f"sac-{pair}2city": Published(
            "SAC",
            source,
            "Cityscapes",
            miou=miou,
            page="https://github.com/visinf/da-sac",
            url=(
                "https://download.visinf.tu-darmstadt.de/data/2021-cvpr-araslanov-da-sac/snapshots/"
                f"baselines/resnet101_{pair}/{file}"
            ),
            format="sac",
            code="Apache-2.0",
            note=note,
        )
        for pair, source, miou, file, note in (
            ("gta", "GTA5", 53.8, "final_e136.pth", ""),
            ("synthia", "SYNTHIA", 52.6, "final_e164.pth", "16 classes"),
        )
    },
    "fada-gta2city": Published(
        "FADA",
        "GTA5",
        "Cityscapes",
        miou=None,
        page="https://github.com/JDAI-CV/FADA",
        url=None,
        format="fada",
        code="Apache-2.0",
        note="a folder: the file of g2c, after self-distillation at 2048x1024 (--scale 2)",
    ),
    "dtst-gta2city": Published(
        "DT-ST",
        "GTA5",
        "Cityscapes",
        miou=None,
        page="https://github.com/DZhaoXd/DT-ST",
        url=None,
        format="fada",
        code=NOT_STATED,
        note="a folder of weights and logs; source-free; tested at 1536x768 (--scale 1.5)",
    ),
    "intrada-gta2city": Published(
        "IntraDA",
        "GTA5",
        "Cityscapes",
        miou=None,
        page="https://github.com/feipan664/IntraDA",
        url=None,
        format="advent",
        code="MIT",
        note="a folder of evaluation models",
    ),
    "advent-gta2city": Published(
        "ADVENT",
        "GTA5",
        "Cityscapes",
        miou=None,
        page="https://github.com/valeoai/ADVENT",
        url="https://github.com/valeoai/ADVENT/releases/download/v0.1/gta2cityscapes_advent.pth",
        format="advent",
        code="Apache-2.0",
        note="the link stands on IntraDA's page; ADVENT's names the release",
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
        url=f"{DRIVE}1oxdy5pknTiJ7my0zETG1Q52JN1Mn5KdH",
        format="dacs",
        code=NOT_STATED,
        note="at the end of training; 53.66 at its best; an archive",
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
