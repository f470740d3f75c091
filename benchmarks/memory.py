"""Peak memory of a step as computed before training (`fgda doctor --preset`) beside what a
processor's allocator gave out when the step ran.

    python benchmarks/memory.py                                # ten presets, images of 256x128
    python benchmarks/memory.py --presets gta2city --size 640x320

Random weights, two steps of adaptation with their optimisers. Each preset has a process of its own;
its allocator's events are read by torch's profiler.
"""

from __future__ import annotations

from alone import ask, step_parser, told

PRESETS = (
    "playground",
    "sim2camvid",
    "gta2city",
    "gta2city-fada",
    "gta2city-advent",
    "gta2city-clan",
    "gta2city-pycda",
    "gta2city-daformer",
    "gta2city-hrda",
    "gta2city-mic",
    "gta2city-vfmuda",
)


def sets_of(name: str, size: tuple[int, int]) -> list[str]:
    width, height = size
    shown = f"[{width},{height}]"
    sets = []
    for domain in ("source", "target"):
        sets += [f"data.{domain}.size={shown}", f"data.{domain}.crop=null"]
    sets += ["model.weights=none", "adapt.batch_size=2"]
    if name.endswith(("hrda", "-mic")):
        sets.append(f"model.detail=[{width // 2},{height // 2}]")
    if name.endswith("vfmuda"):
        small = ["model.backbone=adapter:vits14", "model.head_width=48"]
        sets += [*small, "method.distil_model=timm:vit_tiny_patch16_224"]
        sets.append("method.distil_weights=none")
    return sets


def measure(name: str, arguments) -> dict:
    import torch
    from torch.profiler import ProfilerActivity, profile

    from fgda_cli.presets import load_preset
    from fgda_cli.training.memory import memory_of_step

    torch.set_num_threads(arguments.threads)
    preset = load_preset(name, sets_of(name, arguments.size))
    method = preset.method.name
    computed = memory_of_step(preset, preset.adapt, method)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        memory_of_step(preset, preset.adapt, method, device=torch.device("cpu"))
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return {"computed": computed.peak / 2**30, "measured": peak / 2**30}


def main() -> None:
    parser = step_parser(__doc__, (256, 128), 2)
    parser.add_argument("--presets", default=",".join(PRESETS))
    arguments = parser.parse_args()
    if told(arguments, measure):
        return
    print("| preset | computed, GB | measured, GB | computed over measured |")
    print("|---|---|---|---|", flush=True)
    for name in arguments.presets.split(","):
        m = ask(__file__, name)
        ratio = m["computed"] / m["measured"]
        print(f"| `{name}` | {m['computed']:.3f} | {m['measured']:.3f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
