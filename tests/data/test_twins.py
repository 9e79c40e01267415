"""Twins are found, and strangers are not taken for twins."""

import gzip
import os
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from ganvas.data import twins
from ganvas.data.facts import FACT, measure
from ganvas.data.twins import Kind, find_twins

DATA = Path(os.environ["GANVAS_TEST_DATA"])


def noted(images):
    """The facts and thumbnails of PIL images."""
    facts, thumbs = np.zeros(len(images), FACT), np.zeros((len(images), 16, 16, 4), np.uint8)
    for i, image in enumerate(images):
        seen = measure(image)
        for name in ("grey", "transparent", "clear_area", "content", "structure", "structure_mirrored"):
            facts[i][name] = getattr(seen, name)
        thumbs[i] = seen.thumb
    return facts, thumbs


def twins_of(images, **how):
    """{(a, b): (kind, mirrored)} of all pairs."""
    return {(int(pair["a"]), int(pair["b"])): (Kind(pair["kind"]), bool(pair["mirrored"]))
            for pair in find_twins(*noted(images), **how).pairs}


def blobs(n, seed=0, size=44):
    """Unlike pictures with soft shapes, as photographs have."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (n, 6, 6, 3), dtype=np.uint8)
    return [Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC) for picture in small]


def sprites(n, seed=0, size=24):
    """Unlike pixel figures on nothing, in six colours."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        figure = np.kron(rng.integers(0, 7, (size // 3, size // 3)), np.ones((3, 3), int))
        palette = np.concatenate([np.zeros((1, 4), int), np.c_[rng.integers(0, 256, (6, 3)), np.full(6, 255)]])
        made.append(Image.fromarray(palette[figure].astype(np.uint8), "RGBA"))
    return made


def repainted(sprite, seed=9):
    """The same figure in other colours."""
    pixels = np.array(sprite)
    rng = np.random.default_rng(seed)
    for colour in np.unique(pixels.reshape(-1, 4), axis=0):
        if colour[3]:
            where = (np.array(sprite) == colour).all(-1)
            pixels[where] = [*rng.integers(0, 256, 3), 255]
    return Image.fromarray(pixels, "RGBA")


def test_strangers_are_no_twins():
    assert twins_of(blobs(200)) == {}
    assert twins_of(sprites(200)) == {}


def test_the_same_pixels_are_exact_twins_whatever_file_and_mode_they_come_from():
    grey = blobs(60)[0].convert("L")
    opaque = blobs(60)[1].convert("RGBA")
    images = [*blobs(60), grey, grey.convert("RGB"), opaque]
    assert twins_of(images) == {(60, 61): (Kind.EXACT, False), (1, 62): (Kind.EXACT, False)}


def test_colours_hidden_under_transparent_pixels_do_not_make_two_pictures_differ():
    sprite = sprites(60)[0]
    hidden = np.array(sprite)
    hidden[hidden[..., 3] == 0] = [255, 0, 200, 0]
    assert twins_of([*sprites(60), Image.fromarray(hidden, "RGBA")]) == {(0, 60): (Kind.EXACT, False)}


def test_a_million_copies_are_linked_in_a_row_and_not_each_with_each():
    found = find_twins(*noted([blobs(1)[0]] * 300))
    assert len(found.pairs) == 299
    assert (found.groups == 0).all()


@pytest.mark.parametrize("make", [blobs, sprites])
def test_mirror_images_are_found(make):
    images = make(80)
    images.append(images[5].transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert twins_of(images) == {(5, 80): (Kind.MIRRORED, True)}


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (24, 24), (40, 25), (28, 28), (100, 60), (130, 7)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_the_thumbnail_of_a_mirror_image_is_the_mirrored_thumbnail(mode, size):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    image = Image.fromarray(noise, "RGBA").convert(mode)
    straight, mirrored = measure(image), measure(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert np.abs(straight.thumb.astype(int)[:, ::-1] - mirrored.thumb).max() <= 1
    assert (straight.structure, straight.structure_mirrored) == (mirrored.structure_mirrored, mirrored.structure)


def test_a_repainted_figure_is_recoloured_also_mirrored_and_on_a_larger_canvas():
    images = sprites(80)
    larger = Image.new("RGBA", (40, 44))
    larger.paste(repainted(images[7]), (3, 11))
    images += [repainted(images[5]), repainted(images[6]).transpose(Image.Transpose.FLIP_LEFT_RIGHT), larger]
    assert twins_of(images) == {(5, 80): (Kind.RECOLOURED, False), (6, 81): (Kind.RECOLOURED, True),
                                (7, 82): (Kind.RECOLOURED, False)}


@pytest.mark.parametrize("change", [
    lambda image: Image.merge("RGB", [image.split()[k] for k in (2, 0, 1)]),
    lambda image: ImageEnhance.Brightness(image).enhance(0.5),
    lambda image: ImageEnhance.Contrast(image).enhance(0.4),
    lambda image: Image.eval(image, lambda value: 255 - value),
    lambda image: Image.merge("HSV", [image.convert("HSV").split()[0].point(lambda h: (h + 20) % 256),
                                      *image.convert("HSV").split()[1:]]).convert("RGB"),
], ids=["channels swapped", "darker", "flatter", "negative", "hue turned"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_recoloured_photograph_is_found(change, mirrored):
    images = blobs(80)
    other = change(images[5])
    images.append(other.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else other)
    assert list(twins_of(images)) == [(5, 80)]
    assert twins_of(images)[5, 80] == (Kind.RECOLOURED, mirrored)


@pytest.mark.parametrize("change", [
    lambda image: Image.open(BytesIO(jpeg(image, 40))),
    lambda image: image.resize((96, 96), Image.Resampling.LANCZOS),
    lambda image: image.resize((20, 20), Image.Resampling.LANCZOS),
    lambda image: image.crop((1, 1, 43, 43)),
], ids=["JPEG", "enlarged", "reduced", "cropped by a pixel"])
def test_a_picture_saved_again_is_near(change):
    images = blobs(80)
    images.append(change(images[5]).convert("RGB"))
    assert twins_of(images) == {(5, 80): (Kind.NEAR, False)}


def jpeg(image, quality):
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def test_twins_of_twins_are_one_group_named_by_its_first_image():
    images = blobs(80)
    images += [images[5].transpose(Image.Transpose.FLIP_LEFT_RIGHT), ImageEnhance.Brightness(images[5]).enhance(0.5), images[5]]
    groups = find_twins(*noted(images)).groups
    assert (groups[[5, 80, 81, 82]] == 5).all()
    assert np.array_equal(groups[:80], np.arange(80))


def test_what_just_misses_being_twins_is_kept_together_too(monkeypatch):
    images = blobs(120)
    images.append(Image.open(BytesIO(jpeg(images[5], 40))))
    assert find_twins(*noted(images)).groups[120] == 5
    monkeypatch.setattr(twins, "EXPLAINED", 1.0)               # more than the JPEG has of it
    monkeypatch.setattr(twins, "SURELY", (2.0, 2.0))
    found = find_twins(*noted(images))
    assert (len(found.pairs), found.groups[120], found.together[120]) == (0, 120, 5)
    assert np.array_equal(found.together[:120], np.arange(120))


def test_searching_within_cells_finds_the_same_planted_twins():
    images = blobs(600)
    for i in range(0, 100, 5):
        images.append(images[i].transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        images.append(ImageEnhance.Brightness(images[i + 1]).enhance(0.6))
    found = find_twins(*noted(images), exhaustive=100)
    assert not found.exhaustive
    assert len(found.pairs) == 40
    assert np.array_equal(found.groups, find_twins(*noted(images)).groups)


def test_one_picture_or_none_has_no_twins():
    assert twins_of([]) == {}
    assert twins_of(blobs(1)) == {}
    assert twins_of([Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]) == {}


def test_two_copies_alone_are_twins():
    assert twins_of([blobs(1)[0], blobs(1)[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT)]) == {(0, 1): (Kind.MIRRORED, True)}


def test_the_search_can_be_watched_and_stopped():
    told = []
    find_twins(*noted(blobs(60)), progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]

    def stop(done, total):
        raise InterruptedError
    with pytest.raises(InterruptedError):
        find_twins(*noted(blobs(60)), progress=stop)


def real(archive, names):
    path = DATA / archive
    if not path.is_file():
        pytest.skip(f"no real data at {path}")
    with zipfile.ZipFile(path) as opened:
        images = [Image.open(BytesIO(opened.read(name))) for name in names(sorted(opened.namelist()))]
        return [image if image.mode in ("L", "RGB") else image.convert("RGBA") for image in images]


def test_handwritten_digits_are_not_all_twins_of_each_other():
    path = DATA / "mnist" / "t10k-images-idx3-ubyte.gz"
    if not path.is_file():
        pytest.skip(f"no real data at {path}")
    with gzip.open(path) as file:
        digits = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)[:3000]
    images = [Image.fromarray(digit) for digit in digits]
    planted = [images[i].transpose(Image.Transpose.FLIP_LEFT_RIGHT) for i in range(0, 100, 5)]
    found = twins_of([*images, *planted])
    assert all((5 * i, 3000 + i) in found for i in range(20))
    assert len(found) < 60                                            # a few ones that hardly differ


def test_the_artworks_stand_twice_under_another_type():
    found = twins_of(real("pokemon-artwork.zip", lambda names: [name for name in names if name.endswith(".jpg")]))
    assert len(found) == 409
    assert {kind for kind, _ in found.values()} == {Kind.EXACT}


def test_shiny_sprites_are_recoloured_twins():
    found = twins_of(real("pokemon-sprites.zip", lambda names: names))
    kinds = [kind for kind, _ in found.values()]
    assert kinds.count(Kind.RECOLOURED) >= 40
    assert len(found) < 100
