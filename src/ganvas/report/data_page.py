"""The data sheet as one HTML page: what a set of images is like, with pictures of what the networks will see of it."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from ganvas.data.pack import Pack
from ganvas.data.sheet import Sheet, TwinGroup
from ganvas.report.grid import tile
from ganvas.report.pages import data_uri, short, some, write_html

Picture = npt.NDArray[np.uint8]        # (H, W, C), as in report.grid

_BOARD = (255, 236)                    # behind transparent images; lighter than the board that --transparency checker trains on
_GAP = (222, 220, 216)                 # white would run together with images on white

# What the page may weigh, in characters: 3 MB with the text.
_CONTACT_CHARS = 1_200_000
_TWIN_CHARS = 150_000                  # for each kind of twins; what one leaves, the next may use
_CONTACT_COUNTS = (64, 36, 16)         # images on the contact sheet, at full size if they fit
_CONTACT_PIXELS = 5_000_000            # more than that need not be tried
_TWIN_PX = 112                         # larger twins are reduced: two of them fit in _TWIN_CHARS whatever they show
_LEAST_PX = 64                         # smaller ones are enlarged by a whole factor

_CLASSES = 40
_BARS = 6                              # sizes, kinds
_UNREADABLE = 200
_NOTES = 30
_REASONS, _NAMES_PER_REASON = 30, 4
_REASON_CHARS = 300


class Bar(NamedTuple):
    """One line of a list of counts; `percent` of the longest."""

    name: str
    number: int
    percent: float


class Bars(NamedTuple):
    """Counts to be drawn, and what is said of those left out ("" = none are)."""

    bars: list[Bar]
    rest: str


class Caption(NamedTuple):
    """The name of an image, and its label where that tells it from its twins."""

    name: str
    label: str


class Figure(NamedTuple):
    """A picture of the pack, how large it is shown, and the images that look so."""

    uri: str
    width: int
    height: int
    captions: list[Caption]


class KindOfTwins(NamedTuple):
    """All there is to show of one kind of twins."""

    kind: str
    pairs: int
    groups: list[list[Figure]]


class Reason(NamedTuple):
    """Why files were ignored, how many, and the first of them."""

    reason: str
    number: int
    names: list[str]
    more: int


def contact_sheet(pack: Pack, n: int = 64) -> Picture:
    """`n` images (all, if there are fewer) evenly spread over the pack, in its order, as the networks will see them.

    Returns (H, W, C) uint8, C = 1 or 3. Images with transparency lie on a light checker board, so that it can be seen.
    """
    images = pack.read(_spread(len(pack), n))
    if pack.channels == 4:
        images = _on_board(images, pack.layout.checker_px)
    return tile(images, background=_GAP if images.shape[1] == 3 else _GAP[:1])


def write_page(path: Path, sheet: Sheet, pack: Pack) -> None:
    """Writes the sheet of `pack` as one HTML file of at most 3 MB that needs no network and no scripts.

    Names, reasons and labels are the user's: they are escaped, and what cannot be written or would break a line is
    shown as backslash escapes.
    """
    write_html(path, "data_page.html.j2", _content(sheet, pack))


def _content(sheet: Sheet, pack: Pack) -> dict[str, Any]:
    """What the template shows."""
    prefix = _common_folder([name for group in (*sheet.twin_groups, *sheet.two_labels_examples) for name in group.names])
    twins, two_labels, omitted = _twins(sheet, pack, prefix)
    contact, contact_n, contact_factor = _contact(pack)
    parts = [("to train on", sheet.train), ("held out", sheet.holdout), ("left out as copies", sheet.dropped)]
    return {
        "sheet": sheet, "name": _last_part(sheet.source), "rows": _rows(sheet),
        "contact": contact, "contact_n": contact_n, "contact_factor": contact_factor,
        "labels": _bars(sheet.labels, _CLASSES, "classes" if sheet.labels_used else "folders") if sheet.labels else None,
        "parts": [(what, count, 100 * count / max(1, sheet.images)) for what, count in parts if count],
        "twins": twins, "two_labels": two_labels, "omitted": omitted, "prefix": prefix,
        "unreadable": [(short(name), short(reason, _REASON_CHARS)) for name, reason in sheet.unreadable[:_UNREADABLE]],
        "unreadable_more": len(sheet.unreadable[_UNREADABLE:]),
        **_ignored(sheet.ignored),
        "notes": [short(note, 2 * _REASON_CHARS) for note in sheet.notes[:_NOTES]], "notes_more": len(sheet.notes[_NOTES:]),
    }


# Text.

def _last_part(where: str) -> str:
    """The file or folder at the end of a path of any system."""
    return where.replace("\\", "/").rstrip("/").rpartition("/")[2] or where


def _common_folder(names: Sequence[str]) -> str:
    """The folder or archive that all names start with: "x.zip!" or "a/b/"; "" if there is none."""
    first, last = min(names, default=""), max(names, default="")        # all others lie between them
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:max(first.rfind("/", 0, same), first.rfind("!", 0, same)) + 1]


def _rows(sheet: Sheet) -> list[tuple[str, str | Bars | list[tuple[str, float]]]]:
    """The sheet's rows, with lists of counts for sizes and kinds, and (colour, percent) for colours."""
    shown: list[tuple[str, str | Bars | list[tuple[str, float]]]] = []
    for what, text in sheet.rows():
        if what == "sizes" and len(sheet.sizes) > 1:
            bars = _bars(sheet.sizes, _BARS, "sizes")
            between = "; all from {}x{} to {}x{}".format(*sheet.smallest, *sheet.largest)
            shown.append((what, bars._replace(rest=bars.rest and bars.rest + between)))
        elif what == "kinds" and len(sheet.formats) > 1:
            shown.append((what, _bars(sheet.formats, _BARS, "kinds")))
        elif what != "colours":
            shown.append((what, short(text, 2 * _REASON_CHARS)))
        elif sheet.colours:
            shown.append((what, [(colour, 100 * share) for colour, share in sheet.colours]))
    return shown


def _bars(counts: Mapping[str, int], limit: int, what: str) -> Bars:
    """The first `limit` of `counts`, which come in their order."""
    most = max(counts.values())
    bars = [Bar(short(name), count, 100 * count / most) for name, count in list(counts.items())[:limit]]
    more = list(counts.values())[limit:]
    return Bars(bars, f"and {len(more):,} more {what} with {some(sum(more), 'image')}" if more else "")


def _ignored(ignored: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The ignored files by their reasons, the commonest first."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in ignored:
        by_reason.setdefault(reason, []).append(name)
    ordered = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    return {"ignored": [Reason(short(reason, _REASON_CHARS), len(names), [short(name) for name in names[:_NAMES_PER_REASON]],
                               len(names[_NAMES_PER_REASON:])) for reason, names in ordered[:_REASONS]],
            "ignored_more": sum(len(names) for _, names in ordered[_REASONS:])}


# Pictures.

def _spread(count: int, n: int) -> npt.NDArray[np.int64]:
    """`n` of `count` positions, or all if there are fewer, from the first to the last."""
    return np.linspace(0, count - 1, min(n, count)).round().astype(np.int64)


def _on_board(images: Picture, square_px: int) -> Picture:
    """(N, 4, H, W) with alpha -> (N, 3, H, W) on a light checker board."""
    y, x = np.indices(images.shape[2:]) // square_px
    board = np.array(_BOARD, np.uint16)[(y + x) % 2]
    alpha = images[:, 3:].astype(np.uint16)
    shown: Picture = ((images[:, :3] * alpha + board * (255 - alpha) + 127) // 255).astype(np.uint8)
    return shown


def _contact(pack: Pack) -> tuple[Figure, int, int]:
    """The contact sheet, how many images it shows, and the factor by which they had to be reduced to keep the page small."""
    area = math.prod(pack.image_size)
    for n in (n for n in _CONTACT_COUNTS if n * area <= _CONTACT_PIXELS or n == min(_CONTACT_COUNTS)):
        picture = contact_sheet(pack, n)
        uri = _data_uri(picture)
        if len(uri) <= _CONTACT_CHARS:
            break
    factor = 1
    while len(uri) > _CONTACT_CHARS:
        factor *= 2
        uri = _data_uri(_reduced(picture, factor))
    height, width = math.ceil(picture.shape[0] / factor), math.ceil(picture.shape[1] / factor)
    scale = max(1, min(900 // width, 640 // height, 4))
    return Figure(uri, width * scale, height * scale, []), min(n, len(pack)), factor


def _twins(sheet: Sheet, pack: Pack, prefix: str) -> tuple[list[KindOfTwins], list[list[Figure]], int]:
    """The kinds of twins that occur, the examples of pictures under two labels, and how many groups had to be left out."""
    spare, omitted = 0, 0
    kinds: list[KindOfTwins] = []

    def drawn(groups: list[TwinGroup]) -> list[list[Figure]]:
        nonlocal spare, omitted
        spare += _TWIN_CHARS
        figures: list[list[Figure]] = []
        for group in groups:
            row, chars = _row(group, pack, prefix, spare)
            if not row:
                omitted += len(groups) - len(figures)
                break
            figures.append(row)
            spare -= chars
        return figures

    two_labels = drawn(list(sheet.two_labels_examples))
    # From the likest to the least like: a group stands under the last of these kinds that occurs in it.
    for kind in ("exact", "mirrored", "near", "recoloured"):
        groups = [group for group in sheet.twin_groups if group.kind == kind and group not in sheet.two_labels_examples]
        if groups or sheet.twins.get(kind):
            kinds.append(KindOfTwins(kind, sheet.twins.get(kind, 0), drawn(groups)))
    return kinds, two_labels, omitted


def _row(group: TwinGroup, pack: Pack, prefix: str, limit: int) -> tuple[list[Figure], int]:
    """The pictures of a group, as many as fit in `limit` characters, and their characters; none where not even two fit.

    Of exact copies one picture shows all.
    """
    differ = len(set(group.labels)) > 1
    captions = [Caption(short(name.removeprefix(prefix)), short(label) if differ and f"{label}/" not in name else "")
                for name, label in zip(group.names, group.labels or [""] * len(group.names), strict=True)]
    shared = [captions] if group.kind == "exact" else [[caption] for caption in captions]
    figures: list[Figure] = []
    chars = 0
    for image, its_captions in zip(pack.read(group.images[:len(shared)]), shared, strict=True):
        picture = image.transpose(1, 2, 0)
        picture = _reduced(picture, math.ceil(max(picture.shape[:2]) / _TWIN_PX))
        uri, scale = _data_uri(picture), math.ceil(_LEAST_PX / max(picture.shape[:2]))
        if chars + len(uri) > limit:
            break
        chars += len(uri)
        figures.append(Figure(uri, picture.shape[1] * scale, picture.shape[0] * scale, its_captions))
    return (figures, chars) if len(figures) >= min(2, len(shared)) else ([], 0)


def _image(picture: Picture) -> Image.Image:
    return Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else np.ascontiguousarray(picture))


def _reduced(picture: Picture, factor: int) -> Picture:
    """(H, W, C) at 1 / factor of its size, each pixel the mean of factor x factor."""
    if factor == 1:
        return picture
    reduced: Picture = np.asarray(_image(picture).reduce(factor))
    return reduced.reshape(*reduced.shape[:2], -1)


def _data_uri(picture: Picture) -> str:
    """The picture (H, W, C) as a PNG in the text of the page."""
    file = io.BytesIO()
    _image(picture).save(file, format="PNG")
    return data_uri("png", file.getvalue())
