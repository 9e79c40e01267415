"""A folder of everything that goes wrong with image files, and what must become of each of them."""

import contextlib
import io
import os
import re
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, PngImagePlugin, features

Pixels = npt.NDArray[np.uint8]

SIDE = 16                                          # of almost every readable picture
TOO_LARGE = r"pixels; the limit is 64,000,000 pixels"


@dataclass(frozen=True)
class Case:
    """One file, and just one of: what it looks like, why it is unreadable, why it is ignored."""

    name: str                                      # below the folder, as Python knows it
    content: bytes | None = None                   # None: no regular file, or not for archives
    pixels: Pixels | None = None                   # (16, 16, 4), black where nothing shows
    near: int = 0                                  # greatest difference of a value: lossy formats
    unreadable: str = ""                           # what the reason matches
    ignored: str = ""

    @property
    def kind(self) -> str:
        return "unreadable" if self.unreadable else "ignored" if self.ignored else "pixels"


def quadrants(*colours: int | tuple[int, ...], side: int = SIDE) -> Pixels:
    """Four squares: upper left, upper right, lower left, lower right. (side, side) or (side, side, C)."""
    corners = np.array(colours, np.uint8).reshape(2, 2, *np.shape(colours[0]))
    return corners.repeat(side // 2, axis=0).repeat(side // 2, axis=1)


PICTURE = quadrants((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))
GREYS = quadrants(255, 170, 85, 0)                 # exact in 2, 4, 8 and 16 bits
BLACK_AND_WHITE = quadrants(255, 0, 0, 255)
# Half-transparent green, and magenta that nobody may see.
HIDING = quadrants((255, 0, 0, 255), (0, 255, 0, 128), (255, 0, 255, 0), (255, 255, 255, 255))
NUMBERS = quadrants(0, 1, 2, 3)                    # into COLOURS
COLOURS = [255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255]
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)

UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {  # orientation -> from the stored pixels to the upright ones
    1: lambda s: s, 2: lambda s: s[:, ::-1], 3: lambda s: s[::-1, ::-1], 4: lambda s: s[::-1],
    5: lambda s: s.swapaxes(0, 1), 6: lambda s: np.rot90(s, -1), 7: lambda s: s[::-1, ::-1].swapaxes(0, 1), 8: np.rot90,
}


def make(folder: Path) -> list[Case]:
    """Fills `folder` and says what must become of each file. As root, whom no permission stops, all files can be read."""
    folder.mkdir(parents=True)
    cases = [*_modes(), *_formats(), *_oddities(), *_sizes(), *_damaged(), *_names(), *_ignored()]
    for case in cases:
        path = folder / case.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(case.content or b"")
    if os.name == "posix":
        cases += _posix(folder)
    assert len({case.name for case in cases}) == len(cases), "two cases have one name"
    return cases


# How files are written.

def encoded(image: Image.Image | npt.NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    """The image, or array of one, as a file."""
    picture = image.copy() if isinstance(image, Image.Image) else Image.fromarray(image)    # JPEG's writer leaves traces in it
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """One of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size: tuple[int, int], depth: int, colour: int, rows: bytes, *chunks: bytes, interlaced: int = 0) -> bytes:
    """A PNG of raw rows, each after its filter byte; colour: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png_of(pixels: npt.NDArray[Any], colour: int, *chunks: bytes) -> bytes:
    """`pixels`, 8 or 16 bits deep, as they are."""
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)
    return png((pixels.shape[1], pixels.shape[0]), pixels.dtype.itemsize * 8, colour, rows, *chunks)


def with_chunk(data: bytes, kind: bytes, content: bytes) -> bytes:
    """The PNG `data` with one chunk more, behind its header."""
    return data[:33] + chunk(kind, content) + data[33:]


def adam7(pixels: Pixels) -> bytes:
    """The rows of an interlaced PNG."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    return b"".join(b"\0" + row.tobytes() for y, x, dy, dx in passes for row in pixels[y::dy, x::dx])


def with_tiff_tags(data: bytes, **tags: int) -> bytes:
    """The little-endian TIFF `data` with other values of short tags, written t256=..."""
    patched, start = bytearray(data), struct.unpack_from("<I", data, 4)[0]
    for entry in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        tag, = struct.unpack_from("<H", data, entry)
        if f"t{tag}" in tags:
            struct.pack_into("<HII", patched, entry + 2, 4, 1, tags[f"t{tag}"])
    return bytes(patched)


def shown(pixels: Pixels) -> Pixels:
    """(H, W), (H, W, 2), (H, W, 3) or (H, W, 4) as RGBA, black where nothing shows."""
    if pixels.ndim == 2:
        pixels = pixels[..., None].repeat(3, axis=2)
    if pixels.shape[2] == 2:
        pixels = pixels[..., [0, 0, 0, 1]]
    whole = np.full((*pixels.shape[:2], 4), 255, np.uint8)
    whole[..., :pixels.shape[2]] = pixels
    whole[whole[..., 3] == 0] = 0
    return whole


def readable(name: str, content: bytes, pixels: Pixels = PICTURE, near: int = 0) -> Case:
    return Case(name, content, shown(pixels), near)


# The cases.

def _modes() -> Iterator[Case]:
    def transparent_where(number: int, pixels: Pixels) -> Pixels:
        whole = shown(pixels)
        whole[number == NUMBERS] = 0
        return whole

    palette = Image.fromarray(NUMBERS, "P")
    palette.putpalette(COLOURS)
    inks = quadrants((0, 255, 255, 0), (255, 0, 255, 0), (255, 255, 0, 0), (0, 0, 0, 0))
    rgb, grey_alpha = Image.fromarray(PICTURE), np.dstack([GREYS, quadrants(255, 128, 0, 255)])
    lab = ImageCms.profileToProfile(rgb, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
    deep, deep_colours = GREYS.astype(np.uint16) * 257, PICTURE.astype(np.uint16) * 257
    no_number = (GREYS / 255).astype(np.float32)
    no_number[3, 3] = np.nan

    yield readable("mode 1.png", encoded(Image.fromarray(BLACK_AND_WHITE).convert("1")), BLACK_AND_WHITE)
    yield readable("mode 1.tif", encoded(Image.fromarray(BLACK_AND_WHITE).convert("1"), "TIFF", compression="group4"),
                   BLACK_AND_WHITE)
    yield readable("mode L.png", encoded(GREYS), GREYS)
    yield readable("mode L 2 bits.png", png((SIDE, SIDE), 2, 0, b"".join(b"\0" + row for row in _packed(GREYS // 85, 2))), GREYS)
    yield readable("mode L 4 bits.png", png((SIDE, SIDE), 4, 0, b"".join(b"\0" + row for row in _packed(GREYS // 17, 4))), GREYS)
    yield readable("mode L tRNS.png", encoded(GREYS, transparency=85), transparent_where(2, GREYS))
    yield readable("mode L white is zero.tif", with_tiff_tags(encoded(GREYS, "TIFF"), t262=0), 255 - GREYS)
    yield readable("mode LA.png", encoded(grey_alpha), grey_alpha)
    yield readable("mode LA 16 bits.png", png_of(grey_alpha.astype(np.uint16) * 257, 4), grey_alpha)
    yield readable("mode P.png", encoded(palette))
    yield readable("mode P tRNS index.png", encoded(palette, transparency=2), transparent_where(2, PICTURE))
    yield readable("mode P tRNS several.png", encoded(palette, transparency=bytes([255, 128, 0])), HIDING)
    yield readable("mode P transparent.gif", encoded(palette, "GIF", transparency=2), transparent_where(2, PICTURE))
    yield readable("mode PA.tif", encoded(palette.convert("PA"), "TIFF"))
    yield readable("mode RGB.png", encoded(PICTURE))
    yield readable("mode RGB tRNS.png", encoded(PICTURE, transparency=(0, 0, 255)), transparent_where(2, PICTURE))
    yield readable("mode RGBA hiding a colour.png", encoded(HIDING), HIDING)
    yield readable("mode RGBA hiding a colour.webp", encoded(HIDING, "WEBP", lossless=True, exact=True), HIDING)
    yield readable("mode RGBA hiding a colour.tif", encoded(HIDING, "TIFF"), HIDING)
    yield readable("mode RGBA 16 bits.png", png_of(HIDING.astype(np.uint16) * 257, 6), HIDING)
    yield readable("mode RGB 16 bits.png", png_of(deep_colours, 2))
    yield readable("mode RGB 16 bits tRNS.png", png_of(deep_colours, 2, chunk(b"tRNS", struct.pack(">HHH", 0, 0, 65535))),
                   transparent_where(2, PICTURE))
    yield readable("mode I 16 bits.png", encoded(deep), GREYS)
    yield readable("mode I 16 bits tRNS.png", png_of(deep, 0, chunk(b"tRNS", struct.pack(">H", 85 * 257))),
                   transparent_where(2, GREYS))
    yield readable("mode I 16 bits.tif", encoded(deep, "TIFF"), GREYS)
    yield readable("mode I 16 bits.pgm", encoded(deep.astype(np.int32), "PPM"), GREYS)
    yield readable("mode I 32 bits.tif", encoded(deep.astype(np.int32), "TIFF"), GREYS)
    yield readable("mode I 32 bits up to 255.tif", encoded(GREYS.astype(np.int32), "TIFF"), GREYS)
    yield Case("mode I 32 bits of any range.tif", encoded(GREYS.astype(np.int32) * 9999, "TIFF"),
               unreadable="from 0 to 2.*have no agreed black and white")
    yield readable("mode F 0 to 1.tif", encoded((GREYS / 255).astype(np.float32), "TIFF"), GREYS)
    yield readable("mode F 0 to 255.tif", encoded(GREYS.astype(np.float32), "TIFF"), GREYS)
    yield Case("mode F below zero.tif", encoded(GREYS.astype(np.float32) - 128, "TIFF"),
               unreadable="from -128 to 127 have no agreed black and white")
    yield Case("mode F not a number.tif", encoded(no_number, "TIFF"), unreadable=r"not a number \(NaN\)")
    yield readable("mode CMYK.jpg", encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100), near=3)
    yield readable("mode CMYK.tif", encoded(Image.fromarray(inks, "CMYK"), "TIFF"))
    yield readable("mode YCbCr.tif", encoded(rgb.convert("YCbCr"), "TIFF"), near=2)
    yield readable("mode YCbCr of greys.jpg", encoded(Image.fromarray(GREYS).convert("RGB"), "JPEG", quality=100), GREYS, near=3)
    yield readable("mode LAB.tif", encoded(lab, "TIFF"), near=24)           # 8 bits of LAB are coarse in blue


def _packed(values: Pixels, bits: int) -> list[bytes]:
    """Rows of numbers of 2 or 4 bits."""
    return [int("".join(f"{value:0{bits}b}" for value in row), 2).to_bytes(len(row) * bits // 8, "big") for row in values]


def _formats() -> Iterator[Case]:
    picture, other = Image.fromarray(PICTURE), Image.fromarray(255 - PICTURE)
    for ending, kind, options in (
        ("bmp", "BMP", {}), ("tga", "TGA", {}), ("ppm", "PPM", {}), ("ico", "ICO", {"sizes": [(16, 16)]}), ("pcx", "PCX", {}),
        ("gif", "GIF", {}), ("webp", "WEBP", {"lossless": True}), ("tif", "TIFF", {}), ("dib", "DIB", {}), ("dds", "DDS", {}),
    ):
        yield readable(f"format.{ending}", encoded(picture, kind, **options))
    if features.check("jpg_2000"):
        yield readable("format.jp2", encoded(picture, "JPEG2000"))
    if features.check("avif"):
        yield readable("format.avif", encoded(picture, "AVIF", quality=100, subsampling="4:4:4"), near=6)
    yield readable("format.pbm", encoded(Image.fromarray(BLACK_AND_WHITE).convert("1"), "PPM"), BLACK_AND_WHITE)
    yield readable("LZW.tif", encoded(picture, "TIFF", compression="tiff_lzw"))
    yield readable("deflated.tif", encoded(picture, "TIFF", compression="tiff_adobe_deflate"))
    yield readable("large numbers.tif", encoded(picture, "TIFF", big_tiff=True))
    yield readable("progressive.jpg", encoded(picture, "JPEG", quality=100, subsampling=0, progressive=True), near=3)
    yield readable("interlaced.png", png((SIDE, SIDE), 8, 2, adam7(PICTURE), interlaced=1))
    frames: dict[str, Any] = {"save_all": True, "append_images": [other]}
    yield readable("animated.gif", encoded(picture, "GIF", **frames))
    yield readable("animated.png", encoded(picture, **frames))
    yield readable("animated with a still before.png", encoded(other, **{**frames, "append_images": [picture, other]},
                                                               default_image=True))
    yield readable("animated.webp", encoded(picture, "WEBP", **frames, lossless=True))
    yield readable("pages.tif", encoded(picture, "TIFF", **frames))
    yield readable("two pictures.mpo", encoded(picture, "MPO", **frames, quality=100, subsampling=0), near=3)


def _oddities() -> Iterator[Case]:
    plain = encoded(PICTURE)
    for orientation, upright in UPRIGHT.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield readable(f"turned {orientation}.png", encoded(PICTURE, exif=exif), upright(PICTURE))
        yield readable(f"turned {orientation}.jpg", encoded(PICTURE, "JPEG", exif=exif, quality=100, subsampling=0),
                       upright(PICTURE), near=3)
    yield readable("EXIF broken.png", with_chunk(plain, b"eXIf", b"MM\0*\xff\xff\xff\xff\0"))
    yield readable("EXIF broken.jpg", encoded(PICTURE, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\0\0\1\2", quality=100, subsampling=0),
                   near=3)
    yield readable("profile broken.png", with_chunk(plain, b"iCCP", b"name\0\0no deflate stream"))
    yield readable("profile junk.png", encoded(PICTURE, icc_profile=b"junk" * 99))
    yield readable("profile junk.jpg", encoded(PICTURE, "JPEG", icc_profile=b"junk" * 99, quality=100, subsampling=0), near=3)
    yield readable("profile of another colour space.png", encoded(
        PICTURE, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()))
    text = PngImagePlugin.PngInfo()
    text.add_text("huge", "x" * 3_000_000, zip=True)
    yield readable("text huge.png", encoded(PICTURE, pnginfo=text))
    yield readable("text broken.png", with_chunk(plain, b"zTXt", b"key\0\0no deflate stream"))
    yield readable("more behind the end.png", plain + b"PK\3\4 and whatever else was appended")
    yield readable("PNG named.jpg", plain)
    yield readable("JPEG without an ending", encoded(PICTURE, "JPEG", quality=100, subsampling=0), near=3)
    yield readable("GIF with an unknown ending.dat", encoded(PICTURE, "GIF"))
    yield readable("WEBP named.png", encoded(PICTURE, "WEBP", lossless=True))
    yield readable("folder.png/inside.png", plain)
    yield readable("a/b/a/b/deep.png", plain)


def _sizes() -> Iterator[Case]:
    """The middle of a long one is green; a crop shows just that."""
    green = np.full((SIDE, SIDE, 3), (0, 255, 0), np.uint8)
    long = np.full((2, 20_000, 3), (255, 0, 0), np.uint8)
    long[:, 9_900:10_100] = 0, 255, 0
    yield readable("20000x2.png", encoded(long), green)
    yield readable("2x20000.png", encoded(long.swapaxes(0, 1)), green)
    yield readable("20000x2.jpg", encoded(long, "JPEG", subsampling=0, quality=100), green, near=3)
    yield readable("1x1.png", encoded(green[:1, :1]), green)
    yield readable("1x1.gif", encoded(green[:1, :1], "GIF"), green)
    # 256 MB when it is decoded, from 22 kB. Its upper left pixel is clear.
    rows = b"\0" + bytes([0b10000000] + [0] * 999) + (b"\0" + bytes(1000)) * 7999
    yield readable("8000x8000.png", png((8000, 8000), 1, 3, rows, chunk(b"PLTE", bytes([0, 255, 0] * 2)),
                                        chunk(b"tRNS", b"\xff\0")), green)

    def huge(name: str, content: bytes) -> Case:
        return Case(f"60000x60000 {name}", content, unreadable=TOO_LARGE)

    jpeg, webp = bytearray(encoded(PICTURE, "JPEG")), bytearray(encoded(PICTURE, "WEBP", lossless=True))
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, 60_000, 60_000)
    struct.pack_into("<I", webp, webp.index(b"VP8L") + 9, 16_383 | 16_383 << 14)
    gif = bytearray(encoded(PICTURE, "GIF"))
    struct.pack_into("<HH", gif, 6, 60_000, 60_000)
    yield huge("header.png", png((60_000, 60_000), 8, 2, b""))
    yield huge("header.bmp", b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0))
    yield huge("header.tif", with_tiff_tags(encoded(PICTURE, "TIFF"), t256=60_000, t257=60_000))
    yield huge("header.gif", bytes(gif))
    yield huge("header.jpg", bytes(jpeg))
    yield huge("header.webp", bytes(webp))                 # as large as that format goes
    yield huge("header.ppm", b"P6 60000 60000 255\n")
    yield huge("header.tga", struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 60_000, 60_000, 24, 0))
    yield Case("9000x9000.png", png((9000, 9000), 1, 0, b""), unreadable=f"9000x9000 is 81,000,000 {TOO_LARGE}")


def _damaged() -> Iterator[Case]:
    def cut(kind: str, **options: Any) -> bytes:
        data = encoded(NOISE, kind, **options)
        return data[:len(data) // 2]

    plain, noisy = encoded(PICTURE), bytearray(encoded(NOISE))
    noisy[len(noisy) // 2] ^= 0xFF
    yield Case("empty.png", b"", unreadable="the file is empty")
    yield Case("zeros.png", bytes(4096), unreadable="all its bytes are zero")
    for kind, ending, reason in (("PNG", "png", "truncated"), ("JPEG", "jpg", "truncated"), ("GIF", "gif", "truncated"),
                                 ("WEBP", "webp", "damaged or cut short"), ("TIFF", "tif", "truncated"),
                                 ("BMP", "bmp", "truncated")):
        yield Case(f"half.{ending}", cut(kind), unreadable=reason)
    yield Case("half deflated.tif", cut("TIFF", compression="tiff_adobe_deflate"), unreadable="header is damaged")
    yield Case("only the signature.png", plain[:8], unreadable="begins as a PNG, but its header is damaged")
    yield Case("no pixels.png", plain[:33] + chunk(b"IEND", b""), unreadable="there are no pixels in the file")
    yield Case("header with a wrong sum.png", plain[:29] + bytes(4) + plain[33:], unreadable="header is damaged")
    yield Case("pixels with a flipped byte.png", bytes(noisy), unreadable="broken data stream")
    yield Case("text named.png", b"these are not the pixels you are looking for", unreadable="not an image of a known format")
    yield Case("web page named.jpg", b"<!DOCTYPE html><html><body>404</body></html>", unreadable="a web page")
    yield Case("LFS named.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", unreadable="git lfs pull")
    yield Case("HEIC named.jpg", b"\0\0\0\x18ftypheic\0\0\0\0" + bytes(64), unreadable="convert it to JPEG or PNG")
    yield Case("PostScript named.png", encoded(PICTURE, "EPS"), unreadable="not an image of a known format")
    yield Case("zip named.png", b"PK\5\6" + bytes(18), unreadable="not an image of a known format")


def _names() -> Iterator[Case]:
    plain = encoded(PICTURE)
    for name in ("two  spaces .png", "ünïcode é.png", "e\u0301 decomposed.png", "日本語.png", "emoji 🐈.png", "UPPER.PNG",
                 "mIxEd.JpEg", "-rf.png", "[red]markup[/].png", "%s {0} $HOME ~.png", "right-to-\u202eleft.png", "dots...png",
                 "n" * 251 + ".png", "/".join(["d" * 60] * 5) + "/longer than 260 characters.png"):
        yield readable(name, plain)
    if os.name == "posix":
        for name in ("new\nline.png", "tab\tand\x1b[31mcolour.png", 'quotes "\'.png'):
            yield readable(name, plain)


def _ignored() -> Iterator[Case]:
    plain = encoded(PICTURE)
    yield Case("._apple.png", b"\0\5\x16\7" + bytes(60), ignored="macOS metadata")
    yield Case("__MACOSX/apple.png", plain, ignored="macOS metadata")
    yield Case("Thumbs.db", b"\xd0\xcf\x11\xe0", ignored="Thumbs.db")
    yield Case("desktop.ini", b"[.ShellClassInfo]", ignored="desktop.ini")
    yield Case(".hidden.png", plain, ignored="hidden")
    yield Case(".git/objects/hidden.png", plain, ignored="hidden")
    yield Case("README", b"words", ignored="without an ending")
    yield Case("damaged table.csv", b"\xff\xfe\0\0file,label\n\0\0", ignored=r"\.csv")
    yield Case("metadata.jsonl", b'{"file_name": ', ignored=r"\.jsonl")
    yield Case("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", ignored=r"\.svg")
    yield Case("camera.nef", encoded(PICTURE, "TIFF"), ignored=r"\.nef")
    yield Case("code.pkl", b"cos\nsystem\n(S'exit 1'\ntR.", ignored=r"\.pkl")


def _posix(folder: Path) -> Iterator[Case]:
    """What only a file system can hold."""
    plain = encoded(PICTURE)

    def link(name: str, target: str) -> None:
        (folder / name).symlink_to(target)

    os.mkfifo(folder / "pipe.png")
    yield Case("pipe.png", unreadable="is a named pipe, not a file")
    os.mkfifo(folder / "pipe")
    yield Case("pipe", ignored="is a named pipe, not a file")
    with contextlib.chdir(folder), socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")                          # by a short name: long ones are refused
    yield Case("socket.png", unreadable="is a socket, not a file")
    link("endless.png", "/dev/zero")
    yield Case("endless.png", unreadable="is a device, not a file")
    link("nowhere.png", "gone.png")
    yield Case("nowhere.png", unreadable="No such file")
    link("nowhere", "gone")
    yield Case("nowhere", ignored="link to nowhere")
    link("circle.png", "circle.png")
    yield Case("circle.png", unreadable="symbolic links")
    link("there.png", "back.png")
    link("back.png", "there.png")
    yield from (Case(name, unreadable="symbolic links") for name in ("there.png", "back.png"))
    link("up", ".")
    yield Case("up", ignored="linked folder met twice")
    link("linked.png", "mode RGB.png")
    yield Case("linked.png", pixels=shown(PICTURE))
    (folder / "back\\slash.png").write_bytes(plain)
    yield Case("back\\slash.png", pixels=shown(PICTURE))
    with contextlib.suppress(OSError):                     # macOS takes no such names
        (folder / os.fsdecode(b"bytes \xff\xfe.png")).write_bytes(plain)
        yield Case(os.fsdecode(b"bytes \xff\xfe.png"), pixels=shown(PICTURE))
    (folder / "forbidden.png").write_bytes(plain)
    (folder / "forbidden.png").chmod(0)
    yield Case("forbidden.png", pixels=shown(PICTURE)) if os.geteuid() == 0 else \
        Case("forbidden.png", unreadable="Permission denied")


def matches(pattern: str, reason: str) -> bool:
    return re.search(pattern, reason) is not None
