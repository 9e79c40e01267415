import numpy as np
import pytest

from ganvas.errors import DataError
from ganvas.metrics.spectrum import spectrum, spectrum_distance

RNG = np.random.Generator(np.random.Philox(11))


def pictures(n, height=64, width=64, channels=3):
    """Natural-like: power falls with the square of the frequency."""
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    radius[0, 0] = 1
    x = np.fft.ifft2(np.fft.fft2(RNG.normal(size=(n, channels, height, width))) / radius).real
    return np.clip(128 + 40 * x / x.std(), 0, 255).astype(np.uint8)


def against_reals(change):
    reals, fakes = pictures(100), change(pictures(100).astype(float))
    return spectrum_distance(spectrum(reals), spectrum(np.clip(np.rint(fakes), 0, 255).astype(np.uint8)))


def test_white_noise_is_flat_at_its_variance():
    noise = np.clip(np.rint(128 + 20 * RNG.normal(size=(300, 1, 32, 48))), 0, 255).astype(np.uint8)
    found = spectrum(noise)
    np.testing.assert_allclose(found.decibel, 10 * np.log10(400), atol=0.4)
    assert found.frequency[0] == 1 / 32 and found.frequency[-1] > 0.65


def test_a_grating_stands_in_the_ring_of_its_frequency():
    wave = np.rint(128 + 100 * np.sin(2 * np.pi * np.arange(64) / 8)).astype(np.uint8)
    found = spectrum(np.broadcast_to(wave, (2, 1, 64, 64)))
    assert found.frequency[found.decibel.argmax()] == 1 / 8


def test_reals_against_other_reals_are_within_half_a_decibel():
    found = against_reals(lambda x: x)
    assert found.rms_db < 0.5 and abs(found.high_excess_db) < 0.5


def test_added_noise_is_an_excess_and_blur_a_lack_of_fine_structure():
    noisy = against_reals(lambda x: x + 20 * RNG.normal(size=x.shape))
    blurred = against_reals(lambda x: (x + np.roll(x, 1, 2) + np.roll(x, 1, 3) + np.roll(x, (1, 1), (2, 3))) / 4)
    assert noisy.high_excess_db > 3 and noisy.rms_db > 2
    assert blurred.high_excess_db < -3 and blurred.rms_db > 2


def test_a_checkerboard_is_an_excess_of_fine_structure():
    board = np.indices((64, 64)).sum(axis=0) % 2 * 20
    assert against_reals(lambda x: x + board).high_excess_db > 0.5
    stripes = against_reals(lambda x: x + np.arange(64)[:, None] % 2 * 20)
    assert stripes.high_excess_db > 0.3 and stripes.rms_db > 1


def test_brightness_does_not_count_and_blank_images_have_a_finite_spectrum():
    assert against_reals(lambda x: x * 0.9 + 20).rms_db < 1.5
    assert np.isfinite(spectrum(np.full((3, 3, 16, 16), 9, np.uint8)).decibel).all()


def test_images_of_many_batches_are_averaged_alike(monkeypatch):
    images = pictures(50, 24, 40, 4)
    whole = spectrum(images).decibel
    monkeypatch.setattr("ganvas.metrics.spectrum.BATCH_VALUES", 7 * images[0].size)
    np.testing.assert_allclose(spectrum(images).decibel, whole, rtol=1e-6)


def test_other_sizes_no_images_and_tiny_ones_are_clear_errors():
    with pytest.raises(DataError, match="different sizes"):
        spectrum_distance(spectrum(pictures(2)), spectrum(pictures(2, 32, 32)))
    with pytest.raises(DataError, match="0 of 64x64"):
        spectrum(pictures(1)[:0])
    with pytest.raises(DataError, match="1 of 9x7"):
        spectrum(np.zeros((1, 1, 7, 9), np.uint8))
