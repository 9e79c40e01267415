"""Names of everything in a run folder, and the finding of one."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from ganvas.errors import RunError
from ganvas.files import now_of_file_system


@dataclass(frozen=True)
class RunFolder:
    """The files of one run; properties are names, whether or not the file is there yet."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def execution(self) -> Path:
        return self.path / "execution.json"

    @property
    def stats(self) -> Path:
        return self.path / "stats.jsonl"

    @property
    def images(self) -> Path:
        return self.path / "images.csv.gz"

    @property
    def data_page(self) -> Path:
        return self.path / "data.html"

    @property
    def sheet(self) -> Path:
        return self.path / "data.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def best(self) -> Path:
        return self.path / "best.json"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation.json"

    @property
    def neighbours(self) -> Path:
        return self.path / "neighbours.png"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def latest_grid(self) -> Path:
        return self.samples / "latest.png"

    @property
    def reals_grid(self) -> Path:
        return self.samples / "reals.png"

    @property
    def gif(self) -> Path:
        return self.path / "progress.gif"

    @property
    def mp4(self) -> Path:
        return self.path / "progress.mp4"

    @property
    def curves(self) -> Path:
        return self.path / "curves.png"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def lock(self) -> Path:
        return self.path / "run.lock"

    def grid(self, nimg: int) -> Path:
        return self.samples / f"{nimg:012d}.png"

    def checkpoint(self, nimg: int) -> Path:
        return self.checkpoints / f"{nimg:012d}.safetensors"

    def generator(self, nimg: int) -> Path:
        return self.checkpoints / f"generator-{nimg:012d}.safetensors"

    def list_checkpoints(self) -> list[tuple[int, Path]]:
        """(nimg, path) of every whole training state, oldest first."""
        return _numbered(self.checkpoints, ".safetensors")

    def list_grids(self) -> list[tuple[int, Path]]:
        """(nimg, path) of every progress grid, oldest first."""
        return _numbered(self.samples, ".png")

    @classmethod
    def create(cls, path: Path) -> "RunFolder":
        """The run folder at `path`, made if it is not there.

        Raises RunError when it cannot be made or written to, before hours of training find out.
        """
        folder = cls(path)
        try:
            for part in (path, folder.samples, folder.checkpoints):
                part.mkdir(parents=True, exist_ok=True)
            now_of_file_system(path)
        except (FileExistsError, NotADirectoryError) as error:
            raise RunError(f"{path}: cannot be a run folder, because {_file_in_the_way(folder)} is a file. "
                           "Remove or rename that file, or pass another folder as --out.") from error
        except OSError as error:
            raise RunError(f"{path}: cannot be written to ({error.strerror}). "
                           "Change its permissions or free the disk, or pass another folder as --out.") from error
        return folder


def _numbered(folder: Path, suffix: str) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    pattern = re.compile(r"(\d{12,})" + re.escape(suffix))
    matches = ((pattern.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in matches if match)


def _file_in_the_way(folder: RunFolder) -> Path:
    candidates = (*reversed(folder.path.parents), folder.path, folder.samples, folder.checkpoints)
    return next((part for part in candidates if part.is_file()), folder.path)


def open_run(path: Path) -> RunFolder:
    """The run that was trained into `path`. Raises RunError, naming what is missing and what may have been meant."""
    folder = RunFolder(path)
    if folder.config.is_file():
        return folder
    if path.is_dir():
        runs = _runs_in(path)
        meant = f" Did you mean one of the runs in it: {_listed(runs)}?" if runs else _other_runs(path)
        raise RunError(f"{path}: not a run folder ({folder.config.name} is missing).{meant}")
    if path.exists():
        raise RunError(f"{path}: a file, not a run folder. Pass the folder that training wrote into, "
                       f"the one with {folder.config.name} in it.{_other_runs(path)}")
    raise RunError(f"{path}: no such run folder.{_other_runs(path)}")


def newest_run(runs: Path = Path("runs")) -> RunFolder:
    """The run in `runs` that was trained last, by the time of its newest checkpoint (or config, if it has none).

    Raises RunError when there is none.
    """
    folders = _runs_in(runs)
    if not folders:
        what = "has no run in it" if runs.is_dir() else "no such folder, so there is no run yet"
        raise RunError(f"{runs}: {what}. Train one with `ganvas train FOLDER_OF_IMAGES`, or name the run folder.")
    return RunFolder(max(folders, key=lambda path: (_trained_at(RunFolder(path)), path)))


def _trained_at(folder: RunFolder) -> float:
    files = [folder.config, *(path for _, path in folder.list_checkpoints())]
    return max(path.stat().st_mtime for path in files)


def _runs_in(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if RunFolder(path).config.is_file())


def _other_runs(path: Path) -> str:
    """A sentence naming the runs near `path` that may have been meant, those with a similar name if there are any."""
    by_name = {run.name.casefold(): run for parent in dict.fromkeys((Path("runs"), path.parent))
               for run in _runs_in(parent)}
    similar = difflib.get_close_matches(path.name.casefold(), by_name)
    if similar:
        return f" Did you mean {_listed([by_name[name] for name in similar])}?"
    if by_name:
        return f" Runs nearby: {_listed(sorted(by_name.values()))}."
    return " Train one with `ganvas train FOLDER_OF_IMAGES`."


def _listed(paths: list[Path], most: int = 8) -> str:
    rest = f" and {len(paths) - most} more" if len(paths) > most else ""
    return ", ".join(str(path) for path in paths[:most]) + rest
