"""How well signals without labels tell what labels would: makes the table in
fgda_cli/signals/score.py, and tests it.

    # runs of `adapt` whose target has labels
    python benchmarks/verdicts.py measure CACHE.json --data-root DATA RUN...
    # fit on these seeds, test on all other runs
    python benchmarks/verdicts.py fit CACHE.json --seeds 0,1
    # fit on all pairs but one, test on that one
    python benchmarks/verdicts.py leave-out CACHE.json kitti,iddlite,camvid

`measure` looks at every checkpoint of each run that holds its mIoU (final.pth, and with `run.keep:
true` those of validations) and at the one it began as, adds to the cache, and skips what is there.
`fit` prints the weights, verdicts against the truth, and what choosing a checkpoint by the score
costs beside entropy and the last one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np
import yaml

# points: "no clear change" is right up to here, "helped" and "harmful" where the sign is
TOLERANCE = 3.0
RIDGE = 1.0
# points beyond which a change counts as this much in the fit
CLIP = 12.0


def measure(arguments) -> None:
    import torch

    from fgda_cli.data.store import open_domain
    from fgda_cli.models.checkpoint import load, model_of
    from fgda_cli.runtime.devices import Precision
    from fgda_cli.signals.observe import frames_of, observe

    torch.set_num_threads(1)
    cache = read(arguments.cache)
    precision = Precision("fp32", torch.device("cpu"))
    frames = {}
    for run in arguments.runs:
        stage = yaml.safe_load((run / "preset.yaml").read_text())["stage"]
        if stage["stage"] != "adapt" or not stage["init"]:
            continue
        for path in [
            Path(stage["init"]),
            *sorted(run.glob("checkpoints/iteration-*.pth")),
            run / "checkpoints/final.pth",
        ]:
            if str(path) in cache or not path.is_file():
                continue
            content = load(path)
            miou = content.get("metrics", {}).get("miou")
            if miou is None:
                continue
            model, info = model_of(content, path)
            data = info["preset"]["data"]["target"]["dataset"]
            if str(data) not in frames:
                dataset = open_domain(
                    arguments.data_root, data if isinstance(data, str) else tuple(data)
                )
                frames[str(data)] = frames_of(dataset, "train", model.input_rule, count=40)
            observed = observe(model, frames[str(data)], precision)
            cache[str(path)] = {
                "miou": miou,
                "iteration": content["iteration"],
                "observed": observed.to_json(),
            }
            print(path, round(miou, 1), flush=True)
        cache.setdefault("runs", {})[str(run)] = {
            "start": stage["init"],
            "method": stage["method"],
            "seed": seed_of(run),
        }
        arguments.cache.write_text(json.dumps(cache))


def seed_of(run: Path) -> int:
    return int(yaml.safe_load((run / "preset.yaml").read_text())["run"]["seed"])


def read(path: Path) -> dict:
    return json.loads(path.read_text()) if path.is_file() else {}


def pairs_of(cache: dict) -> list[dict]:
    """A run's checkpoints, each with the signals of its start."""
    from fgda_cli.signals.observe import Observed

    found = []
    for run, facts in cache["runs"].items():
        start = cache.get(facts["start"])
        paths = [path for path in cache if path.startswith(f"{run}/")]
        if start is None or not paths:
            continue
        before = Observed.from_json(start["observed"])
        for path in sorted(paths, key=lambda path: cache[path]["iteration"]):
            after = Observed.from_json(cache[path]["observed"])
            miou = cache[path]["miou"]
            found.append(
                {
                    "run": run,
                    "path": path,
                    **facts,
                    "before": before,
                    "after": after,
                    "change": miou - start["miou"],
                    "miou": miou,
                    "start_miou": start["miou"],
                    "is_final": path.endswith("final.pth"),
                }
            )
    return found


def fit(arguments) -> None:
    from fgda_cli.signals import score as label_free

    seeds = {int(seed) for seed in arguments.seeds.split(",")}
    pairs = pairs_of(read(arguments.cache))
    starts = arguments.on.split(",")

    def is_fitted(one) -> bool:
        return one["seed"] in seeds and any(part in one["start"] for part in starts)

    fitted = [one for one in pairs if is_fitted(one) and one["is_final"]]
    weights = weights_of(fitted)
    print(f"fitted on {len(fitted)} runs: {rounded(weights)}; shipped: {label_free.WEIGHTS}")
    held_out = [one for one in pairs if not is_fitted(one)]
    finals = [one for one in held_out if one["is_final"]]
    report("fitted", fitted)
    report("held out", finals)
    for part in sorted({family(one) for one in finals}):
        report(f"  {part}", [one for one in finals if family(one) == part])
    selection(held_out)


def weights_of(runs: list[dict]) -> dict[str, float]:
    """Ridge regression of the change on the signals' changes, each over its spread; collapsed runs
    are told by a rule.
    """
    from fgda_cli.signals import score as label_free

    names = list(label_free.WEIGHTS)
    used = [one for one in runs if not label_free.has_collapsed(one["before"], one["after"])]
    x = np.array(
        [[label_free.changes(one["before"], one["after"])[name] for name in names] for one in used]
    )
    y = np.clip([one["change"] for one in used], -CLIP, CLIP)
    spread = x.std(0)
    scaled = x / spread
    found = np.linalg.solve(scaled.T @ scaled + RIDGE * np.eye(len(names)), scaled.T @ y) / spread
    return dict(zip(names, found.tolist(), strict=True))


def rounded(weights: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in weights.items()}


def leave_out(arguments) -> None:
    """For each pair of domains: weights from the runs of all others, verdicts on its own runs."""
    from fgda_cli.signals import score as label_free

    finals = [one for one in pairs_of(read(arguments.cache)) if one["is_final"]]
    shipped = label_free.WEIGHTS
    all_pairs = arguments.pairs.split(",")
    report("all, shipped weights", finals)
    left: list[float] = []
    for part in all_pairs:
        label_free.WEIGHTS = weights_of([one for one in finals if part not in one["run"]])
        own = [one for one in finals if part in one["run"]]
        report(f"{part}, weights {rounded(label_free.WEIGHTS)}", own)
        left += [one["change"] - label_free.score(one["before"], one["after"]) for one in own]
    label_free.WEIGHTS = shipped
    print(
        f"all pairs: weights {rounded(weights_of(finals))}; change less score where held out: "
        f"mean {np.mean(left):+.2f}, root mean square {np.sqrt(np.mean(np.square(left))):.2f}"
    )


def family(one: dict) -> str:
    return str(Path(one["run"]).parent)


def report(title: str, pairs: list[dict]) -> None:
    from fgda_cli.metrics import COLLAPSED
    from fgda_cli.signals.score import verdict_on

    if not pairs:
        return
    names = lambda one: tuple(map(str, range(len(one["before"].shares))))  # noqa: E731
    verdicts = [verdict_on(one["before"], one["after"], names(one)) for one in pairs]
    changes = np.array([one["change"] for one in pairs])
    told = [
        (v.kind, change)
        for v, change in zip(verdicts, changes, strict=True)
        if v.kind != "cannot tell"
    ]
    right = [is_right(kind, change) for kind, change in told]
    helped_wrongly = sum(
        v.kind == "helped" and c < 0 for v, c in zip(verdicts, changes, strict=True)
    )
    collapsed = [v for v, one in zip(verdicts, pairs, strict=True) if one["change"] <= -10]
    scores = [verdict.score for verdict in verdicts]
    entropy = [one["before"].signals["entropy"] - one["after"].signals["entropy"] for one in pairs]
    left = np.array([c - s for c, s in zip(changes, scores, strict=True) if s > COLLAPSED])
    print(
        f"{title}: {len(pairs)} runs, {len(pairs) - len(told)} cannot tell,"
        f" {100 * statistics.fmean(right or [0]):.0f} % of the others right, {helped_wrongly}"
        f" harmful called helped, {sum(v.kind == 'helped' for v in collapsed)} of {len(collapsed)}"
        " collapsed called helped; rank correlation with the change"
        f" {rank_correlation(scores, changes):.2f} (entropy"
        f" {rank_correlation(entropy, changes):.2f}); residual {left.std():.1f}"
    )


def is_right(kind: str, change: float) -> bool:
    return (
        change > 0
        if kind == "helped"
        else change < 0
        if kind == "collapsed or harmful"
        else abs(change) <= TOLERANCE
    )


def rank_correlation(first, second) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1]) if len(first) > 2 else float("nan")


def selection(pairs: list[dict]) -> None:
    """Of each run's checkpoints and its start: the mIoU of the one chosen, beside the best there
    is.
    """
    from fgda_cli.signals.score import score

    rules = {
        "label-free": lambda one: score(one["before"], one["after"]),
        "least entropy": (
            lambda one: one["before"].signals["entropy"] - one["after"].signals["entropy"]
        ),
        "last": lambda one: one["is_final"],
    }
    by_run: dict[str, list[dict]] = {}
    for one in pairs:
        by_run.setdefault(one["run"], []).append(one)
    lost = {rule: [] for rule in rules}
    collapsed = dict.fromkeys(rules, 0)
    for ones in by_run.values():
        start = {
            **ones[0],
            "after": ones[0]["before"],
            "miou": ones[0]["start_miou"],
            "is_final": False,
        }
        best = max(one["miou"] for one in (start, *ones))
        for rule, key in rules.items():
            chosen = max((start, *ones), key=key)
            lost[rule].append(best - chosen["miou"])
            collapsed[rule] += chosen["miou"] < start["miou"] - 10
    several = [len(ones) + 1 for ones in by_run.values()]
    print(
        f"choice within {len(by_run)} held-out runs of {min(several)} to {max(several)}"
        " checkpoints, the start among them:"
    )
    for rule, values in lost.items():
        how = (
            f"{statistics.fmean(values):.2f} points below the best (most {max(values):.1f}),"
            f" {collapsed[rule]} collapsed"
        )
        print(f"  {rule}: {how}")
    across: dict[str, list[dict]] = {}
    for one in pairs:
        if one["is_final"]:
            across.setdefault(one["start"], []).append(one)
    print("choice among all runs of one start (methods and settings):")
    for start, ones in sorted(across.items()):
        if len(ones) > 3:
            best = max(one["miou"] for one in ones)
            picks = {
                rule: max(ones, key=key)["miou"] for rule, key in rules.items() if rule != "last"
            }
            shown = ", ".join(f"{rule} {value:.1f}" for rule, value in picks.items())
            print(
                f"  {start}: {len(ones)} runs, best {best:.1f}, {shown}, start"
                f" {ones[0]['start_miou']:.1f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(required=True)
    one = parts.add_parser("measure")
    one.add_argument("cache", type=Path)
    one.add_argument("runs", nargs="+", type=Path)
    one.add_argument("--data-root", type=Path, required=True)
    one.set_defaults(run=measure)
    two = parts.add_parser("fit")
    two.add_argument("cache", type=Path)
    two.add_argument("--seeds", default="0,1")
    two.add_argument("--on", default="", help="only runs whose start's path holds one of these")
    two.set_defaults(run=fit)
    three = parts.add_parser("leave-out")
    three.add_argument("cache", type=Path)
    three.add_argument(
        "pairs", help="parts of the runs' paths, one for each pair of domains: kitti,iddlite,camvid"
    )
    three.set_defaults(run=leave_out)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
