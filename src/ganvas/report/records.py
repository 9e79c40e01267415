"""What the report reads of a run's JSON files: only what it shows, each part optional, a fault told instead of raised."""

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError


class Part(BaseModel):
    """Base of all records: what a newer version adds is left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Best(Part):
    """best.json: which checkpoint to keep, and by what figure."""

    nimg: int
    metric: str = "kid"
    value: float | None = None
    extractor: str = ""


class Sheet(Part):
    """data.json: the data sheet's rows, (what, text)."""

    rows: list[tuple[str, str]] = []


class Environment(Part):
    """execution.json: what machine and clock decided."""

    environment: dict[str, str | int | float | bool | None] = {}
    images: int | None = None                          # trained on
    holdout: int | None = None                         # kept out
    time_sec: float | None = None                      # --time
    why: dict[str, str] = {}                           # {option: how it was chosen}


class Figure(Part):
    """One number of an evaluation, with its interval and its floor: what real images score against each other."""

    metric: str
    label: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    floor_low: float | None = None
    floor_high: float | None = None
    error: float | None = None
    better: str = "none"                               # lower, higher or none
    n: int | None = None
    reals: int | None = None
    split: str = ""
    extractor: str = ""
    preprocessing: str = ""
    relative_only: bool = False
    note: str = ""


class Pair(Part):
    """A sample and the training image nearest to it. ratio: of its distance to that of the next ones; 0 = the same image."""

    sample: int
    image: str
    ratio: float | None = None
    mirrored: bool = False


class DataCopying(Part):
    """The three-sample test, in words."""

    text: str = ""


class Copies(Part):
    """How many samples lie nearer to a training image than new images do."""

    rate: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    calibration: str = ""
    calibration_rate: float | None = None
    n: int | None = None
    over_limit: bool | None = None
    text: str = ""                                     # the verdict in words
    pairs: list[Pair] = []
    data_copying: DataCopying | None = None


class Evaluation(Part):
    """evaluation.json, as `ganvas evaluate` writes it."""

    subject: str = ""
    checkpoint: int | None = None
    chosen: str = ""
    averaged: bool = False
    source: str = ""
    figures: list[Figure] = []
    copies: Copies | None = None
    notes: list[str] = []
    seed: int | None = None


class Diagnosis(Part):
    """One finding about the run's health."""

    name: str
    severity: str = "problem"                          # problem or warning
    since: int | None = None
    evidence: str = ""
    advice: str = ""


Record = TypeVar("Record", bound=Part)


def read_record(path: Path, kind: type[Record]) -> tuple[Record | None, str]:
    """The record in a JSON file and no fault; None and "" where there is no file; None and why where it cannot be read."""
    try:
        return kind.model_validate(json.loads(path.read_text(encoding="utf-8"))), ""
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"{path.name} cannot be opened ({error.strerror})"
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "its content"
        return None, f"{path.name} is damaged: {where}: {error.errors()[0]['msg']}"
    except (ValueError, RecursionError):
        return None, f"{path.name} is damaged: it is not valid JSON"
