"""Whether a run folder may be gone on with, and the state that its newest checkpoint holds."""

from collections.abc import Callable
from typing import Any

from ganvas.checkpoint import read_newest
from ganvas.config import RunConfig, differences, make_config
from ganvas.config import from_yaml as values_from
from ganvas.dataset import Dataset, changes_since
from ganvas.errors import ConfigError, RunError
from ganvas.generator import config_of
from ganvas.run_folder import RunFolder
from ganvas.training.state import TrainState


def settled_options(folder: RunFolder) -> dict[str, Any]:
    """The options of the run that the folder holds: going on, what was chosen from its images is not chosen again."""
    if not folder.list_checkpoints():
        return {}
    try:
        return values_from(folder.config.read_text(encoding="utf-8"), str(folder.config))
    except (OSError, ConfigError, UnicodeDecodeError):         # said where the run is about to go on
        return {}


def check_same_run(folder: RunFolder, config: RunConfig) -> None:
    """Raises RunError where the folder holds a run with other options, or files that no run of ours has put there.

    A start that reached no checkpoint binds nobody. What the checkpoint itself says is looked at again when it is loaded.
    """
    if not folder.config.is_file() and not folder.list_checkpoints():
        ours = [part for part in (folder.stats, folder.tensorboard, folder.latest_grid) if part.exists()]
        if ours:
            raise RunError(f"{folder.path}: holds {ours[0].name}, which would be overwritten, and is no run folder (there is "
                           f"no {folder.config.name}). Pass a new folder as --out.")
    if not folder.config.is_file() or not folder.list_checkpoints():
        return
    try:
        old = make_config(values_from(folder.config.read_text(encoding="utf-8"), str(folder.config)))
    except (ConfigError, UnicodeDecodeError) as error:
        raise RunError(f"{folder.config}: cannot be read, so nothing goes on from there. {error}\n"
                       f"Mend it, or pass --out {folder.path}-2 for a new run.") from error
    _refuse_changes(folder, old, config)


def resume(
    folder: RunFolder, config: RunConfig, state: TrainState, dataset: Dataset, source: str, tell: Callable[[str], None],
) -> tuple[float, dict[str, Any] | None]:
    """Loads the newest whole checkpoint into `state`, if there is one; those passed over are set aside.

    Returns the training seconds spent so far, and the environment that the checkpoint was made in. source: the images, for the
    message where they are not the run's. Raises RunError where this checkpoint cannot go on with these options or images.
    """
    newest = read_newest([path for _, path in folder.list_checkpoints()])
    if newest is None:
        return 0.0, None
    tensors, meta, passed_over = newest
    for fault in passed_over:
        tell(f"passed over: {fault}")
    _refuse_changes(folder, config_of(meta, str(folder.path)), config)
    if meta["data_fingerprint"] != dataset.pack.fingerprint:
        changes = changes_since(folder.images, dataset.pack) or "images were added, removed or changed"
        raise RunError(f"{source}: is not what this run was trained on: {changes}. Put it back as it was, or pass "
                       f"--out {folder.path}-2 for a new run.")
    try:
        state.load(tensors, meta)
    except (KeyError, RuntimeError) as error:
        raise RunError(f"{folder.path}: its checkpoint does not fit these networks ({error}).") from error
    for nimg, path in folder.list_checkpoints():               # those passed over: they must not count as kept, nor be sampled
        if nimg > state.nimg:
            path.replace(path.with_suffix(".damaged"))
            folder.generator(nimg).unlink(missing_ok=True)
    return float(meta["elapsed_sec"]), meta.get("environment")


def _refuse_changes(folder: RunFolder, old: RunConfig, new: RunConfig) -> None:
    changed = differences(old, new)
    if changed:
        raise RunError(f"{folder.path}: holds a run with other options, which cannot change on the way:\n  "
                       + "\n  ".join(changed)
                       + f"\nRepeat its options to go on with it, or pass --out {folder.path}-2 for a new run.")
