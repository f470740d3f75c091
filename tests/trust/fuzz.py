"""Malformed input: images, labels, presets, manifests, checkpoints, run folders, names and words.
Every case ends in a clear line and the right code, or works; nothing is left half-written, and no
code from a file is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from fgda_cli.methods.registry import method_class, method_names
from fgda_cli.presets import keys_of
from tests.trust import files, formats, images
from tests.trust.images import encoded
from tests.trust.world import Case, World, call, clear, nothing_half_written


def cases(world: World) -> Iterator[Case]:
    for part in (images.cases, formats.cases, presets, mappings, files.cases, names, words):
        yield from part(world)


# Presets, mappings


def presets(world: World) -> Iterator[Case]:
    texts = {
        "empty": "",
        "a list": "- a\n- b\n",
        "a word": "hello",
        "tabs": "data:\n\tsource: x\n",
        "unclosed": "data: {source: [1, 2\n",
        "python object": (
            "extends: playground\nname: !!python/object/apply:os.system ['touch {evil}']\n"
        ),
        "python name": "extends: playground\nrun: {seed: !!python/name:os.system }\n",
        "unknown tag": "extends: playground\nname: !x y\n",
        "two documents": "extends: playground\n---\nextends: base\n",
        "twice": "extends: playground\nrun: {seed: 1}\nrun: {seed: 2}\n",
        "itself": "extends: preset.yaml\n",
        "no parent": "extends: nothing\n",
        "list parent": "extends: [playground]\n",
        "parent elsewhere": "extends: ../../../etc/passwd\n",
        "billion laughs": laughs(),
        "deep": "a: " + "[" * 3000 + "]" * 3000,
        "nan": "extends: playground\noptim: {lr: .nan}\n",
        "infinite": "extends: playground\noptim: {lr: .inf}\n",
        "huge": "extends: playground\noptim: {lr: 1e400}\n",
        "negative": "extends: playground\noptim: {lr: -1}\n",
        "long number": "extends: playground\nrun: {seed: " + "9" * 5000 + "}\n",
        "date": "extends: playground\nrun: {seed: 2020-01-01}\n",
        "null section": "extends: playground\ndata: null\n",
        "number section": "extends: playground\nmodel: 5\n",
        "number key": "extends: playground\n5: 6\n",
        "mapping key": "extends: playground\n? {a: b}\n: c\n",
        "method list": "extends: playground\nmethod: [fgda]\n",
        "methods word": "extends: playground\nmethods: fgda\n",
        "methods unknown": "extends: playground\nmethods: {nope: {x: 1}}\n",
        "binary": "extends: \x00\x01",
        "merge": "<<: 5\n",
    }
    for name, text in texts.items():
        yield f"preset {name}", lambda t=text: preset(world, t.encode())
    yield "preset of bytes", lambda: preset(world, bytes(range(256)))
    settings = method_class("fgda-st").Settings
    keys = [key.name for key in (*keys_of(), *keys_of(settings, "methods.fgda-st."))]
    for key in keys:
        if key in ("name", "method", "methods.fgda-st.name"):
            continue
        yield (
            f"preset {key}: a mapping",
            lambda k=key: preset(world, nested(k, {"x": 1}), k.split(".")[-1]),
        )
        yield f"preset {key}: nonsense", lambda k=key: preset_value(world, k)
    for method in method_names():
        yield (
            f"preset method {method}: unknown key",
            lambda m=method: clear(
                call("adapt", "--method", m, "--set", "method.no_such_key=1"), (2,), "no_such_key"
            ),
        )


def laughs() -> str:
    lines = ["extends: playground", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 9)]
    return "\n".join(lines)


def nested(key: str, value) -> bytes:
    tree = value
    for part in reversed(key.split(".")):
        tree = {part: tree}
    return yaml.safe_dump({"extends": "playground", **tree}).encode()


def preset(world: World, content: bytes, *parts: str) -> None:
    folder = world.folder("preset")
    path = folder / "preset.yaml"
    evil = folder / "evil"
    path.write_bytes(content.replace(b"{evil}", str(evil).encode()))
    done = call("adapt", "--preset", path, "--out", folder / "run")
    clear(done, (2,), *parts)
    assert not evil.exists() and not (folder / "run").exists()


def preset_value(world: World, key: str) -> None:
    """A text where none fits; keys that take any text are refused for what it names, if at all
    here.
    """
    done = call("pretrain", "--set", f"{key}=[[nonsense]]", "--data-root", world.folder("none"))
    clear(done, (2,), key.split(".")[-1])


def mappings(world: World) -> Iterator[Case]:
    texts = {
        "a list": "- 1",
        "unknown class": "7: rode",
        "word key": "seven: road",
        "python": "7: !!python/object/apply:os.getcwd []",
        "tabs": "7:\troad\n\t8: x",
        "colour of two": "[1, 2]: road",
        "nested": "7: {a: b}",
        "classes a number": "classes: 5\n7: 5",
        "colour of words": "[a, b, c]: road",
        "list class": "7: [road]",
        "bytes": "\x00",
        "half a colour": "[1, 2, null]: road",
        "empty classes": "classes: []\n7: road",
        "float": "7.5: road",
    }

    def case(text: str) -> None:
        folder = world.folder("mapping")
        (folder / "map.yaml").write_text(text)
        game = world.raw / "game"
        done = call(
            "prepare",
            "folder",
            "--images",
            game / "images",
            "--labels",
            game / "labels",
            "--mapping",
            folder / "map.yaml",
            "--name",
            "x",
            "--data-root",
            folder / "out",
            "--size",
            "64x32",
            "--workers",
            1,
        )
        clear(done, (1, 2))
        nothing_half_written(folder)

    yield from ((f"mapping {name}", lambda t=text: case(t)) for name, text in texts.items())


# Names, words


def names(world: World) -> Iterator[Case]:
    image = encoded("RGB", "PNG")
    for name in (
        "a b.png",
        "Zürich.png",
        "图片.png",
        "..png.png",
        "-x.png",
        "--help.png",
        "a'\".png",
        "new\nline.png",
        "%s%n.png",
        "[glob].png",
        "*.png",
        "\U0001f697.png",
        "\x1b[31m.png",
        "x" * 240 + ".png",
        ".hidden.png",
    ):
        yield f"file name {name[:20]!r}", lambda n=name: named(world, n, image)
    for name in ("../x", "/tmp/x", "..", ".", "a/b", ""):
        yield (
            f"prepare --name {name!r}",
            lambda n=name: clear(
                call(
                    "prepare",
                    "folder",
                    "--images",
                    world.raw / "game/images",
                    "--name",
                    n,
                    "--data-root",
                    world.folder("o"),
                ),
                (2, 0) if n == "" else (2,),
            ),
        )
    yield "a folder that links out", lambda: linked_folder(world, image)
    for out in ("/proc/x/m.onnx", "/dev/null/m.onnx", "x" * 300 + ".onnx"):
        yield (
            f"export --out {out[:20]}",
            lambda o=out: clear(
                call("export", world.checkpoint, "--size", "64x32", "--out", o), (1,)
            ),
        )
    for out in ("m.weights", "m", "m.ONNX.txt", ""):
        yield (
            f"export --out {out!r}",
            lambda o=out: clear(call("export", world.checkpoint, "--out", o), (2,)),
        )


def named(world: World, name: str, image: bytes) -> None:
    folder = world.folder("name")
    (folder / name).write_bytes(image)
    done = call("predict", world.checkpoint, folder, "--out", folder / "out", "--save", "ids")
    clear(done, (1,) if name.startswith(".") else (0,))
    nothing_half_written(folder)
    if done.code == 0:
        assert [p.name for p in (folder / "out").glob("*_ids.png")] == [
            f"{Path(name).stem}_ids.png"
        ]


def linked_folder(world: World, image: bytes) -> None:
    """Pictures behind a link are read; results stay below --out."""
    folder = world.folder("in")
    away = world.folder("away")
    (away / "a.png").write_bytes(image)
    (folder / "link").symlink_to(away)
    call("predict", world.checkpoint, folder, "-r", "--out", folder / "out", "--save", "ids")
    assert [path.name for path in away.iterdir()] == ["a.png"]


def words(world: World) -> Iterator[Case]:
    ckpt = world.checkpoint
    out = world.root / "never"
    photo = next((world.raw / "street/leftImg8bit/val").rglob("*.png"))
    lines = [
        ("nonsense",),
        ("predict",),
        ("predict", ckpt),
        ("predict", ckpt, photo),
        ("predict", "no.pth", photo, "--out", out),
        ("predict", ckpt, "no.png", "--out", out),
        ("predict", ckpt, photo, "--out", out, "--save", ""),
        ("predict", ckpt, photo, "--out", out, "--save", "x"),
        ("predict", ckpt, photo, "--out", out, "--ids", "x"),
        ("predict", ckpt, photo, "--out", out, "--device", "tpu"),
        ("predict", ckpt, photo, "--out", out, "--device", "cuda:9"),
        ("predict", ckpt, photo, "--out", out, "--precision", "int8"),
        ("predict", ckpt, photo, "--out", out, "--precision", "fp16", "--device", "cpu"),
        ("predict", ckpt, photo, "--out", out, "--scale", "0"),
        ("predict", ckpt, photo, "--out", out, "--scale", "x"),
        ("predict", ckpt, photo, "--out", out, "--workers", "0"),
        ("predict", ckpt, photo, "--out", out, "--workers", "x"),
        ("predict", ckpt, photo, "--outt", out),
        ("evaluate", ckpt, "--split", "nope", "--data-root", world.data),
        ("evaluate", ckpt, "--data", "nope", "--data-root", world.data),
        ("evaluate", ckpt, "--data-root", "nowhere"),
        ("evaluate", ckpt, "--ids", "x", "--data-root", world.data),
        ("entropy-map", ckpt, photo),
        ("entropy-map", ckpt, "*.gif", "--out", out),
        ("compare", ckpt, "--images", "no.png", "--out", out),
        ("compare", ckpt, "--out", out),
        ("export", "no.pth"),
        ("export", ckpt, "--size", "64"),
        ("export", ckpt, "--size", "1x1"),
        ("import", "no.pth", "--out", out),
        ("import", ckpt, "--format", "x", "--out", out),
        ("report",),
        ("report", "nowhere"),
        ("report", world.data),
        ("prepare",),
        ("prepare", "gta6", "--root", "."),
        ("prepare", "gta5", "--root", world.raw / "street", "--data-root", out),
        ("prepare", "gta5", "--root", world.raw, "--data-root", out),
        ("prepare", "cityscapes", "--root", world.raw / "game", "--data-root", out),
        ("prepare", "gta5", "--root", photo, "--data-root", out),
        ("prepare", "gta5", "--root", world.raw / "game", "--data-root", out, "--size", "x"),
        ("prepare", "gta5", "--root", world.raw / "game", "--data-root", out, "--cache", "x"),
        ("prepare", "folder", "--images", "nowhere", "--data-root", out),
        (
            "prepare",
            "folder",
            "--images",
            world.raw / "game/images",
            "--split",
            "test",
            "--data-root",
            out,
        ),
        ("prepare", "folder"),
        (
            "prepare",
            "gta5",
            "--root",
            world.raw / "game",
            "--data-root",
            out,
            "--size",
            "99999x99999",
        ),
        ("adapt", "--preset", ""),
        ("adapt", "--preset", "../x"),
        ("adapt", "--preset", "x.yaml"),
        ("adapt", "--method", ""),
        ("adapt", "--set", "x"),
        ("adapt", "--set", "=1"),
        ("adapt", "--set", "optim.lr"),
        ("adapt", "--set", "optim={"),
        ("adapt", "--set", "optim=5"),
        ("adapt", "--set", "a.b.c.d=1"),
        ("adapt", "--seed", "x"),
        ("adapt", "--seed", "-1"),
        ("adapt", "--data-root", "nowhere"),
        ("adapt", "--init", "no.pth", "--out", out, *world.train_flags()),
        ("adapt", "--init", photo, "--out", out, *world.train_flags()),
        ("pretrain", "--data-root", "nowhere"),
        ("pretrain", "--out", photo, *world.train_flags()),
        ("ablate", "--methods", "x"),
        ("ablate", "--seeds", "x"),
        ("ablate", "--seeds", ""),
        ("presets", "nope"),
        ("demo", "--preset", "nope"),
        ("doctor", "extra"),
        ("--nope",),
        ("evaluate", photo, "--data-root", world.data),
    ]

    def case(line: tuple) -> None:
        clear(call(*line), (1, 2))
        assert not out.exists() or not [p for p in out.rglob("*") if p.is_file()], (
            f"written: {list(out.rglob('*'))[:3]}"
        )

    for line in lines:
        shown = " ".join(Path(str(word)).name[:20] or repr(word) for word in line[:6])
        yield f"words {shown}", lambda x=line: case(x)
