"""The presets of DAFormer, HRDA and MIC carry what their authors' configurations say."""

from __future__ import annotations

import pytest
import torch

from fgda_cli.models.checkpoint import build_model
from fgda_cli.presets import load_preset
from tests.helpers import needs

pytestmark = needs("transformers")


@pytest.mark.parametrize(
    "name, masked, crop, border, least",
    [
        ("gta2city-daformer", 0, (512, 512), (15, 120, 0, 0), 1500),
        ("gta2city-hrda", 0, (1024, 1024), (30, 240, 30, 30), 6000),
        ("gta2city-mic", 1, (1024, 1024), (30, 240, 30, 30), 6000),
    ],
)
def test_published_settings(name, masked, crop, border, least):
    preset = load_preset(name, [])
    m = preset.method
    o = preset.optim
    stage = preset.adapt
    assert (m.name, m.seg_temperature, m.lambda_masked) == ("mic", 1, masked)
    assert (m.lambda_fd, m.ema, m.confidence, m.mix_jitter, m.mask_block, m.mask_ratio) == (
        0.005,
        0.999,
        0.968,
        0.2,
        64,
        0.7,
    )
    width, height = preset.data.target.size
    rows_and_columns = (height, height, width, width)
    pixels = zip(preset.data.target.border, rows_and_columns, strict=True)
    assert tuple(int(share * side) for share, side in pixels) == border
    assert (o.kind, o.lr, o.head_lr_factor, o.weight_decay, o.decay_norms) == (
        "adamw",
        6e-5,
        10,
        0.01,
        "heads",
    )
    assert (
        o.poly_power,
        o.warmup,
        stage.warmup_iterations,
        stage.iterations,
        stage.batch_size,
    ) == (
        1,
        "times_decay",
        1500,
        40000,
        2,
    )
    assert (stage.schedule_iterations or stage.iterations) == 40000 and stage.start == "backbone"
    assert (
        preset.data.source.crop == preset.data.target.crop == crop
        and preset.data.source.max_class_share == 0.75
    )
    assert preset.data.rare_class_crop_pixels == least
    # GTA5's aspect (row 29)
    assert preset.data.source.size == ((1280, 704) if name == "gta2city-daformer" else (2560, 1407))
    with torch.device("meta"):
        net = build_model(preset.model, 19)
    assert net.backbone.strides == (4, 8, 16, 32) and not net.align_corners
    assert (preset.model.detail == (512, 512)) == (name != "gta2city-daformer")
