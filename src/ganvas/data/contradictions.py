"""What a source's labels are worth: how many images each class has, and how many stand under another one, too."""

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ganvas.data.source_base import Source, UnreadableError
from ganvas.data.source_files import FileSource


def class_counts(source: Source) -> dict[str, int]:
    """{class: images found under it} in the classes' order, 0 where there is none; empty without labels.

    Nothing is opened: some of them may turn out unreadable.
    """
    if source.labels is None:
        return {}
    counts = np.bincount(source.labels[_labelled(source)], minlength=len(source.class_names))
    return dict(zip(source.class_names, counts.tolist(), strict=True))


def contradicted(source: Source, most: int = 20_000) -> float:
    """The share of the labelled images whose very same bytes, or pixels, occur under another label too; 0.0 without labels.

    Only bytes are compared: a picture that was saved anew is another one here (the data sheet compares pixels). A file is read
    only if another label has one of its size; what cannot be read contradicts nothing. Of more than `most` images about so many
    are looked at: files of some sizes, so that none is parted from its copies and the share is right on average. Where that is
    no fair part of them, and of images without files, it is ones evenly spread, which shows fewer copies than there are.
    """
    if source.labels is None:
        return 0.0
    indices = _labelled(source).tolist()
    sizes = {index: _size(source, index) for index in indices}
    indices = _looked_at(indices, sizes, most)
    alike: dict[int, list[int]] = defaultdict(list)
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


def _labelled(source: Source) -> npt.NDArray[np.int64]:
    """The indices of the images that have a label, which in a table a few may lack."""
    if source.labels is None:
        return np.zeros(0, np.int64)
    without = source._unlabelled if isinstance(source, FileSource) else frozenset()
    return np.array([index for index in range(len(source)) if index not in without], np.int64)


def _looked_at(indices: Sequence[int], sizes: dict[int, int], most: int) -> list[int]:
    if len(indices) <= most:
        return list(indices)
    chosen = [index for index in indices if zlib.crc32(b"%d" % sizes[index]) < 2**32 * most / len(indices)]
    if most / 2 < len(chosen) < most * 2:
        return chosen
    return [indices[place] for place in np.linspace(0, len(indices) - 1, most).round().astype(int).tolist()]


def _size(source: Source, index: int) -> int:
    """Bytes of the image's file; -1 for one that lies in no file of its own, or has gone."""
    return source._files.size(source._images[index]) if isinstance(source, FileSource) else -1


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
