"""Sections of a preset: frozen pydantic models with a line of help for every key."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from .runtime.text import dump_yaml

LARGEST_SIDE = 16384  # pixels


def _size(value: tuple[int, int]) -> tuple[int, int]:
    if min(value) < 32:
        raise ValueError("width and height must be at least 32")
    if max(value) > LARGEST_SIDE:
        raise ValueError(f"width and height must be at most {LARGEST_SIDE}")
    return value


Size = Annotated[tuple[int, int], AfterValidator(_size)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Scale = Annotated[float, Field(ge=0.1, le=4)]
Jitter = tuple[Share, Share, Share, Annotated[float, Field(ge=0, le=0.5)]]
Count = Annotated[int, Field(ge=1, le=10**9)]
Channels = Annotated[int, Field(ge=1, le=8192)]


def seconds(value: Any) -> Any:
    """Return `90s`, `30m`, `30min`, `2h` as seconds; anything else as it is."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|m|min|h)", value) if isinstance(value, str) else None
    return float(match[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600}[match[2]] if match else value


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number, all, a file or a data set, not true or false")
    return value


Seconds = Annotated[float, BeforeValidator(seconds), Field(gt=0, allow_inf_nan=False)]


class IdleSetting(ValueError):
    """A setting that another one, `by`, leaves without an effect."""

    def __init__(self, key: str, by: str, why: str):
        super().__init__(f"{key} does nothing: {why}")
        self.key = key
        self.by = by


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def idle(self) -> dict[str, tuple[str, str]]:
        """Return the settings that do nothing as the others stand: for each, the setting that makes
        it so, and why.
        """
        return {}

    @model_validator(mode="after")
    def no_setting_is_idle(self):
        for key, (by, why) in self.idle().items():
            if getattr(self, key) != type(self).model_fields[key].default:
                raise IdleSetting(key, by, why)
        return self


class Domain(Section):
    """What both domains have."""

    dataset: str | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="folder of the prepared data set below the data root; a list joins several"
    )
    weights: tuple[Positive, ...] | None = Field(
        None, description="relative frequency of the images of each joined data set"
    )
    size: Size = Field(description="width and height of training images, pixels")
    crop: Size | None = Field(None, description="random crop after resizing to size times scale")
    scale: tuple[Scale, Scale] = Field(
        (1.0, 1.0), description="smallest and largest random factor of the size"
    )
    max_class_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description=(
            "a crop with labels is drawn again, ten times at most, while one class covers this"
            " share or more"
        ),
    )

    @model_validator(mode="after")
    def scale_is_ordered(self):
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale goes from low to high, not {list(self.scale)}")
        return self

    @model_validator(mode="after")
    def weights_belong_to_data_sets(self):
        count = 1 if isinstance(self.dataset, str) else len(self.dataset)
        if self.weights is not None and (
            isinstance(self.dataset, str) or len(self.weights) != count
        ):
            raise ValueError(f"weights: {len(self.weights)} for {count} data sets that are joined")
        return self


class Source(Domain):
    validation: str | None = Field(
        None,
        description=(
            "a split held out from training (val), on which pretrain validates and picks its"
            " checkpoint"
        ),
    )


class Target(Domain):
    border: tuple[Share, Share, Share, Share] = Field(
        (0.0, 0.0, 0.0, 0.0),
        description=(
            "shares of the whole image at its top, bottom, left and right whose pseudo-labels do"
            " not count (self-training)"
        ),
    )
    labelled: Annotated[Count | str | None, BeforeValidator(_no_truth_value)] = Field(
        None,
        description=(
            "images whose labels adaptation may use: a number drawn by the seed, all, a file that"
            " lists them (one name a line, or fgda rank's ranking.json), or a prepared data set"
        ),
    )

    def idle(self) -> dict[str, tuple[str, str]]:
        if self.labelled is not None:
            return {}
        return {
            "max_class_share": (
                "labelled",
                "crops of the target have no labels (data.target.labelled)",
            )
        }

    @model_validator(mode="after")
    def border_leaves_something(self):
        top, bottom, left, right = self.border
        if top + bottom >= 1 or left + right >= 1:
            raise ValueError(
                "border leaves nothing of an image: opposite sides must add up to less than 1"
            )
        return self

    def as_source(self) -> Source:
        """Return the target in the place of the source, with all of its labels (an oracle)."""
        return Source(**{key: getattr(self, key) for key in Domain.model_fields})


class Evaluation(Section):
    dataset: str = Field(description="data set for validation and evaluation")
    split: str = Field("val", description="split of that data set")
    size: Size = Field(
        description="input width and height (docs/input-size.md); default: data.target.size"
    )
    metric: Literal["miou", "miou16", "miou13"] = Field(
        "miou",
        description="mean IoU that picks best.pth: over all classes, or over SYNTHIA's 16 or 13",
    )
    protocol: Literal["fgda", "paper"] = Field(
        "fgda",
        description=(
            "paper: every image is squeezed to the size by Pillow's bicubic, as in published"
            " evaluations"
        ),
    )


class Data(Section):
    source: Source = Field(description="labelled, synthetic")
    target: Target = Field(description="unlabelled, real")
    evaluation: Evaluation = Field(description="labelled images that are only evaluated")
    untrained: tuple[int | str, ...] = Field(
        (), description="classes ignored in training, ids or names (SYNTHIA: 9, 14, 16)"
    )
    sampling: Literal["uniform", "class_balanced", "rare_class"] = Field(
        "class_balanced", description="how source images are drawn"
    )
    rare_class_min_pixels: int = Field(
        3000,
        ge=0,
        description=(
            "rare_class: an image must show this many pixels of the class, counted at 1914x1052"
        ),
    )
    rare_class_crop_pixels: int = Field(
        0,
        ge=0,
        description=(
            "rare_class: a crop is drawn again, ten times at most, until it shows more of the class"
            " (DAFormer: 1500)"
        ),
    )
    rare_class_temperature: Positive = Field(
        0.01,
        description=(
            "rare_class: temperature of the softmax over 1 - share that draws the class (VFM-UDA++:"
            " 0.05)"
        ),
    )
    crop_tries: Count | None = Field(
        None,
        description=(
            "so many source crops are asked for max_class_share and rare_class_crop_pixels at once"
            " (VFM-UDA++: 20); default: ten times each, one within the other"
        ),
    )
    class_balance: Share = Field(
        0.0, description="power p of the class weights 1 / share^p; 0 turns them off"
    )
    flip: bool = Field(True, description="mirror half of the images")
    colour_jitter: Jitter = Field(
        (0.5, 0.5, 0.5, 0.2), description="brightness, contrast, saturation, hue of source images"
    )
    blur: float = Field(
        0.0, ge=0, le=10, description="largest random blur of source images, sigma in pixels"
    )

    @model_validator(mode="before")
    @classmethod
    def evaluation_size_follows_the_target(cls, value: Any) -> Any:
        """Let validated and shipped models read images at the target's training size, unless told
        otherwise.
        """
        parts = [
            value.get(key) if isinstance(value, dict) else None for key in ("evaluation", "target")
        ]
        if (
            not all(isinstance(part, dict) for part in parts)
            or parts[0].get("size") is not None
            or "size" not in parts[1]
        ):
            return value
        return value | {"evaluation": parts[0] | {"size": parts[1]["size"]}}


class Lora(Section):
    rank: int = Field(16, ge=1, le=1024, description="rank of the updates B A")
    alpha: float = Field(
        16.0, gt=0, le=4096, description="updates are scaled by alpha / rank (peft's lora_alpha)"
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="share of an updated layer's inputs that a step drops"
    )
    targets: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description=(
            "ends of the names of the linear layers that are updated, e.g. [qkv, proj, fc1, fc2];"
            " default: attention's"
        ),
    )
    init: Literal["default", "gaussian", "pissa", "olora", "orthogonal"] = Field(
        "default",
        description=(
            "how the factors start, as peft names it; default, gaussian and orthogonal change"
            " nothing at first"
        ),
    )
    dora: bool = Field(False, description="train the norms of the rows beside the factors (DoRA)")


class Model(Section):
    backbone: str = Field(
        "resnet101",
        description=(
            "resnet18, 34, 50 or 101, timm:NAME, mit:b0 to b5, dinov2:vitl14 or adapter:vitl14"
            " (fgda backbones)"
        ),
    )
    variant: Literal["torchvision", "caffe"] = Field(
        "torchvision",
        description=(
            "position of stride and dilation in a block: as torchvision's ResNet, or as Caffe's"
        ),
    )
    weights: str = Field(
        "imagenet",
        description=(
            "imagenet (as the published runs), imagenet-v2, package (fgda[encoders]), dinov2"
            " (adapter: its ViT alone), none, or a file"
        ),
    )
    output_stride: Literal[8, 16, 32, "native"] = Field(
        8, description="ratio of input size to feature size; native: the encoder's own"
    )
    width: Channels = Field(
        64, description="channels of the first layer (64 is the standard network)"
    )
    multi_level: bool = Field(
        True, description="second head on layer3, trained with auxiliary losses"
    )
    checkpoint_activations: bool = Field(
        False,
        description="keep fewer activations and compute them twice (needs batch_norm: frozen)",
    )
    tune: Literal["full", "lora", "frozen"] = Field(
        "full",
        description=(
            "what is trained of the encoder: all, low-rank updates of its linear layers"
            " (fgda[lora]), nothing"
        ),
    )
    lora: Lora = Field(Lora(), description="of model.tune: lora")
    head: Literal[
        "aspp",
        "fused",
        "pyramid",
        "daformer",
        "segformer",
        "linear",
        "dpt",
        "upscale",
        "transposed",
    ] = Field(
        "aspp",
        description=(
            "on the last stage: aspp (DeepLab-V2), pyramid (PSPNet), linear; on all: fused,"
            " daformer, segformer, dpt (plain ViTs), upscale (VFM-UDA++); transposed (VFM-UDA)"
        ),
    )
    head_width: Channels = Field(
        128,
        description=(
            "channels of the head's features (PSPNet 512, DAFormer and DPT 256, SegFormer 768,"
            " VFM-UDA++ 48 to 128)"
        ),
    )
    dilations: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field(
        (6, 12, 18, 24),
        min_length=1,
        max_length=16,
        description="dilations of the aspp, fused and daformer heads",
    )
    detail: Size | None = Field(
        None,
        description=(
            "width and height of windows read at full size, the whole at half (HRDA: [512, 512]);"
            " default: one size"
        ),
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the head's feature maps that a training step drops (DAFormer: 0.1)",
    )
    drop_path: float = Field(
        0.0,
        ge=0,
        lt=1,
        description=(
            "chance that the last block of mit: and timm: encoders is skipped, less before it"
            " (DAFormer: 0.1)"
        ),
    )
    align_corners: bool = Field(
        True,
        description=(
            "whether maps are enlarged with aligned corners (DeepLab) or aligned borders"
            " (mmsegmentation)"
        ),
    )
    batch_norm_eps: float | None = Field(
        None,
        ge=0,
        le=0.1,
        description=(
            "added to batch norm's variance (FADA's frozen norm: 0); default: the encoder's"
        ),
    )

    def idle(self) -> dict[str, tuple[str, str]]:
        if self.tune == "lora":
            return {}
        return {"lora": ("tune", f"model.tune is {self.tune}")}


# Keys of `model` that change training, or where weights come from, but not what the network
# computes from its weights.
# Two networks that differ in any other key are not the same.
HARMLESS_KEYS = frozenset(
    {"weights", "checkpoint_activations", "dropout", "drop_path", "tune", "lora"}
)
FUNCTION_KEYS = tuple(key for key in Model.model_fields if key not in HARMLESS_KEYS)


class Optim(Section):
    lr: Positive = Field(2.5e-4, description="learning rate of the backbone")
    head_lr_factor: Positive = Field(10.0, description="heads learn at lr times this")
    kind: Literal["sgd", "adamw"] = Field(
        "sgd", description="optimiser of the network: sgd (the paper) or adamw (transformers)"
    )
    momentum: Share = Field(0.9, description="momentum of SGD")
    betas: tuple[Share, Share] = Field((0.9, 0.999), description="betas of AdamW")
    weight_decay: float = Field(5e-4, ge=0, description="weight decay of SGD or AdamW")
    decay_norms: bool | Literal["heads"] = Field(
        True,
        description=(
            "whether weight decay acts on norm layers too; heads: only on norm layers of the heads"
            " (DAFormer's code)"
        ),
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="factor from the learning rate of a transformer block to the block before it",
    )
    clip_norm: Positive | None = Field(
        None,
        description=(
            "largest norm of the network's gradient; larger gradients are scaled down to it"
        ),
    )
    poly_power: float = Field(
        0.9, ge=0, description="power of the decay lr (1 - iteration / length)^power"
    )
    warmup: Literal["alone", "times_decay"] = Field(
        "alone",
        description=(
            "learning rate during warm-up: the linear factor alone, or times the decay"
            " (mmsegmentation, DAFormer)"
        ),
    )

    def idle(self) -> dict[str, tuple[str, str]]:
        unused = "betas" if self.kind == "sgd" else "momentum"
        return {unused: ("kind", f"kind is {self.kind}")}


class Stage(Section):
    iterations: Count = Field(description="optimiser steps")
    schedule_iterations: Count | None = Field(
        None, description="length of the poly schedule; default: iterations"
    )
    batch_size: Annotated[int, Field(ge=1, le=65536)] = Field(
        1, description="images of each domain in one step, over all processes"
    )
    accumulate: Count = Field(
        1,
        description=(
            "number of parts into which a step's images are split to save memory; gradients add up"
        ),
    )
    lr: Positive | None = Field(None, description="learning rate of this stage; default: optim.lr")
    warmup_iterations: int = Field(
        0, ge=0, le=10**9, description="iterations of linear warm-up of all learning rates"
    )
    batch_norm: Literal["frozen", "statistics", "train", "target", "mixed"] = Field(
        "frozen",
        description=(
            "frozen; statistics (running statistics are updated, scale and shift are fixed); train;"
            " target (the target's statistics alone); mixed (target statistics blended in at the"
            " start, then frozen)"
        ),
    )
    batch_norm_target_share: Share = Field(
        0.3, description="share of the target's statistics where batch_norm is mixed"
    )
    colour_jitter: bool = Field(
        True, description="whether this stage uses data.colour_jitter and data.blur"
    )
    average_last: Share = Field(
        0.0,
        description=(
            "share of the iterations, counted from the end, whose weights are averaged; the mean is"
            " validated and saved"
        ),
    )
    start: Literal["pretrain", "backbone"] = Field(
        "pretrain",
        description=(
            "adapt starts from the preset's pretrained model, or from the backbone's own weights"
        ),
    )
    log_every: Count = Field(50, description="iterations between log lines")
    checkpoint_every: Count = Field(500, description="iterations between resumable checkpoints")
    evaluate_every: Count = Field(
        2000, description="iterations between validations that may set best.pth"
    )

    def idle(self) -> dict[str, tuple[str, str]]:
        if self.batch_norm == "mixed":
            return {}
        return {"batch_norm_target_share": ("batch_norm", "batch_norm is not mixed")}


class Pretrain(Stage):
    start: Literal["pretrain"] = Field(
        "pretrain", description="pretrain starts from the backbone's own weights, always"
    )
    batch_norm: Literal["frozen", "statistics", "train"] = Field(
        "frozen",
        description=(
            "frozen; statistics (running statistics are updated, scale and shift are fixed); train"
        ),
    )


class Run(Section):
    cache_features: bool = Field(
        False,
        description=(
            "whether a frozen encoder's features (model.tune: frozen) are computed once an image,"
            " and kept in the run's folder; for images that keep their colours and scale"
        ),
    )
    seed: int = Field(
        0, ge=0, le=2**31 - 1, description="seed of weights, samples and augmentation"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="number format of the forward pass; auto measures fp32 against bf16"
    )
    compile: bool = Field(
        False,
        description=(
            "compile the backbone with torch.compile (minutes at first; needs a C++ compiler)"
        ),
    )
    select: Literal["auto", "labels", "label-free"] = Field(
        "auto",
        description=(
            "score that picks best.pth in adapt: labels (data.evaluation), label-free (signals on"
            " target images), or auto (labels where there are any)"
        ),
    )
    time_limit: Seconds | None = Field(
        None,
        description=(
            "longest duration (seconds, or 30m, 2h); the run then ends with its best checkpoint"
        ),
    )
    patience: Count | None = Field(
        None,
        description=(
            "number of validations without a new best after which the run ends with its best"
            " checkpoint"
        ),
    )
    loggers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field(
        ("tensorboard",),
        description="loggers of scalars besides metrics.jsonl (extras fgda[wandb], fgda[mlflow])",
    )
    keep: bool = Field(
        False,
        description="keep the checkpoint of every validation, as checkpoints/iteration-000100.pth",
    )
    workers: int = Field(
        2, ge=0, le=256, description="processes that read images; 0 reads in the main one"
    )


class Preset(Section):
    name: str = Field(description="name of the run folder")
    data: Data
    model: Model = Model()
    optim: Optim = Optim()
    pretrain: Pretrain
    adapt: Stage
    method: Any = Field(description="method of adaptation; methods.NAME holds its settings")
    source_only: Any = Field(
        None, description="settings of source-only training, which every method starts from"
    )
    run: Run = Run()

    def to_json(self) -> dict:
        """Return plain values, with the settings of the methods that run; `presets.from_json` reads
        them back.
        """
        tree = self.model_dump(mode="json", exclude={"method", "source_only"})
        settings = {
            one.name: one.model_dump(mode="json", exclude={"name"})
            for one in (self.source_only, self.method)
        }
        return tree | {"method": self.method.name, "methods": settings}

    def to_yaml(self) -> str:
        return dump_yaml(self.to_json())
