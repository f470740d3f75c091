"""Malformed manifests, checkpoints and run folders."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from tests.trust.images import flipped
from tests.trust.world import Case, World, call, clear, nothing_half_written


def cases(world: World) -> Iterator[Case]:
    for part in (manifests, checkpoints, run_folders):
        yield from part(world)


# Manifests


def manifests(world: World) -> Iterator[Case]:
    source = world.data / "playground-street"
    elsewhere = world.root / "elsewhere"
    whole = json.loads((source / "manifest.json").read_text())

    def first(tree: dict, **values) -> dict:
        tree["splits"]["val"][0] |= values
        return tree

    def without(key: str):
        return lambda tree: {k: v for k, v in tree.items() if k != key}

    changes: dict[str, Callable[[dict], object]] = {
        f"without {key}": without(key)
        for key in ("format", "version", "dataset", "classes", "splits")
    }
    changes |= {
        "a list": lambda t: [t],
        "null": lambda t: None,
        "a number": lambda t: 5,
        "version 99": lambda t: t | {"version": 99},
        "splits a list": lambda t: t | {"splits": []},
        "splits null": lambda t: t | {"splits": None},
        "split a word": lambda t: t | {"splits": {"val": "x"}},
        "split of words": lambda t: t | {"splits": {"val": ["x"]}},
        "split empty": lambda t: t | {"splits": {"val": []}},
        "item without image": lambda t: t | {"splits": {"val": [{"name": "a"}]}},
        "image ..": lambda t: first(t, image="../../../etc/passwd"),
        "label ..": lambda t: first(t, label="../x.png"),
        "image absolute": lambda t: first(t, image="/etc/passwd"),
        "image a number": lambda t: first(t, image=5),
        "image null": lambda t: first(t, image=None),
        "image missing": lambda t: first(t, image="images/val/nope.bmp"),
        "image a folder": lambda t: first(t, image="images"),
        "label missing": lambda t: first(t, label="labels/nope.png"),
        "label null": lambda t: first(t, label=None),
        "counts a word": lambda t: first(t, counts="x"),
        "name ..": lambda t: first(t, name="../../evil"),
        "name absolute": lambda t: first(t, name=str(elsewhere / "evil")),
        "name a number": lambda t: first(t, name=5),
        "classes a word": lambda t: t | {"classes": "x"},
        "classes of other number": lambda t: (
            t | {"classes": {"names": ["a", "b"], "palette": [[1, 2, 3], [4, 5, 6]]}}
        ),
        "palette short": lambda t: t | {"classes": t["classes"] | {"palette": [[1, 2, 3]]}},
        "palette words": lambda t: t | {"classes": t["classes"] | {"palette": [["a"] * 3] * 19}},
        "dataset a number": lambda t: t | {"dataset": 5},
    }

    def case(name: str, content: bytes) -> None:
        folder = world.folder("manifest")
        shutil.copytree(source, folder / "data")
        (folder / "data/manifest.json").write_bytes(content)
        done = call(
            "evaluate",
            world.checkpoint,
            "--data",
            folder / "data",
            "--save-predictions",
            folder / "out/saved",
        )
        clear(done, (1,), str(folder / "data"))
        nothing_half_written(folder)
        outside = {path.name for path in folder.iterdir()} - {"data", "out"}
        assert not outside and not elsewhere.exists(), f"written outside: {outside or elsewhere}"

    for name, change in changes.items():
        content = json.dumps(change(json.loads(json.dumps(whole)))).encode()
        yield f"manifest {name}", lambda n=name, c=content: case(n, c)
    text = json.dumps(whole).encode()
    for name, content in {
        "empty": b"",
        "cut": text[:200],
        "bytes": bytes(range(256)),
        "deep": b"[" * 100000,
    }.items():
        yield f"manifest {name}", lambda n=name, c=content: case(n, c)
    yield "manifest: image is a link out of the folder", lambda: link_out(world, source)
    yield "manifest: label damaged", lambda: damaged(world, source, "label")
    yield "manifest: image damaged", lambda: damaged(world, source, "image")


def file_of(data: Path, part: str) -> Path:
    """The first image or label of a prepared data set's split val."""
    manifest = json.loads((data / "manifest.json").read_text())
    return data / manifest["splits"]["val"][0][part]


def link_out(world: World, source: Path) -> None:
    folder = world.folder("linkout")
    shutil.copytree(source, folder / "data")
    image = file_of(folder / "data", "image")
    image.rename(folder / "secret.bmp")
    image.symlink_to(folder / "secret.bmp")
    clear(call("evaluate", world.checkpoint, "--data", folder / "data"), (1,), "outside its folder")


def damaged(world: World, source: Path, part: str) -> None:
    folder = world.folder("damaged")
    shutil.copytree(source, folder / "data")
    path = file_of(folder / "data", part)
    path.write_bytes(path.read_bytes()[:40])
    clear(call("evaluate", world.checkpoint, "--data", folder / "data"), (1,), path.name)


# Checkpoints


class Evil:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def checkpoints(world: World) -> Iterator[Case]:
    whole = torch.load(world.checkpoint, weights_only=True)
    data = world.checkpoint.read_bytes()

    def change(**values) -> bytes:
        return saved({**whole, **values})

    def saved(content) -> bytes:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()

    def inside(*keys: str, value) -> bytes:
        tree = json.loads(json.dumps(whole["preset"]))
        node = tree
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value
        return change(preset=tree)

    def rule(**values) -> bytes:
        return change(input=whole["input"] | values)

    weights = whole["model"]
    key = next(iter(k for k, v in weights.items() if v.ndim == 4))
    files = {
        "empty": b"",
        "text": b"hello",
        "zip without anything": zipped({}),
        "zip with text": zipped({"a": b"b"}),
        "bytes": bytes(5000),
        "a list": saved([1, 2]),
        "a tensor": saved(torch.ones(3)),
        "a number": saved(5),
        "another format": change(format="x"),
        "version 99": change(version=99),
        "only weights": saved(dict(weights)),
        "no weights": saved({k: v for k, v in whole.items() if k != "model"}),
        "weights a list": change(model=[1]),
        "weights null": change(model=None),
        "one weight missing": change(model={k: v for k, v in weights.items() if k != key}),
        "one weight more": change(model={**weights, "x.y": torch.ones(1)}),
        "one of another shape": change(model={**weights, key: torch.ones(2, 2)}),
        "one a word": change(model={**weights, key: "x"}),
        "complex": change(model={**weights, key: weights[key].to(torch.complex64)}),
        "no classes": saved({k: v for k, v in whole.items() if k != "classes"}),
        "classes a word": change(classes="x"),
        "classes fewer": change(classes={"names": ["a"], "palette": [[1, 2, 3]]}),
        "palette fewer": change(classes=whole["classes"] | {"palette": [[0, 0, 0]]}),
        "palette words": change(classes=whole["classes"] | {"palette": [["a", "b", "c"]] * 19}),
        "no preset": saved({k: v for k, v in whole.items() if k != "preset"}),
        "preset a list": change(preset=[]),
        "backbone unknown": inside("model", "backbone", value="vgg16"),
        "backbone a path": inside("model", "backbone", value="../../x"),
        "width 0": inside("model", "width", value=0),
        "width huge": inside("model", "width", value=10**9),
        "stride 7": inside("model", "output_stride", value=7),
        "size a word": rule(size="x"),
        "size 0": rule(size=[0, 0]),
        "size of three": rule(size=[64, 32, 1]),
        "size huge": rule(size=[10**9, 32]),
        "resample unknown": rule(resample="magic"),
        "trained on nothing": rule(trained_on=[0, 5]),
        "input a list": change(input=[1]),
        "input more": rule(extra=1),
        "nan": change(model={**weights, key: weights[key] * float("nan")}),
        "infinite": change(model={**weights, key: weights[key] + float("inf")}),
        "eps a word": inside("model", "batch_norm_eps", value="x"),
        "eps negative": inside("model", "batch_norm_eps", value=-1),
        "classes twice": change(classes=whole["classes"] | {"names": ["road"] * 19}),
    }
    files |= {f"cut at {tenth}0 %": data[: len(data) * tenth // 10] for tenth in range(1, 10)}

    def case(content: bytes, codes=(1, 2)) -> None:
        folder = world.folder("checkpoint")
        (folder / "c.pth").write_bytes(content.replace(b"EVILPLACE", str(folder / "evil").encode()))
        photo = next((world.raw / "street/leftImg8bit/val").rglob("*.png"))
        done = call("predict", folder / "c.pth", photo, "--out", folder / "out")
        clear(done, codes)
        if done.code:
            named = ("c.pth", "model.", "weights or norm statistics are damaged")
            assert any(words in done.err for words in named), done.err
        nothing_half_written(folder)

    for name, content in files.items():
        yield f"checkpoint {name}", lambda c=content: case(c)
    for seed in range(20):
        yield f"checkpoint flipped {seed}", lambda c=flipped(data, seed, 40): case(c, (0, 1, 2))
    for name, make in {
        "pickle": lambda path: pickle.dumps(Evil(path)),
        "torch.save": lambda path: saved({"format": "fgda-checkpoint", "x": Evil(path)}),
        "old torch.save": lambda path: legacy(Evil(path)),
        "pickle in a zip": lambda path: zipped({"a/data.pkl": pickle.dumps(Evil(path))}),
        "in a weight": lambda path: change(model={**weights, "x": Evil(path)}),
    }.items():
        for command in ("predict", "evaluate", "import", "adapt", "export", "compare"):
            yield f"malicious {name} to {command}", lambda m=make, c=command: malicious(world, m, c)
    yield (
        "checkpoint a folder",
        lambda: clear(
            call("predict", world.folder("f"), world.raw, "-r", "--out", world.folder("o")),
            (1,),
            "is a folder",
        ),
    )


def legacy(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def malicious(world: World, make: Callable[[Path], bytes], command: str) -> None:
    folder = world.folder("malicious")
    path = folder / "c.pth"
    evil = folder / "evil"
    path.write_bytes(make(evil))
    photo = next((world.raw / "street/leftImg8bit/val").rglob("*.png"))
    arguments = {
        "predict": (path, photo, "--out", folder / "o"),
        "evaluate": (path, "--data-root", world.data),
        "import": (path, "--out", folder / "o.pth"),
        "export": (path, "--out", folder / "o.onnx"),
        "adapt": ("--init", path, "--out", folder / "run", *world.train_flags()),
        "compare": (path, "--images", photo, "--out", folder / "o.png"),
    }[command]
    clear(call(command, *arguments), (1,), "c.pth")
    assert not evil.exists(), "the file's code was run"


# Run folders


def run_folders(world: World) -> Iterator[Case]:
    def case(name: str, content: bytes, codes: tuple[int, ...]) -> None:
        folder = world.folder("run") / "run"
        shutil.copytree(world.checkpoint.parent.parent, folder)
        (folder / "checkpoints/final.pth").unlink()
        (folder / name).write_bytes(content)
        clear(call("pretrain", "--out", folder, *world.train_flags()), codes)
        nothing_half_written(folder)

    last = (world.checkpoint.parent / "last.pth").read_bytes()
    logs = (world.checkpoint.parent.parent / "metrics.jsonl").read_bytes()
    for what, name, content, codes in (
        ("preset.yaml empty", "preset.yaml", b"", (1, 2)),
        ("preset.yaml cut", "preset.yaml", b"name: [", (1, 2)),
        ("preset.yaml bytes", "preset.yaml", bytes(range(256)), (1, 2)),
        ("preset.yaml a list", "preset.yaml", b"- 1", (1, 2)),
        ("last.pth empty", "checkpoints/last.pth", b"", (1,)),
        ("last.pth cut", "checkpoints/last.pth", last[:5000], (1,)),
        ("last.pth text", "checkpoints/last.pth", b"x", (1,)),
        ("last.pth is a final.pth", "checkpoints/last.pth", world.checkpoint.read_bytes(), (1,)),
        ("metrics cut", "metrics.jsonl", logs[:-20], (0,)),
        ("metrics bytes", "metrics.jsonl", bytes(range(256)), (0, 1)),
        ("metrics of lists", "metrics.jsonl", b"[1]\n5\nnull\n", (0,)),
    ):
        yield f"run folder: {what}", lambda n=name, c=content, k=codes: case(n, c, k)
    for what, content in {
        "words": b"x\n",
        "lists": b"[1]\n",
        "bytes": bytes(range(256)),
        "texts": b'{"iteration": "a", "seg": "b"}\n',
        "nested": b'{"iteration": 1, "seg": {"a": 1}, "lr": 5, "validation": []}\n',
    }.items():
        yield f"report of metrics with {what}", lambda c=content: report(world, c)


def report(world: World, content: bytes) -> None:
    folder = world.folder("report") / "run"
    shutil.copytree(world.checkpoint.parent.parent, folder)
    (folder / "metrics.jsonl").write_bytes(content)
    clear(call("report", folder), (1,), "metrics.jsonl")
    assert not (folder / "report.html").exists()
