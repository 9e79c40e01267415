"""What is chosen where no classic was asked for: networks, loss, penalties, augmentation, averages, for images and machine."""

import math
from collections.abc import Callable, Mapping
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
DECIDED = frozenset({                  # by the machine or the number of images, and so once in a run
    "train.batch", "network.g_channels", "network.d_channels", "network.conditional", "plan.tail",
    "augment.color", "augment.translation", "augment.cutout"})
WIDE = 64                              # maps, on a card
USED = "--set network.conditional=true uses them all the same"


# Of the presets modern-…; docs/modern.md says what was measured. What hangs on the numbers is in `reasons`.
REASONS = {
    "network.g_channels": "a wider one sees fewer images in the same minutes",
    "train.betas": "no momentum: a game's gradients turn (as arXiv 2501.05441)",
    "train.loss": "each real against a fake, so that no kind of image is forgotten (arXiv 1807.00734)",
    "train.r1_gamma": "keeps D from being infinitely sure (arXiv 1801.04406)",
    "train.r2_gamma": "the same at fakes, without which the pairing is not stable (arXiv 2501.05441)",
    "train.penalty_every": "second derivatives are dear: rarer, and as much heavier, costs little",
    "train.ema_half_life_kimg": "averaged weights make steadier pictures; at the start only a twentieth of the images so far",
}


class Labels(NamedTuple):
    """The classes of a source's images."""

    names: tuple[str, ...]
    counts: tuple[int, ...]
    contradicted: Callable[[], float]      # share of the images that stand under two of them; takes time


def modern(images: int, size: ImageSize, device: str) -> tuple[dict[str, Any], dict[str, str]]:
    """({option: value}, {option: why}) of the preset nearest in size, as it suits so many images and this device."""
    nearest = _nearest(size)
    values = load_preset(f"modern-{nearest}").values | {"preset": "", "data.size": str(size)}
    why = {"network.family": f"networks, loss and penalties of modern-{nearest}",
           "length": f"length {values['length']}: pass --time, --kimg or --epochs for another"}
    if device.startswith("cuda"):
        values |= {"network.g_channels": WIDE, "network.d_channels": WIDE, "train.batch": 64}
        why |= {"network.g_channels": f"width {WIDE}: a card does not take longer for it",
                "train.batch": "batch 64: a card does not take longer for it"}
    if images and images < values["train.batch"]:
        values["train.batch"] = images
        why["train.batch"] = f"batch {images}: there are no more images"
    if images and images < FEW_BATCHES * values["train.batch"]:
        values["plan.tail"] = "ragged"                         # of so few none can be left out
    return values, why


def augmentation(images: int) -> tuple[dict[str, Any], dict[str, str]]:
    """({option: value}, {option: why}) of what D sees of so many images; 0 = nobody knows how many."""
    if not images or images >= AUGMENTED_BELOW:
        return {}, {}
    strong = images < STRONGLY_BELOW
    return {"augment.color": 1.0, "augment.translation": 0.125, "augment.cutout": 0.5 if strong else 0.0}, {
        "augment.color": f"augmentation of what D sees, colour, shifts{' and holes' if strong else ''}: with {images:,} "
                         "images D would soon know each by heart"}


def reasons(values: Mapping[str, Any], size: ImageSize) -> dict[str, str]:
    """{option: why it is so} of what `modern` gave for this size, beyond what it said itself."""
    narrower, at_64 = values["network.d_channels"] < values["network.g_channels"], _nearest(size) == 64
    return REASONS | {
        "network.d_channels": "narrower than G: D runs four times for each time that G does" if narrower else "as wide as G",
        "plan.tail": "a smaller batch would pull as hard as a whole one" if values["plan.tail"] == "drop" else
                     "of so few images none can be left out",
        "train.batch": "small: more updates for the same work",
        "train.lr": "fast, with averaged weights for what is shown"
                    + ("; twice as much does not learn at 64 pixels" if at_64 else ""),
    }


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


def _nearest(size: ImageSize) -> int:
    """Of SIDES, by area."""
    side = math.sqrt(size.width * size.height)
    return min(SIDES, key=lambda known: abs(math.log(side / known)))
