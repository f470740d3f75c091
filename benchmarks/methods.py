"""What each method costs beside source-only: networks of its own, CPU seconds a step, peak memory.

    python benchmarks/methods.py                                    # playground's network and sizes
    python benchmarks/methods.py --network resnet101 --size 512x256

Each method runs in a process of its own (peak memory); methods take turns over the rounds, medians are printed. What is done
before training (translation, modes of patches) is not in it.
"""

from __future__ import annotations

import statistics
import time

from alone import SMALL, ask, peak_memory, step_parser, told, with_random_foundation


def measure(name: str, arguments) -> dict[str, float]:
    import torch

    from fgda_cli.data.loader import Batch
    from fgda_cli.methods.registry import method_class
    from fgda_cli.models.segmenter import Segmenter

    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    playground = arguments.network == "playground"
    model = Segmenter(19, "resnet18" if playground else arguments.network, width=32 if playground else 64)
    model.set_batch_norm("frozen")
    cls = method_class(name)
    method = with_random_foundation(cls(model, cls.Settings(name=name, **SMALL.get(name, {}))))
    for module in (model, *method.modules.values()):
        module.train()
    width, height = arguments.size
    images = [torch.randint(0, 256, (arguments.batch, 3, height, width), dtype=torch.uint8) for _ in range(2)]
    labels = torch.randint(0, 19, (arguments.batch, height, width), dtype=torch.uint8)
    batch, seconds = Batch(images[0], labels, images[1] if cls.uses_target else None), []
    for iteration in range(arguments.steps + 1):
        for module in (model, *method.modules.values()):
            module.zero_grad(set_to_none=True)
        clock = time.process_time()
        method.begin_iteration(501 + iteration, 1000, lambda: iter(batch.target))  # amid a run, where no round begins
        method.step(batch)
        method.end_iteration(501 + iteration)
        seconds.append(time.process_time() - clock)
    own = sum(p.numel() for module in method.modules.values() for p in module.parameters())
    return {"seconds": statistics.median(seconds[1:]), "parameters": own / 1e6, "memory": peak_memory()}


def main() -> None:
    parser = step_parser(__doc__, (256, 128), 2)
    parser.add_argument("--network", default="playground", help="playground, or resnet18 to resnet101")
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    if told(arguments, measure):
        return
    from fgda_cli.methods.registry import method_names

    found: dict[str, list[dict]] = {}
    for _ in range(arguments.rounds):
        for name in ("source-only", *(n for n in method_names() if n != "source-only")):
            found.setdefault(name, []).append(ask(__file__, name))
    base = statistics.median(row["seconds"] for row in found["source-only"])
    print("| method | own parameters, M | time a step, of source-only | peak memory, GB |\n|---|---|---|---|")
    for name, rows in found.items():
        seconds, memory = (statistics.median(row[key] for row in rows) for key in ("seconds", "memory"))
        print(f"| `{name}` | {rows[0]['parameters']:.1f} | {seconds / base:.1f} | {memory:.2f} |")


if __name__ == "__main__":
    main()
