"""A look at some images says what the whole set is like."""

import gzip
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganvas.data.looks import Look, look, mirror_preference, thumbnail_of
from ganvas.data.opening import open_image
from ganvas.data.source_base import Source
from ganvas.data.sources import open_source
from ganvas.errors import DataError

DATA = Path(os.environ.get("GANVAS_TEST_DATA", "../shared/data"))


class Pictures(Source):
    """Images, arrays or bytes from a list."""

    def __init__(self, *items):
        super().__init__("pictures", "pictures", "stamp")
        self.opened = []
        self._items = items

    def __len__(self):
        return len(self._items)

    def item_name(self, index):
        return f"{index}.png"

    def load(self, index):
        self.opened.append(index)
        item = self._items[index]
        if not isinstance(item, Image.Image):
            return item
        file = io.BytesIO()
        item.save(file, "PNG")
        return file.getvalue()


def test_sizes_greyness_transparency_and_failures_are_told():
    seen = look(Pictures(Image.new("RGB", (8, 4), (9, 9, 9)), Image.new("L", (8, 4)), Image.new("RGB", (2, 16), (9, 8, 9)),
                         Image.new("RGBA", (8, 4), (9, 8, 7, 0)), b"text"))                     # of the last no colour shows
    assert (seen.looked, seen.common_size) == (4, (8, 4))
    assert (seen.min_size, seen.max_size) == ((2, 4), (8, 16))
    assert (seen.grey_share, seen.transparent_share, seen.transparent_area) == (0.75, 0.25, 0.25)
    assert (seen.aspect, seen.aspect_share) == ((2, 1), 0.75)
    assert (seen.native_size, seen.upscaled_share) == ((8, 4), 0)
    assert seen.faces_both_ways == 1                                                            # too few to tell


def test_what_was_not_looked_at_has_a_harmless_value():
    made = Look(looked=1, common_size=(8, 8), min_size=(8, 8), max_size=(8, 8), grey_share=0, transparent_share=0)
    assert (made.upscaled_share, made.faces_both_ways) == (0, 1)


def test_it_spreads_over_the_whole_source_and_opens_no_more_than_it_was_asked():
    array = np.zeros((1000, 2, 2, 3), dtype=np.uint8)
    array[500:, ..., 0] = 255                                              # the later half is red
    source = Pictures(*array)
    assert look(source, count=10).grey_share == 0.5
    assert len(source.opened) == 10
    assert (source.opened[0], source.opened[-1]) == (0, 999)
    assert look(source).looked == 256


def test_a_folder_of_which_nothing_is_readable_is_refused_with_ten_reasons(tmp_path):
    for number in range(300):
        (tmp_path / f"{number:03}.png").write_bytes(b"text" if number else b"")
    with pytest.raises(DataError) as caught:
        look(open_source(tmp_path))
    first, *lines, last, remedy = str(caught.value).splitlines()
    assert first == f"{tmp_path}: none of 300 images can be read."
    assert len(lines) == 10
    assert lines[0] == f"  {tmp_path.name}/000.png: the file is empty"
    assert lines[1] == f"  {tmp_path.name}/001.png: its content is not an image of a known format"
    assert last == "  ... and 290 more"
    assert remedy == "Mend them, or pass other images."
    with pytest.raises(DataError, match=r"pictures: none of 2 images can be read\.\n  0\.png: .*\n  1\.png: .*\nMend"):
        look(Pictures(b"text", b"text"))


def test_where_the_first_images_are_unreadable_it_looks_on_until_some_are():
    good = Image.new("RGB", (8, 4))
    chosen = set(np.linspace(0, 304, 256).round().astype(int).tolist())    # what it tries first
    others = sorted(set(range(305)) - chosen)[:5]
    source = Pictures(*(good if number in others else b"text" for number in range(305)))
    seen = look(source)
    assert (seen.looked, seen.common_size) == (5, (8, 4))
    assert sorted(source.opened) == list(range(305))                       # each once
    source = Pictures(*(good if number % 2 else b"text" for number in range(10_000)))
    look(source, count=2)                                                  # both ends, of which one is good
    assert source.opened == [0, 9999]


def test_enlarged_art_is_told_with_its_own_size():
    rng = np.random.default_rng(0)
    small = [Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)) for _ in range(4)]
    doubled = [image.resize((32, 32), Image.Resampling.NEAREST) for image in small[:3]]
    seen = look(Pictures(*doubled, small[3]))
    assert (seen.common_size, seen.native_size, seen.upscaled_share) == ((32, 32), (16, 16), 0.75)


def test_near_proportions_count_as_one_shape():
    seen = look(Pictures(*(Image.new("L", size) for size in ((400, 300), (400, 300), (402, 300), (300, 400), (100, 97)))))
    assert (seen.aspect, seen.aspect_share) == ((4, 3), 0.6)
    seen = look(Pictures(*(Image.new("L", size) for size in ((100, 97), (97, 100), (100, 100), (300, 400)))))
    assert (seen.aspect, seen.aspect_share) == ((1, 1), 0.75)


def test_clear_areas_are_told():
    hard, soft = Image.new("RGBA", (8, 8)), Image.new("RGBA", (8, 8))
    hard.paste((1, 2, 3, 255), (0, 0, 4, 8))
    soft.paste((1, 2, 3, 128), (0, 0, 4, 8))
    seen = look(Pictures(hard, hard, hard, soft))
    assert (seen.transparent_share, seen.transparent_area) == (1, 0.5)


def test_a_large_image_is_looked_at_in_part():
    large = Image.new("RGBA", (3000, 2000), (9, 9, 9, 255))
    large.paste((0, 0, 0, 0), (0, 0, 1500, 2000))
    seen = look(Pictures(large))
    assert (seen.common_size, seen.native_size, seen.grey_share) == ((3000, 2000), (3000, 2000), 1)
    assert abs(seen.transparent_area - 0.5) < 0.01


def thumbnails(count, lean, seed=0):
    """Noise with a ramp across, of which `lean` is the share that rises to the right."""
    rng = np.random.default_rng(seed)
    ramp = np.where(rng.random(count) < lean, 1, -1)[:, None, None] * np.linspace(-1, 1, 16)
    return 128 + 40 * ramp + rng.normal(0, 10, (count, 16, 16))


def test_images_that_lean_one_way_are_told_from_their_mirror_images():
    assert mirror_preference(thumbnails(200, 1.0)) == 1
    assert mirror_preference(thumbnails(200, 0.0)) == 1
    assert mirror_preference(thumbnails(400, 0.5)) == pytest.approx(0.5, abs=0.08)
    assert mirror_preference(thumbnails(400, 0.8)) == pytest.approx(0.8, abs=0.08)


def test_mirroring_all_images_changes_no_preference():
    images = thumbnails(100, 0.7)
    assert mirror_preference(images[..., ::-1]) == pytest.approx(mirror_preference(images))
    assert mirror_preference(images * 0.5 + 20) == pytest.approx(mirror_preference(images))


def test_symmetrical_and_blank_images_cannot_be_told_and_few_are_not_tried():
    symmetrical = thumbnails(50, 0.5)
    assert mirror_preference(symmetrical + symmetrical[..., ::-1]) == 0.5
    assert mirror_preference(np.full((50, 16, 16), 7.0)) == 0.5
    assert mirror_preference(thumbnails(19, 0.5)) == 1


def test_a_thumbnail_has_the_means_of_its_cells_and_grey_behind_what_is_clear():
    ramp = np.repeat(np.arange(32, dtype=np.uint8)[None] * 8, 32, axis=0)
    assert np.allclose(thumbnail_of(Image.fromarray(ramp))[0], np.arange(16) * 16 + 4)
    clear = thumbnail_of(Image.new("RGBA", (9, 5), (255, 0, 0, 0)))
    assert clear.shape == (16, 16)
    assert np.all(clear == 128)


@pytest.mark.skipif(not (DATA / "faces-96.zip").is_file(), reason="no $GANVAS_TEST_DATA/faces-96.zip")
def test_real_digits_prefer_a_side_and_faces_and_sprites_hardly():
    def seen(name, step):
        with zipfile.ZipFile(DATA / name) as archive:
            files = sorted(each for each in archive.namelist() if not each.endswith("/"))[::step]
            return look(Pictures(*[np.atleast_3d(np.asarray(open_image(archive.read(file), file))) for file in files]))

    digits = np.frombuffer(gzip.decompress((DATA / "mnist/train-images-idx3-ubyte.gz").read_bytes())[16:], dtype=np.uint8)
    mnist = look(Pictures(*digits.reshape(-1, 28, 28, 1)[:400]))
    faces, characters, sprites = seen("faces-96.zip", 30), seen("characters.zip", 45), seen("pokemon-sprites.zip", 6)
    assert mnist.faces_both_ways > 0.85
    assert characters.faces_both_ways > 0.95
    assert faces.faces_both_ways < 0.7
    assert sprites.faces_both_ways < 0.72
    assert sprites.native_size == (80, 80)
    assert 0.4 < sprites.upscaled_share < 0.65
