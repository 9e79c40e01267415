import numpy as np
import pytest
import torch

from ganvas.errors import DataError
from ganvas.metrics.sliced import laplacian_pyramid, sliced_wasserstein

RNG = np.random.Generator(np.random.Philox(10))


def pictures(n, height=32, width=32, channels=3, detail=6):
    coarse = torch.from_numpy(RNG.normal(size=(n, channels, detail, detail)))
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    return (128 + 50 * smooth).clamp(0, 255).to(torch.uint8).numpy()


def test_the_same_images_are_nearly_at_zero_and_other_ones_of_their_kind_near():
    images, others, different = pictures(200), pictures(200), pictures(200, detail=16)
    same, kin, far = (sliced_wasserstein(images, fakes).mean for fakes in (images, others, different))
    assert same < 0.05
    assert kin < 0.06
    assert far > 2.5 * kin


def test_noise_shows_at_the_finest_level_first():
    images = pictures(200, 64, 64)
    noisy = np.clip(pictures(200, 64, 64) + RNG.normal(size=images.shape) * 6, 0, 255).astype(np.uint8)
    levels = sliced_wasserstein(images, noisy).levels
    assert [size for size, _ in levels] == ["64x64", "32x32", "16x16"]
    assert levels[0][1] > 3 * levels[2][1]


@pytest.mark.parametrize("height, width, channels, sizes", [
    (28, 28, 1, ["28x28", "14x14"]), (48, 96, 4, ["96x48", "48x24"]), (13, 9, 3, ["9x13"]), (4, 5, 1, ["5x4"]),
    (57, 33, 3, ["33x57", "17x29"])])
def test_any_size_and_number_of_channels_is_measured(height, width, channels, sizes):
    images = pictures(10, height, width, channels)
    found = sliced_wasserstein(images, 255 - images)
    assert [size for size, _ in found.levels] == sizes
    assert np.isfinite(found.mean)


@pytest.mark.parametrize("height, width", [(64, 64), (57, 33)])
def test_the_levels_of_a_pyramid_add_up_to_the_image(height, width):
    images = torch.from_numpy(pictures(2, height, width)).double()
    levels = list(laplacian_pyramid(images))
    built = levels[-1]
    taps = torch.tensor([1, 4, 6, 4, 1], dtype=torch.float64) / 16
    for details in levels[-2::-1]:
        spread = torch.zeros_like(details)
        spread[:, :, ::2, ::2] = built
        kernel = (4 * torch.outer(taps, taps)).expand(3, 1, 5, 5)
        padded = torch.nn.functional.pad(spread, (2, 2, 2, 2), mode="reflect")
        built = details + torch.nn.functional.conv2d(padded, kernel, groups=3)
    torch.testing.assert_close(built, images)


def test_it_is_a_function_of_images_and_seed_and_takes_equal_numbers():
    reals, fakes = pictures(60), pictures(40)
    first = sliced_wasserstein(reals, fakes, seed=1)
    assert first == sliced_wasserstein(reals, fakes, seed=1)
    assert first != sliced_wasserstein(reals, fakes, seed=2)
    assert first.n == 40


def test_blank_images_are_far_from_reals_and_not_nan():
    assert sliced_wasserstein(pictures(20), np.full((20, 3, 32, 32), 7, np.uint8)).mean > 0.3


def test_other_sizes_and_one_image_are_clear_errors():
    with pytest.raises(DataError, match="32x32 with 3 channels, but fakes 28x32 with 3"):
        sliced_wasserstein(pictures(3), pictures(3, 32, 28))
    with pytest.raises(DataError, match="1 fakes are too few"):
        sliced_wasserstein(pictures(3), pictures(1))
