"""The data sheet: what a set of images is like, what is wrong with it, and what the networks will see of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from ganvas.data.pack import Pack
from ganvas.data.source_base import Source
from ganvas.data.split import Split
from ganvas.data.twins import Kind, Twins

VERSION = 1

_COLOURS = 8
_SAMPLE = 4096                     # thumbnails that colours are taken from
_EXAMPLES = 12                     # groups of each kind that are named


@dataclass(frozen=True)
class TwinGroup:
    """Images that are twins of each other, named by the kind that is least like a plain copy."""

    kind: str                      # exact, mirrored, recoloured, near
    images: tuple[int, ...]        # positions in the pack
    names: tuple[str, ...]
    labels: tuple[str, ...]        # of those names; empty where there are no labels and no folders


@dataclass(frozen=True)
class Sheet:
    """All that is known of a set of images before training. Counts are of images that can be read, if not said otherwise."""

    source: str                                    # as the user wrote it
    images: int
    unreadable: tuple[tuple[str, str], ...]        # (name, reason) of images that cannot be read
    ignored: tuple[tuple[str, str], ...]           # (name, reason) of files that are no images
    notes: tuple[str, ...]
    sizes: Mapping[str, int]                       # "96x96" -> images, the most frequent first
    smallest: tuple[int, int]                      # the smallest width and the smallest height
    largest: tuple[int, int]
    formats: Mapping[str, int]                     # "PNG palette" -> images
    grey: int
    transparent: int                               # something less than opaque
    clear_area: float                              # mean share of transparent images' pixels that are less than half opaque
    turned: int                                    # by their EXIF orientation
    animated: int                                  # more than one frame
    upscaled: Mapping[str, int]                    # "2x" -> pixel art enlarged by that factor
    labels: Mapping[str, int] | None               # class -> images; None = none
    labels_used: bool                              # False: they are the folders' names, which nothing uses
    distinct: int                                  # different pictures, by their pixels
    twins: Mapping[str, int]                       # kind -> pairs found (the mirror images of recoloured ones among "recoloured")
    twin_groups: tuple[TwinGroup, ...]             # the first of each kind
    images_with_twins: int
    two_labels: int                                # pictures that stand under more than one label
    two_labels_examples: tuple[TwinGroup, ...]
    search: str                                    # how near twins were looked for
    colours: tuple[tuple[str, float], ...]         # ("#rrggbb", share of what is visible), the most frequent first
    stored: str                                    # what the networks see: "64x64, 3 channels, ..."
    train: int
    holdout: int
    dropped: int                                   # copies left out

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `version` changes when a field's meaning does."""
        return {"version": VERSION} | asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """(what, text) for people, only what there is to say."""
        n = self.images
        rows = [("images", f"{n:,} readable" + (f", {len(self.unreadable):,} unreadable" if self.unreadable else "")
                 + (f"; {_count(len(self.ignored), 'other file')} ignored" if self.ignored else ""))]
        sizes = [f"{size} ({count:,})" if len(self.sizes) > 1 else size for size, count in list(self.sizes.items())[:4]]
        if len(self.sizes) > 4:
            sides = f"sides from {min(self.smallest):,} to {max(self.largest):,}"
            sizes.append(f"{_count(len(self.sizes) - 4, 'other size')}, {sides}")
        rows.append(("sizes", ", ".join(sizes)))
        rows.append(("kinds", ", ".join(f"{kind} ({count:,})" for kind, count in list(self.formats.items())[:6])))
        if self.grey:
            rows.append(("colour", f"{_share(self.grey, n)} grey"))
        if self.transparent:
            rows.append((
                "transparency", f"{_share(self.transparent, n)} with transparent parts, {self.clear_area:.0%} of their area"))
        oddities = [f"{count:,} {what}" for count, what in (
            (self.turned, "turned by their EXIF orientation"), (self.animated, "animated (the first frame is used)")) if count]
        oddities += [f"{count:,} enlarged {factor} (pixel art)" for factor, count in self.upscaled.items()]
        if oddities:
            rows.append(("oddities", ", ".join(oddities)))
        if self.labels is not None:
            counts = sorted(self.labels.values())
            what = "labels" if self.labels_used else "folders"
            rows.append((what, f"{len(counts):,}, from {counts[0]:,} to {counts[-1]:,} images each"
                         + ("" if self.labels_used else "; not used as labels")))
        copies = n - self.distinct
        kept = "" if self.dropped else "; --drop-duplicates leaves them out"
        rows.append(("distinct", f"{self.distinct:,} of {n:,}" + (f": {_count(copies, 'exact copy')}{kept}" if copies else "")))
        pairs = [(count, kind) for kind, count in self.twins.items() if count and kind != "exact"]
        twins = [f"{count:,} {kind}" for count, kind in pairs]
        what = "pair" if twins and pairs[-1][0] == 1 else "pairs"
        rows.append(("twins", (", ".join(twins) + f" {what}; {self.images_with_twins:,} images have a twin" if twins
                               else "no mirrored, recoloured or near ones") + self.search))
        if self.two_labels:
            rows.append(("two labels" if self.labels_used else "two folders", f"{_count(self.two_labels, 'picture')}, such as "
                         + " and ".join(self.two_labels_examples[0].names[:2])))
        rows.append(("colours", "  ".join(f"{colour} {share:.0%}" for colour, share in self.colours[:6])))
        rows.append(("networks see", self.stored))
        parts = [f"{self.train:,} to train on", f"{self.holdout:,} held out"]
        if self.dropped:
            parts.append(f"{_count(self.dropped, 'copy')} left out")
        rows.append(("split", ", ".join(parts)))
        return rows


def make_sheet(source: Source, pack: Pack, twins: Twins, split: Split) -> Sheet:
    """The sheet of `source` as stored in `pack`."""
    facts, n = pack.facts, len(pack)
    labels, labels_used = _labels_of(pack)
    sizes = Counter(map(_by, zip(facts["width"].tolist(), facts["height"].tolist(), strict=True)))
    kinds = Counter(map(_kind, zip(facts["format"].tolist(), facts["mode"].tolist(), facts["transparent"].tolist(), strict=True)))
    factors = Counter(facts["factor"].tolist())
    clear = facts["clear_area"][facts["transparent"]]
    pairs = twins.pairs
    groups = _twin_groups(pack, twins, labels)
    two = [group for group in _exact_groups(pack, twins, labels) if len(set(group.labels)) > 1]
    return Sheet(
        source=source.where, images=n, unreadable=tuple(pack.skipped), ignored=tuple(source.ignored), notes=tuple(source.notes),
        sizes=dict(sizes.most_common()), smallest=(int(facts["width"].min()), int(facts["height"].min())),
        largest=(int(facts["width"].max()), int(facts["height"].max())),
        formats=dict(kinds.most_common()), grey=int(facts["grey"].sum()), transparent=int(facts["transparent"].sum()),
        clear_area=float(clear.mean()) if len(clear) else 0.0, turned=int(facts["turned"].sum()),
        animated=int((facts["frames"] > 1).sum()),
        upscaled={f"{factor}x": count for factor, count in sorted(factors.items()) if factor > 1},
        labels=None if labels is None else dict(Counter(labels).most_common()), labels_used=labels_used,
        distinct=len(np.unique(facts["content"])),
        twins={kind.name.lower(): int((pairs["kind"] == kind).sum()) for kind in Kind},
        twin_groups=groups, images_with_twins=len(np.unique(np.concatenate([pairs["a"], pairs["b"]]))),
        two_labels=len(two), two_labels_examples=tuple(two[:_EXAMPLES]),
        search="" if twins.exhaustive else " (near ones were looked for among similar images only: a few may be missed)",
        colours=_colours(pack),
        stored=_stored(pack),
        train=len(split.train), holdout=len(split.holdout), dropped=len(split.dropped))


def _stored(pack: Pack) -> str:
    layout = pack.layout
    fit = {"crop": "cropped to the middle", "pad": "padded", "stretch": "stretched"}[layout.fit]
    parts = [{1: "grey", 3: "colour", 4: "colour and transparency"}[layout.channels],
             "pixel art at its native size, " + fit if layout.native else fit]
    if layout.channels != 4 and pack.facts["transparent"].any():
        parts.append(f"transparent parts on {layout.transparency}")
    return f"{layout.width}x{layout.height}, {', '.join(parts)}"


def _labels_of(pack: Pack) -> tuple[list[str] | None, bool]:
    """Each image's class, and True; or its folder and False, where folders may be classes; or None."""
    if pack.labels is not None:
        return [pack.class_names[label] for label in pack.labels], True
    folders = [name.rpartition("/")[0].rpartition("!")[2] for name in pack.names]
    return (folders, False) if 1 < len(set(folders)) <= max(2, len(pack) // 2) else (None, False)


def _exact_groups(pack: Pack, twins: Twins, labels: Sequence[str] | None) -> list[TwinGroup]:
    """All groups of images with the very same pixels."""
    exact = twins.pairs[twins.pairs["kind"] == Kind.EXACT]
    members: dict[int, list[int]] = {}
    for a, b in zip(exact["a"].tolist(), exact["b"].tolist(), strict=True):
        members.setdefault(a, [a]).append(b)
    return [_group("exact", images, pack, labels) for images in members.values()]


def _twin_groups(pack: Pack, twins: Twins, labels: Sequence[str] | None) -> tuple[TwinGroup, ...]:
    """The largest and the first groups of each kind; a group is of the kind that occurs in it and is least like a copy."""
    kind_of = np.zeros(len(pack), np.int64) - 1
    np.maximum.at(kind_of, twins.groups[twins.pairs["a"]], _LEAST_LIKE_A_COPY[twins.pairs["kind"]])
    order = np.argsort(twins.groups, kind="stable")
    roots, starts, sizes = np.unique(twins.groups[order], return_index=True, return_counts=True)
    chosen = []
    for kind in (Kind.EXACT, Kind.MIRRORED, Kind.RECOLOURED, Kind.NEAR):
        of_kind = np.flatnonzero((sizes > 1) & (kind_of[roots] == _LEAST_LIKE_A_COPY[kind]))
        for at in of_kind[np.argsort(-sizes[of_kind], kind="stable")][:_EXAMPLES]:
            images = order[starts[at]:starts[at] + sizes[at]][:_EXAMPLES].tolist()
            chosen.append(_group(kind.name.lower(), images, pack, labels))
    return tuple(chosen)


_LEAST_LIKE_A_COPY = np.array([0, 1, 3, 2])        # of exact, mirrored, recoloured, near


def _group(kind: str, images: list[int], pack: Pack, labels: Sequence[str] | None) -> TwinGroup:
    return TwinGroup(kind, tuple(images), tuple(pack.names[i] for i in images),
                     () if labels is None else tuple(labels[i] for i in images))


def _colours(pack: Pack) -> tuple[tuple[str, float], ...]:
    """The dominant colours of what is visible, by median cut over the thumbnails of a sample."""
    thumbs = np.asarray(pack.thumbs[:: max(1, len(pack) // _SAMPLE)]).reshape(-1, 4).astype(np.float32)
    thumbs = thumbs[thumbs[:, 3] >= 128]
    if not len(thumbs):
        return ()
    colours = np.clip(thumbs[:, :3] * 255 / thumbs[:, 3:], 0, 255).round().astype(np.uint8)
    cut = Image.fromarray(colours[None]).quantize(_COLOURS, method=Image.Quantize.MEDIANCUT)
    palette = np.array((cut.getpalette() or [])[: 3 * _COLOURS], np.uint8).reshape(-1, 3)
    counts = Counter(np.asarray(cut).reshape(-1).tolist())
    return tuple((f"#{bytes(palette[index]).hex()}", count / len(thumbs)) for index, count in counts.most_common())


def _kind(fact: tuple[bytes, bytes, bool]) -> str:
    """"PNG palette, transparent" from format and mode."""
    form, mode, transparent = fact[0].decode(), fact[1].decode(), fact[2]
    known = {"P": "palette", "PA": "palette", "L": "grey", "LA": "grey", "1": "bilevel"}
    name = f"{form} {known.get(mode, mode)}".strip() or "array"
    return name + (", transparent" if transparent else "")


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _count(count: int, what: str) -> str:
    """"1 picture", "2 copies"."""
    return f"{count:,} {what if count == 1 else what[:-1] + 'ies' if what.endswith('y') else what + 's'}"


def _share(count: int, n: int) -> str:
    return "all" if count == n else f"{count:,} of {n:,}"
