"""A replaying generator is called a copier, however lightly it disturbs; held-out reals, blurred ones and noise are not."""

import io
import json
import os
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits

from ganvas.data.layout import Layout
from ganvas.data.pack import build_pack
from ganvas.data.sources import open_source
from ganvas.data.split import split_images
from ganvas.data.twins import find_twins
from ganvas.errors import DataError
from ganvas.metrics.copies import CopyReference, check_copies
from ganvas.metrics.extractor_random import RandomExtractor
from ganvas.metrics.features import extract

CHARACTERS = Path(os.environ.get("GANVAS_TEST_DATA", "")) / "characters.zip"


def discs(n: int, seed: int, size: int = 32) -> np.ndarray:
    """(n, 3, size, size) uint8: five discs of random place, size and colour on a light ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    images = np.full((n, 3, size, size), 235.0)
    for image in images:
        for _ in range(5):
            centre, radius = rng.uniform(0, size, 2), rng.uniform(size / 10, size / 3)
            image[:, (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = rng.uniform(0, 255, (3, 1))
    return images.astype(np.uint8)


def features_of(images: np.ndarray) -> np.ndarray:
    """(n, 48): means of 4x4 blocks."""
    n, c, h, w = images.shape
    return images.reshape(n, c, 4, h // 4, 4, w // 4).mean((3, 5)).reshape(n, -1).astype(np.float32) / 255


def drawn(images: np.ndarray, change) -> np.ndarray:
    return np.stack([np.asarray(change(Image.fromarray(image.transpose(1, 2, 0)))).transpose(2, 0, 1) for image in images])


def jpeg(image: Image.Image) -> Image.Image:
    image.save(file := io.BytesIO(), "JPEG", quality=60)
    return Image.open(file)


def noisy(images: np.ndarray, sigma: float = 8) -> np.ndarray:
    return (images + np.random.default_rng(5).normal(0, sigma, images.shape)).clip(0, 255).astype(np.uint8)


DISTURBED = {
    "as they are": lambda images: images,
    "mirrored": lambda images: images[..., ::-1],
    "noise": noisy,
    "JPEG": lambda images: drawn(images, jpeg),
    "blur": lambda images: drawn(images, lambda image: image.filter(ImageFilter.GaussianBlur(0.7))),
    "brightness": lambda images: (images * 0.8 + 10).astype(np.uint8),
    "a pixel aside": lambda images: np.roll(images, (1, 1), axis=(2, 3)),
}


@pytest.fixture(scope="module")
def train():
    return discs(600, seed=0)


@pytest.fixture(scope="module")
def holdout():
    return discs(150, seed=1)


@pytest.fixture(scope="module")
def reference(train, holdout):
    return CopyReference(train, features_of(train), holdout, features_of(holdout), features_of=features_of,
                         names=[f"disc-{i:03d}.png" for i in range(600)])


@pytest.mark.parametrize("how", DISTURBED)
def test_replayed_training_images_make_a_copier(reference, train, how):
    samples = DISTURBED[how](train[100:200])
    copies = reference.check(samples, features_of(samples))
    assert copies.verdict == "copier" and copies.rate > 0.95 and copies.over_limit
    assert copies.text.startswith("a copier: ")
    near = copies.pixels if how != "noise" else copies.features
    assert (near.train == np.arange(100, 200)).mean() > 0.95


def test_a_tenth_of_replays_is_called_out_with_a_rate_near_a_tenth(reference, train):
    samples = np.concatenate([train[:30, ..., ::-1], discs(270, seed=2)])
    copies = reference.check(samples, features_of(samples))
    assert copies.verdict == "some" and copies.over_limit
    assert 0.09 < copies.rate < 0.15 and copies.low < 0.1 < copies.high
    assert f"{copies.copies} of 300 samples" in copies.text


@pytest.mark.parametrize("seed", range(2, 7))
def test_fresh_reals_are_no_copies(reference, seed):
    samples = discs(200, seed=seed)
    copies = reference.check(samples, features_of(samples))
    assert copies.verdict == "none" and not copies.over_limit
    assert copies.rate < 0.08


def test_blurred_reals_noise_and_blank_pictures_are_no_copies(reference, holdout):
    kinds = [drawn(holdout, lambda image: image.filter(ImageFilter.GaussianBlur(3))),
             np.random.default_rng(3).integers(0, 256, holdout.shape, dtype=np.uint8),
             np.full_like(holdout, 255), np.zeros_like(holdout), noisy(np.full_like(holdout, 128), 2)]
    for samples in kinds:
        copies = reference.check(samples, features_of(samples))
        assert copies.verdict == "none" and copies.rate < 0.12


def test_averages_of_two_training_images_are_less_suspicious_than_copies(reference, train):
    samples = ((train[:100].astype(int) + train[100:200]) // 2).astype(np.uint8)
    copies = reference.check(samples, features_of(samples))
    replays = reference.check(train[:100], features_of(train[:100]))
    assert np.median(copies.suspicion) > 5 * np.median(replays.suspicion)


def test_the_most_copied_pairs_are_named_the_surest_first(reference, train):
    samples = discs(60, seed=9)
    samples[7], samples[31] = train[123], noisy(train[77:78, ..., ::-1])[0]
    first, second = reference.check(samples, features_of(samples)).pairs[:2]
    assert (first.sample, first.train, first.name, first.mirrored) == (7, 123, "disc-123.png", False)
    assert (second.sample, second.train, second.name, second.mirrored) == (31, 77, "disc-077.png", True)
    assert 0 <= first.ratio < second.ratio < 0.5


def test_mirrored_copies_are_passed_over_where_mirroring_does_not_count(train, holdout):
    samples = train[:50, ..., ::-1]
    copies = check_copies(samples, train, holdout, sample_features=features_of(samples), train_features=features_of(train),
                          holdout_features=features_of(holdout), mirror=False)
    assert copies.verdict == "none" and not copies.pixels.mirrored.any()


def test_reals_held_out_calibrate_where_they_are_many(reference):
    samples = discs(10, seed=4)
    copies = reference.check(samples, features_of(samples))
    assert (copies.calibrated_by, copies.calibration) == ("holdout", 150)
    assert copies.false_alarm_rate == pytest.approx((copies.false_alarms + 1) / 151)


def test_few_training_images_calibrate_themselves_and_the_same_pixels_mirrored_are_no_others(train, holdout):
    few = np.concatenate([train[:60], train[:60, ..., ::-1]])              # everything has a mirrored twin
    for groups in (np.tile(np.arange(60), 2), None):                       # whether anybody says so, or not
        reference = CopyReference(few, features_of(few), holdout, features_of(holdout), groups=groups)
        samples = discs(100, seed=11)
        fresh = reference.check(samples, features_of(samples))
        assert fresh.calibrated_by == "train" and fresh.calibration == 60 and fresh.verdict == "none"
        samples = noisy(few[:20])
        assert reference.check(samples, features_of(samples)).verdict == "copier"


def test_where_all_training_images_have_near_twins_nothing_can_be_told(train):
    few = np.concatenate([train[:60], noisy(train[:60], 2)])
    for groups in (np.tile(np.arange(60), 2), None):
        reference = CopyReference(few, features_of(few), groups=groups)
        samples = noisy(few[:60], 3)                                       # copies? Another real would be just like that
        copies = reference.check(samples, features_of(samples))
        assert copies.false_alarms == copies.calibration == 120 and copies.verdict == "unknown" and not copies.over_limit
        assert "cannot tell: too many training images resemble each other" in copies.text


def with_twins(n: int, seed: int) -> np.ndarray:
    """(n, 3, 32, 32): half of them are light variants of one of 60 discs each, so that nearly all of that half have twins."""
    kinds, rng = discs(60, seed=99), np.random.default_rng(seed)
    images = discs(n, seed)
    images[:n // 2] = noisy(kinds[rng.integers(0, 60, n // 2)], 3)
    return images


def test_fresh_reals_with_twins_in_training_as_often_as_training_images_have_are_no_copies(holdout):
    few, fresh = with_twins(300, 21), with_twins(200, 22)
    reference = CopyReference(few, features_of(few))
    copies = reference.check(fresh, features_of(fresh))
    assert copies.rate > 0.4 and copies.verdict == "none" and not copies.over_limit
    assert copies.limit > copies.rate and copies.share < 0.1
    large = with_twins(600, 23)
    reference = CopyReference(large, features_of(large), holdout, features_of(holdout))        # these have no twins in training
    copies = reference.check(fresh, features_of(fresh))
    assert copies.rate > 0.4 and copies.verdict == "none" and not copies.over_limit and copies.calibrated_by == "train"
    replayed = reference.check(large[300:400], features_of(large[300:400]))
    assert replayed.verdict == "copier" and replayed.over_limit


def test_a_few_close_copies_of_a_hundred_images_show(train):
    few = train[:100]
    reference = CopyReference(few, features_of(few))
    samples = np.concatenate([few[:20], discs(180, seed=12)])
    assert reference.check(samples, features_of(samples)).verdict == "some"


@pytest.mark.parametrize("told", [True, False])
def test_copies_of_an_image_that_is_there_more_often_than_there_are_candidates_are_found(train, told):
    many = train[:40].repeat(30, axis=0)
    reference = CopyReference(many, features_of(many), groups=np.arange(40).repeat(30) if told else None)
    samples = train[:30]
    assert reference.check(samples, features_of(samples)).verdict == "copier"
    samples = discs(50, seed=13)
    assert reference.check(samples, features_of(samples)).verdict == "none"


def test_what_copies_of_part_of_the_training_set_say_is_scaled_to_all_of_it(train):
    part = train[:300]
    reference = CopyReference(part, features_of(part), of=1500)
    samples = np.concatenate([part[:15], discs(285, seed=12)])             # 5 % copy this fifth, so 25 % any
    copies = reference.check(samples, features_of(samples))
    assert copies.verdict == "some" and copies.over_limit
    assert copies.share == pytest.approx(5 * (copies.rate - copies.false_alarm_rate) / (1 - copies.false_alarm_rate))
    assert "among 300 of 1,500 training images" in copies.text and "of the samples copies of any of the 1,500" in copies.text
    whole = CopyReference(part, features_of(part)).check(samples, features_of(samples))
    assert whole.verdict == "some" and whole.rate == copies.rate and "1,500" not in whole.text
    assert whole.limit - whole.false_alarm_rate == pytest.approx(5 * (copies.limit - copies.false_alarm_rate))
    fresh = discs(300, seed=12)
    assert not reference.check(fresh, features_of(fresh)).over_limit
    with pytest.raises(ValueError, match="300 training images of 200"):
        CopyReference(part, features_of(part), of=200)


def test_of_ten_images_nothing_can_be_told(train):
    samples = train[:5]
    copies = CopyReference(train[:10], features_of(train[:10])).check(samples, features_of(samples))
    assert copies.verdict == "unknown" and not copies.over_limit
    assert copies.text.startswith("cannot tell: 10 different training images") and "5 of 5 samples" in copies.text


def test_of_one_sample_nothing_can_be_told(train):
    copies = CopyReference(train[:100], features_of(train[:100])).check(train[:1], features_of(train[:1]))
    assert copies.verdict == "unknown" and "1 of 1 samples" in copies.text


class Packed(NamedTuple):
    """Real images with what is needed to find twins among some of them, as a pack has it."""

    images: np.ndarray
    vectors: np.ndarray
    facts: np.ndarray
    thumbs: np.ndarray
    names: list[str]

    def __len__(self) -> int:
        return len(self.images)

    def some(self, which: np.ndarray) -> "Packed":
        return Packed(self.images[which], self.vectors[which], self.facts[which], self.thumbs[which], [""] * len(which))

    def reference(self, holdout: float) -> tuple[CopyReference, np.ndarray]:
        """Made of these images as a run would divide them; and which of them are trained on."""
        twins = find_twins(self.facts, self.thumbs)
        split = split_images(self, twins, holdout)
        held = self.some(split.holdout) if holdout else None
        return CopyReference(self.images[split.train], self.vectors[split.train], held and held.images, held and held.vectors,
                             groups=twins.together[split.train]), split.train


def packed(source: Path, layout: Layout, folder: Path) -> Packed:
    pack = build_pack(open_source(str(source)), layout, cache_dir=folder)
    images = pack.read(np.arange(len(pack)))
    found = Packed(images, extract(RandomExtractor(), images).vectors, pack.facts.copy(), pack.thumbs.copy(), pack.names)
    pack.close()
    return found


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    np.save(folder / "digits.npy", (load_digits().images * 15.9375).astype(np.uint8))
    return packed(folder / "digits.npy", Layout(8, 8, channels=1), folder / "cache")


@pytest.fixture(scope="module")
def characters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("characters")
    with zipfile.ZipFile(CHARACTERS) as archive:
        for name in [name for name in archive.namelist() if name.endswith(".png")][::13]:
            archive.extract(name, folder / "images")
    return packed(folder / "images", Layout(32, 32, transparency="white"), folder / "cache")


def check_real_images(found: Packed, n: int, holdout: float, seed: int) -> None:
    """Of n images in a random order, others are no copies, but they themselves are."""
    order = np.random.default_rng(seed).permutation(len(found))
    mine, fresh = found.some(order[:n]), found.some(order[n:][:300])
    reference, trained = mine.reference(holdout)
    copies = reference.check(fresh.images, fresh.vectors)
    assert copies.verdict == "none" and not copies.over_limit, copies.text
    replayed = mine.some(trained[:100])
    copies = reference.check(replayed.images, replayed.vectors)
    assert copies.verdict == "copier" and copies.over_limit, copies.text


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("n", "holdout"), [(100, 0), (300, 0), (1500, 0), (1500, 0.2)])
def test_handwritten_digits_that_many_others_resemble_are_no_copies_of_each_other(digits, n, holdout, seed):
    check_real_images(digits, n, holdout, seed)


@pytest.mark.skipif(not CHARACTERS.is_file(), reason="no $GANVAS_TEST_DATA/characters.zip")
@pytest.mark.parametrize(("holdout", "seed"), [(0, 0), (0, 1), (0.2, 0)])
def test_characters_put_together_from_few_parts_are_no_copies_of_each_other(characters, holdout, seed):
    check_real_images(characters, 600, holdout, seed)


def test_a_tenth_of_replayed_digits_is_found_although_a_quarter_of_honest_ones_gives_alarm(digits):
    order = np.random.default_rng(4).permutation(len(digits))
    mine, fresh = digits.some(order[:300]), digits.some(order[300:600])
    reference, trained = mine.reference(0)
    samples = Packed(*(np.concatenate([a[trained[:30]], b[30:]]) for a, b in zip(mine[:4], fresh[:4], strict=True)), [])
    copies = reference.check(samples.images, samples.vectors)
    assert copies.verdict == "some" and copies.false_alarm_rate > 0.15 and 0 < copies.share < 0.25


def test_the_same_images_give_the_same_answer_one_by_one(reference, train):
    samples = np.concatenate([noisy(train[:5]), discs(15, seed=8)])
    together = reference.check(samples, features_of(samples))
    alone = np.concatenate([reference.check(samples[i:i + 1], features_of(samples[i:i + 1])).suspicion for i in range(20)])
    np.testing.assert_allclose(alone, together.suspicion, atol=0.02)
    assert ((alone < 1) == (together.suspicion < 1)).all()


def test_the_result_is_json(reference, train):
    result = reference.check(train[:40], features_of(train[:40])).as_dict()
    back = json.loads(json.dumps(result))
    assert back["rate"] == 1.0 and back["over_limit"] is True and len(back["pairs"]) == 32
    assert back["pairs"][0].keys() == {"sample", "train", "name", "ratio", "mirrored", "space"}


def test_features_that_do_not_fit_or_are_no_numbers_are_errors(reference, train):
    vectors = features_of(train[:5])
    with pytest.raises(DataError, match="samples: 5 images, but features of 4"):
        reference.check(train[:5], vectors[:4])
    vectors[2, 0] = np.nan
    with pytest.raises(DataError, match="1 of 5 images hold NaN"):
        reference.check(train[:5], vectors)
    with pytest.raises(DataError, match="no samples"):
        reference.check(train[:0], vectors[:0])
    with pytest.raises(DataError, match="samples are 16x16 with 3 channels, but training images are 32x32"):
        reference.check(train[:5, :, :16, :16], vectors)
