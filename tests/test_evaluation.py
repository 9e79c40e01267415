"""Images judged through the whole pipeline: what they are like, how sure that is, and whether they copy."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ganvas
from ganvas.errors import ConfigError, DataError, GanvasError, RunError
from ganvas.evaluation import Options, read_evaluation
from ganvas.metrics.feature_cache import _check, load_features
from ganvas.metrics.features import Extractor, Features
from ganvas.run_folder import RunFolder
from makers import Heard

FAST = {"n": 20, "repeats": 2}


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def pictures(n, seed, side=16, channels=3):
    """(n, side, side, channels) uint8: smooth random fields, no two of them alike."""
    rng = np.random.Generator(np.random.Philox(seed))
    coarse = rng.integers(0, 256, (n, 5, 5, channels), np.uint8)
    return np.stack([np.asarray(Image.fromarray(image.squeeze()).resize((side, side), Image.Resampling.BICUBIC))
                     .reshape(side, side, channels) for image in coarse])


def saved(path, images):
    """`path`: .npz, .npy, .zip, or a folder of PNGs."""
    path = Path(path)
    if path.suffix == ".npz":
        np.savez(path, images=images)
    elif path.suffix == ".npy":
        np.save(path, images)
    elif path.suffix == ".zip":
        shutil.make_archive(path.stem, "zip", saved(path.with_suffix(""), images))
    else:
        path.mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image.squeeze()).save(path / f"{number:03d}.png")
    return path


def of_kinds(n, seed, kinds=6):
    """(n, 16, 16, 3) uint8: variations of so many of six pictures."""
    mixed = 0.85 * pictures(6, 77)[np.arange(n) % kinds] + 0.15 * pictures(n, seed)
    return mixed.round().astype(np.uint8)


@pytest.fixture(scope="module")
def _reals(tmp_path_factory):
    home = tmp_path_factory.mktemp("reals")
    return saved(home / "reals", pictures(120, 1)), home / "cache"


@pytest.fixture
def reals(_reals, monkeypatch):
    """A folder `reals` of 120 pictures, decoded for all tests that only read it."""
    folder, cache = _reals
    monkeypatch.setenv("GANVAS_CACHE", str(cache))
    return Path(shutil.copytree(folder, "reals"))


def judged(samples, source="reals", **options):
    return ganvas.evaluate(samples=samples, source=source, **(FAST | options))


def shown(found):
    """Everything measured, without when."""
    return {name: value for name, value in found.as_dict().items() if name not in ("made_at", "subject")}


def test_a_folder_that_replays_training_images_is_a_copier_and_other_reals_are_not(reals):
    replay = np.concatenate([pictures(120, 1)[:30], pictures(120, 1)[30:60, :, ::-1]])          # half of them mirrored
    copier = judged(saved("replay", replay), sheet="sheet.png", n=30)
    assert copier.copies.verdict == "copier" and copier.copies.rate == 1.0 and copier.copies.over_limit
    assert {pair.mirrored for pair in copier.copies.pairs} == {False, True}
    assert copier.copies.pairs[0].name.endswith(".png") and copier.value("copies") == 1.0
    assert Image.open("sheet.png").width > 32

    others = judged(saved("others", pictures(60, 2)), n=30)
    assert others.copies.verdict == "none" and "no sign of copying" in others.copies.text
    assert others.copies.rate < 0.1 and not others.copies.over_limit
    assert others.value("recall") > 0.8 and others.value("kid") < others.figures[1].floor_high + 3 * others.figures[1].error


def test_samples_of_half_of_the_kinds_lose_recall_and_coverage_and_keep_precision():
    found = judged(saved("half.npz", of_kinds(90, 2, kinds=3)), saved("r.npz", of_kinds(120, 1)), n=45)
    low = {figure.metric: figure.floor_low for figure in found.figures}
    assert found.value("recall") < low["recall"] - 0.2 and found.value("coverage") < low["coverage"] - 0.2
    assert found.value("precision") > 0.85 and found.value("diversity") < low["diversity"]
    assert found.copies.verdict == "none"


def test_noise_in_samples_costs_precision():
    noise = np.random.Generator(np.random.Philox(3)).normal(0, 60, (90, 16, 16, 3))
    noisy = np.clip(of_kinds(90, 2) + noise, 0, 255).astype(np.uint8)
    found = {figure.metric: figure for figure in judged(saved("s.npz", noisy), saved("r.npz", of_kinds(120, 1)), n=45).figures}
    for metric in ("precision", "density"):
        assert found[metric].high < found[metric].floor_low - 0.3
    assert found["kid"].low > found["kid"].floor_high


def test_the_same_samples_in_any_wrapping_give_the_same_figures(reals):
    images = pictures(40, 2)
    found = [judged(saved(name, images)) for name in ("folder", "all.npz", "all.zip")]
    np.save("first.npy", images.transpose(0, 3, 1, 2))
    found.append(judged("first.npy"))
    assert all(shown(other) == shown(found[0]) for other in found[1:])
    assert found[0].notes == ()
    assert judged("all.npz", seed=1).value("kid") != found[0].value("kid")


def test_samples_of_another_size_are_compared_at_their_own_which_is_said(reals):
    watch = Heard()
    found = judged(saved("small", pictures(40, 2, side=12)), watch=watch)
    assert "compared as 12x12, 3 channels" in watch.lines
    assert found.notes[0].startswith("compared as 12x12, 3 channels: 0 of 40 samples and 120 of 120 real images were brought")
    assert found.value("recall") > 0.8                                 # an 11 % blur on one side alone would show


def test_samples_of_mixed_sizes_are_brought_to_the_commonest(reals):
    folder = saved("mixed", pictures(30, 2))
    for number, image in enumerate(pictures(10, 3, side=20)):
        Image.fromarray(image).save(folder / f"large{number}.png")
    assert judged(folder).notes[0].startswith("compared as 16x16, 3 channels: 10 of 40 samples and 0 of 120 real images")


def test_grey_samples_are_compared_with_grey_reals_and_the_other_way_round(reals):
    grey = saved("grey", pictures(40, 2, channels=1))
    found = judged(grey)
    assert found.notes[0].startswith("compared as 16x16, 1 channel: 0 of 40 samples and 120 of 120 real images")
    kid = judged(saved("colour.npz", pictures(40, 2)), grey).figures[1]
    assert kid.low > kid.floor_high


def test_transparent_samples_keep_their_transparency(reals):
    images = np.concatenate([pictures(40, 2), np.full((40, 16, 16, 1), 255, np.uint8)], axis=3)
    images[:, :5, :, 3] = 0
    watch = Heard()
    found = judged(saved("clear", images), watch=watch)
    assert "compared as 16x16, 4 channels" in watch.lines
    assert found.value("precision") < 0.5                              # the reals have no white band on top


@pytest.mark.parametrize(("samples", "reals", "n", "words"), [
    (3, 120, 3, ["figures of 3 samples show no more than coarse faults", "3 samples are fewer than the 20 wanted",
                 "3 samples are too few for 2 sets"]),
    (30, 120, 20, ["30 samples are too few for 2 sets of their own: the sets share samples"]),
    (40, 25, 12, ["25 reals (train) make halves of 12, fewer than the 20 asked for"]),
])
def test_what_is_lower_than_asked_for_is_said(samples, reals, n, words):
    found = judged(saved("s.npz", pictures(samples, 2)), saved("r.npz", pictures(reals, 1)))
    assert {figure.n for figure in found.figures} == {n}
    assert len(found.notes) == len(words) and all(word in note for word, note in zip(words, found.notes, strict=True))
    json.dumps(found.as_dict(), allow_nan=False)


def test_too_few_images_to_measure_are_refused_with_their_number(reals):
    with pytest.raises(DataError, match="2 samples are too few"):
        judged(saved("two.npz", pictures(2, 2)))
    with pytest.raises(DataError, match=r"5 real images \(train\) are too few"):
        judged(saved("s.npz", pictures(40, 2)), saved("five.npz", pictures(5, 1)))
    with pytest.raises(DataError, match=r"7 real images \(holdout\) are too few.*--split train"):
        judged("s.npz", split="holdout", holdout=7)


def test_unreadable_samples_stop_it_unless_they_are_to_be_skipped_which_is_said(reals):
    folder = saved("s", pictures(40, 2))
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, but no more")
    with pytest.raises(DataError, match=r"broken.png"):
        judged(folder)
    assert "1 of the samples cannot be read and were left out" in judged(folder, skip_bad=True).notes


def test_a_holdout_calibrates_the_look_for_copies_and_can_be_measured_against():
    saved("many.npz", pictures(640, 1))
    found = judged(saved("s.npz", pictures(40, 2)), "many.npz", holdout=120, split="holdout")
    assert {figure.reals for figure in found.figures} == {120} and {figure.split for figure in found.figures} == {"holdout"}
    copies = found.as_dict()["copies"]
    assert copies["train"] == 520 and copies["calibration"] == {
        "holdout": "120 held-out reals", "train": "520 training images, each among the others"}[found.copies.calibrated_by]
    assert {figure.reals for figure in judged("s.npz", "many.npz", holdout=120, split="all").figures} == {640}


def test_a_holdout_that_is_not_there_is_refused_before_anything_slow(reals, monkeypatch):
    monkeypatch.setattr("ganvas.evaluation.make_extractor", None)
    with pytest.raises(DataError, match=r"--split holdout: no images are held out.*--split train"):
        judged(saved("s.npz", pictures(40, 2)), split="holdout")


def test_kept_features_that_are_damaged_are_said_and_computed_again(tmp_path):
    saved("reals", pictures(60, 1))
    samples, watch = saved("s.npz", pictures(40, 2)), Heard()
    before = judged(samples)
    [kept] = (tmp_path / "ganvas-cache").rglob("features-*.npz")
    content = kept.read_bytes()
    for place in (len(content) // 2, len(content) - 10):
        kept.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1:])
        watch.lines.clear()
        assert shown(judged(samples, watch=watch)) == shown(before)
        assert any(str(kept) in line and "computed again" in line for line in watch.lines), place
        assert kept.read_bytes() == content
    kept.write_bytes(content[:100])
    assert shown(judged(samples)) == shown(before)


def test_saved_features_stand_for_the_reals(reals):
    samples = saved("s.npz", pictures(60, 2))
    direct = judged(samples, save_features="deep/ref.npz")
    given = ganvas.evaluate(samples=samples, reference="deep/ref.npz", **FAST)
    for metric in ("fid", "kid", "precision", "recall", "density", "coverage"):
        assert given.value(metric) == direct.value(metric)
    assert given.source == "reals" and given.copies is None and given.value("copies") is None
    assert "copies are not looked for" in given.notes[-1] and given.as_dict()["copies"] is None
    assert load_features(Path("deep/ref.npz")).extractor == "random"


def test_samples_are_drawn_from_all_there_are_not_only_the_first_against_saved_features_too(reals):
    judged(saved("s.npz", pictures(40, 2)), save_features="ref.npz")
    dark_first = np.concatenate([pictures(40, 3) // 8, pictures(160, 4)])
    found = ganvas.evaluate(samples=saved("sorted.npz", dark_first), reference="ref.npz", **FAST)
    assert found.value("precision") > 0.5 and len(found.notes) == 1
    few = ganvas.evaluate(samples=saved("few.npz", pictures(10, 2)), reference="ref.npz", **FAST)
    assert few.notes[0].startswith("10 samples are fewer than the 20 wanted") and few.as_dict()["split"] == "all"


def test_a_reference_of_a_user_s_own_function_is_used_with_that_function(reals):
    Path("lib").mkdir()
    Path("lib/f.py").write_text("def f(x):\n    return x.float().mean((2, 3)) / 128\n")
    samples = saved("s.npz", pictures(40, 2))
    direct = judged(samples, extractor="lib/f.py:f", save_features="ref.npz")
    given = ganvas.evaluate(samples=samples, reference="ref.npz", extractor="lib/f.py:f", **FAST)
    assert given.value("kid") == direct.value("kid") and given.extractor == "f.py:f"
    with pytest.raises(DataError, match=r"ref.npz: .*f.py:f, but random is in use"):
        ganvas.evaluate(samples=samples, reference="ref.npz", extractor="random", **FAST)
    with pytest.raises(ConfigError, match=r"ref.npz: names the extractor 'f.py:f'.*--extractor FILE.py:FUNCTION"):
        ganvas.evaluate(samples=samples, reference="ref.npz", **FAST)
    Path("lib/f.py").write_text("def f(x):\n    return x.float().mean((2, 3)) / 64\n")
    with pytest.raises(DataError, match=r"ref.npz: .*other weights"):
        ganvas.evaluate(samples=samples, reference="ref.npz", extractor="lib/f.py:f", **FAST)


@pytest.mark.parametrize("name", ["{here}/evil.py:f", "evil.py:f", "inception:{here}/evil.pth", "auto", "", "x" * 5000])
def test_a_reference_cannot_make_it_run_code_or_read_files(reals, name):
    here = Path.cwd()
    Path("evil.py").write_text(f"open({str(here / 'ran')!r}, 'w')\ndef f(x):\n    return x.float().mean((2, 3))\n")
    samples = saved("s.npz", pictures(40, 2))
    judged(samples, save_features="ref.npz")
    with np.load("ref.npz") as archive:
        arrays = dict(archive)
    arrays["about"] = np.array(json.dumps(json.loads(str(arrays["about"])) | {"extractor": name.format(here=here)}))
    np.savez("ref.npz", **arrays)
    with pytest.raises(ConfigError, match=r"ref.npz: names the extractor .*name it yourself") as caught:
        ganvas.evaluate(samples=samples, reference="ref.npz", **FAST)
    assert not Path("ran").exists() and len(str(caught.value)) < 1000


@pytest.mark.parametrize("vectors", [np.ones(60, np.float32), np.full((60, 4), "a"), np.array(1.0, np.float32),
                                     np.ones((60, 4)), np.ones((60, 0), np.float32)])
def test_a_reference_of_no_table_of_numbers_is_refused(reals, vectors):
    samples = saved("s.npz", pictures(40, 2))
    judged(samples, save_features="ref.npz")
    with np.load("ref.npz") as archive:
        about = json.loads(str(archive["about"]))
    about |= {"check": _check({"vectors": vectors}), "n": 60}
    np.savez("ref.npz", vectors=vectors, about=np.array(json.dumps(about)))
    with pytest.raises(DataError, match=r"ref.npz: cannot be used as features \(its vectors are"):
        ganvas.evaluate(samples=samples, reference="ref.npz", **FAST)


@pytest.mark.parametrize(("body", "words"), [
    ("return x.float().mean((2, 3)) * float('nan')", "f.py:f: features of 2 of 2 images hold NaN"),
    ("m = x.float().mean((2, 3)); return m / (m > 0)", "f.py:f: features of 20 of 40 images hold NaN"),
    ("return x.float().mean()", r"f.py:f: gave features of shape \(\)"),
    ("return x.float().mean((2, 3))[:1]", r"f.py:f: gave features of shape \(1, 3\)"),
    ("return None", "f.py:f: gave nothing"),
    ("raise ValueError('oops')", "f.py:f: failed on images.*ValueError: oops"),
    ("return x.float().mean((2, 3)) * 0", "all 120 real images .train. are the same"),
    ("return x.float().mean((2, 3)) * 1e30", "Scale them"),
])
def test_a_user_s_function_that_gives_no_features_is_named(reals, body, words):
    Path("f.py").write_text(f"def f(x):\n    {body}\n")
    images = np.concatenate([pictures(20, 2), np.zeros((20, 16, 16, 3), np.uint8)])
    with pytest.raises(GanvasError, match=words):
        judged(saved("s.npz", images), extractor="f.py:f")


@pytest.mark.parametrize(("extractor", "words"), [
    ("nowhere.py:f", "no file nowhere.py"), ("f.py:g", r"f.py: there is no function 'g' in it. It has: f"),
    ("broken.py:f", "broken.py: cannot be run .SyntaxError"), ("inceptoin", "Did you mean inception"),
    ("inception:none.pth", "none.pth: does not exist"), ("inception:broken.py", "broken.py: is not a file of plain weights"),
    ("classifier", "these images have none. Train or read them with --labels"),
])
def test_an_extractor_that_is_not_there_is_named(reals, extractor, words):
    Path("f.py").write_text("def f(x):\n    return x\n")
    Path("broken.py").write_text("def f(x:\n")
    if extractor.startswith("inception:"):
        pytest.importorskip("torch_fidelity")
    with pytest.raises(GanvasError, match=words):
        judged(saved("s.npz", pictures(40, 2)), extractor=extractor)


def test_inception_without_its_weights_and_without_a_network_names_the_alternatives(reals, monkeypatch):
    pytest.importorskip("torch_fidelity")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("ganvas.data.fetch.FIRST_WAIT_SEC", 0.001)
    monkeypatch.setattr("ganvas.metrics.extractor_inception.MIRRORS", ("http://127.0.0.1:9/",))        # nobody listens there
    with pytest.raises(DataError, match=r"weights-inception.*by hand.*inception:PATH.*random.*classifier.*FILE.py:"):
        judged(saved("s.npz", pictures(40, 2)), extractor="inception")


def test_features_of_the_classifier_are_not_given_to_others(monkeypatch):
    monkeypatch.setattr("ganvas.metrics.extractor_classifier._LEAST_STEPS", 30)
    monkeypatch.setattr("ganvas.metrics.extractor_classifier._MOST_PASSES", 1)
    dark, light = pictures(30, 1) // 4, 255 - pictures(30, 2) // 4
    np.savez("labelled.npz", images=np.concatenate([dark, light]), labels=np.arange(60) // 30)
    samples = saved("s.npz", np.concatenate([pictures(20, 3) // 4, 255 - pictures(20, 4) // 4]))
    found = judged(samples, "labelled.npz")
    assert found.extractor == "classifier" and found.value("modes") == 2
    with pytest.raises(ConfigError, match=r"--save-features ref.npz: features of the classifier.*--extractor random"):
        judged(samples, "labelled.npz", save_features="ref.npz")


class Knowing(Extractor):
    """Stands for a classifier of dark and light images. It knows those that it was trained on, and errs in other dark ones."""

    name, dim, key, preprocessing, classes, accuracy = "classifier", 4, "k" * 32, "none", ("0", "1"), 0.75

    def __init__(self, images, unseen):
        """images: the training images, read by position; unseen: the positions of those it was not trained on."""
        self.unseen = unseen
        self._known = {image.tobytes() for image in images.read(np.setdiff1d(np.arange(len(images)), unseen))}

    def __call__(self, images):
        colours = images.mean(axis=(2, 3)) / 255
        known = np.array([image.tobytes() in self._known for image in images])
        dark = (colours.mean(axis=1) < 0.5) & (known | (images[:, 0, 3, 3] % 2 == 0))
        vectors = np.concatenate([colours, known[:, None]], axis=1).astype(np.float32)
        return Features(vectors, np.stack([dark, ~dark], axis=1) * np.float32(0.8) + np.float32(0.1))


def shades(n, seed):
    """(n, 16, 16, 3) uint8: dark ones, then as many light ones."""
    return np.concatenate([pictures(n // 2, seed) // 4, 255 - pictures(n // 2, seed + 1) // 4])


@pytest.fixture
def knowing(monkeypatch):
    """Makes the classifier one that has not seen every second image, and 400 dark and light images with labels."""
    monkeypatch.setattr("ganvas.evaluation.LEAST_UNSEEN", 200)
    share = {"unseen": 2}
    monkeypatch.setattr("ganvas.evaluation.make_extractor", lambda name, *, images, **more:
                        Knowing(images, np.arange(0, len(images), share["unseen"])))
    np.savez("labelled.npz", images=shades(480, 1), labels=np.arange(480) // 240)
    saved("fresh.npz", shades(240, 5))
    return share


def test_what_a_trained_extractor_has_not_seen_is_the_reference_so_that_new_reals_get_the_floor(knowing):
    found = judged("fresh.npz", "labelled.npz", n=80, repeats=3)
    shown = {figure.metric: figure for figure in found.figures}
    assert {figure.reals for figure in found.figures} == {240}
    assert "was trained on 240 of these reals, and is right for 75.0% of those kept from it: figures are against the 240" in \
        found.notes[0]
    assert shown["fid"].low <= shown["fid"].floor_high and shown["kid"].value < shown["kid"].floor_high + 3 * shown["kid"].error
    assert shown["mode_kl"].value < 2 * shown["mode_kl"].floor_high and "right for 75.0%" in shown["modes"].note


def test_too_few_unseen_images_are_not_measured_against_alone_and_that_is_said(knowing):
    knowing["unseen"] = 4
    found = judged("fresh.npz", "labelled.npz", n=80, repeats=3)
    shown = {figure.metric: figure for figure in found.figures}
    assert {figure.reals for figure in found.figures} == {480}
    assert "75.0% of those kept from it: 120, too few to measure against alone" in found.notes[0]
    assert shown["fid"].low > shown["fid"].floor_high                  # why it is said


def test_held_out_images_are_unseen_ones(knowing):
    knowing["unseen"] = 4
    of_all = judged("fresh.npz", "labelled.npz", n=80, repeats=3, split="all", holdout=140)
    assert {figure.reals for figure in of_all.figures} == {85 + 140} and "against the 225 reals" in of_all.notes[0]
    held = judged("fresh.npz", "labelled.npz", n=60, repeats=3, split="holdout", holdout=140)
    assert {figure.reals for figure in held.figures} == {140} and not any("trained on" in note for note in held.notes)


def test_an_evaluation_says_which_extractor_it_is_of(reals):
    saved("s.npz", pictures(40, 2))
    Path("f.py").write_text("def f(x):\n    return x.float().mean((2, 3)) / 128\n")
    keys = [judged("s.npz", extractor=name).as_dict()["extractor_key"] for name in ("random", "f.py:f", "f.py:f")]
    assert len(keys[0]) == 32 and keys[0] != keys[1] == keys[2]


def test_a_sheet_that_cannot_be_written_is_named(reals):
    Path("file").touch()
    with pytest.raises(RunError, match=r"file/sheet.png: cannot be written"):
        judged(saved("s.npz", pictures(40, 2)), sheet="file/sheet.png")


@pytest.mark.parametrize(("options", "words"), [
    ({"split": "test"}, "--split test: one of train, holdout, all"), ({"n": 2}, "--n 2: at least 3"),
    ({"repeats": 0}, "--repeats 0"), ({"seed": -1}, "--seed -1: at least 0"), ({"seed": 2**64}, f"--seed {2**64}: at most"),
])
def test_impossible_options_are_named(options, words):
    with pytest.raises(ConfigError, match=words):
        Options(**options).check()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"version": 1}', b'{"version": 2, "figures": [1]}'])
def test_a_kept_evaluation_that_is_damaged_or_of_another_version_is_none(tmp_path, content):
    folder = RunFolder(tmp_path)
    assert read_evaluation(folder) is None
    folder.evaluation.write_bytes(content)
    assert read_evaluation(folder) is None


def test_transparent_reals_are_put_on_the_background_that_opaque_samples_have():
    cut_out = pictures(60, 3, channels=4)
    cut_out[..., 3] = 0
    cut_out[:, 4:12, 4:12, 3] = 255
    saved("cut-out", cut_out)
    on_black = cut_out[:40, ..., :3].copy()
    on_black[cut_out[:40, ..., 3] == 0] = (10, 0, 20)
    heard = Heard()
    found = judged(saved("on-black", on_black), "cut-out", watch=heard)
    assert found.copies.verdict == "copier" and found.copies.rate == 1
    assert found.value("coverage") > 0.3
