"""The paper's losses, eq. 1 to 6, as small pure functions of tensors and numbers.

Sources: [Z22] Zhao, Tian, Li 2022; [FADA] Wang et al. 2020; [ADVENT] Vu et al. 2019; [CLAN] Luo et
al. 2019.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import chunked

DomainName = Literal["source", "target"]


def upsample(logits: Tensor, size: tuple[int, int], align_corners: bool = True) -> Tensor:
    """Return logits `[B,C,h,w]` resized to `[B,C,H,W]`, bilinear; corners are aligned as in the
    DeepLab networks.
    """
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)


def segmentation_loss(
    logits: Tensor,
    train_ids: Tensor,
    ignore_index: int = 255,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    pixels: Tensor | None = None,
    focal_gamma: float = 0.0,
    align_corners: bool = True,
) -> Tensor:
    """Return eq. 1: the mean cross-entropy over the pixels that are not ignored; 0 (with gradient)
    when all are.

    logits `[B,K,h,w]`, upsampled chunk by chunk to the labels' size, train_ids `[B,H,W]` integer.
    `weight` `[B,H,W]` multiplies each pixel's loss (self-training), `focal_gamma` lets (1 -
    p)^gamma do so ([CLAN]'s code). FADA divides by a temperature in the adversarial stage. The sum
    is divided by `pixels` where the mean is over more than these images, else by their own labelled
    pixels.
    """

    def chunk_loss(full: Tensor, rows: slice) -> Tensor:
        labels = train_ids[:, rows].long()
        if weight is None and not focal_gamma:
            return F.cross_entropy(
                full / temperature, labels, ignore_index=ignore_index, reduction="sum"
            )
        losses = F.cross_entropy(
            full / temperature, labels, ignore_index=ignore_index, reduction="none"
        )
        if focal_gamma:
            losses = losses * (1 - torch.exp(-losses)).clamp(min=0) ** focal_gamma
        return (losses if weight is None else losses * weight[:, rows]).sum()

    if pixels is None:
        pixels = (train_ids != ignore_index).sum().clamp(min=1)
    return (
        chunked.total(logits, train_ids.shape[-2:], chunk_loss, align_corners=align_corners)
        / pixels
    )


def class_encoding(logits: Tensor, temperature: float = 1.8, clip: float = 0.9) -> Tensor:
    """Return a = min(softmax(logits / T), clip) `[B,K,H,W]`, detached and not renormalised
    ([FADA]).
    """
    return torch.softmax(logits.detach() / temperature, dim=1).clamp(max=clip)


class DomainLoss(NamedTuple):
    """The soft cross-entropy of domain logits against one domain, and its gradient."""

    loss: Tensor
    # the gradient with respect to the domain logits `[B,2K,h,w]`
    grad: Tensor


def domain_losses(
    domain_logits: Tensor,
    logits: Tensor,
    size: tuple[int, int],
    temperature: float = 1.8,
    clip: float = 0.9,
    domains: tuple[DomainName, ...] = ("source", "target"),
    align_corners: bool = True,
) -> dict[DomainName, DomainLoss]:
    """Return the loss against each of `domains`: the mean over B, H, W of
    -sum_c soft_c log softmax(domain_logits)_c, with soft = [a;0] for the source and [0;a] for the
    target ([FADA] §3.2, [Z22] eq. 2, 3).

    domain_logits `[B,2K,h,w]` are upsampled to (H, W); a is the class encoding of logits
    `[B,K,h',w']`, upsampled too. Eq. 2 is half of the loss of a domain's logits against their own
    domain, eq. 3 the loss of the target's logits against the source.

    One pass gives the losses and their gradients, a few rows at a time: neither the 2K maps nor
    the encoding exist at full resolution. Both gradients share softmax(domain_logits) sum_k a_k;
    they differ in the half from which a is taken off, so each exponential is computed once.
    """
    codes, view = (
        chunked.Upsampled(maps.detach(), size, align_corners) for maps in (logits, domain_logits)
    )
    classes = logits.shape[1]
    half = {"source": slice(None, classes), "target": slice(classes, None)}
    shared = torch.zeros_like(view.wide)
    code_grad = torch.zeros_like(view.wide[:, :classes])
    sums = [domain_logits.new_zeros(()) for _ in domains]
    for rows in view.chunks():
        full = view.rows(rows)
        code = class_encoding(codes.rows(rows), temperature, clip)
        level = code.sum(dim=1, keepdim=True)
        for value, domain in zip(sums, domains, strict=True):
            value -= torch.dot(code.flatten(), full[:, half[domain]].flatten())
        top = full.amax(dim=1, keepdim=True)
        probs = full.sub_(top).exp_()
        total = probs.sum(dim=1, keepdim=True)
        normaliser = (level * (top + total.log())).sum()
        for value in sums:
            value += normaliser
        view.back(probs.mul_(level / total), rows, shared)
        view.back(code, rows, code_grad)
    shared = view.narrow(shared)
    code_grad = view.narrow(code_grad)
    pixels = logits.shape[0] * size[0] * size[1]
    found = {}
    for value, domain in zip(sums, domains, strict=True):
        grad = shared.clone()
        grad[:, half[domain]] -= code_grad
        found[domain] = DomainLoss(value / pixels, grad / pixels)
    return found


def entropy_map(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return eq. 4: E = -1/log K sum_k p_k log p_k `[B,H,W]` in [0,1] of logits `[B,K,H,W]`; finite
    for finite logits.
    """
    log_probs = F.log_softmax(logits / temperature, dim=1)
    return -(log_probs.exp() * log_probs).sum(dim=1) / math.log(max(logits.shape[1], 2))


def entropy_loss(
    logits: Tensor,
    temperature: float = 1.0,
    size: tuple[int, int] | None = None,
    align_corners: bool = True,
) -> Tensor:
    """Return eq. 5 as in its public code: the *mean* of the entropy map over all pixels, at (H, W)
    when `size` is given.
    """

    def chunk_loss(full: Tensor, _: slice) -> Tensor:
        return entropy_map(full, temperature).sum()

    if size is None:
        return chunk_loss(logits, slice(None)) / logits[:, 0].numel()
    total = chunked.total(logits, size, chunk_loss, align_corners=align_corners)
    return total / (logits.shape[0] * size[0] * size[1])


def charbonnier_entropy(logits: Tensor, power: float = 2.0) -> Tensor:
    """Return the mean of (E^2 + 1e-8)^power of the entropy map E of logits `[B,K,h,w]` ([FDA] eq.
    4, 5).
    """
    return (entropy_map(logits).square() + 1e-8).pow(power).mean()


def weighted_self_information(probs: Tensor) -> Tensor:
    """Return I = -p_k log2 p_k / log2 K `[B,K,H,W]` of probabilities of that shape ([ADVENT] eq.
    6); 0 where p is 0.

    The gradient, -inf at p = 0, is held at that of the smallest normal number, so that softmax's
    own 0 gives 0 and no NaN.
    """
    safe = probs.clamp(min=torch.finfo(probs.dtype).tiny)
    return -probs * safe.log() / math.log(max(probs.shape[1], 2))


def binary_domain_loss(
    domain_logits: Tensor, domain: DomainName, weight: Tensor | None = None
) -> Tensor:
    """Return the mean binary cross-entropy of logits against source = 0, target = 1 ([ADVENT]);
    `weight` broadcasts.
    """
    label = torch.full_like(domain_logits, 0.0 if domain == "source" else 1.0)
    if weight is None:
        return F.binary_cross_entropy_with_logits(domain_logits, label)
    # weight may need a gradient
    by_element = F.binary_cross_entropy_with_logits(domain_logits, label, reduction="none")
    return (by_element * weight).mean()


def disagreement(first: Tensor, second: Tensor) -> Tensor:
    """Return 1 - cos(p1, p2) by pixel, `[B,1,H,W]` of two maps `[B,K,H,W]` ([CLAN] eq. 5)."""
    return 1 - F.cosine_similarity(first, second, dim=1).unsqueeze(1)


def weight_divergence(first: Tensor, second: Tensor) -> Tensor:
    """Return 1 + cos of two flat vectors of weights and biases ([CLAN] eq. 6), smallest when they
    are opposite.
    """
    return 1 + F.cosine_similarity(first, second, dim=0)
