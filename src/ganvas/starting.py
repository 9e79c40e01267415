"""A new run from other networks' weights (--init-from): what fits is taken, and all else starts anew, counters first of all."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganvas.best import read_best
from ganvas.checkpoint import read_checkpoint, read_newest
from ganvas.config import RunConfig, flatten
from ganvas.errors import ConfigError, RunError
from ganvas.generator import chosen
from ganvas.run_folder import RunFolder, open_run
from ganvas.torch_files import Networks, Role, read_networks
from ganvas.training.state import TrainState
from ganvas.watcher import seen

LEAST_SHARE = 1 / 3            # of G's parameters: with fewer, hardly anything is taken over, and the user means another run
MOST_NAMED = 4                 # tensors that start anew, in the line that tells of them
IMAGE_CHANNELS = (1, 3, 4)
ROLES: tuple[Role, ...] = ("G", "D", "G_ema")

_Own = dict[Role, nn.Module]                                   # the networks that take


@dataclass(frozen=True)
class _Source:
    """What there is to take."""

    networks: Networks
    what: str                                                  # among what `where` holds, for people
    in_order: bool                                             # of definition; a safetensors file does not keep it
    options: dict[str, Any] = field(default_factory=dict)      # of the run that it comes from, by dotted name

    @property
    def classes(self) -> tuple[str, ...]:
        """Those that its networks know, as far as anybody says."""
        return tuple(self.options.get("data.class_names", ())) if self.options.get("network.conditional") else ()


@dataclass(frozen=True)
class _Fit:
    """What one network takes, by the network's own names."""

    total: int
    taken: dict[str, Tensor]
    anew: list[str]                                            # each with the shapes that do not fit, for people
    without_place: int                                         # tensors that this network has no place for


def check_start(where: str, folder: RunFolder, networks: tuple[nn.Module, nn.Module], config: RunConfig) -> None:
    """Raises what `start_from` will raise for a new run with these networks, (G, D); before anything slow.

    RunError also where `where` is this very run. A run that goes on has its own weights, and no longer needs what it once
    started from.
    """
    path = Path(where).expanduser()
    if path.resolve().is_relative_to(folder.path.resolve()):
        raise RunError(f"--init-from {where}: that is the same run: leave --init-from out to continue it, or pass another "
                       "folder as --out for a new run with its weights.")
    if folder.list_checkpoints():
        return
    if path.is_dir() or not (path.exists() or path.suffix):
        open_run(path)
    elif not path.exists():
        raise RunError(f"--init-from {where}: there is no such file or run folder.")
    G, D = networks
    averaged: _Own = {"G_ema": G} if config.train.ema_half_life_kimg else {}         # of the same shapes
    _fits_of(where, _read(where, lambda text: None), {"G": G, "D": D, **averaged}, config)


@torch.no_grad()
def start_from(where: str, state: TrainState, config: RunConfig, tell: Callable[[str], None]) -> None:
    """Gives the networks of a new run the weights and buffers at `where` that fit them; nothing else of it matters.

    where: a run folder (its best checkpoint, else its last), a checkpoint file, or a file that torch.save wrote. Tensors fit
    by name and shape, or layers of equal shapes one after the other, whichever takes more numbers; what is of a class, by the
    class's name.
    G and G_ema start from each other where there is one of them. Tells what is taken and what starts anew.
    Raises RunError for what cannot be read and for weights that are not finite, ConfigError where hardly anything fits;
    `state` is then as it was.
    """
    assert state.nimg == 0, "a run that goes on has its own weights"
    source = _read(where, tell)
    own = _own(state)
    fits = _fits_of(where, source, own, config)
    for which, fit in fits.items():                            # G before G_ema, which has what its own average lacks from G
        if which == "G_ema":
            own["G_ema"].load_state_dict(state.G.state_dict())
        weights = own[which].state_dict()
        for name, tensor in fit.taken.items():
            weights[name].copy_(tensor)
    tell(_told(where, source, fits, config))


def _fits_of(where: str, source: _Source, own: _Own, config: RunConfig) -> dict[Role, _Fit]:
    """What each network takes, G before G_ema. Raises as `start_from` does."""
    # What of an average's classes is new, it has from G.
    fits = {which: _fit(own[which], _by_class(tensors, own["D" if which == "D" else "G"], source, config), source.in_order)
            for which, tensors in _assigned(source, own).items() if which in own}
    main: Role = "G" if "G" in fits else "D"
    _check_share(where, source, config, main, own[main], fits[main])
    for which, fit in fits.items():
        _check_finite(where, which, fit)
    return fits


# ---------------------------------------------------------------- reading


def _read(where: str, tell: Callable[[str], None]) -> _Source:
    path = Path(where).expanduser()
    if path.is_file() and path.suffix != ".safetensors":
        return _Source(read_networks(path), "", in_order=True)
    if path.suffix == ".safetensors" and not path.is_dir():
        (tensors, meta), what = read_checkpoint(path), ""
    else:
        tensors, meta, what = _read_run(path, tell)
    if meta.get("kind") == "generator":
        networks: Networks = {"G_ema" if meta.get("averaged") else "G": tensors}
    else:
        networks = {which: found for which in ROLES if (found := {
            name.removeprefix(f"{which}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{which}/")})}
    if not networks:
        raise RunError(f"{path}: holds no networks. Pass a run folder, or a checkpoint of one.")
    about = f"{what} at {seen(meta['nimg'])}".strip() if isinstance(meta.get("nimg"), int) else what
    options = meta.get("config")
    return _Source(networks, about, in_order=False, options=flatten(options) if isinstance(options, dict) else {})


def _read_run(path: Path, tell: Callable[[str], None]) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """The training state of the run's best checkpoint, else of the newest that can be read; with what it is."""
    folder = open_run(path)
    found = folder.list_checkpoints()
    best = chosen(folder, found, "best")
    if best is not None:
        return *read_checkpoint(best[1]), "its best checkpoint"
    newest = read_newest([file for _, file in found])
    assert newest is not None, "`chosen` has raised where there is none"
    for fault in newest[2]:
        tell(f"passed over: {fault}")
    gone = " (of its best one only the generator is left)" if read_best(folder) is not None else ""
    return newest[0], newest[1], f"its last checkpoint{gone}"


# ---------------------------------------------------------------- what fits where


def _assigned(source: _Source, own: _Own) -> Networks:
    """The tensors for each of our networks, G before G_ema; a file's network of unknown kind is G or D by its look."""
    found = dict(source.networks)
    if unknown := found.pop("", None):
        found.setdefault("D" if _is_discriminator(unknown, own) else "G", unknown)
    averaged, current = found.get("G_ema"), found.get("G")
    wanted: Sequence[tuple[Role, dict[str, Tensor] | None]] = (
        ("G", current or averaged), ("D", found.get("D")), ("G_ema", averaged or current))
    return {which: tensors for which, tensors in wanted if tensors}


def _own(state: TrainState) -> _Own:
    averaged: _Own = {} if state.G_ema is None else {"G_ema": state.G_ema}
    return {"G": state.G, "D": state.D, **averaged}


def _is_discriminator(tensors: dict[str, Tensor], own: _Own) -> bool:
    """Whether more of it has the names and shapes of our D than of our G.

    With names of its own: whether its first convolution takes images, (K, image channels, h, w), and is not our G's first one.
    """
    of_G, of_D = own["G"].state_dict(), own["D"].state_dict()
    for_G, for_D = (_size(weights, _by_name(weights, tensors)) for weights in (of_G, of_D))
    if for_G != for_D:
        return for_D > for_G
    def first(weights: Iterable[Tensor]) -> tuple[int, ...]:
        return next((tuple(weight.shape) for weight in weights if weight.dim() == 4), ())
    theirs = first(tensors.values())
    return len(theirs) == 4 and theirs[1] in IMAGE_CHANNELS and theirs != first(of_G.values())


def _fit(network: nn.Module, theirs: dict[str, Tensor], in_order: bool) -> _Fit:
    """By name, or layer after layer where that takes more: other names, or more or fewer layers, which shift the names."""
    own = network.state_dict()
    names = max(_by_name(own, theirs), _by_layers(own, theirs, in_order), key=partial(_size, own))
    shown, anew = set(names.values()), []
    for name, tensor in own.items():
        if name in names:
            continue
        other = theirs.get(name) if name not in shown else None
        anew.append(f"{name} {tuple(other.shape)} -> {tuple(tensor.shape)}" if other is not None
                    else f"{name} {tuple(tensor.shape)}")
        shown |= {name} if other is not None else set()
    taken = {name: theirs[other].to(own[name].dtype) for name, other in names.items()}
    return _Fit(len(own), taken, anew, len(theirs) - len(shown))


def _by_class(tensors: dict[str, Tensor], network: nn.Module, source: _Source, config: RunConfig) -> dict[str, Tensor]:
    """`tensors` with what is of a class where our class of that name has it: the last inputs of G's stem, and D's vectors.

    A class that has no such name there, or where nobody says the names, has what `network` has of it. A stem with another z is
    left out where it would fit by chance.
    """
    if config.network.family != "residual" or source.options.get("network.family", "residual") != "residual":
        return tensors
    ours, theirs, z = _classes(config), source.classes, config.network.z_dim
    places = [(place, theirs.index(name)) for place, name in enumerate(ours) if name in theirs]
    # A file without options says neither z nor classes: it is of our z, and perhaps of as many classes.
    widths = (z + len(theirs),) if source.options else (z, z + len(ours))
    found = dict(tensors)
    for name, own in network.state_dict().items():
        given = tensors.get(name)
        if given is None or not given.is_floating_point():
            continue
        mixed = own.detach().to("cpu", copy=True)
        if name == "stem.weight" and given.dim() == 2:
            if source.options.get("network.z_dim", z) == z and len(given) == len(own) and given.shape[1] in widths:
                mixed[:, :z] = given[:, :z]
                for place, there in places:
                    mixed[:, z + place] = given[:, z + there]
                found[name] = mixed
            elif given.shape == own.shape:
                del found[name]
        elif name.startswith("classes.") and not name.endswith("._v"):      # weight, or spectral norm's original and its _u
            if not places or given.shape != (len(theirs), *own.shape[1:]):
                del found[name]
                continue
            for place, there in places:
                mixed[place] = given[there]
            found[name] = mixed
    return found


def _classes(config: RunConfig) -> tuple[str, ...]:
    return config.data.class_names if config.network.conditional else ()


def _by_name(own: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, str]:
    """{our name: theirs}, which is the same, of what fits."""
    return {name: name for name, tensor in own.items() if name in theirs and _fits(tensor, theirs[name])}


def _size(own: dict[str, Tensor], names: Iterable[str]) -> int:
    return sum(own[name].numel() for name in names)


def _fits(own: Tensor, other: Tensor) -> bool:
    return own.shape == other.shape and own.is_floating_point() == other.is_floating_point() and not other.is_complex()


def _by_layers(own: dict[str, Tensor], theirs: dict[str, Tensor], in_order: bool) -> dict[str, str]:
    """{our name: theirs} of the layers that fit, in the order of both; of all such pairings one with the most numbers.

    A longest common subsequence, weighted by size; of several the earliest, which leaves together what lies together. Layers fit
    whose largest tensors do; their other tensors go with them, by the last part of their names.
    """
    ours, others = _layers(own, in_order), _layers(theirs, in_order)
    def pair(layer: list[str], other: list[str]) -> dict[str, str]:
        by_end = {_end(name): name for name in other}
        fitting = {name: by_end[_end(name)] for name in layer
                   if _end(name) in by_end and _fits(own[name], theirs[by_end[_end(name)]])}
        return fitting if max(layer, key=lambda name: own[name].numel()) in fitting else {}
    pairs = [[pair(layer, other) for other in others] for layer in ours]
    gains = [[max(_size(own, found), 1) if found else 0 for found in row] for row in pairs]
    most = [[0] * (len(others) + 1) for _ in range(len(ours) + 1)]                 # among ours[i:] and others[j:]
    for i in reversed(range(len(ours))):
        for j in reversed(range(len(others))):
            paired = gains[i][j] + most[i + 1][j + 1] if gains[i][j] else 0
            most[i][j] = max(paired, most[i + 1][j], most[i][j + 1])
    names: dict[str, str] = {}
    i, j = 0, 0
    while i < len(ours) and j < len(others):
        if gains[i][j] and most[i][j] == gains[i][j] + most[i + 1][j + 1]:
            names, i, j = names | pairs[i][j], i + 1, j + 1
        elif most[i][j] == most[i + 1][j]:
            i += 1
        else:
            j += 1
    return names


def _layers(tensors: dict[str, Tensor], in_order: bool) -> list[list[str]]:
    """The names of each layer's tensors; layers as they come, or by their own names where that order is lost."""
    layers: dict[str, list[str]] = {}
    for name in tensors:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    def numbers_as_such(layer: str) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in layer.split(".")]
    return [layers[name] for name in (layers if in_order else sorted(layers, key=numbers_as_such))]


def _end(name: str) -> str:
    return name.rpartition(".")[2]


# ---------------------------------------------------------------- checks and words


def _check_share(where: str, source: _Source, config: RunConfig, which: str, network: nn.Module, fit: _Fit) -> None:
    numbers = {name: parameter.numel() for name, parameter in network.named_parameters()}
    share = sum(count for name, count in numbers.items() if name in fit.taken) / max(sum(numbers.values()), 1)
    if share >= LEAST_SHARE:
        return
    wanted = flatten(config.model_dump(mode="json"))
    differing = [f"{name} {source.options[name]} there and {value} here" for name, value in wanted.items()
                 if name.startswith(("network.", "data.size", "data.channels"))
                 and name in source.options and source.options[name] != value]
    why = "; ".join(differing) or f"not {_some(fit.anew)}"
    remedy = (f"take all options from there with --config {where}" if Path(where).expanduser().is_dir()
              else "give the network that it was made with, by --preset or --set network.…")
    raise ConfigError(f"--init-from {where}: only {math.floor(100 * share)} % of {which}'s parameters fit ({why}). To start from "
                      f"it, {remedy}; or leave --init-from out.")


def _check_finite(where: str, which: str, fit: _Fit) -> None:
    for name, tensor in fit.taken.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise RunError(f"--init-from {where}: {which}'s {name} would hold NaN or infinite numbers; that training had failed. "
                           "Name an earlier checkpoint of it, or leave --init-from out.")


def _told(where: str, source: _Source, fits: Mapping[Role, _Fit], config: RunConfig) -> str:
    parts: list[str] = []
    for which, fit in fits.items():
        if which == "G_ema" and fit.anew == fits["G"].anew:
            parts.append("as many of G_ema")
            continue
        notes = ([f"not {_some(fit.anew)}"] if fit.anew else []) + (
            [f"{fit.without_place} more of its tensors have no place here"] if fit.without_place else [])
        parts.append(f"{len(fit.taken)} of {fit.total}{' tensors' if not parts else ''} of {which}"
                     + (f" ({'; '.join(notes)})" if notes else ""))
    parts += [f"{which} starts anew, for there is none in it" for which in ROLES[:2] if which not in fits]
    what = f" ({source.what})" if source.what else ""
    classes = _told_of_classes(source.classes, _classes(config))
    return f"init-from {where}{what}: {', '.join(parts)}. {classes}A new run: optimizers, counters and statistics start at zero"


def _told_of_classes(theirs: Sequence[str], ours: Sequence[str]) -> str:
    """A sentence on them; "" where both know the same."""
    kinds = [("by name", [name for name in ours if name in theirs]), ("anew", [name for name in ours if name not in theirs]),
             ("without a place here", [name for name in theirs if name not in ours])]
    told = "; ".join(f"{what} {_some(names)}" for what, names in kinds if names)
    return f"Classes: {told}. " if set(ours) != set(theirs) else ""


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
