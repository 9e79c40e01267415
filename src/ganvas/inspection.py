"""The data sheet of a source without training on it."""

from pathlib import Path
from typing import Any, NamedTuple

from ganvas.config import RunConfig
from ganvas.data.sheet import Sheet
from ganvas.dataset import prepare
from ganvas.errors import RunError
from ganvas.report.data_page import write_page
from ganvas.request import Images, resolve
from ganvas.watcher import Watcher


class Inspected(NamedTuple):
    """What is known of the images, and how a training would take them."""

    sheet: Sheet
    config: RunConfig
    why: dict[str, str]            # {option of data: a line that says how it was chosen}
    page: Path | None


def inspect(
    images: Images | None, *, page: str | Path | None = None, preset: str | None = None, config: str | Path | None = None,
    settings: dict[str, Any] | None = None, watch: Watcher | None = None, **short: Any,
) -> Inspected:
    """The data sheet of `images` as a training with these options would show it; images that cannot be read are listed.

    page: the HTML file to write; "" = <name of the source>-data.html, None = none. Options are those of `app.iterate`
    that concern images. What is decoded is kept in the cache: that training then starts at once. Raises GanvasError.
    """
    watch = watch or Watcher()
    # What says how to compute is settled, so that nobody asks torch.
    forced = {"execution.device": "cpu", "execution.precision": "fp32", "execution.channels_last": False, "data.skip_bad": True}
    request = resolve(images, preset, config, settings, short, forced, tell=watch.tell, opening=watch.opening)
    why = {option: reason for option, reason in request.why.items() if option.startswith("data.")}
    for reason in why.values():
        watch.tell(f"  {reason}")
    where = Path(f"{request.source.name}-data.html") if page == "" else None if page is None else Path(page)
    dataset = prepare(request.source, request.config.data, watch.tell, watch.packing, watch.comparing)
    try:
        if where is not None:
            write_page(where, dataset.sheet, dataset.pack)
    except OSError as error:
        raise RunError(f"{where}: cannot be written ({error.strerror}). Name another place.") from error
    finally:
        dataset.pack.close()
    return Inspected(dataset.sheet, request.config, why, where)
