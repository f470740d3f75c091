"""One adaptation step: our engine against a plain implementation of the published recipe, side by side.

    python benchmarks/step.py --network resnet101 --source 320x180 --target 256x128 --repeats 5

The plain recipe follows ../shared/METHODS.md with its mistakes: two target forwards of the discriminator, weight
gradients of the adversarial pass computed and thrown away, one-sided 2K labels and 2K logits at full resolution,
batch norm as a pass of its own, four dilated convolutions a head. `ours-malloc` leaves the C library's allocator as it is.
Every variant runs in a process of its own (peak memory), in turn, several times.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

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
    model = Segmenter(19, "resnet18" if playground else arguments.network, width=32 if playground else 64,
                      multi_level=not playground)  # fmt: skip
    model.freeze_batch_norm()
    cls = method_class("fgda")
    method = cls(model, cls.Settings(name="fgda"))
    for module in (model, *method.modules.values()):
        module.train()
    return method


def batch(arguments):
    import torch

    from fgda_cli.data.loader import Batch

    images = [
        torch.randint(0, 256, (arguments.batch, 3, h, w), dtype=torch.uint8) for w, h in (arguments.source, arguments.target)
    ]
    labels = torch.randint(0, 19, (arguments.batch, *images[0].shape[-2:]), dtype=torch.uint8)
    return Batch(images[0], labels, images[1])


def plain_step(method, data):
    """The public code's order; gradients are left in `.grad`."""
    from fgda_cli import losses

    s, model = method.settings, method.model

    def soft(logits, domain, shape):
        return losses.domain_encoding(losses.upsample(logits, shape), domain, s.temperature, s.clip)

    def judged(name, features, shape):
        return losses.upsample(method.discriminators[name](features), shape)

    def seg(logits):
        import torch.nn.functional as F

        full = losses.upsample(logits, data.labels.shape[-2:])
        return F.cross_entropy(full / s.seg_temperature, data.labels.long(), ignore_index=255)

    near, far = data.source.shape[-2:], data.target.shape[-2:]
    source = model(data.source)
    loss = seg(source.logits)
    if source.aux_logits is not None:
        loss = loss + s.aux_seg * seg(source.aux_logits)
    loss.backward()
    target, loss = model(data.target), 0.0
    for name in method.discriminators:
        factor = s.aux_adv_factor if name.startswith("aux") else 1.0
        features, logits = method.level(target, name)
        adversarial = losses.soft_label_cross_entropy(judged(name, features, far), soft(logits, "source", far))
        entropy = losses.entropy_loss(losses.upsample(logits, far))
        loss = loss + s.lambda_adv * factor * (adversarial + s.eta * entropy)
    loss.backward()
    for name, discriminator in method.discriminators.items():
        discriminator.zero_grad()
        for output, domain, shape in ((source, "source", near), (target, "target", far)):
            features, logits = method.level(output, name)
            domain_logits = judged(name, features.detach(), shape)
            (0.5 * losses.soft_label_cross_entropy(domain_logits, soft(logits, domain, shape))).backward()


def measure(arguments) -> None:
    """One variant in this process: the median of its steps and the peak memory, as a line of JSON."""
    import torch

    from fgda_cli.models import segmenter as deeplab
    from fgda_cli.models.encoders import resnet
    from fgda_cli.runtime.devices import Precision, keep_freed_memory

    method, data = networks(arguments), batch(arguments)
    if arguments.variant == "plain":
        resnet.conv_norm = lambda conv, norm, x: norm(conv(x))
        deeplab.AsppHead.forward = lambda head, features: sum(conv(features) for conv in head.convs)
    if arguments.variant not in ("plain", "ours-malloc"):
        keep_freed_memory()
    precision = Precision("bf16" if "bf16" in arguments.variant else "fp32", torch.device("cpu"))
    method.autocast = precision.autocast
    method.model.backbone.checkpoint_activations = "checkpoint" in arguments.variant
    for module in (method.model, *method.modules.values()):
        precision.to_device(module)
    before, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(arguments.steps + 1):
        for module in (method.model, *method.modules.values()):
            module.zero_grad(set_to_none=True)
        start = time.perf_counter()
        plain_step(method, data) if arguments.variant == "plain" else method.step(data)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": statistics.median(seconds[1:]), "peak_mib": peak / 1024, "step_mib": (peak - before) / 1024}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet101", help="resnet18, 50, 101 or playground")
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
    variants, found = arguments.variants.split(","), {}
    for _ in range(arguments.repeats):
        for variant in variants:
            run = subprocess.run([sys.executable, *sys.argv, "--variant", variant], capture_output=True, text=True, check=True)
            found.setdefault(variant, []).append(json.loads(run.stdout.splitlines()[-1]))
    medians = {v: {key: statistics.median(r[key] for r in runs) for key in runs[0]} for v, runs in found.items()}
    base = medians[variants[0]]
    print(f"{arguments.network}, source {arguments.source}, target {arguments.target}, batch {arguments.batch}")
    for variant, row in medians.items():
        print(f"{variant:16} {row['seconds']:7.3f} s ({row['seconds'] / base['seconds']:.2f})   peak {row['peak_mib']:6.0f} MiB "
              f"({row['peak_mib'] / base['peak_mib']:.2f}), of the step {row['step_mib']:6.0f} MiB "
              f"({row['step_mib'] / base['step_mib']:.2f})")  # fmt: skip


if __name__ == "__main__":
    main()
