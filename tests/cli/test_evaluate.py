"""`ganvas evaluate`: what a person reads, what a program reads, and with which code it ends."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganvas.evaluation import Evaluation, Options
from ganvas.metrics.figures import Figure
from ganvas.run_folder import RunFolder
from makers import image_folder

FAST = ("--n", 20, "--repeats", 2)


def strict(text):
    """`text` as JSON, which knows no NaN and no Infinity."""
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_run_is_evaluated_with_intervals_floors_copies_and_files(finished, cli):
    done = cli("evaluate", *FAST)                          # the newest run
    assert done.code == 0 and done.err == ""
    lines = done.out.splitlines()[1:]                      # after that the images are decoded
    assert lines[0] == "runs/images, last checkpoint at 80 images, against images (train)"
    assert lines[2].split() == ["value", "interval", "reals", "get", "n", "better"]
    names = ["FID", "KID", "precision", "recall", "density", "coverage", "diversity", "similarity", "sliced Wasserstein"]
    assert [line[:20].strip() for line in lines[3:12]] == names
    assert all(len(line[20:].split()) >= 4 for line in lines[3:12])
    assert "Relative only" in done.out and "copies: cannot tell: " in done.out
    assert "note: 20 reals (train) make halves of 10, fewer than the 20 asked for" in done.out
    assert done.out.endswith("nearest real images: runs/images/neighbours.png\nreport:              runs/images/report.html\n")
    folder = RunFolder(finished[0])
    assert Image.open(folder.neighbours).width > 32 and folder.report.is_file()
    assert strict(folder.evaluation.read_text())["chosen"] == "last"


def test_json_is_alone_on_stdout_and_strict_and_has_a_version(finished, cli):
    done = cli("evaluate", "runs/images", *FAST, "--json", "--seed", 3)
    assert done.code == 0
    found = strict(done.out)
    assert found["version"] == 1 and (found["n"], found["repeats"], found["seed"], found["checkpoint"]) == (20, 2, 3, 80)
    assert {"metric", "value", "low", "high", "floor", "n", "split", "extractor", "preprocessing"} <= found["figures"][0].keys()
    assert found["copies"]["n"] == 20 and found["copies"]["train"] == 20 and found["data_fingerprint"]
    assert found == strict(Path("runs/images/evaluation.json").read_text())


def test_progress_goes_to_stderr_where_stdout_is_for_a_program(cli):
    image_folder(Path("reals"), n=40)
    image_folder(Path("samples"), n=20, seed=1)
    done = cli("evaluate", "--samples", "samples", "reals", *FAST, "--json")
    assert strict(done.out)["source"] == "reals" and strict(done.out)["subject"] == "samples"
    assert "compared as 24x24, 3 channels" in done.err and "decoding 40 images" in done.err


@pytest.mark.parametrize(("gates", "code", "words"), [
    (["kid>0"], 3, "--fail-if kid>0: kid is"), (["kid<0"], 0, ""), (["recall<0.5", "FID >= 5"], 3, "--fail-if fid>=5: fid is 5"),
    (["is>3"], 1, "there is no figure 'is' here. Measured were: fid, kid"), (["copies>0.1"], 1, "no figure 'copies' here"),
])
def test_a_gate_decides_the_exit_code_after_the_figures_are_shown(cli, monkeypatch, gates, code, words):
    figures = tuple(Figure(name, name, value, value, value, 0.0, 0.0, 0.0, None, "lower", 20, 20, "train", "random", "", True)
                    for name, value in (("fid", 5.0), ("kid", 0.1), ("recall", 0.7)))
    found = Evaluation("s", "r", 0, "", False, Options(), "random", "", figures, None, None, ())
    monkeypatch.setattr("ganvas.judging.evaluate", lambda *args, **options: found)
    done = cli("evaluate", "--samples", "s", "r", "--json", *(part for gate in gates for part in ("--fail-if", gate)))
    assert done.code == code and words in done.err and (done.err == "") == (code == 0)
    assert len(strict(done.out)["figures"]) == 3 and "recall is" not in done.err


@pytest.mark.parametrize(("gate", "words"), [
    ("kdi>0.1", "no figure 'kdi'. Did you mean kid? Known: fid, kid"), ("kid", "write a figure, > or <, and a number"),
    ("kid=3", "--fail-if kid=3"),
])
def test_a_gate_that_makes_no_sense_is_refused_before_anything_is_done(cli, gate, words):
    done = cli("evaluate", "no-such-run", "--fail-if", gate)
    assert done.code == 1 and words in done.err and done.out == ""


def test_samples_are_judged_without_a_run_and_shown_beside_what_they_are_near_to(cli):
    reals = image_folder(Path("reals"), n=40)
    shutil.copytree(reals, "replay")
    done = cli("evaluate", "--samples", "replay", "reals", *FAST, "--sheet", "deep/near.png")
    assert done.code == 0 and "report:" not in done.out
    assert done.out.endswith("nearest real images: deep/near.png\n") and Image.open("deep/near.png").width > 48
    assert not Path("runs").exists()


def test_saved_features_are_enough_without_the_images(cli):
    image_folder(Path("reals"), n=40)
    image_folder(Path("samples"), n=40, seed=1)
    first = cli("evaluate", "--samples", "samples", "reals", *FAST, "--save-features", "ref.npz", "--json")
    shutil.rmtree("reals")
    done = cli("evaluate", "--samples", "samples", "--reference", "ref.npz", *FAST, "--json")
    assert done.code == 0, done.err
    found, before = strict(done.out), strict(first.out)
    assert found["figures"][:6] == [figure | {"split": "all"} for figure in before["figures"][:6]] and found["copies"] is None
    table = cli("evaluate", "--samples", "samples", "--reference", "ref.npz", *FAST)
    assert table.code == 0 and "copies are not looked for" in table.out and "against reals (all)" in table.out


def test_damaged_features_are_told_on_stderr_and_change_nothing(finished, cli, tmp_path):
    before = strict(cli("evaluate", *FAST, "--json").out)
    [kept] = (tmp_path / "ganvas-cache").rglob("features-*.npz")
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 0xFF
    kept.write_bytes(content)
    done = cli("evaluate", *FAST, "--json")
    assert strict(done.out)["figures"] == before["figures"]
    assert f"{kept}: these kept features are not used" in done.err and "computed again" in done.err


MESSAGES = {
    "empty folder": (("--samples", "empty", "images"), "empty: no images"),
    "text file": (("--samples", "text.txt", "images"), "text.txt: is no kind of file that holds images here"),
    "no such samples": (("--samples", "imagse", "images"), "imagse: does not exist. Did you mean images"),
    "no such source": (("--samples", "images", "imagse"), "imagse: does not exist. Did you mean images"),
    "no source": (("--samples", "images"), "`ganvas evaluate --samples images SOURCE`"),
    "float array": (("--samples", "floats.npy", "images"), "float64 values from 0 to 1, but images are uint8"),
    "sheet of another kind": (("--samples", "images", "images", "--sheet", "s.jpg"), "--sheet s.jpg: pictures are PNG files"),
    "data with samples": (("--samples", "images", "--data", "images"), "--data images: is for runs"),
    "checkpoint with samples": (("--samples", "images", "images", "--checkpoint", 3), "--checkpoint 3: is for runs"),
    "sheet of a run": (("runs/images", "--sheet", "s.png"), "a run has its own neighbours.png"),
    "no reference": (("--samples", "images", "--reference", "r.npz"), "r.npz: does not exist"),
    "wrong reference": (("--samples", "images", "--reference", "images.npz"), "images.npz: cannot be used as features"),
    "reference for a run": (("runs/images", "--reference", "r.npz"), "--reference r.npz: goes with --samples"),
    "no run": (("nowhere",), "nowhere: no such run folder. Runs nearby: runs/images"),
    "no checkpoint": (("--checkpoint", 7), "has no checkpoint '7'. It has: best, last, 40, 60, 80"),
    "a run's images are read as they were": (("--size", 32), "size cannot change"),
    "no hold-out": (("--split", "holdout"), "--split holdout: no images are held out"),
    "no such split": (("--split", "test"), "--split test: one of train, holdout, all"),
    "too small n": (("--n", 2), "--n 2: at least 3"),
    "too large a seed": (("--seed", 2**64), f"--seed {2**64}: at most"),
    "no such extractor": (("--extractor", "randm"), "'randm': no such extractor. Did you mean random?"),
    "no labels": (("--extractor", "classifier"), "learns from labels, and these images have none"),
    "no such file": (("--extractor", "none.py:f"), "there is no file none.py"),
    "no such function": (("--extractor", "own.py:g"), "there is no function 'g' in it. It has: f"),
    "NaN": (("--extractor", "own.py:f"), "own.py:f: features of 2 of 2 images hold NaN or infinity"),
    "no such device": (("--device", "cuda:99"), "--device cuda:99: not available here"),
    "features nowhere to write": (("--save-features", "text.txt/f.npz"), "text.txt/f.npz: the features cannot be written"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_names_what_was_given(finished, cli, name):
    Path("empty").mkdir()
    Path("text.txt").write_text("no picture")
    Path("own.py").write_text("def f(x):\n    return x.float().mean((2, 3)) * float('nan')\n")
    np.save("floats.npy", np.linspace(0, 1, 48).reshape(1, 4, 4, 3))
    np.savez("images.npz", images=np.zeros((20, 16, 16, 3), np.uint8))
    args, words = MESSAGES[name]
    done = cli("evaluate", *args, *(() if "--n" in args else FAST))
    assert done.code == 1, done.err
    assert done.err.startswith("ganvas: ") and words in done.err and "Traceback" not in done.err


def test_inception_offline_names_the_alternatives(finished, cli, monkeypatch):
    pytest.importorskip("torch_fidelity")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("ganvas.data.fetch.FIRST_WAIT_SEC", 0.001)
    monkeypatch.setattr("ganvas.metrics.extractor_inception.MIRRORS", ("http://127.0.0.1:9/",))        # nobody listens there
    done = cli("evaluate", "--extractor", "inception", *FAST)
    assert done.code == 1
    for way in ("'random'", "'classifier'", "inception:PATH", "FILE.py:FUNCTION"):
        assert way in done.err


def test_inception_without_its_package_says_how_to_get_it(finished, cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    done = cli("evaluate", "--extractor", "inception", *FAST)
    assert done.code == 1 and 'pip install "ganvas[inception]"' in done.err and "'random'" in done.err


def test_images_that_moved_can_be_named(finished, cli):
    shutil.move("images", "moved")
    done = cli("evaluate", *FAST)
    assert done.code == 1 and "`ganvas evaluate runs/images --data SOURCE`" in done.err
    done = cli("evaluate", "--data", "moved", *FAST)
    assert done.code == 0 and "against moved (train)" in done.out


def test_images_that_changed_are_refused(finished, cli):
    shutil.copy("images/000.png", "images/more.png")
    done = cli("evaluate", *FAST)
    assert done.code == 1 and "images: is not what runs/images was trained on: 1 added (images/more.png)" in done.err
    assert not Path("runs/images/evaluation.json").exists()
