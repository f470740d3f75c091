"""Inputs that were once wrong in silence, as kinds: every reader, every command that meets them,
refuses or decides aloud.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.trust.images import claim
from tests.trust.world import Case, World, call, clear, nothing_half_written


def cases(world: World) -> Iterator[Case]:
    for part in (
        label_ids,
        label_files,
        hidden,
        own_results,
        class_sets,
        broken_weights,
        networks,
        sizes,
        windows,
        contradictions,
        places,
    ):
        yield from part(world)


def folder_of(
    world: World, label: Callable[[Path], None], mapping: str | None = "1: road\n0: ignore\n"
) -> tuple[Path, list]:
    """A folder with one image and its label, and the words that prepare it."""
    folder = world.folder("kind")
    (folder / "i").mkdir()
    (folder / "l").mkdir()
    Image.new("RGB", (128, 64), (90, 90, 90)).save(folder / "i/1.png")
    label(folder / "l/1.png")
    words = [
        "prepare",
        "folder",
        "--images",
        folder / "i",
        "--labels",
        folder / "l",
        "--name",
        "x",
        "--out",
        folder / "out",
    ]
    if mapping is not None:
        (folder / "m.yaml").write_text(mapping)
        words += ["--mapping", folder / "m.yaml"]
    return folder, [*words, "--size", "64x32", "--workers", 1]


def grey(values) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(np.broadcast_to(np.asarray(values), (64, 128)).copy()).save(
        path
    )


def label_ids(world: World) -> Iterator[Case]:
    """Ids that may be train ids or label ids are asked for, in folders and in re-packings of
    GTA5.
    """
    for top in (0, 1, 7, 10, 18):
        label = grey((np.arange(128) % (top + 1)).astype(np.uint8))

        def ask(label=label) -> None:
            _, words = folder_of(world, label, None)
            clear(call(*words), (2,), "--label-ids train or --label-ids label")
            for kind in ("train", "label"):
                _, words = folder_of(world, label, None)
                clear(call(*words, "--label-ids", kind), (0,))

        yield f"ids up to {top} without a mapping", ask
    yield (
        "label ids and a mapping",
        lambda: clear(
            call(*folder_of(world, grey(np.uint8(1)))[1], "--label-ids", "train"), (2,), "give one"
        ),
    )
    yield (
        "label ids of an unknown kind",
        lambda: clear(
            call(*folder_of(world, grey(np.uint8(1)), None)[1], "--label-ids", "x"), (2,)
        ),
    )

    def repacked() -> None:
        folder = world.folder("gta")
        for part in ("images", "labels"):
            (folder / part).mkdir()
        Image.new("RGB", (128, 64)).save(folder / "images/1.png")
        grey((np.arange(128) % 16).astype(np.uint8))(folder / "labels/1.png")
        clear(
            call("prepare", "gta5", "--root", folder, "--out", folder / "out"),
            (2,),
            "GTA5 has label ids",
        )

    yield "gta5 re-packed with train ids", repacked


def label_files(world: World) -> Iterator[Case]:
    """Bit depths: all road, whatever holds the 1, or a refusal by name."""
    import cv2

    ones = np.ones((64, 128), np.uint8)
    writers: dict[str, Callable[[Path], None]] = {
        "8 bit": grey(np.uint8(1)),
        "16 bit": lambda p: cv2.imwrite(str(p), ones.astype(np.uint16)),
        "1 bit": lambda p: Image.fromarray(ones > 0).save(p),
        "16 bit colour": lambda p: cv2.imwrite(str(p), np.dstack([ones.astype(np.uint16)] * 3)),
        "colour and alpha": (
            lambda p: Image.fromarray(np.dstack([ones, ones, ones, ones * 9])).save(p)
        ),
        "palette": lambda p: Image.fromarray(ones).convert("P").save(p),
        "palette of 1 bit": lambda p: palette(ones).save(p, bits=1),
    }

    def palette(ids: np.ndarray) -> Image.Image:
        image = Image.fromarray(ids)
        image.putpalette([0, 0, 0, 255, 0, 0])
        return image

    for name, write in writers.items():

        def exact(write=write) -> None:
            folder, words = folder_of(world, write)
            done = call(*words, "--json", folder / "s.json")
            clear(done, (0,))
            (summary,) = json.loads((folder / "s.json").read_text())["datasets"]
            assert summary["labelled_percent"] == {"train": 100.0}, summary
            nothing_half_written(folder)

        yield f"label of {name}", exact

    def edited() -> None:
        folder, words = folder_of(world, grey(np.uint8(1)))
        call(*words)
        (folder / "m.yaml").write_text("1: car\n")
        clear(call(*words), (0,))
        statistics = json.loads((folder / "out/x/manifest.json").read_text())["class_pixels"]
        assert statistics["train"]["car"] == 64 * 128, "an edited mapping was not noticed"

    yield "a mapping edited after preparation", edited


def hidden(world: World) -> Iterator[Case]:
    photo = next((world.raw / "street/leftImg8bit/val").rglob("*.png"))
    for name in (".ipynb_checkpoints", ".thumbnails", "__MACOSX", ".git"):

        def skipped(name=name) -> None:
            folder = world.folder("hidden")
            for place in (folder / "in", folder / "in" / name):
                place.mkdir()
                (place / "1.png").write_bytes(photo.read_bytes())
            done = call(
                "predict",
                world.checkpoint,
                folder / "in",
                "-r",
                "--out",
                folder / "out",
                "--save",
                "ids",
            )
            clear(done, (0,))
            assert "1 predicted" in done.out, done.out

        yield f"hidden folder {name}", skipped


def own_results(world: World) -> Iterator[Case]:
    photo = next((world.raw / "street/leftImg8bit/val").rglob("*.png"))
    for command in ("predict", "entropy-map"):
        for below in ("out", "."):

            def again(command=command, below=below) -> None:
                folder = world.folder("results")
                (folder / "1.png").write_bytes(photo.read_bytes())
                counts = []
                for _ in range(2):
                    clear(
                        call(command, world.checkpoint, folder, "-r", "--out", folder / below), (0,)
                    )
                    counts.append(len([path for path in folder.rglob("*") if path.is_file()]))
                assert counts[0] == counts[1], counts

            yield f"{command} twice into {below} of its input", again


def prepared(world: World, names: list[str]) -> Path:
    """A small data set of own classes: raw 1 is the first of them."""
    folder, words = folder_of(
        world, grey(np.uint8(1)), f"classes: [{', '.join(names)}]\n1: {names[0]}\n"
    )
    clear(call(*words, "--split", "val"), (0,))
    return folder / "out/x"


def class_sets(world: World) -> Iterator[Case]:
    from fgda_cli.data.classes import NAMES

    shuffled = [*NAMES[1:], NAMES[0]]
    fewer = ["sky", "road", "car"]
    for what, names, codes, words in (
        ("another order", shuffled, (0,), "matched by name"),
        ("fewer classes", fewer, (0,), "3 shared classes"),
        ("one more class", [*NAMES, "shed"], (0,), "shared classes"),
        ("other classes", ["shed", "barn"], (1,), "classes differ"),
    ):
        yield (
            f"evaluate on {what}",
            lambda n=names, c=codes, w=words: clear(
                call("evaluate", world.checkpoint, "--data", prepared(world, n)), c, w
            ),
        )
        yield (
            f"compare on {what}",
            lambda n=names: clear(
                call(
                    "compare",
                    world.checkpoint,
                    "--images",
                    prepared(world, n),
                    "--out",
                    world.folder("o") / "a.png",
                ),
                (0,),
            ),
        )

    def adapted(names: list[str], codes: tuple[int, ...]) -> None:
        content = torch.load(world.checkpoint, weights_only=True)
        content["classes"] = content["classes"] | {"names": names}
        path = world.folder("start") / "c.pth"
        torch.save(content, path)
        out = world.folder("run") / "run"
        clear(
            call("adapt", "--init", path, "--out", out, *world.train_flags("adapt.iterations=1")),
            codes,
        )

    yield "a start with its classes in another order", lambda: adapted(shuffled, (0,))
    yield "a start of other classes", lambda: adapted([*NAMES[:-1], "shed"], (2,))


def broken_weights(world: World) -> Iterator[Case]:
    photo = next((world.raw / "street/leftImg8bit/val").rglob("*.png"))
    for name in ("evaluate", "predict", "entropy-map", "compare", "export", "adapt"):
        for value in (float("nan"), float("inf")):

            def refused(name=name, value=value) -> None:
                folder = world.folder("nan")
                content = torch.load(world.checkpoint, weights_only=True)
                key = next(key for key, weight in content["model"].items() if weight.ndim == 4)
                content["model"][key].view(-1)[0] = value
                torch.save(content, folder / "c.pth")
                path = folder / "c.pth"
                words = {
                    "evaluate": (path, "--data-root", world.data),
                    "predict": (path, photo, "--out", folder / "o"),
                    "entropy-map": (path, photo, "--out", folder / "o"),
                    "compare": (path, "--images", photo, "--out", folder / "o.png"),
                    "export": (path, "--out", folder / "o.onnx"),
                    "adapt": ("--init", path, "--out", folder / "run", *world.train_flags()),
                }[name]
                clear(call(name, *words), (1,), "NaN or infinity")
                nothing_half_written(folder)

            yield f"weights of {value} to {name}", refused


def networks(world: World) -> Iterator[Case]:
    """A start whose tensors fit and whose function does not."""
    start = ("adapt", "--init", world.checkpoint)
    for key, value in (
        ("variant", "caffe"),
        ("output_stride", "16"),
        ("dilations", "[1,2,3,4]"),
        ("batch_norm_eps", "0.01"),
    ):
        flags = world.train_flags(f"model.{key}={value}", "adapt.iterations=1")
        yield (
            f"a start of another model.{key}",
            lambda f=flags, k=key: clear(
                call(*start, "--out", world.folder("r") / "run", *f),
                (2,),
                f"model.{k}",
                "--init-model",
            ),
        )
        yield (
            f"model.{key} taken over",
            lambda f=flags: clear(
                call(*start, "--init-model", "--out", world.folder("r") / "run", *f),
                (0,),
                "taken over",
            ),
        )
    for entry in ("99", "shed", "-1"):
        yield (
            f"data.untrained of {entry}",
            lambda e=entry: clear(
                call(
                    "pretrain",
                    "--out",
                    world.folder("r") / "run",
                    *world.train_flags(f"data.untrained=[{e}]"),
                ),
                (2,),
                "data.untrained",
            ),
        )


def sizes(world: World) -> Iterator[Case]:
    """Large claims, and results that are asked for at any size."""
    for side in ((60000, 60000), (20000, 10000), (100000, 3000)):

        def large(side=side) -> None:
            folder = world.folder("large")
            (
                Image.new("1", side).save(folder / "a.png")
                if side[0] * side[1] < 4e8
                else (folder / "a.png").write_bytes(
                    claim(*side, b"IDAT" + zlib.compress(b"\0" * 100))
                )
            )
            done = call("predict", world.checkpoint, folder / "a.png", "--out", folder / "out")
            clear(done, (1,))
            assert "--max-pixels" in done.err, done.err

        yield f"an image of {side[0]}x{side[1]}", large
    photo = next((world.raw / "street/leftImg8bit/val").rglob("*.png"))
    for most, codes in (("10", (1,)), ("1000000", (0,)), ("0", (2,)), ("x", (2,)), ("-5", (2,))):
        yield (
            f"--max-pixels {most}",
            lambda m=most, c=codes: clear(
                call(
                    "predict",
                    world.checkpoint,
                    photo,
                    "--out",
                    world.folder("o"),
                    "--max-pixels",
                    m,
                ),
                c,
            ),
        )


def windows(world: World) -> Iterator[Case]:
    photo = next((world.raw / "street/leftImg8bit/val").rglob("*.png"))
    for words, codes in (
        (("--sliding", "32x32"), (0,)),
        (("--sliding", "32x32", "--scale", "3", "--overlap", "0.9"), (0,)),
        (("--sliding", "9999x32"), (0,)),
        (("--sliding", "32"), (2,)),
        (("--sliding", "0x0"), (2,)),
        (("--sliding", "x"), (2,)),
        (("--sliding", "64x64", "--overlap", "1"), (2,)),
        (("--sliding", "64x64", "--overlap", "-1"), (2,)),
        (("--sliding", "33x47", "--flip"), (0,)),
    ):
        yield (
            f"predict {' '.join(words)}",
            lambda w=words, c=codes: clear(
                call("predict", world.checkpoint, photo, "--out", world.folder("o"), *w), c
            ),
        )


def contradictions(world: World) -> Iterator[Case]:
    """Mappings and presets that say two things, or one thing of another's."""
    texts = {
        "an id twice": ("1: road\n1: car\n", "line 1 and in line 2"),
        "a name and its id": ("0: car\nroad: sky\n", "stands for id 0"),
        "a quoted id": ("'1': road\n", "without quotes"),
        "no class of Cityscapes'": ("classes: [ground]\n", "no class has a name"),
        "an id that is not there": ("2: road\n", "add `1: CLASS`"),
    }
    for name, (text, words) in texts.items():

        def refused(text=text, words=words) -> None:
            done = call(*folder_of(world, grey(np.uint8(1)), text)[1])
            clear(done, (1, 2), words)

        yield f"mapping with {name}", refused

    def own_settings() -> None:
        done = call("presets", "sim2camvid", "--method", "mic")
        assert done.code == 0 and "lambda_masked" in done.out, done
        clear(
            call("presets", "playground", "--set", "methods.mic.lambda_adversarial=1"),
            (2,),
            "methods.mic.lambda_adversarial",
        )

    yield "settings of another method", own_settings


def places(world: World) -> Iterator[Case]:
    """What lies in a folder of photographs: every command that lists one takes the same."""
    for command in (("predict", "--save", "ids"), ("entropy-map",), ("rank", "--top", "9")):

        def listed(command=command) -> None:
            folder = world.folder("places")
            (folder / "in/gtFine").mkdir(parents=True)
            rng = np.random.default_rng(0)
            for name in ("in/1.png", "linked/2.png"):
                (folder / name).parent.mkdir(exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (32, 64, 3), dtype=np.uint8)).save(
                    folder / name
                )
            (folder / "in/link").symlink_to(folder / "linked")
            (folder / "linked/loop").symlink_to(folder / "in")
            grey((np.arange(128) % 9).astype(np.uint8))(folder / "in/1_gtFine_labelIds.png")
            grey((np.arange(128) % 9).astype(np.uint8))(folder / "in/gtFine/1.png")
            done = call(
                command[0],
                world.checkpoint,
                folder / "in",
                "-r",
                *command[1:],
                "--out",
                folder / "out",
            )
            assert done.code == 0 and "2 label maps are left out" in done.err, done
            found = {path.name[0] for path in (folder / "out").rglob("[12]*.png")}
            assert command[0] == "rank" or found == {"1", "2"}, found

        yield f"links and label maps, {command[0]}", listed

    def deep() -> None:
        folder = world.folder("deep")
        Image.fromarray(np.full((32, 64), 700, np.uint16)).save(folder / "ten.png")
        clear(
            call("predict", world.checkpoint, folder / "ten.png", "--out", folder / "out"),
            (1,),
            "white may be 255, 1023",
        )
        Image.fromarray(np.linspace(0, 1, 2048, dtype=np.float32).reshape(32, 64)).save(
            folder / "unit.tif"
        )
        done = call(
            "predict",
            world.checkpoint,
            folder / "unit.tif",
            "--save",
            "overlay",
            "--out",
            folder / "out",
        )
        assert (
            done.code == 0 and np.asarray(Image.open(folder / "out/unit_overlay.png")).max() > 100
        ), done

    yield "values of deep images", deep
