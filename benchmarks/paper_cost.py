"""What the paper's tables cost, computed: operations of a step by method, hours on one GPU, disk.

    python benchmarks/paper_cost.py            # a Markdown table, as in docs/paper.md

A step of each method runs once on the processor, at a quarter of the paper's sides, and torch
counts its floating-point operations (convolutions and products, forward and backward); they grow
with the area. Hours are operations over what a GPU sustains: --sustained 14 TFLOP/s is 40 % of an
RTX 3090's 35.6 in fp32 with TF32, an assumption, since no line of this project has run on a GPU.
"""

from __future__ import annotations

import argparse

from presets import built, step

# sides are divided by this, areas by its square
DIVISOR = 4
METHODS = {
    "table1": ("cycada", "adaptsegnet", "siban", "clan", "cbst", "dise", "advent", "pycda", "fgda"),
    "table2": ("adaptsegnet", "siban", "clan", "adaptpatch", "advent", "fgda"),
    "table3": ("adaptsegnet", "fada", "fgda"),
}
PRESETS = {"table1": "gta2city", "table2": "synthia2city", "table3": "gta2city"}


def operations(preset_name: str, method: str) -> float:
    """Return the floating-point operations of one step at the preset's own sizes."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    from fgda_cli.presets import load_preset

    # torch's own counter follows modules too, which torch.autograd.grad does not go with
    class Counter(TorchDispatchMode):
        total = 0.0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            count = flop_registry.get(func.overloadpacket)
            if count is not None:
                self.total += count(*args, **(kwargs or {}), out_val=result)
            return result

    preset = load_preset(preset_name)
    sets = [
        f"data.{name}.size=[{domain.size[0] // DIVISOR},{domain.size[1] // DIVISOR}]"
        for name, domain in (("source", preset.data.source), ("target", preset.data.target))
    ]
    made, batch = built(f"{preset_name}:{method}", sets=tuple(sets))
    with Counter() as counter:
        step(made, batch)
    return counter.total * DIVISOR**2


def main() -> None:
    from fgda_cli.presets import load_preset

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sustained", type=float, default=14.0, help="TFLOP/s of the GPU")
    arguments = parser.parse_args()
    print("| table | method | TFLOP a step | steps | hours, one seed |")
    print("|---|---|---|---|---|", flush=True)
    for table, methods in METHODS.items():
        preset = load_preset(PRESETS[table])
        total = 0.0
        for method in ("source-only", *methods):
            stage = preset.pretrain if method == "source-only" else preset.adapt
            each = operations(PRESETS[table], method) / 1e12
            hours = each * stage.iterations / arguments.sustained / 3600
            total += hours
            print(
                f"| {table} | `{method}` | {each:.2f} | {stage.iterations} | {hours:.1f} |",
                flush=True,
            )
        print(f"| {table} | all, one seed | | | {total:.0f} |", flush=True)


if __name__ == "__main__":
    main()
