import contextlib
import io
import json
import os
import shlex
import sys
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

from ganvas.cli import data
from ganvas.data import fetch as fetching
from ganvas.data.cache import cache_root
from ganvas.data.public_sets import DATASETS
from ganvas.errors import GanvasError
from ganvas.presets import preset_names


class Result(NamedTuple):
    code: int
    out: str
    err: str


def run(*args, answer=""):
    """`ganvas data ARGS` in this process, with the exit codes of `main`; `answer` is what a person types."""
    app = typer.Typer()
    app.add_typer(data.app, name="data")
    out, err, stdin = io.StringIO(), io.StringIO(), sys.stdin
    sys.stdin = io.StringIO(answer)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            app(["data", *map(str, args)])
    except GanvasError as error:
        return Result(1, out.getvalue(), f"{err.getvalue()}ganvas: {error}")
    except SystemExit as exit_:
        return Result(int(exit_.code or 0), out.getvalue(), err.getvalue())
    finally:
        sys.stdin = stdin
    return Result(0, out.getvalue(), err.getvalue())


def pack(name, days=0.0):
    folder = cache_root() / "packs" / f"key-of-{name}"
    folder.mkdir(parents=True)
    (folder / "images.npy").write_bytes(b"p" * 2_000_000)
    (folder / "manifest.json").write_text(json.dumps({"source": name, "shape": [9, 3, 8, 8], "fingerprint": "f"}))
    os.utime(folder, (time.time() - days * 86400,) * 2)
    return folder


@pytest.fixture
def person(monkeypatch):
    monkeypatch.setattr(data, "_can_ask", lambda: True)


# ---------------------------------------------------------------- fetch


@pytest.mark.parametrize("args", [["fetch", "--list"], ["fetch"]])
def test_the_sets_are_listed_with_their_sizes(args):
    done = run(*args)
    assert done.code == 0
    lines = {line.split()[0]: line for line in done.out.splitlines() if line}
    assert set(DATASETS) < set(lines)
    assert "11.6 MB" in lines["mnist"] and "by hand" in lines["celeba"]
    assert max(map(len, done.out.splitlines())) < 120


def test_fetching_says_what_it_is_may_be_used_for_and_how_to_train(monkeypatch):
    def fetched(name, folder=None, *, progress):
        progress("train-images", 5, 10)
        return Path("/cache/down loads") / name
    monkeypatch.setattr(fetching, "fetch", fetched)
    done = run("fetch", "mnist")
    assert done.code == 0
    path = shlex.quote(str(Path("/cache/down loads/mnist")))
    for word in ("70,000 handwritten digits", "11.6 MB", "CC BY-SA 3.0", "http://yann.lecun.com",
                 f"ganvas train {path} --preset coursera-mnist-28"):
        assert word in done.out


def test_the_folder_asked_for_is_where_the_files_go(monkeypatch):
    asked = []
    monkeypatch.setattr(fetching, "fetch", lambda name, folder=None, *, progress: asked.append(folder) or folder)
    assert "ganvas train mine " in run("fetch", "mnist", "--out", "mine").out
    assert asked == [Path("mine")]


def test_an_unknown_set_is_refused_with_the_known_ones():
    done = run("fetch", "mnits")
    assert done.code == 1 and "Did you mean mnist" in done.err and "fashion-mnist" in done.err and done.out == ""


@pytest.mark.parametrize("name", ["celeba", "kaggle-pokemon"])
def test_a_set_by_hand_prints_the_steps_and_takes_the_file(name):
    done = run("fetch", name)
    assert done.code == 1
    assert DATASETS[name].page in done.err and f"ganvas data fetch {name} --from FILE" in done.err
    with zipfile.ZipFile("archive.zip", "w") as archive:
        archive.writestr("pokemon_jpg/1.jpg", b"")
    done = run("fetch", name, "--from", "archive.zip")
    assert done.code == 0
    path = Path(done.out.splitlines()[-2])
    assert path.is_file() and done.out.endswith(f"ganvas train {path} {DATASETS[name].train}\n")


def test_a_wrong_file_is_refused_by_name():
    Path("cifar.tar.gz").write_bytes(b"half")
    done = run("fetch", "cifar10", "--from", "cifar.tar.gz")
    assert done.code == 1 and "--from cifar.tar.gz" in done.err and "170,052,171 bytes" in done.err


def test_an_interrupted_download_says_what_is_kept_and_exits_130(monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt
    monkeypatch.setattr(fetching, "fetch", interrupted)
    done = run("fetch", "svhn")
    assert done.code == 130 and "svhn: stopped; no half file is left" in done.err


def test_every_preset_that_a_set_recommends_exists():
    for dataset in DATASETS.values():
        flag, value = dataset.train.split()
        assert flag == "--time" or (flag == "--preset" and value in preset_names())


# ---------------------------------------------------------------- cache


def test_an_empty_cache_is_listed_and_cleaned():
    assert "0 entries" in run("cache", "list").out
    assert run("cache", "clean").out == "nothing to remove\n"


def test_the_cache_is_listed_with_size_use_and_folder():
    folder = pack("sprites")
    done = run("cache", "list")
    assert done.code == 0
    for word in ("packs", "sprites", "9x3x8x8", "2.0 MB", time.strftime("%Y-%m-%d"), str(folder), "1 entry of"):
        assert word in done.out


def test_json_is_versioned_and_holds_every_field():
    folder = pack("sprites")
    answer = json.loads(run("cache", "list", "--json").out)
    assert (answer["version"], answer["root"]) == (1, str(cache_root()))
    (entry,) = answer["entries"]
    assert entry["bytes"] > 2_000_000 and entry["used_at"] == pytest.approx(time.time(), abs=100)
    assert (entry["kind"], entry["name"], entry["shape"], entry["path"], entry["whole"]) == (
        "packs", "sprites", [9, 3, 8, 8], str(folder), True)


@pytest.mark.parametrize(("answer", "is_there"), [("y\n", False), ("n\n", True), ("\n", True)])
def test_cleaning_shows_what_goes_and_asks(person, answer, is_there):
    folder = pack("sprites")
    done = run("cache", "clean", answer=answer)
    assert "sprites" in done.out and "Remove 1 entry, 2.0 MB?" in done.out
    assert folder.exists() == is_there
    assert ("2.0 MB freed" in done.out) != is_there


def test_without_a_terminal_nothing_is_removed_unless_agreed():
    folder = pack("sprites")
    done = run("cache", "clean")
    assert done.code == 1 and "--yes" in done.err and folder.exists()
    done = run("cache", "clean", "--yes")
    assert done.code == 0 and "removed 1 entry: 2.0 MB freed" in done.out and not folder.exists()


@pytest.mark.parametrize(("args", "left"), [
    (["--older-than", "30d"], {"new", "week"}), (["--older-than", "1w"], {"new"}), (["--older-than", "12h"], {"new"}),
    (["--kind", "downloads"], {"new", "week", "old"}), (["--kind", "packs"], set()),
    (["--name", "week"], {"new", "old"}), (["--name", "key-of-week"], {"new", "old"}),
    (["--name", "week", "--older-than", "30d"], {"new", "week", "old"})])
def test_only_what_was_asked_for_is_removed(args, left):
    folders = {name: pack(name, days) for name, days in (("new", 0.1), ("week", 8), ("old", 40))}
    assert run("cache", "clean", "--yes", *args).code == 0
    assert {name for name, folder in folders.items() if folder.exists()} == left


@pytest.mark.parametrize(("args", "words"), [
    (["--kind", "runs"], ["--kind runs", "packs, downloads or scratch"]),
    (["--older-than", "soon"], ["--older-than soon", "30d"]), (["--older-than", "30"], ["--older-than 30", "30d"])])
def test_an_option_that_cannot_be_names_itself_and_what_can(args, words):
    done = run("cache", "clean", "--yes", *args)
    assert done.code == 1 and all(word in done.err for word in words)


def test_a_name_that_nothing_has_is_refused_with_the_known_ones():
    folders = [pack("sprites"), pack("faces")]
    done = run("cache", "clean", "--yes", "--name", "sprite")
    assert done.code == 1 and "--name sprite" in done.err and "faces, sprites" in done.err
    assert all(folder.is_dir() for folder in folders)


def test_what_cannot_be_removed_is_said():
    left = cache_root() / "packs" / f".key.{'0' * 12}.partial"
    left.mkdir(parents=True)
    done = run("cache", "clean", "--yes")
    assert done.code == 0 and f"kept {left}: it may be in the making" in done.out and "removed 0 entries" in done.out


def test_help_says_what_each_flag_means():
    for command in ([], ["fetch"], ["cache"], ["cache", "list"], ["cache", "clean"]):
        done = run(*command, "--help")
        assert done.code == 0 and "Usage" in done.out
