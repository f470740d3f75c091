"""One adaptation step: our engine against a plain implementation of the published recipe, side by
side.

    python benchmarks/step.py --network resnet101 --source 640x360 --target 512x256 --repeats 5
    python benchmarks/step.py --like fada      # single level, no entropy: what the published FADA
    code itself computes

The plain recipe is the public code's: two target forwards of the discriminator, weight gradients of
the adversarial pass computed and thrown away, one-sided 2K labels and 2K logits at full resolution,
frozen batch norm as a multiplication and an addition of its own (which keeps no activation for the
backward pass, as the published one), four dilated convolutions a head. `plain-batchnorm` calls
torch's batch norm in evaluation mode instead, as codes that freeze it so do. `ours-malloc` leaves
the C library's allocator as it is. Every variant runs in a process of its own (peak memory), in
turn, several times; `cpu` is the process's own seconds, which other work on the machine disturbs
less than the wall's.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

VARIANTS = ("plain", "ours", "ours-malloc", "ours-bf16", "ours-checkpoint")


def size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(width), int(height)


def networks(arguments):
    import torch

    from fgda_cli.methods.registry import method_class
    from fgda_cli.models.segmenter import Segmenter

    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    playground = arguments.network == "playground"
    name = "fada" if arguments.like == "fada" else "fgda"
    model = Segmenter(
        19,
        "resnet18" if playground else arguments.network,
        width=32 if playground else 64,
        multi_level=not playground and name == "fgda",
    )
    model.set_batch_norm("frozen")
    cls = method_class(name)
    method = cls(model, cls.Settings(name=name))
    for module in (model, *method.modules.values()):
        module.train()
    return method


def batch(arguments):
    import torch

    from fgda_cli.data.loader import Batch

    images = [
        torch.randint(0, 256, (arguments.batch, 3, h, w), dtype=torch.uint8)
        for w, h in (arguments.source, arguments.target)
    ]
    labels = torch.randint(0, 19, (arguments.batch, *images[0].shape[-2:]), dtype=torch.uint8)
    return Batch(images[0], labels, images[1])


def affine_norm(conv, norm, x, fixed):
    """Frozen batch norm as the published codes have it: no input of it is kept."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return conv(x) * scale.view(1, -1, 1, 1) + (norm.bias - norm.running_mean * scale).view(
        1, -1, 1, 1
    )


@contextmanager
def published_layers(norm_kernel: bool = False) -> Iterator[None]:
    """Inside, frozen batch norm and the head are computed as the published codes do."""
    from fgda_cli.models.encoders import resnet
    from fgda_cli.models.heads import AsppHead

    before = resnet.conv_norm, AsppHead.forward
    resnet.conv_norm = (lambda conv, norm, x, fixed: norm(conv(x))) if norm_kernel else affine_norm
    AsppHead.forward = lambda head, features: sum(conv(features) for conv in head.convs)
    try:
        yield
    finally:
        resnet.conv_norm, AsppHead.forward = before


def plain_step(method, data):
    """The public code's order; gradients are left in `.grad`. Soft labels are made once and kept,
    as there.
    """
    import torch

    from fgda_cli import losses

    s = method.settings
    model = method.model

    def soft(pred, domain):
        code = torch.softmax(pred, dim=1).detach()
        code[code > s.clip] = s.clip
        empty = torch.zeros_like(code)
        return torch.cat((code, empty) if domain == "source" else (empty, code), dim=1)

    def judged(name, features, shape):
        return losses.upsample(method.discriminators[name](features), shape)

    def levels(output):
        return {name: method.level(output, name) for name in method.discriminators}

    def predictions(output, shape):
        return {
            name: losses.upsample(logits, shape) / s.temperature
            for name, (_, logits) in levels(output).items()
        }

    near = data.source.shape[-2:]
    far = data.target.shape[-2:]
    source = model(data.source)
    features_s = {name: features for name, (features, _) in levels(source).items()}
    pred_s = predictions(source, near)
    del source
    weights = {name: s.aux_seg if name.startswith("aux") else 1.0 for name in pred_s}
    cross_entropy = torch.nn.functional.cross_entropy
    sum(
        weights[name] * cross_entropy(pred, data.labels.long(), ignore_index=255)
        for name, pred in pred_s.items()
    ).backward()
    soft_s = {name: soft(pred.detach(), "source") for name, pred in pred_s.items()}
    target = model(data.target)
    features_t = {name: features for name, (features, _) in levels(target).items()}
    loss = 0.0
    pred_t = predictions(target, far)
    for name, pred in pred_t.items():
        factor = s.lambda_adv * (s.aux_adv_factor if name.startswith("aux") else 1.0)
        loss = loss + factor * cross_entropy(
            judged(name, features_t[name], far), soft(pred, "source")
        )
        if hasattr(s, "eta"):
            logits = method.level(target, name)[1]
            loss = loss + factor * s.eta * losses.entropy_loss(losses.upsample(logits, far))
    loss.backward()
    for name, discriminator in method.discriminators.items():
        discriminator.zero_grad()
        on_source = judged(name, features_s[name].detach(), near)
        (0.5 * cross_entropy(on_source, soft_s[name])).backward()
        on_target = judged(name, features_t[name].detach(), far)
        (0.5 * cross_entropy(on_target, soft(pred_t[name], "target"))).backward()


def measure(arguments) -> None:
    """One variant in this process: the median of its steps and the peak memory, as a line of
    JSON.
    """
    import torch

    from fgda_cli.runtime.devices import Precision
    from fgda_cli.runtime.system import keep_freed_memory

    method = networks(arguments)
    data = batch(arguments)
    plain = arguments.variant.startswith("plain")
    if not plain and arguments.variant != "ours-malloc":
        keep_freed_memory()
    precision = Precision("bf16" if "bf16" in arguments.variant else "fp32", torch.device("cpu"))
    method.autocast = precision.autocast
    method.model.backbone.checkpoint_activations = "checkpoint" in arguments.variant
    for module in (method.model, *method.modules.values()) if not plain else ():
        precision.to_device(module)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    cpu = []
    with published_layers(arguments.variant == "plain-batchnorm") if plain else nullcontext():
        for _ in range(arguments.steps + 1):
            for module in (method.model, *method.modules.values()):
                module.zero_grad(set_to_none=True)
            start = time.perf_counter()
            used = time.process_time()
            plain_step(method, data) if plain else method.step(data)
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - used)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"seconds": statistics.median(seconds[1:]), "cpu": statistics.median(cpu[1:])}
    print(json.dumps(found | {"peak_mib": peak / 1024, "step_mib": (peak - before) / 1024}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="resnet101", help="resnet18, 50, 101 or playground")
    parser.add_argument(
        "--like",
        choices=("fgda", "fada"),
        default="fgda",
        help="the paper's method, or the published FADA's",
    )
    parser.add_argument("--source", type=size, default=(640, 360), help="WxH")
    parser.add_argument("--target", type=size, default=(512, 256), help="WxH")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3, help="timed steps a process")
    parser.add_argument("--repeats", type=int, default=3, help="processes a variant, in turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        return measure(arguments)
    variants = arguments.variants.split(",")
    found = {}
    for _ in range(arguments.repeats):
        for variant in variants:
            run = subprocess.run(
                [sys.executable, *sys.argv, "--variant", variant],
                capture_output=True,
                text=True,
                check=True,
            )
            found.setdefault(variant, []).append(json.loads(run.stdout.splitlines()[-1]))
    medians = {
        v: {key: statistics.median(r[key] for r in runs) for key in runs[0]}
        for v, runs in found.items()
    }
    base = medians[variants[0]]
    print(
        f"{arguments.like}, {arguments.network}, source {arguments.source}, target"
        f" {arguments.target}, batch {arguments.batch}"
    )
    for variant, row in medians.items():
        ratio = {key: value / base[key] for key, value in row.items()}
        print(
            f"{variant:16} {row['seconds']:7.3f} s ({ratio['seconds']:.2f}), cpu {row['cpu']:7.3f}"
            f" s ({ratio['cpu']:.2f}), peak {row['peak_mib']:6.0f} MiB ({ratio['peak_mib']:.2f}),"
            f" of the step {row['step_mib']:6.0f} MiB ({ratio['step_mib']:.2f})"
        )


if __name__ == "__main__":
    main()
