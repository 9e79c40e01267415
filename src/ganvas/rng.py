"""Counter-based random numbers: every draw is a pure function of (seed, purpose, index); nothing has a state to save.

The definition, exactly, so that a twin in another language gives the same numbers. Words are uint32; a // b and a % b
are the integer quotient and remainder.

Philox      philox(counter, key) -> 4 words is Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as
            1, 2, 3"). key = (seed % 2^32, seed // 2^32) for a seed of 0 to 2^64 - 1.
Words       Word k of `index` is element k % 4 of philox((index % 2^32, index // 2^32, k // 4, purpose), key).
            `index` is mostly the running index of an image in the run.
Uniforms    u_k = (word_k + 1/2) / 2^32, exact in float64, in the open interval (0, 1).
Normals     Box-Muller in float64, rounded to float32 at the end. With j even, r = sqrt(-2 ln u_j), t = 2 pi u_{j+1}:
            normal_j = r cos t, normal_{j+1} = r sin t. So a longer draw begins with the shorter one.
            log, sin and cos may differ in the last bit of float64 between systems: about one float32 in 10^8 then
            differs in its own last bit. Everything else here is exact on every platform.
Signs       Sign k is +1 where bit k % 32 of word k // 32 is set (bit 0 is the least), else -1.
Latents     "normal": the normals. "uniform": 2 u_k - 1, rounded to float32.
Integers    With x = word_0 2^32 + word_1: floor(x high / 2^64), for high up to 2^32.
Permute     A keyed permutation of 0 .. n-1: an alternating Feistel network over mixed radices with cycle walking
            (Black & Rogaway 2002, "Ciphers with arbitrary finite domains"). Let `width` be the smallest even number
            from 8 up whose square is at least n, and height = max(8, ceil(n / width)). One pass takes x to
                column, row = x % width, x // width
                for round = 0 .. 11:
                    if round is even:  column = (column + shift(round, row, width))  % width
                    else:              row    = (row    + shift(round, column, height)) % height
                x = row width + column
            and passes are repeated until x < n. shift(round, value, radix) = floor(w radix / 2^32), where w is element
            round % 4 of philox((value, round // 4, epoch, 2^31 + purpose), key). An even width makes odd permutations
            possible; sides of 8 make small n mix: with n = 5 all 120 orders were equally frequent in a million epochs
            from 6 rounds up, while sides of 4 needed 10 rounds and sides of 2 more than 16. The 2^31 keeps these
            counters apart from those of the words.
"""

import math
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Distribution = Literal["normal", "uniform"]


class Purpose(IntEnum):
    """What a draw is for; draws of different purposes are independent. Never renumber: the numbers are the streams."""

    ORDER = 0  # which image comes when
    Z = 1  # z of the discriminator's update
    Z_G = 2  # fresh z of the generator's update
    ROTATION = 3
    FLIP = 4
    GRID = 5  # z of the progress grids
    SAMPLE = 6  # z of `ganvas sample` and its relatives
    BATCH_NORM = 7  # z that re-estimates the averaged generator's statistics
    REPLACEMENT = 8  # images drawn with replacement
    MEASURE = 9  # z of the samples that a run in training is measured by
    EVALUATE = 10  # z of `ganvas evaluate`
    SUBSET = 11  # which reals are compared, and with what
    AUGMENT_D_REAL = 12  # how the reals are changed that D learns from
    AUGMENT_D_FAKE = 13
    AUGMENT_G_REAL = 14  # and those that G is judged beside
    AUGMENT_G_FAKE = 15
    LABEL = 16  # classes of what a conditional generator makes
    PENALTY = 17  # where a gradient penalty looks: noise about the reals, or places between reals and fakes
    PENALTY_FAKE = 18  # noise about the fakes


_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_FEISTEL_ROUNDS = 12
_FEISTEL_SMALLEST_SIDE = 8


def philox(counters: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Four random words for each counter: Philox4x32-10, equal to Random123's.

    counters: (..., 4). key: two words, the same for all counters. Returns (..., 4).
    """
    # uint64 throughout: a product of two words must not lose its high half.
    c0, c1, c2, c3 = (counters[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    for _ in range(10):
        product0, product2 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1 = (product2 >> _32) ^ c1 ^ np.uint64(k0), product2 & _LOW
        c2, c3 = (product0 >> _32) ^ c3 ^ np.uint64(k1), product0 & _LOW
        k0, k1 = (k0 + _KEY_STEPS[0]) & 0xFFFFFFFF, (k1 + _KEY_STEPS[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def _key(seed: int) -> tuple[int, int]:
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}, but must be from 0 to 2^64 - 1")
    return seed & 0xFFFFFFFF, seed >> 32


def _words(seed: int, purpose: Purpose, indices: NDArray[np.int64], count: int) -> NDArray[np.uint32]:
    """The first `count` words of each index. indices: (N,), not negative. Returns (N, count)."""
    if len(indices) and indices.min() < 0:
        raise ValueError(f"indices must not be negative, but one is {indices.min()}")
    blocks = -(-count // 4)
    counters = np.empty((len(indices), blocks, 4), dtype=np.uint32)
    counters[..., 0] = (indices & 0xFFFFFFFF)[:, None]
    counters[..., 1] = (indices >> 32)[:, None]
    counters[..., 2] = np.arange(blocks, dtype=np.uint32)
    counters[..., 3] = purpose
    return philox(counters, _key(seed)).reshape(len(indices), 4 * blocks)[:, :count]


def uniforms(seed: int, purpose: Purpose, indices: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """`count` numbers from the open interval (0, 1) for each index. indices: (N,), not negative. Returns (N, count)."""
    return (_words(seed, purpose, indices, count).astype(np.float64) + 0.5) * 2.0**-32


def normals(seed: int, purpose: Purpose, indices: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """`count` standard normal numbers for each index (Box & Muller 1958), at most 6.77 from zero.

    indices: (N,), not negative. Returns (N, count).
    """
    u = uniforms(seed, purpose, indices, count + count % 2)
    radius = np.sqrt(-2.0 * np.log(u[:, 0::2]))
    angle = (2.0 * np.pi) * u[:, 1::2]
    result = np.empty(u.shape, dtype=np.float32)
    result[:, 0::2] = radius * np.cos(angle)
    result[:, 1::2] = radius * np.sin(angle)
    return result[:, :count]


def signs(seed: int, purpose: Purpose, indices: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """`count` numbers for each index that are 1 or -1, equally often: 60 times as fast as normals.

    indices: (N,), not negative. Returns (N, count).
    """
    words = _words(seed, purpose, indices, -(-count // 32))
    # Bytes from the least to the greatest on every machine, and so their bits.
    bits = np.unpackbits(np.ascontiguousarray(words, dtype="<u4").view(np.uint8), axis=1, bitorder="little")[:, :count]
    return bits.astype(np.float32) * np.float32(2) - np.float32(1)


def latents(
    seed: int, purpose: Purpose, indices: NDArray[np.int64], count: int, distribution: Distribution
) -> NDArray[np.float32]:
    """`count` coordinates of z for each index: standard normal, or uniform between -1 and 1.

    indices: (N,), not negative. Returns (N, count).
    """
    if distribution == "normal":
        return normals(seed, purpose, indices, count)
    return (2.0 * uniforms(seed, purpose, indices, count) - 1.0).astype(np.float32)


def integers(seed: int, purpose: Purpose, indices: NDArray[np.int64], high: int) -> NDArray[np.int64]:
    """One integer from 0 to high - 1 for each index; no value's probability is off by more than 2^-64.

    indices: (N,), not negative. high: 1 to 2^32. Returns (N,).
    """
    if not 1 <= high <= 2**32:
        raise ValueError(f"high is {high}, but must be from 1 to 2^32")
    words = _words(seed, purpose, indices, 2).astype(np.uint64)
    factor = np.uint64(high)
    # The top 64 of 96 bits, which fits: (2^32 - 1) high + high - 1 < 2^64.
    return ((words[:, 0] * factor + (words[:, 1] * factor >> _32)) >> _32).astype(np.int64)


def permute(positions: NDArray[np.int64], n: int, seed: int, purpose: Purpose, epoch: int) -> NDArray[np.int64]:
    """Where a shuffle of 0 .. n-1 takes each position; each epoch has a shuffle of its own.

    Any positions can be asked for in any order; work and memory are O(len(positions) + sqrt(n)).
    positions: (N,), from 0 to n - 1. epoch: 0 to 2^32 - 1. Returns (N,), from 0 to n - 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}, but must be at least 1")
    if len(positions) and not 0 <= positions.min() <= positions.max() < n:
        raise ValueError(f"positions must be from 0 to {n - 1}, but are {positions.min()} to {positions.max()}")
    width, height = _feistel_radices(n)
    shifts = _feistel_shifts(width, height, seed, purpose, epoch)
    result = _feistel(positions, width, height, shifts)
    while len(outside := np.flatnonzero(result >= n)):  # cycle walking
        result[outside] = _feistel(result[outside], width, height, shifts)
    return result


def _feistel_radices(n: int) -> tuple[int, int]:
    root = math.isqrt(n - 1) + 1  # the smallest integer whose square is at least n
    width = max(_FEISTEL_SMALLEST_SIDE, root + root % 2)
    return width, max(_FEISTEL_SMALLEST_SIDE, -(-n // width))


def _feistel_shifts(width: int, height: int, seed: int, purpose: Purpose, epoch: int) -> NDArray[np.int64]:
    """Every value of the round function: (rounds, max(width, height)); row `round` is indexed by the other coordinate.

    A table, because its sqrt(n) values are looked up by many positions each.
    """
    counters = np.empty((_FEISTEL_ROUNDS // 4, max(width, height), 4), dtype=np.uint32)
    counters[..., 0] = np.arange(max(width, height), dtype=np.uint32)
    counters[..., 1] = np.arange(_FEISTEL_ROUNDS // 4, dtype=np.uint32)[:, None]
    counters[..., 2] = epoch
    counters[..., 3] = 2**31 + purpose
    words = philox(counters, _key(seed)).astype(np.uint64)
    words = words.transpose(0, 2, 1).reshape(_FEISTEL_ROUNDS, -1)  # (block, value, 4) -> (round, value)
    radices = np.where(np.arange(_FEISTEL_ROUNDS) % 2 == 0, width, height).astype(np.uint64)[:, None]
    return (words * radices >> _32).astype(np.int64)


def _feistel(x: NDArray[np.int64], width: int, height: int, shifts: NDArray[np.int64]) -> NDArray[np.int64]:
    row, column = np.divmod(x, width)
    for shift in shifts.reshape(-1, 2, shifts.shape[1]):
        column = (column + shift[0][row]) % width
        row = (row + shift[1][column]) % height
    return row * width + column
