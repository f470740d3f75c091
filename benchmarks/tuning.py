"""What `model.tune: lora` and `frozen` save: peak memory and CPU seconds of a whole iteration
(step, optimiser, teacher) beside full fine-tuning.

    python benchmarks/tuning.py                                    # DINOv2's ViT-S, B and L
    python benchmarks/tuning.py --networks vits14 --methods mic --size 224x224 --set lora.rank=8

Random weights, AdamW, images of 448x448, two a batch. Each row has a process of its own. Memory is
the peak of the bytes of living tensors, as a GPU counts it; a process on a processor takes more,
by what its heap cannot give back (the column behind it). VFM-UDA++'s foundation model is a ViT-Tiny
here, the same in all rows.
"""

from __future__ import annotations

import statistics
import time

from alone import SMALL, ask, peak_memory, step_parser, told, with_random_foundation

NETWORKS = ("vits14", "vitb14", "vitl14")
TUNES = ("full", "lora", "frozen")


def measure(name: str, arguments) -> dict:
    import torch

    from fgda_cli.data.loader import Batch
    from fgda_cli.methods.optimizers import Recipe
    from fgda_cli.methods.registry import method_class
    from fgda_cli.models import checkpoint
    from fgda_cli.models.encoders.dinov2 import SIZES
    from fgda_cli.models.tuning import tune
    from fgda_cli.presets import load_preset

    torch.set_num_threads(arguments.threads)
    network, how, method_name = name.split(":")
    sets = [
        f"model.backbone=dinov2:{network}",
        "model.weights=none",
        "model.head=transposed",
        f"model.head_width={SIZES[network][0] // 4}",
        f"model.tune={how}",
        "optim.kind=adamw",
        "optim.lr=1e-5",
        *(f"model.{one}" for one in arguments.set if how == "lora" or not one.startswith("lora.")),
    ]
    nothing = ["model.detail=null", "model.drop_path=0"]
    preset = load_preset("gta2city-mic", [*nothing, *sets], method_name)
    torch.manual_seed(0)
    # what the imports take, peft's among them
    import peft  # noqa: F401

    from fgda_cli.training.memory import LiveMemory

    before = peak_memory()
    model = checkpoint.build_model(preset.model, 19)
    tune(model, preset.model)
    model.set_batch_norm("train")
    if preset.model.checkpoint_activations:
        model.backbone.checkpoint_activations = True
    cls = method_class(method_name)
    small = SMALL.get(method_name, {})
    method = with_random_foundation(cls(model, preset.method.model_copy(update=small)))
    optimizers = method.optimizers(Recipe(preset.optim, preset.adapt))
    width, height = arguments.size
    images = torch.randint(0, 256, (2, arguments.batch, 3, height, width), dtype=torch.uint8)
    labels = torch.randint(0, 19, (arguments.batch, height, width), dtype=torch.uint8)
    batch = Batch(images[0], labels, images[1])
    model.train()

    def iterate(number: int) -> None:
        for optimizer, _ in optimizers.values():
            optimizer.zero_grad(set_to_none=not method.keeps_gradients)
        model.begin_iteration(0, number)
        method.begin_iteration(number, 100, lambda: iter(batch.target))
        method.step(batch)
        for optimizer, _ in optimizers.values():
            optimizer.step()
        method.end_iteration(number)

    modules = (model, *method.modules.values(), *method.references.values())
    live = LiveMemory().hold(*modules)
    with live:
        iterate(0)
        # with the optimiser's state from the first on
        live.peak = live.live
        iterate(1)
    seconds = []
    for number in range(2, 2 + arguments.rounds):
        start = time.process_time()
        iterate(number)
        seconds.append(time.process_time() - start)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "memory": live.peak / 2**30,
        "process": peak_memory() - before,
        "step": statistics.median(seconds),
        "trained": trained / 1e6,
    }


def main() -> None:
    parser = step_parser(__doc__, (448, 448), 2)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--methods", default="mic,vfmuda")
    parser.add_argument("--tunes", default="full,lora")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of the section model"
    )
    arguments = parser.parse_args()
    if told(arguments, measure):
        return
    print(
        "| network | method | tune | trained, M | memory, GB | of full | the process's, GB | step,"
        " CPU s | of full |"
    )
    print("|---" * 9 + "|", flush=True)
    for network in arguments.networks.split(","):
        for method in arguments.methods.split(","):
            full = None
            for how in arguments.tunes.split(","):
                m = ask(__file__, f"{network}:{how}:{method}")
                full = full or m
                print(
                    f"| {network} | `{method}` | {how} | {m['trained']:.1f} | {m['memory']:.2f} |"
                    f" {m['memory'] / full['memory']:.2f} | {m['process']:.2f} | {m['step']:.1f} |"
                    f" {m['step'] / full['step']:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
