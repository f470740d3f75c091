"""Presets: inheritance, overrides, and errors that say where and what."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fgda_cli.methods.registry import method_class, method_names
from fgda_cli.presets import from_json, load_preset, preset_names
from fgda_cli.runtime.errors import UsageError


def write(tmp_path, text, name="mine.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_the_published_settings():
    preset = load_preset("gta2city")
    assert (preset.model.backbone, preset.model.output_stride, preset.model.multi_level) == (
        "resnet101",
        8,
        True,
    )
    assert (preset.pretrain.iterations, preset.adapt.iterations, preset.adapt.batch_size) == (
        20000,
        40000,
        1,
    )
    assert (preset.data.source.size, preset.data.target.size) == ((1280, 720), (1024, 512))
    assert (preset.method.name, preset.method.lambda_adv, preset.method.eta) == ("fgda", 0.001, 1.0)
    assert (preset.optim.lr, preset.optim.weight_decay, preset.optim.poly_power) == (
        2.5e-4,
        5e-4,
        0.9,
    )
    assert load_preset("synthia2city").data.untrained == ("terrain", "truck", "train")


@pytest.mark.parametrize("name", preset_names())
def test_every_shipped_preset_loads_and_survives_its_json(name):
    if name == "base":
        return
    preset = load_preset(name)
    assert from_json(preset.to_json(), "test") == preset


def test_extends_inherits_and_overrides(tmp_path):
    write(tmp_path, "extends: gta2city\noptim: {lr: 0.1}\n", "parent.yaml")
    preset = load_preset(
        write(tmp_path, "extends: parent\noptim: {momentum: 0.5}\n"), ["adapt.iterations=7"]
    )
    assert (preset.name, preset.optim.lr, preset.optim.momentum, preset.adapt.iterations) == (
        "mine",
        0.1,
        0.5,
        7,
    )


def test_set_reads_yaml_and_scientific_notation():
    preset = load_preset("gta2city", ["optim.lr=1e-4", "method.eta=0.5", "data.flip=false"])
    assert (preset.optim.lr, preset.method.eta, preset.data.flip) == (1e-4, 0.5, False)


@pytest.mark.parametrize(
    "text, expected",
    [
        (
            "optim:\n  learning_rate: 1\n",
            ["line 3", "optim.learning_rate", "valid in optim:", " lr,"],
        ),
        ("optim:\n  lr: fast\n", ["line 3", "optim.lr", "number", "'fast'"]),
        ("optim: {lr: -1}\n", ["line 2", "optim.lr", "greater than 0"]),
        ("optim: {lr: .nan}\n", ["line 2", "optim.lr"]),
        ("methods:\n  fgda:\n    etta: 1\n", ["line 4", "methods.fgda.etta", "methods.fgda.eta"]),
        ("methods:\n  mic:\n    emma: 1\n", ["line 4", "methods.mic.emma", "methods.mic.ema"]),
        ("methods: {cbst: {rounds: none}}\n", ["line 2", "methods.cbst.rounds"]),
        ("methods: {fgdaa: {eta: 1}}\n", ["line 2", "fgdaa", "fgda"]),
        ("methods: {fgda: 3}\n", ["line 2", "methods.fgda", "mapping"]),
        ("methods: 3\n", ["line 2", "methods", "mapping"]),
        ("method: fgdaa\n", ["line 2", "fgdaa", "fgda"]),
        ("source_only: {aux_seg: 1}\n", ["line 2", "source_only", "methods.source-only"]),
        ("adapt: {iterations: 0}\n", ["line 2", "adapt.iterations", "greater than or equal to 1"]),
        ("data:\n  source:\n    size: [12, 720]\n", ["line 4", "data.source.size", "at least 32"]),
        ("optim: {lr: 1}\noptim: {lr: 2}\n", ["line 3", "optim", "twice"]),
        ("optim: [\n", ["line", "not valid YAML"]),
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
    with pytest.raises(
        UsageError, match=r"--set: unknown key 'optim\.lrr'.*did you mean 'optim\.lr'"
    ):
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


def test_a_method_without_a_key_refuses_it():
    assert load_preset("gta2city", method="source-only").method.name == "source-only"
    with pytest.raises(UsageError, match="method.eta"):
        load_preset("gta2city", ["method.eta=1"], method="source-only")


OWN = """
extends: gta2city
method: fada
methods:
  fada: {lambda_adv: 0.5}
  mic: {ema: 0.9}
"""


def test_no_method_sees_the_settings_of_another(tmp_path):
    path = write(tmp_path, OWN)
    assert (load_preset(path).method.name, load_preset(path).method.lambda_adv) == ("fada", 0.5)
    for name in method_names():
        settings = load_preset(path, method=name).method
        changed = {"fada": {"lambda_adv": 0.5}, "mic": {"ema": 0.9}}.get(name, {})
        assert settings == method_class(name).Settings(name=name, **changed)


def test_a_child_adds_to_the_settings_it_inherits(tmp_path):
    write(tmp_path, OWN, "parent.yaml")
    child = write(tmp_path, "extends: parent\nmethod: mic\nmethods:\n  mic: {mask_ratio: 0.5}\n")
    mic = load_preset(child).method
    assert (mic.name, mic.ema, mic.mask_ratio) == ("mic", 0.9, 0.5)
    assert load_preset(child, method="fada").method.lambda_adv == 0.5


def test_set_reaches_the_chosen_method_or_the_named_one():
    assert load_preset("gta2city", ["method.lambda_adv=0.3"], "cycada").method.lambda_adv == 0.3
    assert load_preset("gta2city", ["method=mic", "method.ema=0.5"]).method.ema == 0.5
    assert load_preset("gta2city", ["method.ema=0.5", "method.name=mic"]).method.ema == 0.5
    named = ["methods.cycada.lambda_adv=0.3"]
    assert load_preset("gta2city", named, "cycada").method.lambda_adv == 0.3
    assert load_preset("gta2city", named).method.lambda_adv == 0.001
    with pytest.raises(UsageError, match="--set: unknown key 'methods.cycada.lamda_adv'"):
        load_preset("gta2city", ["methods.cycada.lamda_adv=0.3"])


def test_source_only_training_has_settings_of_its_own(tmp_path):
    preset = load_preset(
        write(tmp_path, "extends: gta2city\nmethods: {source-only: {aux_seg: 0.4}}\n")
    )
    assert preset.source_only.aux_seg == 0.4 and preset.method.aux_seg == 0.1
    assert from_json(preset.to_json(), "test") == preset


def test_settings_in_the_place_of_the_name_are_refused(tmp_path):
    path = write(tmp_path, "extends: gta2city\nmethod: {name: mic, ema: 0.9}\n")
    with pytest.raises(UsageError, match=r"mine.yaml, line 2: method: .*methods\.NAME"):
        load_preset(path)


def test_keys_that_were_removed_are_left_out_of_an_earlier_run_s_record():
    preset = load_preset("playground", method="fgda")
    record = preset.to_json()
    record["methods"]["fgda"] |= {"class_weighting": "none", "min_confidence": 0.0}
    assert from_json(record, "test") == preset


def test_a_setting_of_another_optimiser_is_refused_and_dropped_from_records():
    with pytest.raises(UsageError, match="betas does nothing: kind is sgd"):
        load_preset("playground", ["optim.betas=[0.5, 0.9]"])
    adamw = load_preset("playground", ["optim.kind=adamw", "optim.betas=[0.5, 0.9]"])
    assert adamw.optim.betas == (0.5, 0.9)
    with pytest.raises(UsageError, match="momentum does nothing: kind is adamw"):
        load_preset("playground", ["optim.kind=adamw", "optim.momentum=0.5"])
    record = adamw.to_json()
    record["optim"]["momentum"] = 0.5
    assert from_json(record, "test") == adamw


TABLE = Path(__file__).with_name("resolved_settings.yaml")


def resolved() -> dict:
    """By preset and method: the settings that are not the method's defaults, which are the
    published ones.
    """
    found = {}
    for name in preset_names():
        of_preset = {}
        for method in method_names():
            settings = load_preset(name, method=method).method.model_dump(mode="json")
            defaults = method_class(method).Settings(name=method).model_dump(mode="json")
            changed = {key: value for key, value in settings.items() if value != defaults[key]}
            if changed:
                of_preset[method] = changed
        found[name] = of_preset
    return found


def test_resolved_settings_of_every_preset_and_method():
    """A change of this table is a change of results: write it anew by `python -m
    tests.presets.test_presets`.
    """
    again = "if this change is meant: python -m tests.presets.test_presets writes the table anew"
    assert resolved() == yaml.safe_load(TABLE.read_text()), again


def test_published_presets_have_published_values_for_every_method():
    """Their own method's."""
    for name, methods in yaml.safe_load(TABLE.read_text()).items():
        if "-dinov" in name:  # combinations of ours
            continue
        if name == "base" or name.startswith(("synthia2city", "gta2city")):
            assert set(methods) <= {"mic", "clan", "dise"}, name
            assert set(methods.get("mic", {})) <= {"lambda_masked"}, name
            # what their authors set for SYNTHIA; VGG-19, as published
            assert methods.get("clan", {}).keys() <= {"lambda_local"}, name
            assert methods.get("dise", {}).keys() <= {"lambda_main", "lambda_aux", "perception"}


def test_a_preset_that_is_no_utf8_is_refused_in_one_line(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: gta2city\n", encoding="utf-16")
    with pytest.raises(UsageError, match=r"mine.yaml: not UTF-8 text: save it as UTF-8"):
        load_preset(str(tmp_path / "mine.yaml"))


MIXED = """
extends: playground
adapt: {batch_norm: mixed, batch_norm_target_share: 0.5}
"""


def test_an_inherited_setting_that_a_layer_above_makes_idle_is_dropped(tmp_path):
    parent = write(tmp_path, MIXED, "parent.yaml")
    assert load_preset(parent, ["adapt.batch_norm=train"]).adapt.batch_norm_target_share == 0.3
    child = write(tmp_path, "extends: parent\nadapt: {batch_norm: train}\n")
    assert load_preset(child).adapt.batch_norm_target_share == 0.3
    # The one that does nothing lies in the same layer as its cause, or above it.
    with pytest.raises(UsageError, match="batch_norm_target_share does nothing"):
        load_preset(child, ["adapt.batch_norm_target_share=0.5"])
    with pytest.raises(UsageError, match="batch_norm_target_share does nothing"):
        load_preset(parent, ["adapt.batch_norm=train", "adapt.batch_norm_target_share=0.7"])
    own = write(
        tmp_path, "extends: playground\nadapt: {batch_norm: train, batch_norm_target_share: 0.7}\n"
    )
    with pytest.raises(UsageError, match="mine.yaml, line 2: adapt.batch_norm_target_share"):
        load_preset(own, ["adapt.lr=0.1"])


if __name__ == "__main__":
    TABLE.write_text(
        yaml.safe_dump(resolved(), sort_keys=False, default_flow_style=None, width=130)
    )
