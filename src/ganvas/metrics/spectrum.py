"""How strong fine and coarse structure is in a set of images: tells noise, blur and checkerboards from reals without any network.

Transposed convolutions leave their trace in the azimuthal average of the power spectrum (Durall et al. 2020, section 3).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import DataError
from ganvas.metrics.visible import visible

BATCH_VALUES = 2**22           # of images at once
SMALLEST_RING = 8              # frequencies; the outermost corner has one, too few for a steady mean
HIGH = 0.25                    # cycles a pixel; the upper half of what rows and columns can hold
ROUNDING_POWER = 1 / 12        # of rounding to whole grey levels: no image is surer than that, and blank ones keep a logarithm


class Spectrum(NamedTuple):
    """Mean power of rings of one width, outwards; the last ones lie in the corners, beyond 1/2."""

    frequency: NDArray[np.float64]      # (R,) cycles a pixel, the rings' middles
    decibel: NDArray[np.float64]        # (R,) 10 log10 of power in grey levels²; white noise of variance v is flat at v


class SpectrumDistance(NamedTuple):
    """Fakes' spectrum against reals'."""

    rms_db: float                       # root mean square difference over the rings
    high_excess_db: float               # mean of fakes less reals over the rings above 1/4: above 0 noise, below 0 blur


def spectrum(images: NDArray[np.uint8]) -> Spectrum:
    """Radially averaged power spectrum of uint8 images (N, C, H, W), C from 1, sides from 8; mean over images and channels.

    Each image's mean is taken off and a Hann window laid over it, lest its borders look like fine structure. Rings are as wide as
    the shorter side's lowest frequency; the innermost, of the window itself, is left out, and the last corners are one ring. RGBA
    is looked at as `visible` makes it.
    """
    if len(images) < 1 or min(images.shape[2:]) < 8:
        raise DataError(f"a spectrum needs at least one image of at least 8x8 pixels, but here are {len(images):,} of "
                        f"{images.shape[3]}x{images.shape[2]}.")
    height, width = images.shape[2:]
    window = np.outer(_hann(height), _hann(width)).astype(np.float32)
    power = np.zeros((height, width))
    batch = max(1, BATCH_VALUES // images[0].size)
    for start in range(0, len(images), batch):
        centred = visible(images[start : start + batch]).astype(np.float32)
        centred -= centred.mean(axis=(2, 3), keepdims=True)
        power += np.square(np.abs(np.fft.fft2(centred * window))).sum(axis=(0, 1))
    power /= len(images) * images.shape[1] * np.square(window, dtype=np.float64).sum()
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    ring = np.rint(radius * min(height, width)).astype(np.int64).ravel()
    ring = np.minimum(ring, np.flatnonzero(np.bincount(ring) >= SMALLEST_RING)[-1])
    means = np.bincount(ring, weights=power.ravel()) / np.bincount(ring)
    return Spectrum(np.arange(1, len(means)) / min(height, width), 10 * np.log10(means[1:] + ROUNDING_POWER))


def spectrum_distance(real: Spectrum, fake: Spectrum) -> SpectrumDistance:
    """Both spectra of images of one size. Raises DataError where they are not."""
    if not np.array_equal(real.frequency, fake.frequency):
        raise DataError("the spectra are of images of different sizes. Resize both sides to one size.")
    difference = fake.decibel - real.decibel
    return SpectrumDistance(float(np.sqrt(np.square(difference).mean())), float(difference[real.frequency > HIGH].mean()))


def _hann(n: int) -> NDArray[Any]:
    """n points of a Hann window, none of them 0."""
    return np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2
