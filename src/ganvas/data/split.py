"""Which images are trained on, which are held out to judge by, and which are left out as copies."""

import hashlib
import re
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ganvas.data.pack import Pack
from ganvas.data.source_base import Pixels
from ganvas.data.twins import Indices, Kind, Twins
from ganvas.errors import ConfigError, DataError


class Split(NamedTuple):
    """Positions in the pack, ascending; together they are all of its images, each once."""

    train: Indices
    holdout: Indices
    dropped: Indices               # copies of an image that stays


class Subset:
    """Some of a pack's images, as if they were all: what training reads."""

    def __init__(self, pack: Pack, indices: Indices):
        self.pack, self.indices = pack, indices
        self.channels, self.image_size, self.fingerprint = pack.channels, pack.image_size, pack.fingerprint

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def labels(self) -> Indices | None:
        """(n,) the images' classes, -1 for none; None where they have no labels."""
        return None if self.pack.labels is None else self.pack.labels[self.indices]

    def read(self, indices: npt.ArrayLike) -> Pixels:
        """The images at these positions of the subset: (n,) -> (n, C, H, W) uint8, a new array."""
        return self.pack.read(self.indices[np.asarray(indices, dtype=np.int64)])


def split_images(pack: Pack, twins: Twins, holdout: float = 0.0, group_by: str = "none", drop_duplicates: bool = False) -> Split:
    """Divides the images of `pack`.

    holdout: how many to hold out, as a share of all that are not dropped (below 1) or a number. Twins of any kind stay
    together, and so do images that just miss being twins: nothing held out has one in training. Whole groups are taken in
    the order of a hash of their content, those too large for what is still wanted passed over: the choice hangs on the
    images alone, and adding some hardly changes it.
    group_by: what else belongs together: "folder", the images of one folder, or a regular expression, those in whose
    names it matches the same text (its first group, if it has one).
    drop_duplicates: of images with the very same pixels, only the first stays.
    Raises DataError where nothing would be left, ConfigError for a regular expression that is none.
    """
    n = len(pack)
    dropped = np.zeros(n, bool)
    if drop_duplicates:
        dropped[twins.pairs["b"][twins.pairs["kind"] == Kind.EXACT]] = True          # each is linked to the first of its kind
    kept = n - int(dropped.sum())
    wanted = wanted_holdout(holdout, kept)
    held = np.zeros(n, bool)
    if wanted:
        if wanted >= kept:
            raise DataError(f"--holdout {holdout:g}: would hold out {wanted:,} of {kept:,} images and leave none to train on. "
                            f"Pass at most {kept - 1:,}, or 0.")
        groups = grouped(pack, twins, group_by)
        sizes = np.bincount(groups, weights=~dropped, minlength=n)
        keys = np.full(n, np.iinfo(np.uint64).max, np.uint64)
        np.minimum.at(keys, groups, pack.facts["content"])
        names = np.unique(groups)
        chosen, left = [], wanted
        for group in names[np.argsort([_scattered(int(key)) for key in keys[names]], kind="stable")]:
            if sizes[group] <= left:
                chosen.append(group)
                left -= int(sizes[group])
            if not left:
                break
        held = np.isin(groups, chosen) & ~dropped
    elif group_by not in ("none", "folder"):
        _pattern(group_by)
    return Split(np.flatnonzero(~held & ~dropped), np.flatnonzero(held), np.flatnonzero(dropped))


def wanted_holdout(holdout: float, images: int) -> int:
    """How many of `images` a hold-out of this share (below 1) or number should have."""
    return round(holdout * images) if holdout < 1 else round(holdout)


def grouped(pack: Pack, twins: Twins, group_by: str) -> Indices:
    """(N,): the group of each image: twins, and what `group_by` puts together. Numbers below N, not in a row."""
    if group_by == "none":
        return twins.together
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pattern = None if group_by == "folder" else _pattern(group_by)
    first: dict[str, int] = {}
    links = []
    for index, name in enumerate(pack.names):
        if pattern is None:
            key: str | None = name.rpartition("/")[0]
        else:
            match = pattern.search(name)
            key = match[1 if pattern.groups else 0] if match else None
        if key is not None:
            links.append((index, first.setdefault(key, index)))
    if pattern is not None and not links:
        raise DataError(f"--group-by {group_by}: matches none of the images' names, such as {pack.names[0]!r}.")
    a, b = np.array(links).T
    rows, columns = np.concatenate([a, np.arange(len(pack))]), np.concatenate([b, twins.together])
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(pack), len(pack)))
    component: Indices = connected_components(graph, directed=False)[1].astype(np.int64)
    return component


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ConfigError(f"--group-by {text}: is neither none nor folder, and no regular expression ({error}).") from error


def _scattered(key: int) -> bytes:
    return hashlib.blake2b(key.to_bytes(8, "little"), digest_size=8, key=b"ganvas hold-out").digest()
