import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from torch import no_grad

from ganvas.checkpoint import read_checkpoint, write_checkpoint
from ganvas.generator import load_discriminator
from ganvas.ops.pixels import to_float
from ganvas.run_folder import RunFolder


def trained_by(loss):
    """Has the checkpoints of runs/images say so."""
    for _, path in RunFolder(Path("runs/images")).list_checkpoints():
        tensors, meta = read_checkpoint(path)
        meta["config"]["train"]["loss"] = loss
        write_checkpoint(path, tensors, meta)


def test_reals_and_samples_get_a_probability_each(finished, cli):
    trained_by("nonsaturating")
    cli("sample", "--n", 2, "--dir", "made")
    done = cli("score", "images", "made/0-00000.png", "made")
    lines = [line.split() for line in done.out.splitlines()[1:]]
    assert done.code == 0
    assert done.out.startswith("runs/images: the discriminator's probability that an image is real")
    assert [name for _, name in lines] == [f"images/{i:03d}.png" for i in range(20)] + [
        "made/0-00000.png", "made/0-00000.png", "made/0-00001.png"]
    assert all(0 <= float(probability) <= 1 for probability, _ in lines)
    assert lines[20][0] == lines[21][0]


@pytest.mark.parametrize("loss", ["relativistic", "wasserstein", "hinge", "least_squares"])
def test_under_a_loss_without_probabilities_each_image_gets_a_logit(finished, cli, loss):
    trained_by(loss)
    done = cli("score", "images")
    assert done.out.startswith("runs/images: the discriminator's logit: larger looks more real, and only differences mean")
    assert "probability" not in done.out
    scores = json.loads(cli("score", "images", "--json").out)["scores"]
    shown = [float(line.split()[0]) for line in done.out.splitlines()[1:]]
    assert shown == pytest.approx([score["logit"] for score in scores], abs=1e-3)
    assert {score["real"] for score in scores} == {None}


@pytest.mark.parametrize("loss", ["nonsaturating", "relativistic"])
def test_a_sample_scores_what_the_discriminator_says_of_it(finished, cli, loss):
    import torch

    trained_by(loss)
    cli("sample", "--n", 3, "--npz", "made.npz")
    D, _, _ = load_discriminator(RunFolder(finished[0]))
    with np.load("made.npz") as arrays, no_grad():
        wanted = D(to_float(torch.from_numpy(arrays["images"].transpose(0, 3, 1, 2).copy()))).flatten()
    scores = json.loads(cli("score", "runs/images", "made.npz", "--json").out)["scores"]
    assert [score["logit"] for score in scores] == pytest.approx(wanted.tolist(), abs=1e-6)
    if loss == "nonsaturating":
        assert [score["real"] for score in scores] == pytest.approx(wanted.sigmoid().tolist(), abs=1e-6)


def test_json_names_version_run_and_each_image(finished, cli):
    answer = json.loads(cli("score", "images/003.png", "images/001.png", "--json").out)
    assert (answer["version"], answer["run"]) == (1, "runs/images")
    assert [score["image"] for score in answer["scores"]] == ["images/003.png", "images/001.png"]


def test_a_run_may_be_named_first_and_a_checkpoint_chosen(finished, cli):
    shutil.copytree("runs/images", "elsewhere")
    assert cli("score", "elsewhere", "images").out.startswith("elsewhere: ")
    then, now = (cli("score", "elsewhere", "images", "--checkpoint", name).out for name in ("40", "last"))
    assert then != now


@pytest.mark.parametrize(("args", "words"), [
    (["runs/images"], ["runs/images", "name the images"]),
    (["notes.txt"], ["notes.txt: cannot be read as an image"]),
    (["images", "bad"], ["bad/x.png: cannot be read as an image"]),
    (["empty"], ["empty: no images"]),
    (["images/nothing.png"], ["images/nothing.png: does not exist"]),
    (["images", "--checkpoint", "41"], ["'41'", "last, 40, 60, 80"]),
])
def test_what_cannot_be_scored_is_named(finished, cli, args, words):
    Path("notes.txt").write_text("hello")
    for folder in ("bad", "empty"):
        Path(folder).mkdir()
    Path("bad/x.png").write_text("hello")
    done = cli("score", *args)
    assert (done.code, done.out) == (1, "")
    assert all(word in done.err for word in words), done.err


def test_broken_files_are_named_and_can_be_left_out(cli, finished):
    Path("images/torn.png").write_bytes(b"")
    done = cli("score", "images")
    assert done.code == 1 and "images/torn.png" in done.err and "--skip-bad" in done.err
    done = cli("score", "images", "--skip-bad", "--json")
    assert done.code == 0, done.err
    assert "left out: images/torn.png: the file is empty" in done.err
    assert len(json.loads(done.out)["scores"]) == 20
