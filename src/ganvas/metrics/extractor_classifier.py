"""`classifier`: a small network that learns the classes of the real images, and is only used if it has."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ganvas.data.source_base import Labels, Pixels
from ganvas.errors import DataError
from ganvas.files import whole_file
from ganvas.metrics.features import Extractor, Features, Images, described, key_of, prepare, within
from ganvas.rng import Purpose, permute, uniforms

LEAST_ACCURACY = 0.6                   # below, counts of classes and the Inception Score would be mostly mistakes
LEAST_PER_CLASS = 10                   # images; fewer leave nothing to test on

_VERSION = 2                           # of training and network: a change makes older files invalid
_SEED = 0
_DIM = 128
_MOST_PX = 64
_COARSE_PX = 40                        # above, the first layer halves the size
_MOST_IMAGES = 100_000                 # that take part
_TESTED = 0.12                         # of each class
_MOST_TESTED = 10_000
_BATCH = 128
_PIXELS = 150_000_000                  # that go through training: 3.6 passes over MNIST, about a minute on 2 cores
_MOST_PASSES = 60                      # over small sets, but for as many steps as it takes to learn anything:
_LEAST_STEPS = 300
_UNSEEN = "unseen"                     # its name in the file, beside the weights
_OTHERS = "'random', 'inception', or a function of your own as FILE.py:FUNCTION"


class Problem(NamedTuple):
    """What a classifier is to learn: images one by one, or channel by channel where labels have a digit for each."""

    classes: tuple[str, ...]           # of the network
    channels: int                      # of one of its inputs
    parts: int                         # inputs that one image makes: 1, or its channels
    size: tuple[int, int]              # (height, width) of the inputs


class Net(nn.Module):
    """Three 3x3 convolutions and two linear layers: (N, channels, H, W) uint8 -> features (N, 128), logits (N, classes)."""

    def __init__(self, channels: int, size: tuple[int, int], classes: int, width: int = 24):
        super().__init__()
        stride = 2 if max(size) > _COARSE_PX else 1
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(2 * width)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(4 * width)
        self.hidden = nn.Linear(4 * width * 9, _DIM)
        self.classes = nn.Linear(_DIM, classes)
        self.to(memory_format=torch.channels_last)         # half the time on a CPU

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = images.to(torch.float32, memory_format=torch.channels_last) / 127.5 - 1     # (N, C, H, W) in [-1, 1]
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 2, ceil_mode=True)      # (N, w, H/2, W/2)
        x = F.max_pool2d(F.relu(self.norm2(self.conv2(x))), 2, ceil_mode=True)      # (N, 2w, H/4, W/4)
        x = F.relu(self.norm3(self.conv3(x)))
        x = F.adaptive_max_pool2d(x, 3).flatten(1)                                  # (N, 4w * 9)
        features = F.relu(self.hidden(F.dropout(x, 0.2, self.training)))            # (N, 128)
        return features, self.classes(features)


class Learnt(NamedTuple):
    """What training gives, and the file keeps."""

    net: Net
    accuracy: float                    # share of right answers on the images kept from training
    commonest: float                   # what always naming the commonest class would get there
    unseen: npt.NDArray[np.int64]      # positions of those, ascending


class ClassifierExtractor(Extractor):
    """The last hidden layer of a network that was trained on labelled reals, and its probabilities of the classes.

    Where each label is a digit for each of several channels, as in Stacked MNIST (Srivastava et al. 2017, VEEGAN), one network
    reads every channel: features lie side by side, and the probability of "123" is that of 1, times that of 2, times that of 3.
    """

    name = "classifier"

    def __init__(self, learnt: Learnt, problem: Problem, device: str = "cpu"):
        net = learnt.net
        self._net, self._problem, self._device = net.eval().to(device), problem, device
        self.accuracy, self.unseen = learnt.accuracy, learnt.unseen
        self.dim = _DIM * problem.parts
        self.classes = tuple(map("".join, product(problem.classes, repeat=problem.parts)))
        each = "each channel by itself; " if problem.parts > 1 else ""
        self.preprocessing = f"{each}{described(3 if problem.channels == 3 else 1, problem.size)}, to [-1, 1]"
        self.key = key_of(net.state_dict(), self.preprocessing, "\0".join(self.classes))

    def __call__(self, images: Pixels) -> Features:
        inputs = _inputs(images, self._problem)
        with torch.inference_mode():
            features, logits = self._net(inputs.to(self._device))
            n, parts = len(images), self._problem.parts
            each = logits.softmax(dim=1).view(n, parts, -1)
            probabilities = each[:, 0]
            for part in range(1, parts):
                probabilities = (probabilities[:, :, None] * each[:, part, None]).flatten(1)
        return Features(features.reshape(n, -1).cpu().numpy(), probabilities.cpu().numpy())


def make_classifier(images: Images, labels: Labels, class_names: Sequence[str], *, groups: npt.NDArray[np.int64] | None = None,
                    home: Path | None = None, least_accuracy: float | None = None, device: str = "cpu",
                    progress: Callable[[int, int], None] | None = None) -> ClassifierExtractor:
    """The classifier of these reals: from the file that an earlier call left in `home`, or trained now, on the CPU.

    images: N of them, read by position; labels: (N,) indices into class_names. groups: (N,), images of one number are never
    parted between training and test (twins). About an eighth of each class is kept for the test, at most 10,000 in all: the
    positions `unseen` of the extractor.
    device: where it will be used. progress(images so far, images in all) is called in training.
    Always the same network for the same images, labels and number of threads. Raises DataError: no labels, one class, a class
    with fewer than 10 images, or an accuracy under `least_accuracy`; None = 60 %, and half of the way from always naming the
    commonest class to no mistake: features that do not tell classes apart say little about images.
    """
    _refuse_labels(images, labels, class_names)
    problem = _problem_of(images, class_names)
    stamp = _stamp(images, labels, class_names, groups, problem)
    path = None if home is None else home / f"classifier-{stamp[:16]}.safetensors"
    kept = None if path is None else _load(path, stamp, problem)
    if kept is None:
        kept = _trained(images, labels, class_names, groups, problem, progress)
        if path is not None:
            _save(path, stamp, kept)
    wanted = max(LEAST_ACCURACY, (1 + kept.commonest) / 2) if least_accuracy is None else least_accuracy
    if kept.accuracy < wanted:
        raise DataError(f"the classifier names the right one of {len(class_names):,} classes for {kept.accuracy:.1%} of "
                        f"{len(kept.unseen):,} real images that it was not trained on; under {wanted:.1%} its features are not "
                        f"used. Are the labels right? More labelled images help; other extractors: {_OTHERS}.")
    return ClassifierExtractor(kept, problem, device)


# What is to be learned.

def _refuse_labels(images: Images, labels: Labels, class_names: Sequence[str]) -> None:
    if len(labels) != len(images):
        raise DataError(f"the classifier needs a label for each image: {len(labels):,} labels for {len(images):,} images")
    counts = np.bincount(labels, minlength=len(class_names))
    used = np.flatnonzero(counts).tolist()
    if len(used) < 2:
        name = class_names[used[0]] if len(used) else "none"
        raise DataError(f"the classifier needs at least 2 classes, but all images are of one ({name}). "
                        f"Use another extractor: {_OTHERS}.")
    if _digits(class_names, images.read([0]).shape[1]):
        return                         # its classes are the digits: 1,000 of them may well be rare
    few = [f"{class_names[c]} ({counts[c]})" for c in used if counts[c] < LEAST_PER_CLASS]
    if few:
        more = f" and {len(few) - 5:,} more" if len(few) > 5 else ""
        raise DataError(f"the classifier needs at least {LEAST_PER_CLASS} images of each class, but of some there are fewer: "
                        f"{', '.join(few[:5])}{more}. Put small classes together, leave them out, or use another extractor: "
                        f"{_OTHERS}.")


def _digits(class_names: Sequence[str], channels: int) -> bool:
    """Whether every class is named by one digit for each of several channels."""
    return channels == 3 and all(len(name) == channels and name.isdecimal() and name.isascii() for name in class_names)


def _problem_of(images: Images, class_names: Sequence[str]) -> Problem:
    _, channels, height, width = images.read([0]).shape
    size = within(height, width, _MOST_PX)
    if _digits(class_names, channels):
        return Problem(tuple(sorted({digit for name in class_names for digit in name})), 1, channels, size)
    return Problem(tuple(class_names), 1 if channels == 1 else 3, 1, size)


def _inputs(images: Pixels, problem: Problem) -> Tensor:
    """What the network sees: (N, C, H, W) -> (N * parts, channels, height, width) uint8."""
    if problem.parts == 1:
        return prepare(images, problem.channels, problem.size)
    n, channels, height, width = images.shape
    if channels != problem.parts:
        raise DataError(f"the classifier was trained on images of {problem.parts} channels with a digit in each, "
                        f"but these have {channels}")
    return prepare(images.reshape(n * channels, 1, height, width), 1, problem.size)


def _targets(labels: Labels, class_names: Sequence[str], problem: Problem) -> Labels:
    """The classes of the network, (N, parts)."""
    if problem.parts == 1:
        return labels[:, None]
    place = {name: index for index, name in enumerate(problem.classes)}
    return np.array([[place[digit] for digit in name] for name in class_names], np.int64)[labels]


def _parted(labels: Labels, groups: npt.NDArray[np.int64] | None) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions (train, test): of each class whole groups, in a shuffled order, until the test has its share."""
    order = permute(np.arange(len(labels)), len(labels), _SEED, Purpose.ORDER, 0)[:_MOST_IMAGES]
    labels = labels[order]
    share = min(_TESTED, _MOST_TESTED / len(order))
    wanted = np.maximum(np.round(np.bincount(labels) * share), 1)
    if groups is None:
        rank = np.empty(len(order), np.int64)              # of each image within its class
        by_class = np.argsort(labels, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(labels))])
        rank[by_class] = np.arange(len(order)) - starts[labels[by_class]]
        tested = rank < wanted[labels]
    else:
        _, of = np.unique(groups[order], return_inverse=True)
        members = np.split(np.argsort(of, kind="stable"), np.cumsum(np.bincount(of))[:-1])
        have = np.zeros(len(wanted))
        tested = np.zeros(len(order), bool)
        for group in dict.fromkeys(of.tolist()):           # in the shuffled order
            counts = np.bincount(labels[members[group]], minlength=len(wanted))
            if (have + counts <= wanted)[counts > 0].all():
                have += counts
                tested[members[group]] = True
        if not tested.any():
            raise DataError("the classifier cannot be tested: the images are few groups that belong together, each too large to "
                            f"be kept from training. Give more images, or use another extractor: {_OTHERS}.")
    return order[~tested], order[tested]


# Training.

def _trained(images: Images, labels: Labels, class_names: Sequence[str], groups: npt.NDArray[np.int64] | None, problem: Problem,
             progress: Callable[[int, int], None] | None) -> Learnt:
    train, test = _parted(labels, groups)
    targets = _targets(labels, class_names, problem)
    inputs = torch.cat([_inputs(images.read(train[i:i + 1000]), problem) for i in range(0, len(train), 1000)])
    answers = torch.from_numpy(targets[train].reshape(-1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        net = Net(problem.channels, problem.size, len(problem.classes))
        _fit(net, inputs, answers, progress)
    net.eval()
    right = 0
    with torch.inference_mode():
        for i in range(0, len(test), 500):
            some = test[i:i + 500]
            guesses = net(_inputs(images.read(some), problem))[1].argmax(dim=1).view(len(some), problem.parts)
            right += int((guesses.numpy() == targets[some]).all(axis=1).sum())
    commonest = np.bincount(labels[test]).max() / len(test)
    return Learnt(net, right / len(test), float(commonest), np.sort(test))


def _fit(net: Net, inputs: Tensor, answers: Tensor, progress: Callable[[int, int], None] | None) -> None:
    """Trains `net` for a number of steps that hangs on the images alone, so that the same images give the same network."""
    n = len(inputs)
    area = inputs.shape[2] * inputs.shape[3] // (4 if max(inputs.shape[2:]) > _COARSE_PX else 1)
    per_pass = max(1, n // _BATCH)
    steps = max(per_pass, min(max(_LEAST_STEPS, _MOST_PASSES * per_pass), _PIXELS // area // _BATCH))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.02, fused=True)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.2)
    shifts = np.floor(uniforms(_SEED, Purpose.ROTATION, np.arange(steps), 2) * 5).astype(int)
    net.train()
    for step in range(steps):
        at = step % per_pass
        if at == 0:
            order = torch.from_numpy(permute(np.arange(n), n, _SEED, Purpose.ORDER, 1 + step // per_pass))
        chosen = order[at * _BATCH:(at + 1) * _BATCH]
        top, left = shifts[step].tolist()
        # A batch moves by up to 2 pixels: a twentieth of the cost of moving each image, and as good on MNIST.
        batch = F.pad(inputs[chosen].float(), (2, 2, 2, 2), mode="replicate")
        batch = batch[:, :, top:top + inputs.shape[2], left:left + inputs.shape[3]]
        loss = F.cross_entropy(net(batch)[1], answers[chosen], label_smoothing=0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        rate.step()
        if progress is not None and (step % 20 == 0 or step == steps - 1):
            progress(min((step + 1) * _BATCH, steps * _BATCH), steps * _BATCH)


# The file.

def _stamp(images: Images, labels: Labels, class_names: Sequence[str], groups: npt.NDArray[np.int64] | None,
           problem: Problem) -> str:
    """What tells one problem from another: the labels, the groups, and some of the pixels."""
    digest = hashlib.sha256(json.dumps([_VERSION, problem, list(class_names), images.read([0]).shape]).encode())
    digest.update(labels.astype("<i8").tobytes())
    digest.update(b"" if groups is None else groups.astype("<i8").tobytes())
    digest.update(images.read(np.unique(np.linspace(0, len(images) - 1, 200).astype(np.int64))).tobytes())
    return digest.hexdigest()


def _save(path: Path, stamp: str, learnt: Learnt) -> None:
    state = {name: tensor.contiguous() for name, tensor in learnt.net.state_dict().items()}
    state[_UNSEEN] = torch.from_numpy(learnt.unseen)
    about = {"stamp": stamp, "check": key_of(state), "accuracy": repr(learnt.accuracy), "commonest": repr(learnt.commonest)}
    with contextlib.suppress(OSError), whole_file(path) as partial:        # else it is trained again
        save_file(state, partial, about)


def _load(path: Path, stamp: str, problem: Problem) -> Learnt | None:
    """What `_save` wrote; None where there is none, a damaged one, or one of another version."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
        if about["stamp"] != stamp or about["check"] != key_of(state):
            return None
        net = Net(problem.channels, problem.size, len(problem.classes))
        unseen = state.pop(_UNSEEN).numpy()
        net.load_state_dict(state)
        return Learnt(net, float(about["accuracy"]), float(about["commonest"]), unseen)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError):
        return None
