"""The public sets of images that Ganvas knows: where each is, how its files are recognised, what may be done with it."""

import difflib
from dataclasses import dataclass

from ganvas.errors import ConfigError


@dataclass(frozen=True)
class PublicFile:
    """One file of a set. bytes and checksum ("sha256:...") are None where they are not publicly known."""

    name: str
    bytes: int | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class Dataset:
    """A public set of images: what it is, where it is, and what may be done with it."""

    title: str
    files: tuple[PublicFile, ...]
    page: str                          # where people read about it
    licence: str
    train: str                         # the options of `ganvas train` that suit it
    mirrors: tuple[str, ...] = ()      # addresses to which a file's name is appended, tried in turn; () = by hand only
    steps: tuple[str, ...] = ()        # what a person has to do where there are no mirrors
    keep: str = ""                     # of a zip given by hand: only this folder; "" = all
    stacks: str = ""                   # the set whose images it stacks (data/stacked.py), which is what is downloaded; "" = none

    @property
    def by_hand(self) -> bool:
        return not self.mirrors

    @property
    def bytes(self) -> int | None:
        """Of all files together; None where unknown."""
        sizes = [file.bytes for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)


def _idx_files(*files: tuple[str, int, str]) -> tuple[PublicFile, ...]:
    return tuple(PublicFile(f"{name}-ubyte.gz", size, f"sha256:{checksum}") for name, size, checksum in files)


_MNIST = _idx_files(
    ("train-images-idx3", 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    ("train-labels-idx1", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    ("t10k-images-idx3", 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    ("t10k-labels-idx1", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"))
_MNIST_MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")

DATASETS: dict[str, Dataset] = {
    "mnist": Dataset(
        "70,000 handwritten digits, 28x28 grey, 10 classes",
        _MNIST,
        "http://yann.lecun.com/exdb/mnist/", "CC BY-SA 3.0 (Y. LeCun, C. Cortes)", "--preset coursera-mnist-28",
        _MNIST_MIRRORS),
    "stacked-mnist": Dataset(
        "60,000 times three digits of mnist, one in each colour, 28x28, 1,000 classes",
        _MNIST, "http://yann.lecun.com/exdb/mnist/", "CC BY-SA 3.0 (Y. LeCun, C. Cortes)", "--time 10min",
        _MNIST_MIRRORS, stacks="mnist"),
    "fashion-mnist": Dataset(
        "70,000 pieces of clothing, 28x28 grey, 10 classes",
        _idx_files(
            ("train-images-idx3", 26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            ("train-labels-idx1", 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            ("t10k-images-idx3", 4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            ("t10k-labels-idx1", 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5")),
        "https://github.com/zalandoresearch/fashion-mnist", "MIT (Zalando SE)", "--preset coursera-mnist-28",
        ("https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
         "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/")),
    "cifar10": Dataset(
        "60,000 photographs of 10 kinds of things, 32x32 colour",
        (PublicFile("cifar-10-binary.tar.gz", 170_052_171,
                    "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),),
        "https://www.cs.toronto.edu/~kriz/cifar.html", "none stated (A. Krizhevsky 2009)", "--time 10min",
        ("https://www.cs.toronto.edu/~kriz/", "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/")),
    "svhn": Dataset(
        "73,257 house numbers from street photographs, 32x32 colour, 10 classes",
        (PublicFile("train_32x32.mat", 182_040_794,
                    "sha256:435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"),),
        "http://ufldl.stanford.edu/housenumbers/", "non-commercial use only (Y. Netzer et al. 2011)", "--time 10min",
        ("http://ufldl.stanford.edu/housenumbers/", "https://ufldl.stanford.edu/housenumbers/")),
    "d2l-pokemon": Dataset(
        "40,597 Pokemon sprites in a folder for each kind, as in Dive into Deep Learning",
        (PublicFile("pokemon.zip", None, "sha1:c065c0e2593b8b161a2d7873e42418bf6a21106c"),),
        "https://d2l.ai/chapter_generative-adversarial-networks/dcgan.html",
        "the pictures belong to The Pokemon Company", "--preset d2l-pokemon-64",
        ("https://d2l-data.s3-accelerate.amazonaws.com/", "https://d2l-data.s3.amazonaws.com/")),
    "celeba": Dataset(
        "202,599 faces of celebrities, aligned, 178x218 colour",
        (PublicFile("img_align_celeba.zip", 1_443_490_838, "md5:00d2c5bc6d35e252742224ab0c1e8fcb"),),
        "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html", "non-commercial research only (Z. Liu et al. 2015)",
        "--preset pytorch-faces-64",
        steps=("read the agreement there; under Downloads follow Align&Cropped Images to the shared drive",
               "from its folder Img, download img_align_celeba.zip (1.4 GB; leave it packed)")),
    "kaggle-pokemon": Dataset(
        "819 Pokemon artworks, 256x256 on white",
        (PublicFile("pokemon_jpg.zip"),),
        "https://www.kaggle.com/datasets/kvpratama/pokemon-images-dataset",
        "the pictures belong to The Pokemon Company", "--preset keras-pokemon-64",
        steps=("sign in (a free account) and press Download: a zip comes (leave it packed)",), keep="pokemon_jpg"),
}


def find(name: str) -> Dataset:
    """The set called `name`. Raises ConfigError with the close and all known names."""
    if name in DATASETS:
        return DATASETS[name]
    close = difflib.get_close_matches(name.lower(), DATASETS, n=2, cutoff=0.4)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise ConfigError(f"{name!r}: no public set of that name is known.{hint} Known: {', '.join(DATASETS)}.")


def how_to(name: str) -> str:
    """The steps by which a person gets a set that cannot be downloaded without one, for the user to read."""
    dataset = find(name)
    steps = (f"open {dataset.page}", *dataset.steps,
             f"ganvas data fetch {name} --from FILE     (the file you got, or the folder it was unpacked to)")
    lines = "".join(f"\n  {number}. {step}" for number, step in enumerate(steps, 1))
    return f"{name} comes with an agreement or an account, so it needs your own hand:{lines}\nLicence: {dataset.licence}."
