"""What a step of a preset, or of each method under one, costs: over the bare passes of its
networks, and its peak memory.

    python benchmarks/presets.py                                   # the published presets, images
    of 128x128 python benchmarks/presets.py --presets gta2city,gta2city-mic --size 256x256 --batch 2
    python benchmarks/presets.py --presets playground --methods all --size 256x128 --batch 2      #
    beside source-only

Bare passes: every call of a network in one step is recorded with its inputs, and run again alone,
forward and, where it had a gradient, backward. Work before training (translation, modes of patches)
is not in it. Random weights. Step and bare passes take turns; medians of CPU seconds. Each preset
has a process of its own.
"""

from __future__ import annotations

import statistics
import time

from alone import SMALL, ask, peak_memory, step_parser, told, with_random_foundation

PUBLISHED = (
    "gta2city",
    "gta2city-adaptsegnet",
    "gta2city-advent",
    "gta2city-clan",
    "gta2city-fada",
    "gta2city-daformer",
    "gta2city-hrda",
    "gta2city-mic",
    "gta2city-vfmuda",
)


def recorded(networks: dict, calls: list):
    """Wrap each network's forward so that `calls` tells (name, inputs, whether it had a
    gradient).
    """
    import torch

    for name, network in networks.items():
        original = network.forward

        def forward(*inputs, name=name, original=original, **how):
            kept = [x.detach().clone() if isinstance(x, torch.Tensor) else x for x in inputs]
            # by position: the networks' only option, with_aux
            kept += how.values()
            calls.append((name, kept, torch.is_grad_enabled()))
            return original(*inputs, **how)

        network.forward = forward


def bare(network, inputs: list, with_gradient: bool) -> None:
    import torch

    with torch.set_grad_enabled(with_gradient):
        output = network(*inputs)
    if with_gradient:
        tensors = [
            x
            for x in (output if isinstance(output, tuple) else (output,))
            if isinstance(x, torch.Tensor)
        ]
        # logits and auxiliary logits
        used = [x for x in tensors[:2] if x.requires_grad]
        torch.autograd.backward(used, [torch.ones_like(x) for x in used])


def built(
    name: str,
    size: tuple[int, int] | None = None,
    images: int | None = None,
    sets: tuple[str, ...] = (),
):
    """The method of a preset (PRESET, or another method under it: PRESET:METHOD) with random
    weights, and random images and labels; of this size, or of its own crops."""
    import torch

    from fgda_cli.data.loader import Batch
    from fgda_cli.methods.registry import method_class
    from fgda_cli.models import checkpoint
    from fgda_cli.presets import load_preset
    from fgda_cli.runtime.devices import make_precision

    torch.manual_seed(0)
    name, _, other = name.partition(":")
    sets = ["model.weights=none", *sets]
    preset = load_preset(name, sets, other or None)
    if size is not None and preset.model.detail is not None:
        preset = load_preset(
            name, [*sets, f"model.detail=[{size[0] // 2},{size[1] // 2}]"], other or None
        )
    model = checkpoint.build_model(preset.model, 19)
    model.set_batch_norm(preset.adapt.batch_norm)
    cls = method_class(preset.method.name)
    settings = preset.method.model_copy(update=SMALL.get(preset.method.name, {}) if other else {})
    method = with_random_foundation(cls(model, settings))
    # as if the encoder had weights
    if "lambda_fd" in type(preset.method).model_fields and preset.method.lambda_fd:
        method.references["imagenet"] = (
            checkpoint.build_model(preset.model, 1).backbone.eval().requires_grad_(False)
        )
        method.things = torch.arange(19) >= 11
    precision = make_precision("fp32", torch.device("cpu"))
    for module in (model, *method.modules.values()):
        precision.to_device(module).train()
    for module in method.references.values():
        precision.to_device(module)
    count = images or preset.adapt.batch_size
    found = []
    for domain in (preset.data.source, preset.data.target):
        width, height = size or domain.crop or domain.size
        found.append(torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8))
    rows, columns = found[0].shape[-2:]
    labels = (
        torch.randint(0, 19, (count, -(-rows // 16), -(-columns // 16)))
        .repeat_interleave(16, 1)
        .repeat_interleave(16, 2)
    )
    return method, Batch(
        found[0], labels[:, :rows, :columns].to(torch.uint8), found[1] if cls.uses_target else None
    )


def cleared(method) -> None:
    for module in (method.model, *method.modules.values()):
        module.zero_grad(set_to_none=not method.keeps_gradients)


def step(method, batch) -> None:
    """A step in the midst of a run, without optimisers."""
    method.model.begin_iteration(0, 501)
    method.begin_iteration(501, 1000, lambda: iter(batch.target))
    method.step(batch)


def passes_of(method, batch):
    """The bare passes of the networks in a step, as a function, and how many they are; the step is
    made once.
    """
    networks = {"model": method.model, **method.modules, **method.references}
    calls = []
    recorded(networks, calls)
    cleared(method)
    step(method, batch)
    kept = list(calls)

    def passes() -> None:
        method.model.begin_iteration(0, 501)
        for which, inputs, with_gradient in kept:
            bare(networks[which], inputs, with_gradient)

    return passes, len(kept)


def measure(name: str, arguments) -> dict:
    import torch

    torch.set_num_threads(arguments.threads)
    method, batch = built(name, arguments.size, arguments.batch, tuple(arguments.set))

    def clock(work) -> float:
        cleared(method)
        start = time.process_time()
        work()
        return time.process_time() - start

    passes, count = passes_of(method, batch)
    found = {"step": [], "bare": []}
    for _ in range(arguments.rounds):
        found["step"].append(clock(lambda: step(method, batch)))
        found["bare"].append(clock(passes))
    step_time, bare_time = (statistics.median(found[key]) for key in ("step", "bare"))
    own = sum(p.numel() for module in method.modules.values() for p in module.parameters()) / 1e6
    return {
        "passes": count,
        "step": step_time,
        "bare": bare_time,
        "memory": peak_memory(),
        "own": own,
    }


def main() -> None:
    parser = step_parser(__doc__, (128, 128), 1)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of every preset"
    )
    parser.add_argument("--presets", default=",".join(PUBLISHED))
    parser.add_argument(
        "--methods", help="all, or names: each under the first preset, beside source-only"
    )
    arguments = parser.parse_args()
    if told(arguments, measure):
        return
    names = arguments.presets.split(",")
    if arguments.methods:
        from fgda_cli.methods.registry import method_names

        methods = method_names() if arguments.methods == "all" else arguments.methods.split(",")
        names = [
            f"{names[0]}:{name}"
            for name in ("source-only", *(name for name in methods if name != "source-only"))
        ]
    print(
        "| step | networks' passes | own parameters, M | step, s | over bare passes | over the"
        " first row | peak memory, GB |"
    )
    print("|---" * 7 + "|")
    first = None
    for name in names:
        m = ask(__file__, name)
        first = first or m["step"]
        print(
            f"| `{name}` | {m['passes']} | {m['own']:.1f} | {m['step']:.2f} |"
            f" {m['step'] / max(m['bare'], 1e-9):.2f} | {m['step'] / first:.1f} |"
            f" {m['memory']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
