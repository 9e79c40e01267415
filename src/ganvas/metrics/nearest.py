"""Nearest neighbours and balls around points, in blocks of bounded memory, exact where single precision would not be.

|a|² + |b|² - 2ab is one matrix product, but loses the digits of near-equal vectors: so it only chooses candidates in float32
(around the references' mean, which makes norms small), and what counts is computed again from the difference, in float64.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ganvas.errors import DataError
from ganvas.metrics.checks import checked

BLOCK_BYTES = 2**24        # of one block of squared distances; larger ones cost page faults, a third of the time at 2**26
QUERY_ROWS = 1024          # enough that bringing a block of references into float32 costs little beside the product
SPARE = 8                  # candidates beyond k: the k nearest are among them unless distances tie within float32


def k_nearest(queries: NDArray[Any], references: NDArray[Any], k: int,
              exclude: tuple[NDArray[Any], NDArray[Any]] | None = None) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The k references nearest to each query: (Euclidean distances, ascending; indices), both (M, k).

    queries: (M, d), references: (N, d), of any real type; a copy is at distance exactly 0. exclude: (groups of the queries (M,),
    groups of the references (N,)), integers: a pair of one group is passed over (leave one out: `i, i` with i = arange(N)).
    Where fewer than k references are left, the rest of the row is (inf, -1). Which of many at one distance are given is not
    promised; those given are in their own order. Raises DataError if k > N, or for NaN.
    """
    references, queries = checked(references, "references", 1), checked(queries, "queries", 0)
    if not 1 <= k <= len(references):
        raise DataError(f"{k} nearest neighbours are asked for, but there are {len(references):,} images to look among. "
                        "Give more images, or ask for fewer neighbours.")
    if queries.shape[1] != references.shape[1]:
        raise DataError(f"queries have {queries.shape[1]:,} features an image, but references {references.shape[1]:,}. "
                        "Use one extractor, and for pixels one image size, on both sides.")
    groups = None if exclude is None else (torch.as_tensor(np.asarray(exclude[0])), torch.as_tensor(np.asarray(exclude[1])))
    centre = references.mean(axis=0, dtype=np.float64)
    distances = np.empty((len(queries), k), dtype=np.float64)
    indices = np.empty((len(queries), k), dtype=np.int64)
    for rows in _blocks(len(queries), QUERY_ROWS):
        at = np.arange(rows.start, rows.stop)
        for dtype in (torch.float32, torch.float64):       # the second time only for rows in which float32 cannot decide
            found, order, sure = _search(queries[at], references, centre, k, dtype,
                                         groups and (groups[0][at], groups[1]))
            distances[at], indices[at] = found.numpy(), order.numpy()
            at = at[~sure.numpy()]
            if not len(at):
                break
    return distances, indices


def inside_balls(points: NDArray[Any], centres: NDArray[Any], radii: NDArray[np.float64]
                 ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(in how many balls each point lies (M,), how many points lie in each ball (N,)); a point on the surface is outside.

    points: (M, d), centres: (N, d), radii: (N,). Pairs that float32 cannot decide are decided in float64.
    """
    points, centres = checked(points, "points", 0), checked(centres, "centres", 1)
    centre, squared = centres.mean(axis=0, dtype=np.float64), torch.as_tensor(radii).double().square()
    of_points, of_balls = np.zeros(len(points), dtype=np.int64), np.zeros(len(centres), dtype=np.int64)
    balls = _rows_of_block(points.shape[1])
    for rows in _blocks(len(points), QUERY_ROWS):
        a = _around(points[rows], centre, torch.float32)
        a_norms = a.double().square().sum(dim=1)[:, None]
        for columns in _blocks(len(centres), balls):
            b = _around(centres[columns], centre, torch.float32)
            b_norms = b.double().square().sum(dim=1)
            # What is left of the distance to the surface; only its sign counts.
            beyond = torch.addmm(b_norms.sub(squared[columns]).float()[None], a, b.T, alpha=-2).add_(a_norms.float())
            doubt = (a_norms.sqrt().float() + b_norms.sqrt().add(squared[columns].sqrt()).float()).square_()
            pairs = (beyond.abs() <= doubt.mul_(_error(points.shape[1], torch.float32))).nonzero()
            inside = beyond < 0
            for some in _blocks(len(pairs), max(1, BLOCK_BYTES // (16 * points.shape[1]))):
                i, j = pairs[some].T.numpy()
                inside[i, j] = _distances(points[rows][i], centres[columns][j]) < torch.as_tensor(radii)[columns][j]
            of_points[rows] += inside.sum(dim=1).numpy()
            of_balls[columns] += inside.sum(dim=0).numpy()
    return of_points, of_balls


def _search(queries: NDArray[Any], references: NDArray[Any], centre: NDArray[np.float64], k: int, dtype: torch.dtype,
            groups: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
    """(distances (B, k), indices (B, k), whether no other reference can be nearer (B,)) of one block of queries."""
    a = _around(queries, centre, dtype)
    best, order = a.new_empty(len(a), 0), torch.empty(len(a), 0, dtype=torch.int64)
    for columns in _blocks(len(references), _rows_of_block(queries.shape[1])):
        b = _around(references[columns], centre, dtype)
        squared = torch.addmm(b.double().square().sum(dim=1).to(dtype)[None], a, b.T, alpha=-2)    # less |a|², same for a row
        if groups is not None:
            squared.masked_fill_(groups[0][:, None] == groups[1][None, columns], torch.inf)
        nearest, where = squared.topk(min(k + SPARE, squared.shape[1]), largest=False)
        best, order = torch.cat([best, nearest], dim=1), torch.cat([order, where + columns.start], dim=1)
        best, where = best.topk(min(k + SPARE, best.shape[1]), largest=False)
        order = order.gather(1, where)
    exact = torch.stack([_distances(queries, references[column]) for column in order.T.numpy()], dim=1)
    exact.masked_fill_(best.isinf(), torch.inf)
    order, by_index = order.sort(dim=1)
    exact, by_distance = exact.gather(1, by_index).sort(dim=1, stable=True)
    order, exact = order.gather(1, by_distance)[:, :k], exact[:, :k]
    # Any reference left out is at least `edge` away by this arithmetic, which errs by `doubt` where |b| <= |a| + the k-th.
    norms = a.double().square().sum(dim=1)
    edge, last = best.amax(dim=1).double() + norms, exact[:, -1]
    doubt = _error(queries.shape[1], dtype) * (2 * norms.sqrt() + last).square()
    sure = edge.isinf() | last.isinf() | (edge - doubt > last.square()) | torch.tensor(best.shape[1] == len(references))
    return exact, order.masked_fill(exact.isinf(), -1), sure if dtype == torch.float32 else torch.ones_like(sure)


def _around(vectors: NDArray[Any], centre: NDArray[np.float64], dtype: torch.dtype) -> Tensor:
    """vectors (B, d) less centre. A difference of two rounds with |a - centre|, so distances keep their digits."""
    wide = dtype == torch.float64 or vectors.dtype == np.float64
    counted = np.float64 if wide else np.float32
    return torch.from_numpy(vectors.astype(counted) - centre.astype(counted)).to(dtype)


def _distances(a: NDArray[Any], b: NDArray[Any]) -> Tensor:
    """The distance of each row of a (B, d) from the same row of b, float64 (B,); the same bits for a and b exchanged."""
    return torch.from_numpy(a.astype(np.float64)).sub_(torch.from_numpy(b.astype(np.float64))).square_().sum(dim=1).sqrt_()


def _error(dim: int, dtype: torch.dtype) -> float:
    """Bound of |a|² + |b|² - 2ab's error, relative to (|a| + |b|)²: rounding errors add up like a random walk; 4 for safety."""
    return float(4 * (2 + dim**0.5) * torch.finfo(dtype).eps)


def _rows_of_block(dim: int) -> int:
    return max(256, BLOCK_BYTES // (4 * max(QUERY_ROWS, dim)))


def _blocks(count: int, rows: int) -> Iterator[slice]:
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))
