import numpy as np
import pytest
import torch
from PIL import Image

from ganvas.errors import DataError
from ganvas.metrics.features import Extractor, Features, ImageArray, Kept, described, extract, key_of, prepare, within


class Sums(Extractor):
    """Each image's mean and its first pixel; of a white image, NaN."""

    name, dim, key, preprocessing, chunk = "sums", 2, "0", "none", 4

    def __init__(self):
        self.seen = []

    def __call__(self, images):
        self.seen.append(len(images))
        means = images.reshape(len(images), -1).mean(axis=1)
        vectors = np.stack([np.where(means == 255, np.nan, means), images[:, 0, 0, 0]], axis=1).astype(np.float32)
        return Features(vectors, np.full((len(images), 2), 0.5, np.float32))


def some(n=10, channels=3, height=6, width=5, seed=0):
    return np.random.Generator(np.random.Philox(seed)).integers(0, 255, (n, channels, height, width), dtype=np.uint8)


def test_an_array_batches_and_what_is_read_by_position_give_the_same_features_in_the_same_order():
    images = some()
    whole = extract(Sums(), images)
    assert whole.vectors.dtype == np.float32 and whole.vectors.shape == (10, 2) and whole.probabilities.shape == (10, 2)
    assert np.array_equal(whole.vectors[:, 1], images[:, 0, 0, 0])
    for given in (ImageArray(images), iter([images[:7], images[7:]])):
        assert np.array_equal(extract(Sums(), given).vectors, whole.vectors)


def test_no_more_images_than_the_extractor_wants_are_given_at_once_and_progress_is_told():
    extractor, told = Sums(), []
    extract(extractor, some(10), lambda done, total: told.append((done, total)))
    assert extractor.seen == [4, 4, 2] and told == [(4, 10), (8, 10), (10, 10)]
    told.clear()
    extract(extractor, [some(3)], lambda done, total: told.append((done, total)))
    assert told == [(3, None)]


def test_batches_that_go_by_leave_only_what_is_to_be_kept():
    images, told = some(12), []
    kept = Kept((images[i:i + 5] for i in range(0, 12, 5)), 12, np.array([7, 0, 4, 11, 5, 7]))
    found = extract(Sums(), kept, lambda *args: told.append(args))
    assert np.array_equal(found.vectors, extract(Sums(), images).vectors) and told[-1] == (12, 12)
    assert np.array_equal(kept.read([11, 0, 5, 7, 0]), images[[11, 0, 5, 7, 0]])
    with pytest.raises(AssertionError, match="to be kept"):
        kept.read([7, 6])


def test_features_that_are_not_finite_are_counted_and_named():
    images = some()
    images[[2, 7]] = 255
    with pytest.raises(DataError, match=r"2 of 10 images from the extractor sums .*images 2, 7"):
        extract(Sums(), images)


@pytest.mark.parametrize("images", [some().astype(np.float32), some()[0], some(0)])
def test_what_are_no_images_is_refused(images):
    with pytest.raises(DataError, match="sums"):
        extract(Sums(), images)


def test_features_of_another_length_than_promised_are_refused():
    extractor = Sums()
    extractor.dim = 3
    with pytest.raises(DataError, match=r"\(4, 2\) for 4 images, not \(4, 3\)"):
        extract(extractor, some())


def test_transparent_images_are_composed_on_white_as_pillow_does():
    images = some(3, 4, 8, 8)
    images[0, 3], images[1, 3] = 0, 255
    seen = prepare(images, 3).numpy()
    assert (seen[0] == 255).all() and np.array_equal(seen[1], images[1, :3])
    for image, got in zip(images, seen, strict=True):
        canvas = Image.new("RGBA", (8, 8), "white")
        canvas.alpha_composite(Image.fromarray(image.transpose(1, 2, 0)))
        assert np.abs(np.asarray(canvas.convert("RGB")).transpose(2, 0, 1).astype(int) - got).max() <= 1


def test_grey_becomes_colour_by_repeating_and_colour_becomes_grey_as_pillow_does():
    grey, colour = some(2, 1), some(2, 3)
    assert np.array_equal(prepare(grey, 3).numpy(), grey.repeat(3, axis=1))
    assert np.array_equal(prepare(grey, 1).numpy(), grey)
    wanted = np.stack([np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L")) for image in colour])[:, None]
    assert np.abs(prepare(colour, 1).numpy().astype(int) - wanted).max() <= 1


def test_a_reduced_image_is_antialiased_as_pillows_bilinear_is():
    image = some(1, 1, 40, 30)
    got = prepare(image, 1, (10, 9)).numpy()[0, 0]
    wanted = np.asarray(Image.fromarray(image[0, 0]).resize((9, 10), Image.Resampling.BILINEAR))
    assert got.dtype == np.uint8 and np.abs(got.astype(int) - wanted).max() <= 1


def test_an_image_of_the_wanted_size_is_not_touched():
    image = some(1, 3, 6, 5)
    assert np.array_equal(prepare(image, 3, (6, 5)).numpy(), image)
    assert "brought" not in described(3) and "5x6" in described(3, (6, 5))


def test_two_channels_are_refused():
    with pytest.raises(DataError, match=r"1, 3 or 4 channels.*\(2, 2, 6, 5\)"):
        prepare(some(2, 2), 3)


def test_sizes_are_reduced_in_proportion_and_never_enlarged():
    assert within(28, 28, 64) == (28, 28)
    assert within(128, 64, 64) == (64, 32)
    assert within(1000, 3, 64) == (64, 1)


def test_a_key_changes_with_a_weight_a_name_and_a_text():
    weights = {"a": torch.zeros(2), "b": torch.ones(2)}
    keys = {key_of(weights, "x"), key_of(weights, "y"), key_of({"a": torch.zeros(2), "c": torch.ones(2)}, "x"),
            key_of({"a": torch.zeros(2), "b": torch.ones(2) + 1e-6}, "x")}
    assert len(keys) == 4
    assert key_of(dict(reversed(weights.items())), "x") in keys
    assert len(key_of({})) == 32
