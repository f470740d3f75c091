"""DINOv2's plain transformer and VFM-UDA's network around it, beside timm's transformer."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fgda_cli.models import checkpoint
from fgda_cli.models.encoders import dinov2
from fgda_cli.runtime.errors import FgdaError
from tests.helpers import IMAGENET, close, fgda

CHANNELS = 64
# enlarged by a tenth and cut to whole patches: 37 patches a side, as many as stored positions
SIDE = 471


@pytest.fixture(scope="module")
def vit():
    """timm's transformer of the same shape, random."""
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    return VisionTransformer(
        img_size=518,
        patch_size=14,
        embed_dim=CHANNELS,
        depth=4,
        num_heads=1,
        init_values=1.0,
        num_classes=0,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    ).eval()


@pytest.fixture(scope="module")
def head():
    """VFM-UDA's: two transposed convolutions, each normalised, a 3x3 one, and the classifier."""
    g = torch.Generator().manual_seed(1)
    shapes = {
        "upscale.0.weight": (64, 32, 2, 2),
        "upscale.1.weight": (32,),
        "upscale.1.bias": (32,),
        "upscale.3.weight": (32, 16, 2, 2),
        "upscale.4.weight": (16,),
        "upscale.4.bias": (16,),
        "upscale.5.weight": (16, 16, 3, 3),
        "upscale.6.weight": (16,),
        "upscale.6.bias": (16,),
        "out.weight": (19, 16, 1, 1),
    }
    return {key: torch.randn(shape, generator=g) * 0.3 for key, shape in shapes.items()}


def plain_head(s, features):
    def norm(x, name):
        x = x.movedim(1, -1)
        x = F.layer_norm(x, x.shape[-1:], s[f"{name}.weight"], s[f"{name}.bias"], eps=1e-6)
        return x.movedim(-1, 1)

    x = norm(F.conv_transpose2d(features, s["upscale.0.weight"], stride=2), "upscale.1")
    x = F.conv_transpose2d(F.gelu(x), s["upscale.3.weight"], stride=2)
    x = F.conv2d(norm(x, "upscale.4"), s["upscale.5.weight"], padding=1)
    return F.conv2d(norm(x, "upscale.6"), s["out.weight"])


def published(vit, head):
    """A file's content: student and teacher, tokens of masked training, foundation twin."""
    own = {f"encoder.{key}": value for key, value in vit.state_dict().items()}
    own |= head | {"encoder.mask_token": torch.zeros(1, CHANNELS)}
    own["token_masking.mask_token"] = torch.zeros(1, CHANNELS)
    state = {f"network.{key}": value for key, value in own.items()}
    state |= {f"network_ema.{key}": torch.zeros_like(value) for key, value in own.items()}
    return {"state_dict": state}


def test_a_vfmuda_file_is_its_student(vit, head, tmp_path):
    torch.save(published(vit, head), tmp_path / "x.ckpt")
    done = fgda("import", tmp_path / "x.ckpt", "--out", tmp_path / "ours.pth")
    assert done.returncode == 0 and "vfmuda, dinov2:tiny14, 19 classes" in done.stdout, done.stderr
    assert "--sliding 1024x1024" in done.stderr
    model, _ = checkpoint.load_model(tmp_path / "ours.pth")
    images = torch.randint(0, 256, (1, 3, SIDE, SIDE), dtype=torch.uint8)
    mean, std = IMAGENET
    with torch.no_grad():
        enlarged = F.interpolate(
            (images / 255 - mean) / std, (518, 518), mode="bilinear", align_corners=False
        )
        tokens = vit.forward_features(enlarged)[:, 1:]
        features = tokens.transpose(1, 2).unflatten(2, (37, 37))
        close(model(images).logits, plain_head(head, features))


def test_positions_of_another_grid_are_those_of_the_adapter(vit):
    """Whose golden values come from the published code."""
    from fgda_cli.models.encoders.adapter import AdapterEncoder

    encoder = dinov2.DinoEncoder(CHANNELS, 4)
    adapter = AdapterEncoder(CHANNELS, 4)
    adapter.load_state_dict(encoder.state_dict(), strict=False)
    assert torch.equal(encoder.positions((5, 9)), adapter.positions((5, 9)))
    assert encoder.positions((5, 9)).shape == (1, 1 + 45, CHANNELS)


def test_its_layers_are_counted_for_layer_decay_and_its_weights_start_an_encoder(vit):
    encoder = dinov2.DinoEncoder(CHANNELS, 4)
    depths = encoder.layer_depths()
    assert depths.keys() == dict(encoder.named_parameters()).keys()
    assert depths["cls_token"] == 0 and depths["blocks.3.mlp.fc1.weight"] == 4
    assert depths["norm.weight"] == 5
    state = dinov2.adapt_weights(vit.state_dict(), "dinov2:tiny14", "native")
    encoder.load_state_dict(state)
    assert torch.equal(encoder.blocks[0].attn.qkv.weight, vit.blocks[0].attn.qkv.weight)
    with pytest.raises(ValueError, match="not DINOv2's ViT: it has no cls_token"):
        dinov2.adapt_weights({"a": torch.zeros(1)}, "dinov2:tiny14", "native")


def test_recomputed_blocks_give_the_same_gradients():
    torch.manual_seed(0)
    encoder = dinov2.DinoEncoder(CHANNELS, 4).train()
    images = torch.randn(1, 3, 42, 56)

    def gradient(recomputes: bool) -> torch.Tensor:
        encoder.zero_grad()
        encoder.checkpoint_activations = recomputes
        encoder(images)[-1].square().sum().backward()
        return encoder.patch_embed["proj"].weight.grad.clone()

    assert torch.equal(gradient(False), gradient(True))


@pytest.mark.parametrize(
    "name, settings, why",
    [
        ("dinov2:vitg14", {}, "no size 'vitg14': dinov2:vits14"),
        ("dinov2:tiny14", {"drop_path": 0.1}, "model.drop_path do nothing in dinov2"),
        ("dinov2:tiny14", {"output_stride": 8}, "set model.output_stride to native"),
    ],
)
def test_settings_that_it_cannot_have_are_refused(name, settings, why):
    with pytest.raises(ValueError, match=why):
        dinov2.build(
            name, **{"variant": "torchvision", "output_stride": "native", "width": 64} | settings
        )


def test_weights_that_nobody_publishes_are_one_line(tmp_path):
    with pytest.raises(FgdaError, match="no dinov2 weights are known for dinov2:tiny14"):
        dinov2.locate("dinov2:tiny14", "dinov2", tmp_path)
