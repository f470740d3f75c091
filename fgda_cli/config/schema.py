"""What a preset may hold: one frozen pydantic section each, with a line of help for every key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _size(value: tuple[int, int]) -> tuple[int, int]:
    if min(value) < 32:
        raise ValueError("width and height must be at least 32")
    return value


Size = Annotated[tuple[int, int], AfterValidator(_size)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Domain(Section):
    dataset: str = Field(description="folder of the prepared data set below the data root")
    size: Size = Field(description="width and height of training images, pixels")


class Evaluation(Section):
    dataset: str = Field(description="data set that is evaluated")
    split: str = Field("val", description="its split")
    size: Size = Field(description="input width and height; logits are upsampled to the label's own size")
    metric: Literal["miou", "miou16", "miou13"] = Field("miou", description="which mean picks best.pth")


class Data(Section):
    source: Domain = Field(description="labelled, synthetic")
    target: Domain = Field(description="unlabelled, real")
    evaluation: Evaluation = Field(description="labelled images that are only evaluated")
    untrained: tuple[int, ...] = Field((), description="train ids ignored in training (SYNTHIA: 9, 14, 16)")
    sampling: Literal["uniform", "class_balanced", "rare_class"] = Field("class_balanced", description="of source images")
    flip: bool = Field(True, description="mirror half of the images")
    colour_jitter: tuple[Share, Share, Share, Annotated[float, Field(ge=0, le=0.5)]] = Field(
        (0.5, 0.5, 0.5, 0.2), description="brightness, contrast, saturation, hue of source images"
    )
    blur: float = Field(0.0, ge=0, le=10, description="largest random blur of source images, sigma in pixels")


class Model(Section):
    backbone: str = Field("resnet101", description="resnet18, 34, 50 or 101")
    variant: Literal["torchvision", "caffe"] = Field("torchvision", description="where stride and dilation sit")
    weights: str = Field("imagenet", description="imagenet, none, or a file with backbone weights")
    output_stride: Literal[8, 16, 32] = Field(8, description="input over feature resolution")
    width: Count = Field(64, description="channels of the first layer (64 is the standard network)")
    multi_level: bool = Field(True, description="second head on layer3, trained with auxiliary losses")
    checkpoint_activations: bool = Field(False, description="compute activations twice, keep fewer (needs batch_norm: frozen)")
    dilations: tuple[Count, ...] = Field((6, 12, 18, 24), min_length=1, description="of the ASPP heads")


class Optim(Section):
    lr: Positive = Field(2.5e-4, description="learning rate of the backbone")
    head_lr_factor: Positive = Field(10.0, description="heads learn at lr times this")
    momentum: Share = Field(0.9, description="of SGD")
    weight_decay: float = Field(5e-4, ge=0, description="of SGD")
    poly_power: float = Field(0.9, ge=0, description="lr (1 - it/max)^power")


class Stage(Section):
    iterations: Count = Field(description="optimiser steps")
    schedule_iterations: Count | None = Field(None, description="max of the poly schedule; default: iterations")
    batch_size: Count = Field(1, description="images a domain and step")
    lr: Positive | None = Field(None, description="instead of optim.lr in this stage")
    batch_norm: Literal["frozen", "train", "target"] = Field(
        "frozen", description="frozen as published; train; or train with running statistics of the target alone"
    )
    log_every: Count = Field(50, description="iterations between log lines")
    checkpoint_every: Count = Field(500, description="iterations between resumable checkpoints")
    evaluate_every: Count = Field(2000, description="iterations between validations that may set best.pth")


class Run(Section):
    seed: int = Field(0, ge=0, description="of weights, samples and augmentation")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="auto measures fp32 against bf16")
    compile: bool = Field(False, description="compile the backbone with torch.compile (minutes at first; needs a C++ compiler)")
    workers: int = Field(2, ge=0, description="processes that read images; 0 reads in the main one")


class Preset(Section):
    name: str = Field(description="names the run folder")
    data: Data
    model: Model = Model()
    optim: Optim = Optim()
    pretrain: Stage
    adapt: Stage
    method: Any = Field(description="name, and the settings of that method")
    run: Run = Run()

    def to_json(self) -> dict:
        """Plain values; `Preset.model_validate` does not read `method` back, `from_json` does."""
        tree = self.model_dump(mode="json", exclude={"method"})
        return tree | {"method": self.method.model_dump(mode="json")}

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.to_json(), sort_keys=False, allow_unicode=True)
