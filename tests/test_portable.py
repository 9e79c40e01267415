"""What works here works elsewhere: under spawn, in other terminals and locales, in awkward places, with files let go of."""

import gc
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ganvas
from commands import run_commands
from ganvas.app import inspect, save_samples
from ganvas.data import pack as pack_module
from ganvas.data.layout import Layout
from ganvas.data.pack import build_pack
from ganvas.data.sources import open_source
from ganvas.errors import RunError
from makers import image_folder

TINY = {"steps": 2, "size": 16, "batch": 8, "device": "cpu", "threads": 1, "holdout": 0, "mirror": "off",
        "settings": {"network.g_channels": 4, "network.d_channels": 4, "output.grid_n": 4}}
FLAGS = ("--steps", "1", "--size", "16", "--batch", "8", "--device", "cpu", "--threads", "1", "--mirror", "off",
         "--set", "network.g_channels=4", "--set", "network.d_channels=4", "--set", "output.grid_n=4")
STRANGE = "emoji 🐈 日本語 ünïcode"
LAYOUT = Layout(8, 8)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the files that are mapped")


@pytest.fixture(autouse=True)
def no_video(monkeypatch):
    """Encoding takes longer than all else in a tiny run."""
    monkeypatch.setattr("ganvas.report.animation.write_mp4", lambda path, frames: 0)


def test_a_script_without_a_main_guard_trains_under_spawn(tmp_path):
    image_folder(tmp_path / "images")
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(f"""
        import multiprocessing
        multiprocessing.set_start_method("spawn")  # a child would run this file again, and fail here
        import ganvas
        from ganvas.report import animation
        animation.write_mp4 = lambda path, frames: 0
        run = ganvas.train("images", **{TINY!r})
        print("ended:", run.end, run.nimg)
    """), encoding="utf-8")
    done = subprocess.run([sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("ended:") == 1
    assert done.stdout.endswith("ended: done 16\n")


@pytest.mark.parametrize(("encoding", "env"), [
    ("cp1252", {"PYTHONUTF8": "0"}),
    ("ascii", {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}),     # file names reach Python as bytes
], ids=["cp1252", "LC_ALL=C"])
def test_names_that_a_terminal_cannot_show_do_not_stop_a_command(tmp_path, encoding, env):
    images = image_folder(tmp_path / STRANGE, n=9)
    (images / "000.png").rename(images / "🐈.png")
    (images / "damaged 🐈.png").write_bytes(b"")
    (images / "ignored 🐈.txt").write_bytes(b"")
    source = images.name
    commands = [("data", "inspect", source), ("data", "inspect", source, "--json"), ("train", source, "--skip-bad", *FLAGS),
                ("train", source, *FLAGS, "--out", "other"), ("data", "cache", "list"), ("sample",)]
    if encoding == "cp1252":
        commands += [("presets",), ("doctor",)]
    done = dict(zip(commands, run_commands(tmp_path, *commands, encoding=encoding, **env).commands, strict=True))
    for command, (code, out, err) in done.items():
        assert code == (1 if "other" in command else 0), (command, err)
        assert out or code
    assert json.loads(done[commands[1]].out)["images"] == 9
    damaged = re.compile(r"damaged (\?|(\\udc..){4})\.png: the file is empty")
    assert damaged.search(done[commands[2]].out)
    assert damaged.search(done[commands[3]].err)
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "data.html").is_file()
    assert run.name == STRANGE or (encoding == "ascii" and run.name.startswith("emoji ____ "))


def test_source_run_and_cache_may_lie_in_long_paths_with_blanks_and_any_letters(tmp_path, monkeypatch):
    deep = Path(*[f"{STRANGE} 'quoted' {level}" for level in range(7)])
    source, out, cache = (tmp_path / what / deep for what in ("images", "runs", "cache"))
    assert min(len(str(path)) for path in (source, out, cache)) > 260
    monkeypatch.setenv("GANVAS_CACHE", str(cache))
    image_folder(source, n=24)
    run = ganvas.train(str(source), out=str(out), **TINY)
    assert (run.path, run.end, run.nimg) == (out, "done", 16)
    assert list((cache / "packs").iterdir())
    again = ganvas.train(str(source), out=str(out), **{**TINY, "steps": 3})
    assert again.nimg == 24
    save_samples(run.generator(), 3, seed=0, grid=str(out / "a grid.png"), folder=str(out / "single ones"))
    assert Image.open(out / "a grid.png").size[0] >= 16
    assert len(list((out / "single ones").iterdir())) == 3
    page = out / "the page 🐈.html"
    inspect(str(source), page=page, size=16)
    assert page.stat().st_size > 1000


def mapped(folder):
    """The files in `folder` that this process has mapped into memory."""
    gc.collect()
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return {Path(line.split(maxsplit=5)[5]).name for line in lines if str(folder) in line}


@linux_only
def test_a_closed_pack_has_let_go_of_its_files(tmp_path):
    pack = build_pack(open_source(image_folder(tmp_path / "images"), labels="none"), LAYOUT, cache_dir=tmp_path / "cache")
    kept = pack.read([1, 2])
    assert mapped(pack.path) == {"images.npy", "facts.npy", "thumbs.npy", "sums.npy", "names.jsonl"}
    pack.close()
    assert mapped(pack.path) == set()
    assert kept.shape == (2, 3, 8, 8)
    with pytest.raises(ValueError, match="closed"):
        pack.read([0])


@linux_only
@pytest.mark.parametrize("name", ["images.npy", "facts.npy", "thumbs.npy", "sums.npy", "names.jsonl", "manifest.json"])
@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_pack_is_let_go_of_before_it_is_replaced(tmp_path, monkeypatch, name, damage):
    source = open_source(image_folder(tmp_path / "images"))
    first = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    first.close()
    data = bytearray((first.path / name).read_bytes())
    data[-3] ^= 1
    (first.path / name).write_bytes(data if damage == "flipped" else data[:-3])
    remove, seen = pack_module.remove_folder, []

    def watched(path):
        seen.append(mapped(path))
        remove(path)

    monkeypatch.setattr(pack_module, "remove_folder", watched)
    assert build_pack(source, LAYOUT, cache_dir=tmp_path / "cache").replaced
    assert seen == [set()]


def test_a_source_that_changed_since_the_run_began_is_explained_by_name(tmp_path):
    images = image_folder(tmp_path / "images", n=24)

    def told(steps):
        with pytest.raises(RunError, match="is not what this run was trained on") as caught:
            ganvas.train(str(images), out=tmp_path / "run", **{**TINY, "steps": steps})
        return str(caught.value)

    assert ganvas.train(str(images), out=tmp_path / "run", **TINY).nimg == 16
    Image.fromarray(np.full((24, 24, 3), 77, np.uint8)).save(images / "new.png")
    assert "1 added (images/new.png)." in told(3)
    (images / "new.png").unlink()
    third = (images / "003.png").read_bytes()
    (images / "003.png").unlink()
    assert "1 removed (images/003.png)." in told(3)
    Image.fromarray(np.full((24, 24, 3), 78, np.uint8)).save(images / "003.png")
    message = told(3)
    assert "1 changed (images/003.png)." in message
    assert f"--out {tmp_path / 'run'}-2" in message
    (images / "003.png").write_bytes(third)
    assert ganvas.train(str(images), out=tmp_path / "run", **{**TINY, "steps": 3}).nimg == 24
