"""Draws docs/pictures/data-*.png, the pictures of docs/data.md, from figures that it draws itself, and fills in its example.

    python docs/make_data_pictures.py

What the networks see is made by Ganvas's own functions, and the example is what `ganvas data inspect` says of `sprite_folder`, so
neither can differ from the code; tests/test_docs_data.py checks that the committed files are what this makes. The picture of
the data sheet's page needs Chromium, and is left as it is where there is none.
"""

import colorsys
import contextlib
import io
import os
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ganvas.data.decode import Layout, to_pixels
from ganvas.data.sources import open_source

DOCS = Path(__file__).parent
PICTURES = DOCS / "pictures"
EXAMPLE = re.compile(r"(<!-- example: made by docs/make_data_pictures\.py -->\n```\n).*?(```\n<!-- end of example -->)",
                     re.DOTALL)
PAGE_PICTURE = "data-page.png"

PAPER, CARD, LINE, INK, QUIET = "#fbfaf7", "#ffffff", "#e5e1d9", "#24221f", "#6c675f"
MARGIN, GAP = 20, 18
SIDE = 32                                              # of a sprite
KINDS = ("cats", "ghosts", "slimes")
EACH = 56                                              # sprites of each kind

# ---------------------------------------------------------------- figures


def creature(kind: str, number: int, hue_shift: float = 0.0) -> Image.Image:
    """A sprite of 32x32 pixels on nothing, another one for every `number`. hue_shift: 0 to 1, the same in other colours."""
    chance = random.Random(f"{kind} {number}")
    hue = (chance.random() + hue_shift) % 1
    dark, body, light = (_colour(hue, s, v) for s, v in ((.75, .35), (.6, .8), (.35, 1.)))
    extra = _colour((hue + .15 + .7 * chance.random()) % 1, .7, .9)
    image = Image.new("RGBA", (SIDE, SIDE))
    draw = ImageDraw.Draw(image)
    middle, foot = 16 + chance.randint(-3, 3), chance.randint(25, 30)
    half, high = chance.randint(6, 11), chance.randint(10, 20)
    top, left, right = foot - high, middle - half, middle + half
    if kind == "cats":
        for side in (-1, 1):
            tip = middle + side * half
            draw.polygon([(tip, top - chance.randint(2, 5)), (tip - side * 6, top + 2), (tip, top + 7)], body, dark)
        tail = left if chance.random() < .5 else right
        draw.arc((tail - 5, foot - chance.randint(8, 16), tail + 5, foot), 0, 360, dark, 2)
        draw.rounded_rectangle((left, top, right, foot), 5, body, dark)
        draw.ellipse((middle - half // 2, foot - high // 2, middle + half // 2, foot - 1), light)
    elif kind == "ghosts":
        draw.rounded_rectangle((left, top, right, foot), half, body, dark)
        teeth = chance.randint(2, 4)
        for tooth in range(teeth):
            at = left + (2 * tooth + 1) * (right - left) // (2 * teeth)
            draw.polygon([(at - 2, foot + 1), (at, foot - chance.randint(2, 6)), (at + 2, foot + 1)], (0, 0, 0, 0))
        draw.arc((left + 2, top + 2, right - 2, foot), 180, 270, light, 2)
    else:
        draw.chord((left - 2, top, right + 2, foot + high), 180, 360, body, dark)
        draw.rectangle((left - 1, foot - 1, right + 1, foot), dark)
        draw.ellipse((left + 2, foot - high // 2, left + 5, foot - high // 2 + 3), light)
    if kind == "slimes" or chance.random() < .6:       # a hat, a spot or a bow, on one side
        at = middle + chance.choice((-1, 1)) * chance.randint(1, half - 1)
        size, up = chance.randint(2, 4), chance.choice((top, top + 2, foot - 5))
        draw.rectangle((at - size, up - size, at + size, up), extra, dark)
    eye, apart, look = top + high // 3, chance.randint(2, max(3, half - 3)), chance.randint(0, 1)
    for x in (middle - apart - 1, middle + apart - 1):
        draw.rectangle((x, eye, x + 2, eye + 2), "white")
        draw.point([(x + look, eye + 1), (x + look, eye + 2)], "black")
    if chance.random() < .5:
        draw.line((middle - 2, eye + 5, middle + chance.randint(0, 3), eye + 5), dark)
    return image


def _colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def lighthouse() -> Image.Image:
    """A tall picture, 96x192, whose top and foot matter."""
    scale = 4                                          # drawn large: the edges become smooth
    image = Image.new("RGB", (96 * scale, 192 * scale), "#bcd7e6")
    draw = ImageDraw.Draw(image)

    def box(left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float]:
        return left * scale, top * scale, right * scale, bottom * scale

    draw.ellipse(box(62, 14, 84, 36), "#f6d27a")
    draw.rectangle(box(0, 158, 96, 192), "#5d8aa3")
    draw.ellipse(box(10, 150, 86, 186), "#7c6a58")
    for stripe in range(6):
        top, bottom = 48 + 18 * stripe, 66 + 18 * stripe
        inset = [.1 * (156 - y) for y in (top, bottom)]
        corners = [(30 + inset[0], top), (66 - inset[0], top), (66 - inset[1], bottom), (30 + inset[1], bottom)]
        draw.polygon([(x * scale, y * scale) for x, y in corners], "#c8504a" if stripe % 2 == 0 else "#f7f2e8")
    draw.rectangle(box(36, 44, 60, 49), "#3b3a40")
    draw.rectangle(box(41, 26, 55, 44), "#ffe9a0")
    draw.polygon([(x * scale, y * scale) for x, y in ((38, 26), (48, 12), (58, 26))], "#3b3a40")
    draw.rectangle(box(44, 138, 52, 156), "#3b3a40")
    return image.reduce(scale)


# The planted twins: (kind, name of the twin, name of the sprite it is a twin of).
TWINS = (
    ("exact", "ghosts/copy.png", "cats/07.png"),
    ("mirrored", "cats/other-way.png", "cats/12.png"),
    ("recoloured", "ghosts/shiny.png", "ghosts/05.png"),
    ("near", "slimes/freckled.png", "slimes/09.png"),
    ("exact", "slimes/11-copy.png", "slimes/11.png"),
)


def sprite(name: str) -> Image.Image:
    """The sprite of that name in `sprite_folder`."""
    planted = {twin: (kind, original) for kind, twin, original in TWINS}
    kind, original = planted.get(name, ("", name))
    image = creature(*_parts(original), hue_shift=.45 if kind == "recoloured" else 0)
    if kind == "mirrored":
        image = ImageOps.mirror(image)
    elif kind == "near":
        left, top, right, bottom = image.getbbox() or (0, 0, SIDE, SIDE)
        for x in (-4, -1, 2):                          # freckles
            image.putpixel(((left + right) // 2 + x, (top + 2 * bottom) // 3), (60, 40, 40, 255))
    return image


def _parts(name: str) -> tuple[str, int]:
    kind, _, number = name.removesuffix(".png").partition("/")
    return kind, int(number)


def sprite_folder(folder: Path) -> Path:
    """Fills `folder` as somebody's might be: sprites of three kinds, some twins, a half download, two texts."""
    names = [f"{kind}/{number:02d}.png" for kind in KINDS for number in range(EACH)]
    for name in (*names, *(twin for _, twin, _ in TWINS)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        sprite(name).save(path)
    whole = (folder / names[0]).read_bytes()
    (folder / "slimes" / "half.png").write_bytes(whole[:len(whole) // 2])
    for name in ("readme.txt", "cats/todo.txt"):
        (folder / name).write_text("Drawn by docs/make_data_pictures.py.\n", encoding="utf-8")
    return folder


# ---------------------------------------------------------------- pictures


def seen(image: Image.Image, layout: Layout) -> Image.Image:
    """What the networks get of `image`."""
    pixels = to_pixels(image, layout).transpose(1, 2, 0)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))


def enlarged(image: Image.Image, factor: int) -> Image.Image:
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def on_board(image: Image.Image, cell: int = 8) -> Image.Image:
    """A transparent picture on a pale board, as programs that draw show it."""
    y, x = np.mgrid[:image.height, :image.width] // cell
    board = Image.fromarray(np.where((y + x) % 2, np.uint8(232), np.uint8(250))).convert("RGBA")
    return Image.alpha_composite(board, image.convert("RGBA"))


def row(cells: Sequence[tuple[Image.Image, str]], arrow_after: int | None = None) -> Image.Image:
    """Pictures side by side on paper, each with a line of text below it; an arrow after one of them."""
    font = ImageFont.load_default(14)
    arrow = 34 if arrow_after is not None else 0
    widths = [max(image.width, int(font.getlength(text))) for image, text in cells]
    high = max(image.height for image, _ in cells)
    canvas = Image.new("RGB", (2 * MARGIN + sum(widths) + GAP * (len(cells) - 1) + arrow, 2 * MARGIN + high + 24), PAPER)
    draw = ImageDraw.Draw(canvas)
    x = MARGIN
    for number, ((image, text), width) in enumerate(zip(cells, widths, strict=True)):
        left, top = x + (width - image.width) // 2, MARGIN + (high - image.height) // 2
        draw.rectangle((left - 1, top - 1, left + image.width, top + image.height), CARD, LINE)
        canvas.paste(image.convert("RGB") if image.mode != "RGBA" else on_board(image).convert("RGB"), (left, top))
        draw.text((x + (width - font.getlength(text)) / 2, MARGIN + high + 8), text, INK, font)
        x += width + GAP
        if number == arrow_after:
            middle = MARGIN + high // 2
            draw.line((x, middle, x + 22, middle), QUIET, 2)
            draw.polygon([(x + 26, middle), (x + 18, middle - 5), (x + 18, middle + 5)], QUIET)
            x += arrow + 10 - GAP + 8
    return canvas


def fit_picture() -> Image.Image:
    picture = lighthouse()
    cells = [(enlarged(seen(picture, Layout(64, 64, fit=fit)), 2), f"--fit {fit}") for fit in ("crop", "pad", "stretch")]
    return row([(picture, "the file, 96x192"), *cells], arrow_after=0)


def transparency_picture() -> Image.Image:
    image = sprite("cats/20.png")
    cells = [(enlarged(seen(image, Layout(SIDE, SIDE, transparency=what)), 3), what)
             for what in ("white", "black", "checker", "#7fb5a0")]
    kept = seen(image, Layout(SIDE, SIDE, channels=4, transparency="keep"))
    alpha = enlarged(kept.getchannel("A"), 3)
    cells += [(enlarged(kept.convert("RGB"), 3), "keep: colours"), (alpha, "keep: alpha")]
    return row([(enlarged(image, 3), "the file"), *cells], arrow_after=0)


def native_picture() -> Image.Image:
    art = sprite("cats/06.png").crop((4, 6, 28, 30))
    large = enlarged(art, 5)
    off = seen(large, Layout(64, 64, channels=4, transparency="keep", fit="pad"))
    on = seen(large, Layout(24, 24, channels=4, transparency="keep", fit="pad", native=True))
    return row([(on_board(large), "the file, 120x120"), (on_board(enlarged(off, 3)), "--native off: 64x64, blurred"),
                (on_board(enlarged(on, 8)), "--native on: 24x24, sharp")], arrow_after=0)


def sheet_of_sprites() -> Image.Image:
    """A sprite sheet of 4 x 2 places, two of them empty."""
    sheet = Image.new("RGBA", (4 * SIDE, 2 * SIDE))
    names = ("cats/01.png", "ghosts/02.png", "slimes/04.png", "cats/20.png", "ghosts/11.png", "slimes/13.png")
    for place, name in enumerate(names):
        sheet.paste(sprite(name), (place % 4 * SIDE, place // 4 * SIDE))
    return sheet


def tiles_picture() -> Image.Image:
    """The sheet and the images that a source with --tile 32x32 finds on it."""
    sheet = sheet_of_sprites()
    with tempfile.TemporaryDirectory(prefix="ganvas-docs-") as folder:
        sheet.save(Path(folder) / "sheet.png")
        source = open_source(folder, tile=(SIDE, SIDE))
        tiles = [Image.fromarray(np.asarray(source.load(index))) for index in range(len(source))]
        source.close()
    cells = [(enlarged(tile, 2), str(number)) for number, tile in enumerate(tiles, 1)]
    return row([(on_board(enlarged(sheet, 3)), "sheet.png, 128x64"), *cells], arrow_after=0)


def twins_picture() -> Image.Image:
    """A pair of each kind, side by side."""
    font = ImageFont.load_default(14)
    pairs = []
    for kind, twin, original in TWINS[:4]:
        pair = Image.new("RGB", (2 * 3 * SIDE + 8, 3 * SIDE), CARD)
        for place, name in enumerate((original, twin)):
            pair.paste(on_board(enlarged(sprite(name), 3)).convert("RGB"), (place * (3 * SIDE + 8), 0))
        pairs.append((pair, kind))
    top, bottom = row(pairs[:2]), row(pairs[2:])
    assert font.getlength("recoloured") < pairs[0][0].width, "the two rows would not be of one width"
    canvas = Image.new("RGB", (top.width, top.height + bottom.height - MARGIN), PAPER)
    canvas.paste(top, (0, 0))
    canvas.paste(bottom, (0, top.height - MARGIN))
    return canvas


DRAWN: dict[str, Callable[[], Image.Image]] = {
    "data-fit.png": fit_picture,
    "data-transparency.png": transparency_picture,
    "data-native.png": native_picture,
    "data-tiles.png": tiles_picture,
    "data-twins.png": twins_picture,
}


# ---------------------------------------------------------------- the data sheet


def inspected(folder: Path) -> tuple[str, Path]:
    """What `ganvas data inspect sprites` says of a `sprite_folder` in `folder`, with the usual cache's name, and its page."""
    from typer.testing import CliRunner

    from ganvas.cli.main import app

    sprite_folder(folder / "sprites")
    cache = str(folder / "cache")
    with contextlib.chdir(folder):                     # the page shows the source as it was named
        result = CliRunner().invoke(app, ["data", "inspect", "sprites"], catch_exceptions=False,
                                    env={"GANVAS_CACHE": cache, "COLUMNS": "130", "NO_COLOR": "1"})
    lines = [line.rstrip() for line in result.output.replace(cache + os.sep, "~/.cache/ganvas/").splitlines()]
    return "\n".join(lines) + "\n", folder / "sprites-data.html"


def with_example(page: str, said: str) -> str:
    """docs/data.md with that output as its example."""
    return EXAMPLE.sub(lambda found: f"{found[1]}$ ganvas data inspect sprites\n{said}{found[2]}", page)


def photograph(html: Path, chromium: str) -> bytes:
    """A PNG of the top of a page."""
    with tempfile.TemporaryDirectory(prefix="ganvas-docs-") as folder:
        shot = Path(folder) / "page.png"
        subprocess.run([chromium, "--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=900,1480",
                        f"--screenshot={shot}", html.as_uri()], check=True, capture_output=True, timeout=120)
        with Image.open(shot) as image:
            small = image.convert("RGB").resize((675, 1110), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    for name, draw in DRAWN.items():
        draw().save(PICTURES / name, optimize=True)
        print(PICTURES / name)
    with tempfile.TemporaryDirectory(prefix="ganvas-docs-") as folder:
        said, html = inspected(Path(folder))
        page = DOCS / "data.md"
        page.write_text(with_example(page.read_text(encoding="utf-8"), said), encoding="utf-8")
        print(page)
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if chromium is None:
            print(f"{PICTURES / PAGE_PICTURE} is left as it is: it needs Chromium, and there is none")
            return
        (PICTURES / PAGE_PICTURE).write_bytes(photograph(html, chromium))
        print(PICTURES / PAGE_PICTURE)


if __name__ == "__main__":
    main()
