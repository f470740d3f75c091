"""What benchmarks of one step share: each subject in a process of its own, so that its peak memory
is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable


def size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(width), int(height)


def step_parser(description: str, side: tuple[int, int], batch: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=size, default=side, metavar="WxH")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser


def told(arguments: argparse.Namespace, measure: Callable) -> bool:
    """In the process of one subject: measure it, print the JSON that `ask` reads."""
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments)))
    return bool(arguments.one)


def ask(script: str, name: str) -> dict:
    """What `script`, with this process's options, measures of one subject. Ends the benchmark where
    that fails.
    """
    done = subprocess.run(
        [sys.executable, script, *sys.argv[1:], "--one", name], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


# Settings of a method's parts that need weights or are large: random and small ones.
SMALL = {"vfmuda": {"distil_model": "timm:vit_tiny_patch16_224", "distil_weights": "none"}}


def with_random_foundation(method):
    """The method, its foundation model random where it has one, as if `before_training` had loaded
    it.
    """
    import torch

    from fgda_cli.training.memory import give_random_foundation

    give_random_foundation(method, torch.device("cpu"))
    return method


def peak_memory() -> float:
    """Of this process so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
