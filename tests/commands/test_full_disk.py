"""Where the system writes no more, each command says in a line which file, and leaves nothing
half-written.

The other commands are cases of the faults (`make trust`).
"""

from contextlib import contextmanager

import pytest

from tests.helpers import fgda, needs, set_flags

resource = pytest.importorskip("resource")  # not on Windows

# bytes a file may have
LIMIT = 10_000


@contextmanager
def files_at_most(size: int):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "command, named",
    [
        pytest.param(
            "export CKPT --size 64x32 --out OUT/m.onnx",
            "m.onnx",
            marks=needs("onnx", "onnxscript", "onnxruntime"),
        ),
        ("export CKPT --size 64x32 --format torchscript --out OUT/m.pt", "m.pt"),
        ("predict CKPT PHOTOS -r --out OUT", ""),
        ("adapt --method cycada --init CKPT TRAINING --out OUT", "state.pth"),
        ("adapt --init CKPT TRAINING --out OUT", "last.pth"),
    ],
)
def test_the_file_is_named(command, named, trained, data_root, raw_playground, tmp_path):
    words = {
        "CKPT": trained,
        "OUT": tmp_path / "out",
        "PHOTOS": raw_playground / "street/leftImg8bit",
    }
    for word, path in words.items():
        command = command.replace(word, str(path))
    small = (
        ("method.translation_channels=4", "method.translation_crop=32")
        if "cycada" in command
        else ()
    )
    training = ["--data-root", str(data_root), "--device", "cpu", *set_flags(*small)]
    arguments = [
        part for word in command.split() for part in (training if word == "TRAINING" else [word])
    ]
    with files_at_most(LIMIT):
        done = fgda(*arguments)
    last = done.stderr.splitlines()[-1]
    assert (
        done.returncode == 1
        and last.startswith("fgda: cannot write ")
        and "Traceback" not in done.stderr
    ), done.stderr
    assert str(tmp_path) in last and named in last, last
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".part"]
