"""Training a part of an encoder: low-rank updates of its linear layers ([LoRA], [DoRA], by peft),
or nothing of it.

While it trains, the network's state is `raw`: beside a frozen matrix W of a layer lie its factors A
and B. What leaves training is `plain`: the matrix W + s B A in their place, under the encoder's own
names.
"""

from __future__ import annotations

import copy
import re
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..runtime.errors import UsageError
from ..settings import Model
from .segmenter import Segmenter

# peft's name of the only adapter
NAME = "default"
BASE = ".base_layer."
ATTENTION = re.compile(r"\.(attn|attention)\.")
# height and width of the image that shows which layers are called
PROBE = (64, 96)


def tune(model: Segmenter, settings: Model, check_only: bool = False) -> None:
    """Freeze the encoder but for its new parts, and put factors beside its linear layers where
    `model.tune` is lora.

    Raises UsageError for an encoder without such layers, a target that names none, and a missing
    peft. With `check_only`, initialisations that read the weights are passed over (meta device).
    """
    if settings.tune == "full":
        return
    new = {id(parameter) for parameter in model.new_in_encoder()}
    if settings.tune == "lora":
        _add_factors(model.backbone, settings, new, check_only)
    else:
        for parameter in model.backbone.parameters():
            parameter.requires_grad_(False)
    # peft froze them with the rest
    for parameter in model.backbone.parameters():
        if id(parameter) in new:
            parameter.requires_grad_(True)
    model.keep_frozen(settings.tune)
    if settings.tune == "lora":
        for layer in model.backbone.modules():
            _recompute_if_frozen(layer)


def _recompute_if_frozen(layer: nn.Module) -> None:
    """Let a frozen two-layer perceptron compute its wide inner values again for the gradient of its
    input, where it would keep them: a quarter of what a transformer's pass keeps.
    """
    from timm.layers import Mlp

    drops = any(isinstance(part, nn.Dropout) and part.p for part in layer.modules())
    if type(layer) is Mlp and not drops and not any(p.requires_grad for p in layer.parameters()):
        layer.forward = partial(_again, layer)


def _again(layer: nn.Module, x: Tensor) -> Tensor:
    if not (x.requires_grad and torch.is_grad_enabled()):
        return type(layer).forward(layer, x)
    # the second layer's input is needed for no gradient, for its weights are frozen
    inner = checkpoint(
        lambda x: layer.act(layer.fc1(x)), x, use_reentrant=False, preserve_rng_state=False
    )
    return layer.fc2(layer.norm(inner))


def _add_factors(encoder: nn.Module, settings: Model, new: set[int], check_only: bool) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UsageError("model.tune: lora needs peft: pip install 'fgda[lora]'") from None
    lora = settings.lora
    init = {"default": True}.get(lora.init, lora.init)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_targets(encoder, settings, new),
        init_lora_weights=True if check_only else init,
        use_dora=lora.dora,
    )
    inject_adapter_in_model(config, encoder)


def _targets(encoder: nn.Module, settings: Model, new: set[int]) -> list[str]:
    """Return the names of the linear layers that get factors: those of attention, or those whose
    name ends as a target says; new layers are trained whole.
    """
    linear = [
        name
        for name, layer in encoder.named_modules()
        if type(layer) is nn.Linear and id(layer.weight) not in new
    ]
    if not linear:
        raise UsageError(
            f"model.tune: lora: {settings.backbone} has no linear layers: set model.tune to full or"
            " frozen"
        )
    called = _called(encoder, linear)
    if settings.lora.targets is None:
        of_attention = [name for name in called if ATTENTION.search(name)]
        return of_attention or called
    chosen = []
    for target in settings.lora.targets:
        fitting = [name for name in linear if f".{name}".endswith(f".{target}")]
        if not fitting:
            endings = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in called))
            raise UsageError(
                f"model.lora.targets: no linear layer of {settings.backbone} is named {target}"
                f" (there are {endings})"
            )
        passed_by = [name for name in fitting if name not in called]
        if passed_by:
            raise UsageError(
                f"model.lora.targets: {settings.backbone} reads the weights of {passed_by[0]}"
                " without calling it, so that factors beside it would do nothing: leave it out"
            )
        chosen += fitting
    return list(dict.fromkeys(chosen))


def _called(encoder: nn.Module, names: list[str]) -> list[str]:
    """Return the layers that a forward pass calls. Some networks read a layer's weight instead, and
    would pass its factors by.
    """
    # on the meta device nothing is computed, and no memory is taken
    tensors = (*encoder.parameters(), *encoder.buffers())
    twin = copy.deepcopy(encoder, {id(tensor): tensor.detach().to("meta") for tensor in tensors})
    twin.eval()
    seen: set[str] = set()
    layers = dict(twin.named_modules())
    for name in names:
        layers[name].register_forward_pre_hook(lambda *_, name=name: seen.add(name))
    with torch.no_grad():
        twin(torch.zeros(1, 3, *PROBE, device="meta"))
    return [name for name in names if name in seen]


def plain_state(model: Segmenter, raw: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state with its factors multiplied into the matrices: the names and the function of
    a network that was trained whole.
    """
    if model.tuned != "lora":
        return raw
    plain = {name: value for name, value in raw.items() if ".lora_" not in name}
    for name, layer in model.named_modules():
        if not hasattr(layer, "lora_A"):
            continue
        weight = raw[f"{name}{BASE}weight"]
        down = raw[f"{name}.lora_A.{NAME}.weight"]
        up = raw[f"{name}.lora_B.{NAME}.weight"]
        merged = weight + layer.scaling[NAME] * (up @ down)
        magnitude = raw.get(f"{name}.lora_magnitude_vector.{NAME}.weight")
        if magnitude is not None:
            merged = merged * (magnitude / merged.norm(dim=1))[:, None]
        plain[f"{name}{BASE}weight"] = merged
    return {name.replace(BASE, "."): value for name, value in plain.items()}


def frozen_ids(model: Segmenter) -> set[int]:
    """Return the identities of the parameters that tuning froze: none of a network that is trained
    whole.
    """
    return {id(p) for name, p in model.named_parameters() if name in model.frozen}


def trained_state(module: nn.Module, frozen: set[int]) -> dict[str, Tensor]:
    """Return a module's state without these parameters."""
    held = _names_of(module, frozen)
    return {name: value for name, value in module.state_dict().items() if name not in held}


def load_trained(module: nn.Module, state: dict[str, Tensor], frozen: set[int]) -> None:
    """Load `trained_state`. Raises RuntimeError for one of another network."""
    missing, unknown = module.load_state_dict(state, strict=False)
    held = _names_of(module, frozen)
    absent = [name for name in missing if name not in held]
    if absent or unknown:
        raise RuntimeError(
            f"{len(absent)} weights are missing, {len(unknown)} are of no layer:"
            f" {', '.join([*absent[:1], *unknown[:1]])}"
        )


def _names_of(module: nn.Module, ids: set[int]) -> set[str]:
    """Return all names, of shared parameters too, of the parameters with these identities."""
    return {name for name, p in module.named_parameters(remove_duplicate=False) if id(p) in ids}


def share_frozen(other: nn.Module, model: Segmenter) -> int:
    """Let a frozen network use the model's frozen tensors where both hold the same values; return
    how many parameters it no longer holds itself.

    Names are compared from their ends on, because one may stand in a wrapper.
    """
    frozen = frozen_ids(model)
    own = {_ending(name): p for name, p in model.backbone.named_parameters() if id(p) in frozen}
    count = 0
    for name, parameter in list(other.named_parameters()):
        same = own.get(_ending(name))
        if same is None or same.shape != parameter.shape:
            continue
        if not torch.equal(same.to(parameter.device, parameter.dtype), parameter):
            continue
        where, _, leaf = name.rpartition(".")
        setattr(other.get_submodule(where), leaf, same)
        count += parameter.numel()
    return count


def _ending(name: str) -> str:
    parts = name.replace(BASE, ".").split(".")
    while parts and parts[0] in ("net", "model"):
        parts.pop(0)
    return ".".join(parts)
