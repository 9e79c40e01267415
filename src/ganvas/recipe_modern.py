"""What is chosen where no classic was asked for: networks, loss, penalties, augmentation, averages, for images and machine."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ganvas.presets import load_preset
from ganvas.values import ImageSize

SIDES = (28, 32, 64, 128, 256)         # of the presets modern-…
AUGMENTED_BELOW = 5000                 # images; more of them outlast a training without
STRONGLY_BELOW = 1000
FEW_BATCHES = 10                       # in an epoch; of more, the last, smaller one is left out
MOST_CLASSES = 1000
FEWEST_OF_A_CLASS = 5
MOST_CONTRADICTED = 0.01               # share of the images that stand under two labels, above which labels are not believed
WIDE = 64                              # maps, on a card
USED = "--set network.conditional=true uses them all the same"


# Of the presets modern-…, whose numbers were found by measuring (docs/modern.md).
REASONS = {
    "network.z_dim": "more made no better pictures",
    "network.g_channels": "wider is better after hours, and worse after minutes",
    "network.d_channels": "narrower than G: D runs five times for each time that G does",
    "plan.tail": "a smaller batch would pull as hard as a whole one",
    "train.batch": "small: more updates for the same work",
    "train.lr": "fast, with averaged weights for what is shown; twice as much does not learn at 64 pixels",
    "train.betas": "no momentum: a game's gradients turn (as arXiv 2501.05441)",
    "train.loss": "each real against a fake, so that no kind of image is forgotten (arXiv 1807.00734)",
    "train.r1_gamma": "keeps D from being infinitely sure (arXiv 1801.04406); needs more with more pixels",
    "train.r2_gamma": "the same at fakes, without which the pairing is not stable (arXiv 2501.05441)",
    "train.penalty_every": "second derivatives are dear: rarer and as much heavier costs little and does the same",
    "train.ema_half_life_kimg": "averaged weights make steadier pictures; at the start only a twentieth of the images so far",
}


class Labels(NamedTuple):
    """The classes of a source's images."""

    names: tuple[str, ...]
    counts: tuple[int, ...]
    contradicted: Callable[[], float]      # share of the images that stand under two of them; takes time


def modern(images: int, size: ImageSize, device: str) -> tuple[dict[str, Any], dict[str, str]]:
    """({option: value}, {option: why}) of the preset nearest in size, as it suits so many images and this device."""
    side = math.sqrt(size.width * size.height)
    nearest = min(SIDES, key=lambda known: abs(math.log(side / known)))
    values = load_preset(f"modern-{nearest}").values | {"preset": "", "data.size": str(size)}
    why = {"network.family": f"networks, loss and penalties of modern-{nearest}",
           "length": f"length {values['length']}: pass --time, --kimg or --epochs for another"}
    if device.startswith("cuda"):
        values |= {"network.g_channels": WIDE, "network.d_channels": WIDE, "train.batch": 64}
        why["network.g_channels"] = f"width {WIDE}, batch 64: a card does not take longer for them"
    if images and images < values["train.batch"]:
        values["train.batch"] = images
        why["train.batch"] = f"batch {images}: there are no more images"
    if images and images < FEW_BATCHES * values["train.batch"]:
        values["plan.tail"] = "ragged"                         # of so few none can be left out
    strong = images < STRONGLY_BELOW
    if images >= AUGMENTED_BELOW:
        values |= {"augment.color": 0.0, "augment.translation": 0.0, "augment.cutout": 0.0}
    elif images:
        values |= {"augment.cutout": 0.5 if strong else 0.0}
        why["augment.color"] = (f"augmentation of what D sees, colour, shifts{' and holes' if strong else ''}: with {images:,} "
                                "images D would soon know each by heart")
    return values, why


def own() -> tuple[dict[str, Any], dict[str, str]]:
    """The same for a user's own networks, of which nothing is known: the tutorial's loss and optimizer, and an average."""
    values = load_preset("pytorch-faces-64").values | {
        "preset": "", "train.batch": 64, "train.ema_half_life_kimg": 10, "length": "200 kimg",
        "output.grid_mode": "eval", "output.grid_every": "5 kimg", "output.checkpoint_every": "20 kimg"}
    values = {option: value for option, value in values.items() if not option.startswith(("network.", "data."))}
    return values, {"length": f"length {values['length']}: pass --time, --kimg or --epochs for another"}


def conditional(labels: Labels | None, asked: bool) -> tuple[bool, str]:
    """Whether the networks are told the images' classes, and why (not). asked: --labels was given."""
    if labels is None or len(labels.names) < 2:
        return False, ""
    number = len(labels.names)
    if not asked:
        return False, f"the images have {number:,} classes: --preset conditional learns them, for samples of one class"
    if number > MOST_CLASSES:
        return False, f"labels not used: {number:,} classes are more than {MOST_CLASSES:,}; " + USED
    if min(labels.counts) < FEWEST_OF_A_CLASS:
        fewest = labels.names[labels.counts.index(min(labels.counts))]
        return False, (f"labels not used: class {fewest} has {min(labels.counts)} images, too few to learn; "
                       + USED)
    if (share := labels.contradicted()) > MOST_CONTRADICTED:
        return False, (f"labels not used: {share:.0%} of the images stand under two of them; "
                       + USED)
    return True, f"conditional: the networks are told which of {number:,} classes an image is of"
