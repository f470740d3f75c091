"""Every kind of network as ONNX, OpenVINO and TorchScript; torch's ONNX exporter takes up to half a
minute for one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from fgda_cli.models import checkpoint
from fgda_cli.settings import Model
from tests.trust.world import Case, World, call

NATIVE = {"output_stride": "native", "multi_level": False, "weights": "none"}
NETWORKS = {
    "DeepLab of two levels": {"backbone": "resnet18", "width": 8, "weights": "none"},
    "PSPNet": {
        "backbone": "resnet18",
        "width": 8,
        "head": "pyramid",
        "head_width": 16,
        "weights": "none",
    },
    "a CNN of timm": (
        NATIVE
        | {
            "backbone": "timm:tf_efficientnet_lite0",
            "head": "fused",
            "head_width": 16,
            "dilations": [2],
        }
    ),
    "a ViT of timm": NATIVE | {"backbone": "timm:test_vit", "head": "dpt", "head_width": 16},
    "SegFormer": NATIVE | {"backbone": "mit:b0", "head": "segformer", "head_width": 16},
    "HRDA": (
        NATIVE
        | {
            "backbone": "mit:b0",
            "head": "daformer",
            "head_width": 16,
            "dilations": [2],
            "detail": [64, 64],
        }
    ),
    "an adapter": NATIVE | {"backbone": "adapter:tiny14", "head": "upscale"},
}


def cases(world: World) -> Iterator[Case]:
    for name, settings in NETWORKS.items():
        for suffix, *options in (
            (".onnx",),
            (".onnx", "--dynamic", "--argmax"),
            (".xml",),
            (".pt",),
            (".pt", "--dynamic", "--argmax"),
        ):

            def case(settings=settings, suffix=suffix, options=options) -> None:
                folder = world.folder("export")
                content = checkpoint.load(world.checkpoint)
                model = Model(**settings)
                network = checkpoint.build_model(model, len(content["classes"]["names"]))
                content["preset"]["model"] = model.model_dump(mode="json")
                checkpoint.save(folder / "c.pth", content | {"model": network.state_dict()})
                done = call(
                    "export",
                    folder / "c.pth",
                    "--out",
                    folder / f"m{suffix}",
                    "--size",
                    "96x64",
                    *options,
                )
                assert done.code == 0 and (folder / f"m{suffix}").is_file(), done.err
                same = re.search(r"([\d.]+) % of the pixels as by torch", done.out)
                assert same is not None and float(same[1]) >= 99.9, done.out

            yield f"{name} as {' '.join([suffix, *options])}", case
