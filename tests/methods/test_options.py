"""Every method with every option of a preset and every weight that is off by default: refused in
one line, or right.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fgda_cli.methods.base import Method, Option
from fgda_cli.methods.registry import method_class, method_names
from fgda_cli.models import checkpoint
from fgda_cli.presets import load_preset
from fgda_cli.runtime.errors import UsageError
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.training import stages
from fgda_cli.training.run_folder import Identity, RunFolder
from fgda_cli.training.trainer import Trainer
from fgda_cli.training.validation import Validators
from tests.helpers import TINY

# whose training images have labels
GAME = "data.target.dataset=playground-game"
DETAIL = (
    "model.backbone=mit:b0",
    "model.head=daformer",
    "model.head_width=16",
    "model.output_stride=native",
    "model.multi_level=false",
    "model.detail=[64,64]",
    "model.width=64",
    "data.source.size=[128,64]",
    "data.target.size=[128,64]",
    "data.evaluation.size=[128,64]",
)
SETS = {
    None: ("model.multi_level=false",),
    Option.DETAIL: DETAIL,
    Option.AUXILIARY: ("model.multi_level=true",),
    Option.LABELLED: ("data.target.labelled=3", GAME),
    Option.ACCUMULATE: ("{stage}.accumulate=2",),
    Option.TRAINED_NORMS: ("{stage}.batch_norm=train",),
    Option.MIXED_NORMS: ("{stage}.batch_norm=mixed",),
    Option.REDUCED: ("run.precision=bf16",),
    Option.TUNED: (
        "model.backbone=dinov2:tiny14",
        "model.width=64",
        "model.output_stride=native",
        "model.multi_level=false",
        "model.tune=lora",
        "model.lora.rank=2",
    ),
}
SMALL = {
    "vfmuda": (
        "method.distil_model=timm:vit_tiny_patch16_224",
        "method.distil_weights=none",
        "method.distil_scale=1.0",
    ),
    "mic": (
        "method.distil_model=timm:vit_tiny_patch16_224",
        "method.distil_weights=none",
        "method.distil_scale=1.0",
    ),
    "cycada": ("method.translation_factor=0",),
    "adaptpatch": ("method.patch=[32,32]", "method.modes=4", "method.mode_only_share=0"),
    "siban": ("method.channels=16",),
    "dise": ("method.decoder_width=8", "method.image_width=4"),
}
# norms that are trained see the images of a part alone
FROZEN = ("pretrain.batch_norm=frozen", "adapt.batch_norm=frozen")


def weights_off_by_default(name: str) -> list[str]:
    """Settings that are weights of a term and 0 unless asked for: no test of defaults runs what
    they switch on.
    """
    fields = method_class(name).Settings.model_fields
    return [
        key for key, field in fields.items() if key.startswith("lambda_") and field.default == 0
    ]


CASES = [
    (name, option, ())
    for name in method_names()
    for option in SETS
    if option is not Option.PROCESSES
]
CASES += [
    (name, None, (f"method.{key}=0.01",))
    for name in method_names()
    for key in weights_off_by_default(name)
]


def preset_of(name: str, option: Option | None, more: tuple[str, ...]):
    stage = "pretrain" if name == "source-only" else "adapt"
    frozen = "{stage}.batch_norm=frozen"
    sets = (
        [frozen, *SETS[option]] if stage == "adapt" or option is Option.ACCUMULATE else SETS[option]
    )
    sets = [text.format(stage=stage) for text in sets]
    base = () if option in (Option.DETAIL, Option.AUXILIARY, None) else ("model.multi_level=false",)
    return (
        load_preset("playground", [*TINY, *base, *sets, *SMALL.get(name, ()), *more], name),
        stage,
    )


def plan_of(preset, stage: str, data_root, tmp_path) -> stages.Plan:
    job = stages.Job(
        preset,
        data_root,
        tmp_path / "run",
        device="cpu",
        reporter=Reporter(quiet=True, warns=False),
    )
    method = method_class(preset.method.name)
    classes = stages.open_domain(data_root, "playground-game").classes
    torch.manual_seed(7)
    model = checkpoint.build_model(preset.model, len(classes))
    init = None
    if stage == "adapt":
        content = {"classes": classes.to_json(), "model": model.state_dict()}
        init = (tmp_path / "start.pth", content)
    if stage == "pretrain":
        preset = preset.model_copy(update={"method": preset.source_only})
        job = replace(job, preset=preset)
    return stages.check(
        job,
        preset,
        getattr(preset, stage),
        identity=Identity(stage, preset.method.name),
        method=method,
        init=init,
    )


def gradients_of_a_step(plan: stages.Plan, tmp_path) -> tuple[Method, dict[str, torch.Tensor]]:
    """One step of the trainer without its optimisers: the method, and the gradients of all that is
    trained, by name.
    """
    run = RunFolder(tmp_path / "run")
    state = stages.build(plan, run, None)
    trainer = Trainer(
        state,
        plan.samples,
        plan.stage,
        preset=plan.preset,
        run=run,
        header={"stage": plan.identity.stage},
        validators=Validators(),
        reporter=QUIET,
    )
    batch = stages_batch(plan)
    state.clear_gradients()
    method = state.method
    method.model.begin_iteration(method.seed, 0)
    method.begin_iteration(0, 4, trainer.target_images)
    terms = trainer.step_parts(batch)
    assert all(torch.isfinite(term).all() for term in terms.values()), terms
    modules = {"model": method.model, **method.modules}
    found = {
        f"{name}.{key}": parameter.grad
        for name, module in modules.items()
        for key, parameter in module.named_parameters()
        if parameter.requires_grad
    }
    return method, found


QUIET = Reporter(quiet=True, warns=False)


def stages_batch(plan: stages.Plan):
    from fgda_cli.data import loader

    positions = loader.Positions(0, 1, plan.stage.batch_size)
    return next(iter(loader.batches(plan.samples, positions, 0, pin=False)))


def used_by_inference(method: Method) -> set[str]:
    """Names of the parameters on which the network that is shipped depends, as
    `inference_state_dict` makes it of them.
    """
    modules = {"model": method.model, **method.modules}
    trained = {
        f"{name}.{key}": parameter
        for name, module in modules.items()
        if name not in ("teacher", "labeller", "perception")
        for key, parameter in module.named_parameters()
        if parameter.requires_grad
    }
    plain = torch.nn.Module.state_dict
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch.nn.Module,
            "state_dict",
            lambda self, **how: plain(self, **(how | {"keep_vars": True})),
        )
        state = method.inference_state_dict()
    shipped = {
        key: value
        for key, value in state.items()
        if value.is_floating_point() and value.requires_grad
    }
    network = method.model
    network.eval()
    kept = dict(network.named_parameters())
    images = torch.randint(0, 256, (1, 3, 64, 128), generator=torch.Generator().manual_seed(3)).to(
        torch.uint8
    )
    values = {key: shipped.get(key, state[key]) for key in state}
    logits = torch.func.functional_call(network, {**kept, **values}, (images,)).logits.float()
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(logits.shape, generator=generator)
    names = list(trained)
    grads = torch.autograd.grad(
        (logits * weights).sum(), [trained[name] for name in names], allow_unused=True
    )
    return {
        name
        for name, grad in zip(names, grads, strict=True)
        if grad is not None and grad.abs().sum() > 0
    }


@pytest.mark.parametrize(
    ("name", "option", "more"),
    CASES,
    ids=lambda value: getattr(value, "name", str(value) or "plain"),
)
def test_it_is_refused_or_all_that_inference_uses_is_trained(
    data_root, tmp_path, name, option, more
):
    torch.set_num_threads(1)
    cls = method_class(name)
    if option is Option.LABELLED and not cls.uses_target:
        pytest.skip("reads no target")
    if option is Option.MIXED_NORMS and name == "source-only":
        pytest.skip("pretrain has no such mode")
    preset, stage = preset_of(name, option, more)
    if option is not None and option not in cls.supports:
        with pytest.raises(
            UsageError, match=f"method {name} does not go with {option.value.partition(':')[0]}"
        ):
            plan_of(preset, stage, data_root, tmp_path=tmp_path)
        return
    try:
        plan = plan_of(preset, stage, data_root, tmp_path=tmp_path)
    except UsageError as error:
        # refused in a line for another reason, such as a head that it cannot split
        assert str(error).count("\n") <= 1
        return
    method, grads = gradients_of_a_step(plan, tmp_path)
    if name == "adabn":
        # it trains nothing, as it says
        assert not any(grad is not None and grad.any() for grad in grads.values())
        return
    used = used_by_inference(method)
    assert used
    without = [key for key in used if key in grads and grads[key] is None]
    broken = [
        key for key in used if grads.get(key) is not None and not torch.isfinite(grads[key]).all()
    ]
    # tent: the norms' scales and shifts alone
    if cls.fixed_norms:
        without = [
            key
            for key in without
            if key.rpartition(".")[0].rpartition(".")[2].startswith(("bn", "norm"))
        ]
    assert not without and not broken, (without[:4], broken[:4])


@pytest.mark.parametrize(
    "name", [name for name in method_names() if Option.ACCUMULATE in method_class(name).supports]
)
def test_a_step_in_two_parts_is_the_step_of_the_whole(data_root, tmp_path, name):
    """Case 136: means over labelled pixels were taken part by part. Half of the second image has no
    label here.
    """
    torch.set_num_threads(1)
    found = []
    for parts in (1, 2):
        preset, stage = preset_of(
            name,
            None,
            (f"{'pretrain' if name == 'source-only' else 'adapt'}.accumulate={parts}", *FROZEN),
        )
        plan = plan_of(preset, stage, data_root, tmp_path=tmp_path)
        whole = plan.samples.__class__._label

        def label(self, dataset, item, size, whole=whole, first=plan.samples):
            values = whole(self, dataset, item, size).copy()
            values[: values.shape[0] * (hash_of(item.name) % 3) // 3] = 255
            return values

        plan.samples.__class__._label = label
        try:
            _, grads = gradients_of_a_step(plan, tmp_path / str(parts))
        finally:
            plan.samples.__class__._label = whole
        found.append(
            torch.cat([grad.double().flatten() for grad in grads.values() if grad is not None])
        )
    one, two = found
    assert (one - two).norm() <= 2e-4 * one.norm(), float((one - two).norm() / one.norm())


def hash_of(name: str) -> int:
    return sum(map(ord, name))


def test_auto_takes_no_precision_that_the_method_does_not_support(data_root, tmp_path, monkeypatch):
    preset, stage = preset_of("minent", None, ("run.precision=auto",))
    cls = method_class("minent")
    assert plan_of(preset, stage, data_root, tmp_path=tmp_path).preset.run.precision == "auto"
    monkeypatch.setattr(cls, "supports", cls.supports - {Option.REDUCED})
    assert plan_of(preset, stage, data_root, tmp_path=tmp_path).preset.run.precision == "fp32"
