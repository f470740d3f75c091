"""Malformed input: images, labels, presets, manifests, checkpoints, run folders, names and words. Every case ends in a
clear line and the right code, or works; nothing is left half-written, and no code from a file is run."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from trust_world import Done, World, call, clear, nothing_half_written

from fgda_cli.config.presets import valid_keys
from fgda_cli.methods.registry import method_class, method_names

Case = tuple[str, Callable[[], None]]


def cases(world: World) -> Iterator[Case]:
    for part in (images, labels, presets, mappings, manifests, checkpoints, run_folders, names, words):
        yield from part(world)


# Images


def encoded(mode: str, kind: str, size=(40, 30), **how) -> bytes:
    rng, buffer = np.random.default_rng(0), io.BytesIO()
    noise = rng.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    if mode in ("I;16", "I", "F"):
        values = rng.integers(0, 65536, (size[1], size[0]))
        picture = Image.fromarray(values.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
    else:
        picture = Image.fromarray(noise, "RGBA").convert(mode)
    picture.save(buffer, kind, **how)
    return buffer.getvalue()


def good_images() -> dict[str, bytes]:
    """Odd but readable files; each must be predicted at its own size."""
    found = {f"{mode}.{kind}": encoded(mode, kind.upper().replace("TIF", "TIFF")) for mode, kind in (
        ("RGB", "png"), ("RGBA", "png"), ("L", "png"), ("LA", "png"), ("P", "png"), ("1", "png"), ("I;16", "png"), ("I", "tif"),
        ("F", "tif"), ("RGB", "tif"), ("CMYK", "tif"), ("RGB", "bmp"), ("L", "bmp"), ("RGB", "webp"), ("RGBA", "webp"),
        ("RGB", "ppm"))}  # fmt: skip
    found |= {f"{mode}.jpg": encoded(mode, "JPEG") for mode in ("RGB", "L", "CMYK")}
    found |= {f"{w}x{h}.png": encoded("RGB", "PNG", (w, h)) for w, h in ((1, 1), (1, 300), (300, 1), (2, 3), (5000, 2))}
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        found[f"exif{turn}.jpg"] = encoded("RGB", "JPEG", exif=exif)
    found["wrong_suffix.jpg"] = encoded("RGB", "PNG")
    found["UPPER.PNG"] = encoded("RGB", "PNG")
    found["progressive.jpg"] = encoded("RGB", "JPEG", progressive=True)
    found["rgb16.png"] = rgb16_png()
    return found


def rgb16_png() -> bytes:
    import cv2

    return cv2.imencode(".png", np.random.default_rng(0).integers(0, 65536, (30, 40, 3)).astype(np.uint16))[1].tobytes()


def bad_images() -> dict[str, bytes]:
    found = {"empty.png": b"", "text.png": b"hello", "html.jpg": b"<html></html>", "zeros.png": bytes(5000), "svg.png": b"<svg/>",
             "gzip.png": b"\x1f\x8b" + bytes(50), "header.png": b"\x89PNG\r\n\x1a\n", "huge_claim.png": huge_claim()}  # fmt: skip
    for kind, suffix in (("PNG", "png"), ("JPEG", "jpg"), ("BMP", "bmp"), ("TIFF", "tif"), ("WEBP", "webp"), ("PPM", "ppm")):
        whole = encoded("RGB", kind)
        for tenth in (1, 3, 5, 8):
            found[f"cut{tenth}.{suffix}"] = whole[: len(whole) * tenth // 10]
    return found


def huge_claim() -> bytes:
    """A PNG whose header promises 60,000 x 60,000 pixels."""
    import struct
    import zlib

    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def flipped(content: bytes, seed: int, most: int = 12) -> bytes:
    rng, data = random.Random(seed), bytearray(content)
    for _ in range(rng.randint(1, most)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def predict_one(world: World, name: str, content: bytes, codes: tuple[int, ...]) -> Done:
    folder = world.folder("image")
    (folder / name).write_bytes(content)
    done = call("predict", world.checkpoint, folder / name, "--out", folder / "out", "--save", "ids,overlay")
    clear(done, codes)
    nothing_half_written(folder)
    written = list((folder / "out").glob("*_ids.png"))
    assert bool(written) == (done.code == 0), f"code {done.code}, but files {written}"
    if done.code:
        assert name in done.err, done.err
    else:
        with Image.open(io.BytesIO(content)) as image:
            turned = image.getexif().get(0x0112, 1) >= 5
            size = image.size[::-1] if turned else image.size
        assert Image.open(written[0]).size == size, f"{Image.open(written[0]).size}, not {size}"
    return done


def images(world: World) -> Iterator[Case]:
    for name, content in good_images().items():
        yield f"image {name}", lambda n=name, c=content: predict_one(world, n, c, (0,))
    for name, content in bad_images().items():
        yield f"image {name}", lambda n=name, c=content: predict_one(world, n, c, (1,))
    for kind, suffix in (("PNG", "png"), ("JPEG", "jpg"), ("BMP", "bmp"), ("TIFF", "tif"), ("WEBP", "webp")):
        for seed in range(8):
            content = flipped(encoded("RGB", kind), seed)
            yield f"image flipped{seed}.{suffix}", lambda n=f"f{seed}.{suffix}", c=content: predict_or_refuse(world, n, c)
    yield "image 12,000 x 8,000", lambda: predict_one(world, "large.jpg", large_jpeg(), (0,))
    yield "image that is a named pipe", lambda: pipe(world)
    yield "image that is a broken link", lambda: link(world, "nowhere.png")
    yield "image that links to itself", lambda: link(world, "a.png")


def predict_or_refuse(world: World, name: str, content: bytes) -> None:
    """Flipped bytes: a decoder may read them or not, and may read another size."""
    folder = world.folder("flip")
    (folder / name).write_bytes(content)
    done = call("predict", world.checkpoint, folder / name, "--out", folder / "out", "--save", "ids")
    clear(done, (0, 1))
    nothing_half_written(folder)


def large_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (12000, 8000), (90, 120, 80)).save(buffer, "JPEG")
    return buffer.getvalue()


def pipe(world: World) -> None:
    folder = world.folder("pipe")
    os.mkfifo(folder / "a.png")
    clear(call("predict", world.checkpoint, folder / "a.png", "--out", folder / "out"), (1,), "a.png")
    clear(call("predict", world.checkpoint, folder, "--out", folder / "out"), (1,), "holds no image")


def link(world: World, target: str) -> None:
    folder = world.folder("link")
    (folder / "a.png").symlink_to(folder / target)
    clear(call("predict", world.checkpoint, folder / "a.png", "--out", folder / "out"), (1,), "a.png")


# Labels


def labels(world: World) -> Iterator[Case]:
    size = (256, 128)
    grey = np.full((128, 256), 7, np.uint8)
    files = {
        "empty": b"", "text": b"no", "cut": encoded("L", "PNG", size)[:800], "noise ids": encoded("L", "PNG", size),
        "jpeg inside": encoded("L", "JPEG", size), "other size": png(grey[:64]), "unknown colours": encoded("RGB", "PNG", size),
        "rgba": encoded("RGBA", "PNG", size), "16 bit": png(np.full((128, 256), 300, np.uint16)), "float": encoded("F", "TIFF", size),
        "1x1": png(grey[:1, :1]), "zeros": bytes(3000), "one bad id": png(np.where(np.arange(256) == 9, 99, grey).astype(np.uint8)),
        "grey and alpha": encoded("LA", "PNG", size),
    }  # fmt: skip
    for kind in ("gta5", "cityscapes", "synthia", "folder"):
        for name, content in files.items():
            if kind == "synthia" and name in ("16 bit", "noise ids", "one bad id"):
                continue  # legal there: unknown ids are ignored
            if name == "jpeg inside" and kind != "folder":
                continue  # named .png, so it may pass for noise ids; refused as those
            yield f"label of {kind}: {name}", lambda k=kind, c=content: label(world, k, c)


def png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def label(world: World, kind: str, content: bytes) -> None:
    """Two pairs, the second label malformed: one is prepared, the other refused by name."""
    folder, image = world.folder("label"), encoded("RGB", "PNG", (256, 128))
    good = np.full((128, 256), 7, np.uint8)
    good[0] = 26  # which no train id is: what the ids mean is clear
    good = png(good)
    places = {
        "gta5": ("images/{}.png", "labels/{}.png"), "synthia": ("RGB/{}.png", "GT/LABELS/{}.png"),
        "cityscapes": ("leftImg8bit/val/x/x_{}_000019_leftImg8bit.png", "gtFine/val/x/x_{}_000019_gtFine_labelIds.png"),
        "folder": ("images/{}.png", "labels/{}.png"),
    }[kind]  # fmt: skip
    if kind == "synthia":
        import cv2

        good = cv2.imencode(".png", np.full((128, 256, 3), 3, np.uint16))[1].tobytes()
    for number, text in (("000001", good), ("000002", content)):
        for place, data in zip(places, (image, text), strict=True):
            path = folder / "raw" / place.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    own = ("--images", folder / "raw/images", "--labels", folder / "raw/labels", "--name", "folder")
    where = own if kind == "folder" else ("--root", folder / "raw")
    done = call("prepare", kind, *where, "--out", folder / "out", "--size", "64x32", "--workers", 1)
    clear(done, (0,))
    problems = json.loads((folder / "out" / kind / "problems.json").read_text())
    assert len(problems) == 1 and "000002" in problems[0]["file"] and problems[0]["reason"], problems
    assert "1 refused" in done.out
    nothing_half_written(folder)


# Presets, mappings


def presets(world: World) -> Iterator[Case]:
    texts = {
        "empty": "", "a list": "- a\n- b\n", "a word": "hello", "tabs": "data:\n\tsource: x\n", "unclosed": "data: {source: [1, 2\n",
        "python object": "extends: playground\nname: !!python/object/apply:os.system ['touch {evil}']\n",
        "python name": "extends: playground\nrun: {seed: !!python/name:os.system }\n", "unknown tag": "extends: playground\nname: !x y\n",
        "two documents": "extends: playground\n---\nextends: base\n", "twice": "extends: playground\nrun: {seed: 1}\nrun: {seed: 2}\n",
        "itself": "extends: preset.yaml\n", "no parent": "extends: nothing\n", "list parent": "extends: [playground]\n",
        "parent elsewhere": "extends: ../../../etc/passwd\n", "billion laughs": laughs(), "deep": "a: " + "[" * 3000 + "]" * 3000,
        "nan": "extends: playground\noptim: {lr: .nan}\n", "infinite": "extends: playground\noptim: {lr: .inf}\n",
        "huge": "extends: playground\noptim: {lr: 1e400}\n", "negative": "extends: playground\noptim: {lr: -1}\n",
        "long number": "extends: playground\nrun: {seed: " + "9" * 5000 + "}\n", "date": "extends: playground\nrun: {seed: 2020-01-01}\n",
        "null section": "extends: playground\ndata: null\n", "number section": "extends: playground\nmodel: 5\n",
        "number key": "extends: playground\n5: 6\n", "mapping key": "extends: playground\n? {a: b}\n: c\n",
        "method list": "extends: playground\nmethod: [fgda]\n", "methods word": "extends: playground\nmethods: fgda\n",
        "methods unknown": "extends: playground\nmethods: {nope: {x: 1}}\n", "binary": "extends: \x00\x01", "merge": "<<: 5\n",
    }  # fmt: skip
    for name, text in texts.items():
        yield f"preset {name}", lambda t=text: preset(world, t.encode())
    yield "preset of bytes", lambda: preset(world, bytes(range(256)))
    keys = {**valid_keys(), **valid_keys(method_class("fgda-st").Settings, "method.")}
    for key in keys:
        if key in ("name", "method", "method.name"):
            continue
        yield f"preset {key}: a mapping", lambda k=key: preset(world, nested(k, {"x": 1}), k.split(".")[-1])
        yield f"preset {key}: nonsense", lambda k=key: preset_value(world, k)
    for method in method_names():
        yield f"preset method {method}: unknown key", lambda m=method: clear(
            call("adapt", "--method", m, "--set", "method.no_such_key=1"), (2,), "no_such_key")  # fmt: skip


def laughs() -> str:
    lines = ["extends: playground", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 9)]
    return "\n".join(lines)


def nested(key: str, value) -> bytes:
    tree = value
    for part in reversed(key.split(".")):
        tree = {part: tree}
    if "method" in tree:
        tree["method"]["name"] = "fgda-st"  # which has all these keys
    return yaml.safe_dump({"extends": "playground", **tree}).encode()


def preset(world: World, content: bytes, *parts: str) -> None:
    folder = world.folder("preset")
    path, evil = folder / "preset.yaml", folder / "evil"
    path.write_bytes(content.replace(b"{evil}", str(evil).encode()))
    done = call("adapt", "--preset", path, "--out", folder / "run")
    clear(done, (2,), *parts)
    assert not evil.exists() and not (folder / "run").exists()


def preset_value(world: World, key: str) -> None:
    """A text where none fits; keys that take any text are refused for what it names, if at all here."""
    done = call("pretrain", "--set", f"{key}=[[nonsense]]", "--data-root", world.folder("none"))
    clear(done, (2,), key.split(".")[-1])


def mappings(world: World) -> Iterator[Case]:
    texts = {"a list": "- 1", "unknown class": "7: rode", "word key": "seven: road", "python": "7: !!python/object/apply:os.getcwd []",
             "tabs": "7:\troad\n\t8: x", "colour of two": "[1, 2]: road", "nested": "7: {a: b}", "classes a number": "classes: 5\n7: 5",
             "colour of words": "[a, b, c]: road", "list class": "7: [road]", "bytes": "\x00", "half a colour": "[1, 2, null]: road",
             "empty classes": "classes: []\n7: road", "float": "7.5: road"}  # fmt: skip

    def case(text: str) -> None:
        folder = world.folder("mapping")
        (folder / "map.yaml").write_text(text)
        game = world.raw / "game"
        done = call("prepare", "folder", "--images", game / "images", "--labels", game / "labels", "--mapping", folder / "map.yaml",
                    "--name", "x", "--out", folder / "out", "--size", "64x32", "--workers", 1)  # fmt: skip
        clear(done, (1, 2))
        nothing_half_written(folder)

    yield from ((f"mapping {name}", lambda t=text: case(t)) for name, text in texts.items())


# Manifests


def manifests(world: World) -> Iterator[Case]:
    source, elsewhere = world.data / "playground-street", world.root / "elsewhere"
    whole = json.loads((source / "manifest.json").read_text())

    def first(tree: dict, **values) -> dict:
        tree["splits"]["val"][0] |= values
        return tree

    def without(key: str):
        return lambda tree: {k: v for k, v in tree.items() if k != key}

    changes: dict[str, Callable[[dict], object]] = {
        f"without {key}": without(key) for key in ("format", "version", "dataset", "classes", "splits")
    }
    changes |= {
        "a list": lambda t: [t], "null": lambda t: None, "a number": lambda t: 5, "version 99": lambda t: t | {"version": 99},
        "splits a list": lambda t: t | {"splits": []}, "splits null": lambda t: t | {"splits": None},
        "split a word": lambda t: t | {"splits": {"val": "x"}}, "split of words": lambda t: t | {"splits": {"val": ["x"]}},
        "split empty": lambda t: t | {"splits": {"val": []}}, "item without image": lambda t: t | {"splits": {"val": [{"name": "a"}]}},
        "image ..": lambda t: first(t, image="../../../etc/passwd"), "label ..": lambda t: first(t, label="../x.png"),
        "image absolute": lambda t: first(t, image="/etc/passwd"), "image a number": lambda t: first(t, image=5),
        "image null": lambda t: first(t, image=None), "image missing": lambda t: first(t, image="images/val/nope.bmp"),
        "image a folder": lambda t: first(t, image="images"), "label missing": lambda t: first(t, label="labels/nope.png"),
        "label null": lambda t: first(t, label=None), "counts a word": lambda t: first(t, counts="x"),
        "name ..": lambda t: first(t, name="../../evil"), "name absolute": lambda t: first(t, name=str(elsewhere / "evil")),
        "name a number": lambda t: first(t, name=5), "classes a word": lambda t: t | {"classes": "x"},
        "classes of other number": lambda t: t | {"classes": {"names": ["a", "b"], "palette": [[1, 2, 3], [4, 5, 6]]}},
        "palette short": lambda t: t | {"classes": t["classes"] | {"palette": [[1, 2, 3]]}},
        "palette words": lambda t: t | {"classes": t["classes"] | {"palette": [["a"] * 3] * 19}},
        "dataset a number": lambda t: t | {"dataset": 5},
    }  # fmt: skip

    def case(name: str, content: bytes) -> None:
        folder = world.folder("manifest")
        shutil.copytree(source, folder / "data")
        (folder / "data/manifest.json").write_bytes(content)
        done = call("evaluate", world.checkpoint, "--data", folder / "data", "--save-predictions", folder / "out/saved")
        clear(done, (1,), str(folder / "data"))
        nothing_half_written(folder)
        outside = {path.name for path in folder.iterdir()} - {"data", "out"}
        assert not outside and not elsewhere.exists(), f"written outside: {outside or elsewhere}"

    for name, change in changes.items():
        content = json.dumps(change(json.loads(json.dumps(whole)))).encode()
        yield f"manifest {name}", lambda n=name, c=content: case(n, c)
    text = json.dumps(whole).encode()
    for name, content in {"empty": b"", "cut": text[:200], "bytes": bytes(range(256)), "deep": b"[" * 100000}.items():
        yield f"manifest {name}", lambda n=name, c=content: case(n, c)
    yield "manifest: image is a link out of the folder", lambda: link_out(world, source)
    yield "manifest: label damaged", lambda: damaged(world, source, "labels")
    yield "manifest: image damaged", lambda: damaged(world, source, "images")


def link_out(world: World, source: Path) -> None:
    folder = world.folder("linkout")
    shutil.copytree(source, folder / "data")
    (folder / "secret.png").write_bytes(next((source / "images/val").rglob("*.png")).read_bytes())
    image = next((folder / "data/images/val").rglob("*.png"))
    image.unlink()
    image.symlink_to(folder / "secret.png")
    clear(call("evaluate", world.checkpoint, "--data", folder / "data"), (1,), "outside its folder")


def damaged(world: World, source: Path, part: str) -> None:
    folder = world.folder("damaged")
    shutil.copytree(source, folder / "data")
    path = next(p for p in (folder / "data" / part / "val").rglob("*") if p.is_file())
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

    def old(content: bytes) -> bytes:
        """The same without an input rule, as version 1 was."""
        tree = torch.load(io.BytesIO(content), weights_only=True)
        del tree["input"]
        return saved(tree | {"version": 1})

    weights = whole["model"]
    key = next(iter(k for k, v in weights.items() if v.ndim == 4))
    files = {
        "empty": b"", "text": b"hello", "zip without anything": zipped({}), "zip with text": zipped({"a": b"b"}), "bytes": bytes(5000),
        "a list": saved([1, 2]), "a tensor": saved(torch.ones(3)), "a number": saved(5), "another format": change(format="x"),
        "version 99": change(version=99), "only weights": saved(dict(weights)), "no weights": saved({k: v for k, v in whole.items() if k != "model"}),
        "weights a list": change(model=[1]), "weights null": change(model=None), "one weight missing": change(model={k: v for k, v in weights.items() if k != key}),
        "one weight more": change(model={**weights, "x.y": torch.ones(1)}), "one of another shape": change(model={**weights, key: torch.ones(2, 2)}),
        "one a word": change(model={**weights, key: "x"}), "complex": change(model={**weights, key: weights[key].to(torch.complex64)}),
        "no classes": saved({k: v for k, v in whole.items() if k != "classes"}), "classes a word": change(classes="x"),
        "classes fewer": change(classes={"names": ["a"], "palette": [[1, 2, 3]]}), "palette fewer": change(classes=whole["classes"] | {"palette": [[0, 0, 0]]}),
        "palette words": change(classes=whole["classes"] | {"palette": [["a", "b", "c"]] * 19}), "no preset": saved({k: v for k, v in whole.items() if k != "preset"}),
        "preset a list": change(preset=[]), "backbone unknown": inside("model", "backbone", value="vgg16"), "backbone a path": inside("model", "backbone", value="../../x"),
        "width 0": inside("model", "width", value=0), "width huge": inside("model", "width", value=10**9), "stride 7": inside("model", "output_stride", value=7),
        "size a word": rule(size="x"), "size 0": rule(size=[0, 0]), "size of three": rule(size=[64, 32, 1]), "size huge": rule(size=[10**9, 32]),
        "resample unknown": rule(resample="magic"), "trained on nothing": rule(trained_on=[0, 5]), "input a list": change(input=[1]),
        "input more": rule(extra=1), "old, size a word": old(inside("data", "evaluation", "size", value="x")),
        "old, no size": old(inside("data", "evaluation", value={})), "nan": change(model={**weights, key: weights[key] * float("nan")}),
        "infinite": change(model={**weights, key: weights[key] + float("inf")}), "eps a word": inside("model", "batch_norm_eps", value="x"),
        "eps negative": inside("model", "batch_norm_eps", value=-1), "classes twice": change(classes=whole["classes"] | {"names": ["road"] * 19}),
    }  # fmt: skip
    files |= {f"cut at {tenth}0 %": data[: len(data) * tenth // 10] for tenth in range(1, 10)}

    def case(content: bytes, codes=(1, 2)) -> None:
        folder = world.folder("checkpoint")
        (folder / "c.pth").write_bytes(content.replace(b"EVILPLACE", str(folder / "evil").encode()))
        photo = next((world.raw / "street/leftImg8bit/val").rglob("*.png"))
        done = call("predict", folder / "c.pth", photo, "--out", folder / "out")
        clear(done, codes)
        if done.code:
            assert "c.pth" in done.err or "model." in done.err, done.err
        nothing_half_written(folder)

    for name, content in files.items():
        yield f"checkpoint {name}", lambda c=content: case(c)
    for seed in range(20):
        yield f"checkpoint flipped {seed}", lambda c=flipped(data, seed, 40): case(c, (0, 1, 2))
    for name, make in {
        "pickle": lambda path: pickle.dumps(Evil(path)), "torch.save": lambda path: saved({"format": "fgda-checkpoint", "x": Evil(path)}),
        "old torch.save": lambda path: legacy(Evil(path)), "pickle in a zip": lambda path: zipped({"a/data.pkl": pickle.dumps(Evil(path))}),
        "in a weight": lambda path: change(model={**weights, "x": Evil(path)}),
    }.items():  # fmt: skip
        for command in ("predict", "evaluate", "import", "adapt", "export", "compare"):
            yield f"malicious {name} to {command}", lambda m=make, c=command: malicious(world, m, c)
    yield "checkpoint a folder", lambda: clear(
        call("predict", world.folder("f"), world.raw, "-r", "--out", world.folder("o")), (1,), "is a folder")  # fmt: skip


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
    path, evil = folder / "c.pth", folder / "evil"
    path.write_bytes(make(evil))
    photo = next((world.raw / "street/leftImg8bit/val").rglob("*.png"))
    arguments = {
        "predict": (path, photo, "--out", folder / "o"), "evaluate": (path, "--data-root", world.data),
        "import": (path, "--out", folder / "o.pth"), "export": (path, "--out", folder / "o.onnx"),
        "adapt": ("--init", path, "--out", folder / "run", *world.train_flags()),
        "compare": (path, "--inputs", photo, "--out", folder / "o.png"),
    }[command]  # fmt: skip
    clear(call(command, *arguments), (1,), "c.pth")
    assert not evil.exists(), "the file's code was run"


# Run folders, names, words


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
        ("preset.yaml empty", "preset.yaml", b"", (1, 2)), ("preset.yaml cut", "preset.yaml", b"name: [", (1, 2)),
        ("preset.yaml bytes", "preset.yaml", bytes(range(256)), (1, 2)), ("preset.yaml a list", "preset.yaml", b"- 1", (1, 2)),
        ("last.pth empty", "checkpoints/last.pth", b"", (1,)), ("last.pth cut", "checkpoints/last.pth", last[:5000], (1,)),
        ("last.pth text", "checkpoints/last.pth", b"x", (1,)), ("last.pth is a final.pth", "checkpoints/last.pth", world.checkpoint.read_bytes(), (1,)),
        ("metrics cut", "metrics.jsonl", logs[:-20], (0,)), ("metrics bytes", "metrics.jsonl", bytes(range(256)), (0, 1)),
        ("metrics of lists", "metrics.jsonl", b"[1]\n5\nnull\n", (0,)),
    ):  # fmt: skip
        yield f"run folder: {what}", lambda n=name, c=content, k=codes: case(n, c, k)
    for what, content in {"words": b"x\n", "lists": b"[1]\n", "bytes": bytes(range(256)), "texts": b'{"iteration": "a", "seg": "b"}\n',
                          "nested": b'{"iteration": 1, "seg": {"a": 1}, "lr": 5, "validation": []}\n'}.items():  # fmt: skip
        yield f"report of metrics with {what}", lambda c=content: report(world, c)


def report(world: World, content: bytes) -> None:
    folder = world.folder("report") / "run"
    shutil.copytree(world.checkpoint.parent.parent, folder)
    (folder / "metrics.jsonl").write_bytes(content)
    clear(call("report", folder), (1,), "metrics.jsonl")
    assert not (folder / "report.html").exists()


def names(world: World) -> Iterator[Case]:
    image = encoded("RGB", "PNG")
    for name in ("a b.png", "Zürich.png", "图片.png", "..png.png", "-x.png", "--help.png", "a'\".png", "new\nline.png", "%s%n.png",
                 "[glob].png", "*.png", "\U0001f697.png", "\x1b[31m.png", "x" * 240 + ".png", ".hidden.png"):  # fmt: skip
        yield f"file name {name[:20]!r}", lambda n=name: named(world, n, image)
    for name in ("../x", "/tmp/x", "..", ".", "a/b", ""):
        yield f"prepare --name {name!r}", lambda n=name: clear(
            call("prepare", "folder", "--images", world.raw / "game/images", "--name", n, "--out", world.folder("o")), (2, 0) if n == "" else (2,))  # fmt: skip
    yield "a folder that links out", lambda: linked_folder(world, image)
    for out in ("/proc/x/m.onnx", "/dev/null/m.onnx", "x" * 300 + ".onnx"):
        yield (
            f"export --out {out[:20]}",
            lambda o=out: clear(call("export", world.checkpoint, "--size", "64x32", "--out", o), (1,)),
        )
    for out in ("m.pt", "m", "m.ONNX.txt", ""):
        yield f"export --out {out!r}", lambda o=out: clear(call("export", world.checkpoint, "--out", o), (2,))


def named(world: World, name: str, image: bytes) -> None:
    folder = world.folder("name")
    (folder / name).write_bytes(image)
    done = call("predict", world.checkpoint, folder, "--out", folder / "out", "--save", "ids")
    clear(done, (1,) if name.startswith(".") or len(name) > 240 else (0,))
    nothing_half_written(folder)
    if done.code == 0:
        assert [p.name for p in (folder / "out").glob("*_ids.png")] == [f"{Path(name).stem}_ids.png"]


def linked_folder(world: World, image: bytes) -> None:
    """Pictures behind a link are read; results stay below --out."""
    folder, away = world.folder("in"), world.folder("away")
    (away / "a.png").write_bytes(image)
    (folder / "link").symlink_to(away)
    call("predict", world.checkpoint, folder, "-r", "--out", folder / "out", "--save", "ids")
    assert [path.name for path in away.iterdir()] == ["a.png"]


def words(world: World) -> Iterator[Case]:
    ckpt, out = world.checkpoint, world.root / "never"
    photo = next((world.raw / "street/leftImg8bit/val").rglob("*.png"))
    lines = [
        ("nonsense",), ("predict",), ("predict", ckpt), ("predict", ckpt, photo), ("predict", "no.pth", photo, "--out", out),
        ("predict", ckpt, "no.png", "--out", out), ("predict", ckpt, photo, "--out", out, "--save", ""), ("predict", ckpt, photo, "--out", out, "--save", "x"),
        ("predict", ckpt, photo, "--out", out, "--ids", "x"), ("predict", ckpt, photo, "--out", out, "--device", "tpu"), ("predict", ckpt, photo, "--out", out, "--device", "cuda:9"),
        ("predict", ckpt, photo, "--out", out, "--precision", "int8"), ("predict", ckpt, photo, "--out", out, "--precision", "fp16", "--device", "cpu"),
        ("predict", ckpt, photo, "--out", out, "--scale", "0"), ("predict", ckpt, photo, "--out", out, "--scale", "x"), ("predict", ckpt, photo, "--out", out, "--workers", "0"),
        ("predict", ckpt, photo, "--out", out, "--workers", "x"), ("predict", ckpt, photo, "--outt", out), ("evaluate", ckpt, "--split", "nope", "--data-root", world.data),
        ("evaluate", ckpt, "--data", "nope", "--data-root", world.data), ("evaluate", ckpt, "--data-root", "nowhere"), ("evaluate", ckpt, "--ids", "x", "--data-root", world.data),
        ("entropy-map", ckpt, photo), ("entropy-map", ckpt, "*.gif", "--out", out), ("compare", ckpt, "--inputs", "no.png", "--out", out), ("compare", ckpt, "--out", out),
        ("export", "no.pth"), ("export", ckpt, "--size", "64"), ("export", ckpt, "--size", "1x1"), ("import", "no.pth", "--out", out), ("import", ckpt, "--format", "x", "--out", out),
        ("report",), ("report", "nowhere"), ("report", world.data), ("prepare",), ("prepare", "gta6", "--root", "."), ("prepare", "gta5", "--root", world.raw / "street", "--out", out),
        ("prepare", "gta5", "--root", world.raw, "--out", out), ("prepare", "cityscapes", "--root", world.raw / "game", "--out", out), ("prepare", "gta5", "--root", photo, "--out", out),
        ("prepare", "gta5", "--root", world.raw / "game", "--out", out, "--size", "x"), ("prepare", "gta5", "--root", world.raw / "game", "--out", out, "--cache", "x"),
        ("prepare", "folder", "--images", "nowhere", "--out", out), ("prepare", "folder", "--images", world.raw / "game/images", "--split", "test", "--out", out), ("prepare", "folder"),
        ("prepare", "gta5", "--root", world.raw / "game", "--out", out, "--size", "99999x99999"),
        ("adapt", "--preset", ""), ("adapt", "--preset", "../x"), ("adapt", "--preset", "x.yaml"), ("adapt", "--method", ""), ("adapt", "--set", "x"), ("adapt", "--set", "=1"),
        ("adapt", "--set", "optim.lr"), ("adapt", "--set", "optim={"), ("adapt", "--set", "optim=5"), ("adapt", "--set", "a.b.c.d=1"), ("adapt", "--seed", "x"), ("adapt", "--seed", "-1"),
        ("adapt", "--data-root", "nowhere"), ("adapt", "--init", "no.pth", "--out", out, *world.train_flags()), ("adapt", "--init", photo, "--out", out, *world.train_flags()),
        ("pretrain", "--data-root", "nowhere"), ("pretrain", "--out", photo, *world.train_flags()), ("ablate", "--methods", "x"), ("ablate", "--seeds", "x"), ("ablate", "--seeds", ""),
        ("presets", "nope"), ("demo", "--preset", "nope"), ("doctor", "extra"), ("--nope",), ("evaluate", photo, "--data-root", world.data),
    ]  # fmt: skip

    def case(line: tuple) -> None:
        clear(call(*line), (1, 2))
        assert not out.exists() or not [p for p in out.rglob("*") if p.is_file()], f"written: {list(out.rglob('*'))[:3]}"

    for line in lines:
        shown = " ".join(Path(str(word)).name[:20] or repr(word) for word in line[:6])
        yield f"words {shown}", lambda x=line: case(x)
