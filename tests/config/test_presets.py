"""Presets: inheritance, overrides, and errors that say where and what."""

from __future__ import annotations

import pytest

from fgda_cli.config.presets import from_json, load_preset, preset_names
from fgda_cli.runtime.errors import UsageError


def write(tmp_path, text, name="mine.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_the_published_settings():
    preset = load_preset("gta2city")
    assert (preset.model.backbone, preset.model.output_stride, preset.model.multi_level) == ("resnet101", 8, True)
    assert (preset.pretrain.iterations, preset.adapt.iterations, preset.adapt.batch_size) == (20000, 40000, 1)
    assert (preset.data.source.size, preset.data.target.size) == ((1280, 720), (1024, 512))
    assert (preset.method.name, preset.method.lambda_adv, preset.method.eta) == ("fgda", 0.001, 1.0)
    assert (preset.optim.lr, preset.optim.weight_decay, preset.optim.poly_power) == (2.5e-4, 5e-4, 0.9)
    assert load_preset("synthia2city").data.untrained == ("terrain", "truck", "train")


@pytest.mark.parametrize("name", preset_names())
def test_every_shipped_preset_loads_and_survives_its_json(name):
    if name == "base":
        return
    preset = load_preset(name)
    assert from_json(preset.to_json(), "test") == preset


def test_extends_inherits_and_overrides(tmp_path):
    write(tmp_path, "extends: gta2city\noptim: {lr: 0.1}\n", "parent.yaml")
    preset = load_preset(write(tmp_path, "extends: parent\noptim: {momentum: 0.5}\n"), ["adapt.iterations=7"])
    assert (preset.name, preset.optim.lr, preset.optim.momentum, preset.adapt.iterations) == ("mine", 0.1, 0.5, 7)


def test_set_reads_yaml_and_scientific_notation():
    preset = load_preset("gta2city", ["optim.lr=1e-4", "method.eta=0.5", "data.flip=false"])
    assert (preset.optim.lr, preset.method.eta, preset.data.flip) == (1e-4, 0.5, False)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("optim:\n  learning_rate: 1\n", ["line 3", "optim.learning_rate", "valid in optim:", " lr,"]),
        ("optim:\n  lr: fast\n", ["line 3", "optim.lr", "number", "'fast'"]),
        ("optim: {lr: -1}\n", ["line 2", "optim.lr", "greater than 0"]),
        ("optim: {lr: .nan}\n", ["line 2", "optim.lr"]),
        ("method:\n  etta: 1\n", ["line 3", "method.etta", "method.eta"]),
        ("method: {name: fgdaa}\n", ["line 2", "fgdaa", "fgda"]),
        ("adapt: {iterations: 0}\n", ["line 2", "adapt.iterations", "greater than or equal to 1"]),
        ("data:\n  source:\n    size: [12, 720]\n", ["line 4", "data.source.size", "at least 32"]),
        ("optim: {lr: 1}\noptim: {lr: 2}\n", ["line 3", "optim", "twice"]),
        ("optim: [\n", ["line", "no valid YAML"]),
        ("model: !!python/object/apply:os.system ['true']\n", ["line 2", "model"]),
    ],
)
def test_errors_name_file_line_key_and_remedy(tmp_path, text, expected):
    path = write(tmp_path, f"extends: gta2city\n{text}")
    with pytest.raises(UsageError) as caught:
        load_preset(path)
    message = str(caught.value)
    assert message.count("\n") <= 1
    for part in [*expected, "mine.yaml"]:
        assert part in message


def test_errors_of_set_name_the_option():
    with pytest.raises(UsageError, match=r"--set optim\.lrr.*did you mean 'optim\.lr'"):
        load_preset("gta2city", ["optim.lrr=1"])
    with pytest.raises(UsageError, match="key=value"):
        load_preset("gta2city", ["optim.lr"])


def test_unknown_preset_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'gta2city'"):
        load_preset("gta2cty")


def test_extends_in_a_circle(tmp_path):
    write(tmp_path, "extends: b\n", "a.yaml")
    with pytest.raises(UsageError, match="circle"):
        load_preset(write(tmp_path, "extends: a\n", "b.yaml"))


def test_changing_the_method_leaves_out_keys_of_the_other_but_not_typos():
    assert load_preset("gta2city", method="source-only").method.name == "source-only"
    with pytest.raises(UsageError, match="method.eta"):
        load_preset("gta2city", ["method.eta=1"], method="source-only")
