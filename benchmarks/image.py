"""The Dockerfile's steps in a clean root, where no container engine is at hand (Debian or Ubuntu,
as root).

    python benchmarks/image.py --root /tmp/image-root            # debootstrap makes the root; about
    five minutes python benchmarks/image.py --root /tmp/image-root --keep     # run again in what is
    there

Reads the Dockerfile: ARG and ENV are set, COPY copies from the checkout, RUN runs by bash in a
chroot as it is, USER is tried at the end by `fgda doctor`. This machine's certificates and its
settings of pip (a mirror) are used in the root. `--torch-index` is the ARG of that name: PyPI,
unless another is given.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--suite", default="bookworm")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian")
    parser.add_argument("--torch-index", default="https://pypi.org/simple")
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("chroot needs root")
    if not arguments.keep:
        subprocess.run(
            [
                "debootstrap",
                "--variant=minbase",
                arguments.suite,
                str(arguments.root),
                arguments.mirror,
            ],
            check=True,
        )
    for name in ("/etc/resolv.conf", "/etc/hosts"):
        if Path(name).is_file():
            copy(Path(name), arguments.root / name.lstrip("/"), into=False)
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
    }
    environment |= {
        key: value
        for key, value in os.environ.items()
        if key.startswith("PIP_") and key != "PIP_FIND_LINKS"
    }
    certificates = Path(os.environ.get("PIP_CERT", ""))
    # under a name that no package writes over
    if certificates.is_file():
        copy(certificates, arguments.root / "opt/certificates.pem", into=False)
        environment["PIP_CERT"] = "/opt/certificates.pem"
    user = "0"
    for word, rest in steps((HERE / "Dockerfile").read_text()):
        rest = filled(rest, environment) if word in ("ARG", "ENV") else rest
        if word == "ARG":
            name, _, value = rest.partition("=")
            environment[name] = arguments.torch_index if name == "TORCH_INDEX" else value
        elif word == "ENV":
            environment |= dict(part.partition("=")[::2] for part in shlex.split(rest))
        elif word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                copy(HERE / source, arguments.root / target.lstrip("/"), target.endswith("/"))
        elif word == "RUN":
            inside(arguments.root, environment, ["/bin/bash", "-o", "pipefail", "-ec", rest])
        elif word == "USER":
            user = rest
            accounts = (
                line.split(":") for line in (arguments.root / "etc/passwd").read_text().splitlines()
            )
            environment["HOME"] = next(
                (account[5] for account in accounts if user in (account[0], account[2])), "/"
            )
        elif word == "WORKDIR":
            (arguments.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
    inside(arguments.root, environment, ["fgda", "doctor"], user)
    print("every step of the Dockerfile ran")


def filled(text: str, environment: dict[str, str]) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda found: environment.get(found[1], ""), text)


def steps(text: str) -> list[tuple[str, str]]:
    """Instructions and what follows them; comments and continued lines are resolved."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def copy(source: Path, target: Path, into: bool) -> None:
    place = target / source.name if into else target
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(
            source, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    else:
        shutil.copyfile(source, place)


def inside(root: Path, environment: dict[str, str], command: list[str], user: str = "0") -> None:
    print("RUN", " ".join(command)[:150], flush=True)
    done = subprocess.run(["chroot", f"--userspec={user}", str(root), *command], env=environment)
    if done.returncode:
        sys.exit(f"failed: {command}")


if __name__ == "__main__":
    main()
