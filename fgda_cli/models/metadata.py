"""What a checkpoint says of itself, checked once, when the file is read: whoever reads it later may
rely on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..data.classes import ClassSet
from ..data.geometry import InputRule
from ..settings import LARGEST_SIDE

Number = Annotated[float, Field(allow_inf_nan=False)]
Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]


class Record(BaseModel):
    """A part of the metadata. Keys beyond the named ones are of other versions, and are left
    alone.
    """

    model_config = ConfigDict(extra="allow", strict=True)


class DomainRecord(Record):
    dataset: str | list[str]
    size: list[Side] | None = Field(None, min_length=2, max_length=2)
    labelled: str | int | None = None


class EvaluationRecord(Record):
    dataset: str
    split: str = "val"
    size: list[Side] = Field(min_length=2, max_length=2)


class DataRecord(Record):
    source: DomainRecord
    target: DomainRecord
    evaluation: EvaluationRecord


class ModelRecord(Record):
    backbone: str
    head: str = "aspp"
    weights: str = "none"


class RunRecord(Record):
    seed: int


class PresetRecord(Record):
    name: str
    model: ModelRecord
    data: DataRecord
    run: RunRecord


class VerdictRecord(Record):
    verdict: str
    score: Number
    confidence: Number
    words: list[str]


class Metadata(Record):
    """All of a checkpoint but its weights; `model` is a dictionary of tensors."""

    stage: str
    method: str
    iteration: int | None = Field(None, ge=0)
    preset: PresetRecord
    classes: dict[str, Any]
    input: dict[str, Any] | None = None
    model: dict[str, Any] = {}
    metrics: dict[str, Number] | None = None
    verdict: VerdictRecord | None = None
    origin: str | None = None
    # if an encoder is trained in part: the trained part, the rest's hash, the rest's checkpoint
    adapters: dict[str, Any] | None = None
    frozen: str | None = None
    init: str | None = None
    untaught: list[str] | None = None
    # domain, data set, split, hash of its images and labels
    pixels: list[Annotated[list[str], Field(min_length=4, max_length=4)]] | None = None
    source_validation: (
        list[Annotated[list[Any] | tuple[int, Number], Field(min_length=2, max_length=2)]] | None
    ) = None


def check(content: dict[str, Any]) -> None:
    """Raise ValueError for metadata of other types than a checkpoint's, naming the first."""
    try:
        Metadata.model_validate(content)
        for key, read in (("classes", ClassSet.from_json), ("input", InputRule.from_json)):
            if content.get(key) is not None:
                _read(key, content[key], read)
    except ValidationError as error:
        raise ValueError(_first(error)) from None
    except RecursionError:
        raise ValueError("nested too deep") from None


def _read(key: str, value: dict[str, Any], read: Callable[[dict], object]) -> None:
    try:
        read(value)
    except ValidationError as error:
        raise ValueError(f"{key}.{_first(error)}") from None
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return ": ".join(part for part in (".".join(map(str, first["loc"])), first["msg"]) if part)
