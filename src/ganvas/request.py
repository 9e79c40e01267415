"""What a call asks for: the source opened, and its options completed by preset, images and machine."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from ganvas.config import RunConfig, fields, make_config
from ganvas.data.contradictions import contradicted
from ganvas.data.looks import class_counts, look
from ganvas.data.sources import Source, open_source
from ganvas.errors import ConfigError
from ganvas.recipe import complete, config_values, options_from
from ganvas.recipe_modern import Labels

Images = str | Path | NDArray[Any] | Any       # Any: a list of images, a map-style torch Dataset

_OPENING = ("data.labels", "data.tile", "data.frames")         # options by which the images are found


class Request(NamedTuple):
    """A source of images and the complete config for it."""

    source: Source
    config: RunConfig
    why: dict[str, str]            # {option: a line that says how it was chosen or changed}


def check_each(options: Mapping[str, Any]) -> None:
    """Raises ConfigError for values that no run could have, before the images are looked at: each alone, "auto" apart."""
    known, bad = dict(fields()), {}
    for name, value in options.items():
        if value == "auto" or (name == "data.channels" and str(value).isdigit()):          # settled once the images are seen
            continue
        try:
            if name in known:
                TypeAdapter(Annotated[known[name].annotation, known[name]]).validate_python(value)  # type: ignore[arg-type]
            else:
                bad[name] = value
        except ValidationError:
            bad[name] = value
    make_config(bad)                                           # tells all of them at once


def resolve(
    images: Images | None, preset: str | None = None, config: str | Path | None = None, settings: Mapping[str, Any] | None = None,
    short: Mapping[str, Any] | None = None, forced: Mapping[str, Any] | None = None,
    settled: Callable[[Source], Mapping[str, Any]] = lambda source: {}, tell: Callable[[str], None] = lambda text: None,
    opening: Callable[[int, int], None] | None = None, time_sec: float | None = None,
    free: Callable[[str], int | None] = lambda device: None,
) -> Request:
    """Opens `images` (None = what `config` says, or the built-in digits) and completes the options; tells the source's notes.

    short: options by short name, settings: by dotted name, forced: those that the call itself implies.
    settled: gives the options of a run that goes on with this source. time_sec: --time. opening: hears (done, total) where
    opening takes long, and may raise to stop. free: as in recipe.complete. Raises ConfigError or DataError.
    """
    base = config_values(str(config)) if config is not None else {}
    given = options_from(short or {}, settings or {})
    if "data.source" in given:
        raise ConfigError(f"data.source {given['data.source']}: name the images as SOURCE, the first argument.")
    where = base.get("data.source", "digits") if images is None else images
    found_by = make_config({name: value for name, value in {**base, **given}.items() if name in _OPENING}).data
    source = open_source(where, found_by.labels, found_by.tile, found_by.frames, opening)
    for note in source.notes:
        tell(note)
    recipe = complete(source.where, look(source), preset, base, given | dict(forced or {}), images=len(source),
                      labels=_labels(source), settled=settled(source), time_sec=time_sec, free=free)
    return Request(source, recipe.config, recipe.why)


def _labels(source: Source) -> Labels | None:
    if source.labels is None:
        return None
    counts = class_counts(source)
    return Labels(tuple(counts), tuple(counts.values()), partial(contradicted, source))
