"""What the HTML pages share: the template engine, which escapes the user's text, and words for counts and long names."""

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from ganvas.config import fields
from ganvas.data.source_base import printable
from ganvas.files import write_whole

NAME_CHARS = 120
_DOTTED = "|".join(re.escape(name) for name, _ in fields() if "." in name)
_OPTION = re.compile(rf"((?<![\w-])--[a-z][a-z-]*\b|(?<![\w.])(?:{_DOTTED})\b)")


def write_html(path: Path, template: str, content: Mapping[str, Any]) -> None:
    """Writes a page from a template of this folder as one whole file.

    Names, reasons and labels are the user's: they are escaped, and what cannot be written or would break a line is
    shown as backslash escapes.
    """
    environment = jinja2.Environment(loader=jinja2.PackageLoader("ganvas", "report"), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined, finalize=_printable)
    environment.filters["some"] = some
    environment.filters["short"] = short
    environment.filters["parts"] = parts
    write_whole(path, environment.get_template(template).render(content).encode("utf-8", "backslashreplace"))


def _printable(value: object) -> object:
    """Everything that goes into the page, before it is escaped."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def short(text: str, limit: int = NAME_CHARS) -> str:
    """`text` as it can be printed, its middle left out beyond `limit` characters: the ends of long names tell them apart."""
    text = printable(text)
    return text if len(text) <= limit else f"{text[:limit // 2]}…{text[-(limit - limit // 2 - 1):]}"


def some(count: int, what: str, plural: str = "") -> str:
    """"1 image", "2,000 images"."""
    return f"{count:,} {what if count == 1 else plural or what + 's'}"


def parts(text: str) -> list[str]:
    """The text cut around its --options and section.options, which are every second part."""
    return _OPTION.split(text)


def data_uri(kind: str, content: bytes) -> str:
    """A picture in the text of the page; `kind` is png or jpeg."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")
