"""Finds pictures that are twins: the same, mirrored, recoloured, or nearly the same; exact and by what a thumbnail shows.

Exact twins share the hash of their pixels, and recoloured drawings the hash of where neighbouring pixels differ (see `facts`).
The others are found by thumbnails, in two steps. Candidates have similar maps of gradient strength, which no change of colours
alters much. Twins are those of them whose colours an affine map turns into each other, where they stand out: they
must be far nearer to each other than either is to its tenth neighbour. Without that, any two handwritten ones would be twins.
"""

import contextlib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from ganvas.data.facts import Facts, Thumbs
from ganvas.data.pack import Pack
from ganvas.files import whole_file

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

EXHAUSTIVE = 65_536            # images compared each with each; beyond, within cells of similar ones

SIMILAR = 0.7                  # least cosine of two gradient maps, each less the set's mean
STAND_OUT = 0.5                # greatest ratio of 1 - cosine to that of the tenth neighbour
EXPLAINED = 0.65               # least share that an affine map of the other's colours explains of what the mean thumbnail leaves
SURELY = (0.97, 0.985)         # cosine and share explained at which a pair need not stand out
MARGIN = 0.05                  # by which a pair may miss each of these and still be kept together in a hold-out
SAME_COLOURS = 0.9             # share explained without any map of colours, above which twins are near, not recoloured

_VERSION = 2                   # of what is kept in a pack; another one is looked for anew
_NEIGHBOUR = 10
_STRANGERS = 20_000            # images among which neighbours are ranked
_FEW = 50                      # fewer images have no meaningful tenth neighbour: strangers are then taken to have cosine 0.5
_DIMENSIONS = 96               # of the projection in which candidates are looked for; it loses none
_BLOCK = 8_000_000             # similarities at once: 32 MB
_BATCH = 1_000_000             # candidates judged at once


class Kind(IntEnum):
    """How two images are twins."""

    EXACT = 0
    MIRRORED = 1
    RECOLOURED = 2
    NEAR = 3


PAIR = np.dtype([("a", "<u4"), ("b", "<u4"), ("kind", "u1"), ("mirrored", "?"), ("likeness", "<f4")])


class Twins(NamedTuple):
    """Pairs of twins, a < b, of dtype PAIR, enough of them to connect each group; and each image's group."""

    pairs: npt.NDArray[np.void]
    groups: Indices              # (N,): the lowest index among an image's twins, their twins, and so on; its own if it has none
    together: Indices            # (N,): the same with those that just miss being twins: what a hold-out must not part
    exhaustive: bool             # False: near twins were looked for within cells only, and a few may be missed


def load_twins(pack: Pack, progress: Callable[[int, int], None] | None = None) -> Twins:
    """The twins in a pack: looked for once, and kept beside its images."""
    path = pack.home / "twins.npz"
    try:
        with np.load(path, allow_pickle=False) as kept:
            twins = Twins(kept["pairs"], kept["groups"], kept["together"], bool(kept["exhaustive"]))
            if kept["version"] == _VERSION and twins.groups.shape == (len(pack),) and twins.pairs.dtype == PAIR:
                return twins
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        pass
    twins = find_twins(pack.facts, pack.thumbs, progress)
    with contextlib.suppress(OSError), whole_file(path) as partial, partial.open("wb") as file:     # else they are found again
        np.savez_compressed(file, version=_VERSION, **twins._asdict())
    return twins


def find_twins(facts: Facts, thumbs: Thumbs, progress: Callable[[int, int], None] | None = None,
               exhaustive: int = EXHAUSTIVE) -> Twins:
    """The twins among N images. facts: (N,) of FACT. thumbs: (N, 16, 16, 4).

    60,000 images take well under a minute on two cores; memory is about 1.5 KB an image. progress(done, total) may raise.
    """
    n = len(facts)
    if n < 2:
        return Twins(np.zeros(0, PAIR), np.arange(n), np.arange(n), exhaustive=True)
    exact, firsts = _linked(facts["content"], np.arange(n))
    found = [_pairs(exact, Kind.EXACT, mirrored=False, likeness=1.0)]
    similar = _Thumbnails(thumbs, firsts)
    found += [similar.judged(pairs, mirrored) for pairs, mirrored in _same_structure(facts, firsts)]
    near, nearly = _near(similar, exhaustive, progress)
    pairs = np.concatenate([*found, *near])
    # Twins that are nearly symmetric are found twice: the better match counts, and straight before mirrored.
    pairs = pairs[np.lexsort((pairs["kind"], pairs["mirrored"], -pairs["likeness"].round(2), pairs["b"], pairs["a"]))]
    new = (pairs["a"][1:] != pairs["a"][:-1]) | (pairs["b"][1:] != pairs["b"][:-1])
    pairs = pairs[np.concatenate([[True], new])[:len(pairs)]]
    return Twins(pairs, _groups(n, pairs), _groups(n, np.concatenate([pairs, *nearly])), len(firsts) <= exhaustive)


def _groups(n: int, pairs: npt.NDArray[np.void]) -> Indices:
    """(n,): the lowest index that each image is connected with."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs), bool), (pairs["a"].astype(np.int64), pairs["b"].astype(np.int64))), shape=(n, n))
    _, component = connected_components(links, directed=False)
    lowest = np.unique(component, return_index=True)[1].astype(np.int64)
    return cast(Indices, lowest[component])


def _linked(keys: npt.NDArray[np.uint64], of: Indices) -> tuple[Indices, Indices]:
    """Pairs (P, 2) that link the images `of` with equal keys, each to the first of its kind; and those firsts."""
    order = np.argsort(keys, kind="stable")
    starts = np.concatenate([[True], keys[order][1:] != keys[order][:-1]])[:len(order)]
    first = order[np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))]
    again = ~starts
    return of[np.stack([first[again], order[again]], 1)], of[np.sort(order[starts])]


def _same_structure(facts: Facts, firsts: Indices) -> Iterator[tuple[Indices, bool]]:
    """Pairs whose neighbouring pixels differ in the same places, and whether one of them is mirrored."""
    straight, mirrored = facts["structure"][firsts], facts["structure_mirrored"][firsts]
    telling = straight != 0
    links, _ = _linked(straight[telling], firsts[telling])
    yield links, False
    # Mirrored: the key of one is the mirrored key of the other. Symmetric pictures are found above.
    one_sided = telling & (straight != mirrored)
    order = np.argsort(straight[one_sided], kind="stable")
    keys, images = straight[one_sided][order], firsts[one_sided][order]
    at = np.searchsorted(keys, mirrored[one_sided]).clip(max=max(0, len(keys) - 1))
    match = keys[at] == mirrored[one_sided] if len(keys) else np.zeros(0, bool)
    pairs = np.stack([images[at[match]], firsts[one_sided][match]], 1) if len(keys) else np.empty((0, 2), np.int64)
    yield np.sort(pairs, 1), True


def _pairs(pairs: Indices, kind: int | npt.NDArray[np.uint8], mirrored: bool, likeness: float | Floats) -> npt.NDArray[np.void]:
    made = np.zeros(len(pairs), PAIR)
    made["a"], made["b"] = pairs.min(1, initial=2**32 - 1), pairs.max(1, initial=0)
    made["kind"], made["mirrored"], made["likeness"] = kind, mirrored, likeness
    return made


class _Thumbnails:
    """The thumbnails of one image of each content, and what is computed from them."""

    def __init__(self, thumbs: Thumbs, firsts: Indices):
        self.thumbs, self.firsts = thumbs, firsts
        sample = firsts[:: max(1, len(firsts) // 4096)]
        mean = composed(thumbs[sample]).mean(0)
        self.mean = np.float32(0.5) * (mean + mean[:, ::-1])
        maps = np.concatenate([gradient_map(composed(thumbs[sample])), gradient_map(composed(thumbs[sample])[:, :, ::-1])])
        self.mean_map = maps.mean(0)
        centred = _unit(maps - self.mean_map)
        _, vectors = np.linalg.eigh(centred.T @ centred)
        self.axes = vectors[:, -_DIMENSIONS:].astype(np.float32)

    def maps(self, images: Indices, mirrored: bool = False) -> Floats:
        """(n, 480): centred unit maps of gradient strength; their products are the cosines that candidates are judged by."""
        pictures = composed(self.thumbs[images])
        return _unit(gradient_map(pictures[:, :, ::-1] if mirrored else pictures) - self.mean_map)

    def projected(self, mirrored: bool = False) -> Floats:
        """(len(firsts), 96): all maps on their principal axes, where no two are farther apart than they are."""
        parts = [self.maps(self.firsts[i:i + 4096], mirrored) @ self.axes for i in range(0, len(self.firsts), 4096)]
        return np.concatenate(parts) if parts else np.empty((0, _DIMENSIONS), np.float32)

    def likeness(self, pairs: Indices, mirrored: bool) -> tuple[Floats, Floats]:
        """How much of each pair's thumbnails the other explains beyond the set's mean: by an affine map of colours, and as it is.

        pairs: (P, 2). Returns two (P,), 1 = all, 0 = no more than the mean does, the lower value of both directions.
        """
        mapped, plain = np.empty(len(pairs), np.float32), np.empty(len(pairs), np.float32)
        for i in range(0, len(pairs), 2048):
            a, b = composed(self.thumbs[pairs[i:i + 2048, 0]]), composed(self.thumbs[pairs[i:i + 2048, 1]])
            b = b[:, :, ::-1] if mirrored else b
            a, b = a.reshape(len(a), -1, 4), b.reshape(len(b), -1, 4)
            mean = np.broadcast_to(self.mean.reshape(1, -1, 4), a.shape)
            left_a, left_b = _unexplained(a, mean), _unexplained(b, mean)
            mapped[i:i + 2048] = 1 - np.maximum(_unexplained(b, a) / left_b, _unexplained(a, b) / left_a)
            plain[i:i + 2048] = 1 - np.square(a - b).sum((1, 2)) / np.minimum(left_a, left_b)
        return mapped, plain

    def judged(self, pairs: Indices, mirrored: bool) -> npt.NDArray[np.void]:
        """The pairs as PAIR: near or mirrored where their colours agree, recoloured where not."""
        mapped, plain = self.likeness(pairs, mirrored)
        same = Kind.MIRRORED if mirrored else Kind.NEAR
        return _pairs(pairs, np.where(plain >= SAME_COLOURS, same, Kind.RECOLOURED).astype(np.uint8), mirrored, mapped)


def composed(thumbs: Thumbs) -> Floats:
    """Thumbnails (n, 16, 16, 4) on middle grey, with alpha as a fourth colour: float32 from 0 to 1."""
    pictures = thumbs.astype(np.float32) * np.float32(1 / 255)
    pictures[..., :3] += (1 - pictures[..., 3:]) * np.float32(0.5)
    return pictures


def gradient_map(pictures: Floats) -> Floats:
    """(n, 480): how strongly neighbouring pixels of (n, 16, 16, 4) differ, over all colours, as unit vectors."""
    colours = np.ascontiguousarray(pictures.transpose(3, 0, 1, 2))       # sums over a last axis of 4 are five times slower
    across, down = colours[:, :, :, 1:] - colours[:, :, :, :-1], colours[:, :, 1:] - colours[:, :, :-1]
    parts = [np.sqrt(np.square(part, out=part).sum(0)).reshape(len(pictures), -1) for part in (across, down)]
    return _unit(np.concatenate(parts, 1))


def _unit(vectors: Floats) -> Floats:
    length = np.sqrt(np.einsum("nk,nk->n", vectors, vectors))
    return cast(Floats, vectors / np.maximum(length, np.float32(1e-6))[:, None])


def _unexplained(pictures: Floats, by: Floats) -> Floats:
    """Squares of `pictures` (n, pixels, 4) that the best affine map of the colours `by` (n, pixels, 4) leaves: (n,), above 0."""
    given = np.concatenate([by, np.ones((*by.shape[:2], 1), np.float32)], 2)
    gram = given.transpose(0, 2, 1) @ given + np.float32(1e-2) * np.eye(5, dtype=np.float32)
    weights = np.linalg.solve(gram.astype(np.float64), (given.transpose(0, 2, 1) @ pictures).astype(np.float64))
    left = np.square(pictures - given @ weights.astype(np.float32)).sum((1, 2))
    return cast(Floats, left + np.float32(1e-4))


def _near(similar: _Thumbnails, exhaustive: int, progress: Callable[[int, int], None] | None,
          ) -> tuple[list[npt.NDArray[np.void]], list[npt.NDArray[np.void]]]:
    """Twins by their thumbnails, straight and mirrored ones; and pairs that are nearly twins. Each as PAIR."""
    firsts, n = similar.firsts, len(similar.firsts)
    found: list[npt.NDArray[np.void]] = []
    nearly: list[npt.NDArray[np.void]] = []
    if n < 2:
        return found, nearly
    points = similar.projected()
    cells = _cells(points, exhaustive)
    least = _least_cosine(points)
    tenth = np.full(n, np.nan, np.float32)                 # of the images that have had a candidate
    for mirrored in (False, True):
        queries = similar.projected(mirrored=True) if mirrored else points
        for a, b in _batched(_candidates(points, queries, cells, least - MARGIN, progress, int(mirrored))):
            new = np.unique(np.concatenate([a, b]))
            new = new[np.isnan(tenth[new])]
            tenth[new] = _tenth(points, new)
            room = 1 - np.maximum(tenth[a], tenth[b])
            # The projection's distance is at most the true one: what does not stand out in it does not at all.
            keep = _half_squares(points, a, queries, b) <= np.maximum((STAND_OUT + MARGIN) * room, 1 - SURELY[0])
            pairs, room = firsts[np.stack([a[keep], b[keep]], 1)], room[keep]
            cosine = np.empty(len(pairs), np.float32)
            for i in range(0, len(pairs), 8192):
                cosine[i:i + 8192] = np.einsum("nk,nk->n", similar.maps(pairs[i:i + 8192, 0]),
                                               similar.maps(pairs[i:i + 8192, 1], mirrored))
            sure = cosine >= SURELY[0]
            keep = sure | (1 - cosine <= (STAND_OUT + MARGIN) * room)
            judged, cosine, room, sure = similar.judged(pairs[keep], mirrored), cosine[keep], room[keep], sure[keep]
            stands_out = (cosine >= least) & (1 - cosine <= STAND_OUT * room)
            likeness = judged["likeness"]
            twins = (stands_out & (likeness >= EXPLAINED)) | (sure & (likeness >= SURELY[1]))
            found.append(judged[twins])
            nearly.append(judged[~twins & (likeness >= EXPLAINED - MARGIN) & (1 - cosine <= (STAND_OUT + MARGIN) * room)])
    return found, nearly


def _batched(candidates: Iterator[tuple[Indices, Indices]]) -> Iterator[tuple[Indices, Indices]]:
    """The candidates in fewer, larger parts: a set in which all is alike has more of them than memory holds."""
    waiting: list[tuple[Indices, Indices]] = []
    for pairs in candidates:
        waiting.append(pairs)
        if sum(len(a) for a, _ in waiting) >= _BATCH:
            yield np.concatenate([a for a, _ in waiting]), np.concatenate([b for _, b in waiting])
            waiting = []
    if waiting:
        yield np.concatenate([a for a, _ in waiting]), np.concatenate([b for _, b in waiting])


def _half_squares(points: Floats, a: Indices, queries: Floats, b: Indices) -> Floats:
    """(n,): half the squared distance of points[a] and queries[b]; of unit vectors, 1 - cosine."""
    parts = [np.square(points[a[i:i + 65536]] - queries[b[i:i + 65536]]).sum(1) / 2 for i in range(0, len(a), 65536)]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _least_cosine(points: Floats) -> float:
    """The lowest cosine with which any image of this set could stand out, from a sample of 512."""
    tenth = _tenth(points, np.unique(np.linspace(0, len(points) - 1, 512).astype(np.int64)))
    return min(SURELY[0], max(SIMILAR, 1 - STAND_OUT * (1 - float(np.quantile(tenth, 0.1)))))


def _tenth(points: Floats, of: Indices) -> Floats:
    """(len(of),): the cosine of each of these images with its tenth neighbour, as the projection has it."""
    if len(points) < _FEW:
        return np.full(len(of), 0.5, np.float32)
    stride = -(-len(points) // _STRANGERS)                           # a sample stands for all
    others = points[::stride]
    rank = max(1, round(_NEIGHBOUR / stride))
    step = max(1, _BLOCK // len(others))
    half = np.square(others).sum(1) / 2
    tenth = np.empty(len(of), np.float32)
    for i in range(0, len(of), step):
        mine = of[i:i + step]
        near = points[mine] @ others.T - half - np.square(points[mine]).sum(1, keepdims=True) / 2      # -distance^2 / 2
        own = np.flatnonzero(mine % stride == 0)
        near[own, mine[own] // stride] = -np.inf                     # nobody is a neighbour of itself
        tenth[i:i + step] = 1 + np.partition(near, -rank, axis=1)[:, -rank]
    return tenth


def _cells(points: Floats, exhaustive: int) -> Floats | None:
    """Centres of cells of similar images (k-means on a sample), or None where each is compared with each."""
    if len(points) <= exhaustive:
        return None
    count = round(len(points) ** 0.5)
    sample = points[:: max(1, len(points) // (20 * count))]
    centres = sample[:: max(1, len(sample) // count)].copy()
    for _ in range(5):
        nearest = _nearest_cells(sample, centres, 1)[:, 0]
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, sample)
        size = np.bincount(nearest, minlength=len(centres))[:, None]
        centres = np.where(size > 0, sums / np.maximum(size, 1), centres).astype(np.float32)
    return centres


def _nearest_cells(points: Floats, centres: Floats, count: int) -> Indices:
    """(n, count): the cells whose centres are nearest to each point."""
    half = np.square(centres).sum(1) / 2
    step = max(1, _BLOCK // len(centres))
    parts = [np.argpartition(half - points[i:i + step] @ centres.T, count - 1, axis=1)[:, :count]
             for i in range(0, len(points), step)]
    return np.concatenate(parts).astype(np.int64)


def _candidates(points: Floats, queries: Floats, centres: Floats | None, least: float,
                progress: Callable[[int, int], None] | None, turn: int) -> Iterator[tuple[Indices, Indices]]:
    """Positions a < b with points[a] and queries[b] so near that their cosine may be `least` or more; none is left out.

    A projection brings points nearer to each other, never farther apart. With cells, b is sought in its two nearest, and a
    pair may come twice.
    """
    everyone = np.arange(len(points))
    if centres is None:
        groups = [(everyone, everyone)]
    else:
        homes, visits = _nearest_cells(points, centres, 1)[:, 0], _nearest_cells(queries, centres, 2)
        by_home, by_visit = np.argsort(homes, kind="stable"), np.argsort(visits.T.reshape(-1), kind="stable")
        members = np.split(by_home, np.cumsum(np.bincount(homes, minlength=len(centres)))[:-1])
        visitors = np.split(by_visit % len(points), np.cumsum(np.bincount(visits.reshape(-1), minlength=len(centres)))[:-1])
        groups = list(zip(members, visitors, strict=True))
    done, total = 0, sum(len(one) for one, _ in groups)
    for members_, visitors_ in groups:
        ordered = np.sort(visitors_)
        their = queries[ordered]
        right = np.concatenate([their, -np.square(their).sum(1, keepdims=True) / 2, np.ones((len(their), 1), np.float32)], 1)
        step = max(1, _BLOCK // max(1, len(ordered)))
        for i in range(0, len(members_), step):
            rows = members_[i:i + step]
            mine = points[rows]
            left = np.concatenate([mine, np.ones((len(mine), 1), np.float32), -np.square(mine).sum(1, keepdims=True) / 2], 1)
            start = int(np.searchsorted(ordered, rows.min())) if centres is None else 0       # b > a: the others are symmetric
            # left . right = -distance^2 / 2. flatnonzero takes a third of nonzero's time.
            near = np.flatnonzero(left @ right[start:].T >= least - 1)
            a, b = rows[near // (len(right) - start)], ordered[start + near % (len(right) - start)]
            keep = a < b if centres is None else a != b
            yield np.minimum(a, b)[keep], np.maximum(a, b)[keep]
            done += len(rows)
            if progress is not None:
                progress(turn * total + done, 2 * total)
