"""`ganvas compare`."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

FAST = ("--n", 20, "--repeats", 2)


def lr_of(run):
    return yaml.safe_load((Path(run) / "config.yaml").read_text(encoding="utf-8"))["train"]["lr"]


def test_runs_are_put_beside_each_other_and_seeds_are_taken_together(finished, cli, again, monkeypatch):
    assert again("--steps", 12, "--out", "runs/seed", "--seed", 5).code == 0
    assert again("--steps", 12, "--out", "runs/fast", "--lr", 0.01).code == 0
    done = cli("compare", "runs/images", "runs/fast", "runs/seed", *FAST)
    assert done.code == 0, done.err
    told = [line for line in done.out.splitlines() if line.startswith("evaluating")]
    assert told == ["evaluating runs/images", "evaluating runs/fast", "evaluating runs/seed"]
    first, second, _, head, fid, kid, *rest = done.out.split("evaluating runs/seed\n")[1].splitlines()
    assert (first, second) == (f"A: train.lr {lr_of('runs/images')} (2 seeds)", "B: train.lr 0.01")
    assert head.split() == ["A", "B", "reals", "get"] and fid.startswith("FID ") and kid.startswith("KID ")
    assert len({len(line) for line in (head, fid, kid)}) == 1
    sayings = rest[rest.index("") + 1:]
    assert rest[rest.index("") - 1].startswith("copies ")
    assert sayings[-1].startswith("training luck not included")

    monkeypatch.setattr("ganvas.judging.evaluate_run", None)          # everything is known by now
    machine = cli("compare", "runs/images", "runs/fast", "runs/seed", "--json")
    found = json.loads(machine.out)
    assert machine.err == "" and found["version"] == 1
    assert [group["runs"] for group in found["groups"]] == [["runs/images", "runs/seed"], ["runs/fast"]]
    assert found["groups"][1]["cells"]["kid"].keys() == {"value", "low", "high", "floor", "by_seed"}
    alone = cli("compare", "runs/images", "runs/seed")
    assert alone.code == 0 and "these runs differ in their seed only: what separates the 2 is training luck" in alone.out


def test_again_evaluates_what_is_known(finished, cli):
    shutil.copytree("runs/images", "runs/copy")
    assert cli("compare", "runs/images", "runs/copy", *FAST).code == 0
    known = cli("compare", "runs/images", "runs/copy", *FAST).out
    assert "evaluating" not in known and "seeds" not in known.splitlines()[0]           # one seed, twice
    done = cli("compare", "runs/images", "runs/copy", *FAST, "--again", "--json")
    assert done.err.count("evaluating") == 2 and json.loads(done.out)["groups"]


def test_other_images_are_refused(finished, cli, again):
    shutil.copytree("images", "fewer")
    Path("fewer/000.png").unlink()
    assert again("--steps", 1, source="fewer").code == 0
    done = cli("compare", "runs/images", "runs/fewer", *FAST)
    assert done.code == 1 and "runs/images and runs/fewer were measured against different images" in done.err
    assert not Path("runs/images/evaluation.json").exists()


@pytest.mark.parametrize(("args", "code", "words"), [
    ((), 2, "RUN"), (("runs/images",), 1, "runs/images is a single run"), (("runs/images", "nowhere"), 1, "nowhere: no such run"),
    (("runs/images", "images"), 1, "images: not a run folder"), (("runs/images", "x", "--checkpoint", 80), 1, "best or last"),
    (("runs/images", "x", "--n", 0), 1, "--n 0: at least 3"), (("runs/images", "x", "--split", "any"), 1, "--split any"),
])
def test_a_message_names_what_was_given(finished, cli, args, code, words):
    done = cli("compare", *args)
    assert done.code == code and words in done.err and "Traceback" not in done.err
