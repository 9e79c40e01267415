"""What a source's labels are worth: how many of its images stand under another label, too."""

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ganvas.data.source_base import Source, UnreadableError


def contradicted(source: Source, most: int = 20_000) -> float:
    """The share of the labelled images whose very same bytes, or pixels, occur under another label too; 0.0 without labels.

    Only bytes are compared: a picture that was saved anew is another one here (the data sheet compares pixels). A file is read
    only if another label has one of its size; what cannot be read contradicts nothing. Of more than `most` images about so many
    are looked at: files of some sizes, so that none is parted from its copies and the share is right on average. Where that is
    no fair part of them, and of images without files, it is ones evenly spread, which shows fewer copies than there are.
    """
    if source.labels is None:
        return 0.0
    indices = [index for index in range(len(source)) if index not in source.unlabelled]
    sizes = {index: source.file_size(index) for index in indices}
    indices = _looked_at(indices, sizes, most)
    alike: dict[int | None, list[int]] = defaultdict(list)      # by size
    for index in indices:
        alike[sizes[index]].append(index)
    labels = source.labels.tolist()
    pictures: dict[bytes, list[int]] = defaultdict(list)           # the labels of each
    for group in alike.values():
        if len({labels[index] for index in group}) > 1:
            for index in group:
                if (content := _content(source, index)) is not None:
                    pictures[content].append(labels[index])
    return sum(len(given) for given in pictures.values() if len(set(given)) > 1) / max(1, len(indices))


def _looked_at(indices: Sequence[int], sizes: dict[int, int | None], most: int) -> list[int]:
    if len(indices) <= most:
        return list(indices)
    chosen = [index for index in indices if zlib.crc32(str(sizes[index]).encode()) < 2**32 * most / len(indices)]
    if most / 2 < len(chosen) < most * 2:
        return chosen
    return [indices[place] for place in np.linspace(0, len(indices) - 1, most).round().astype(int).tolist()]


def _content(source: Source, index: int) -> bytes | None:
    """A hash of the image as it is stored; None if it cannot be read."""
    try:
        item = source.load(index)
    except UnreadableError:
        return None
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(item, bytes):
        digest.update(item)
    else:
        digest.update(repr(item.shape).encode())
        digest.update(np.ascontiguousarray(item).data)
    return digest.digest()
