"""What a user can get wrong: each fault is told in one message that names it and the remedy, and leaves nothing in the way."""

import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganvas.presets import preset_names
from ganvas.run_folder import RunFolder
from makers import image_folder


def refused(done, *words):
    """Exit 1, and a message on stderr, not a traceback, that has these words."""
    assert done.code == 1
    assert done.err.startswith("ganvas: ")
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err
    return True


def nothing_left():
    return not Path("runs").exists()


def half(path: Path) -> bytes:
    return path.read_bytes()[:path.stat().st_size // 2]


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")


# ---------------------------------------------------------------- the source


def test_a_folder_that_is_not_there_is_named_with_what_may_be_meant(train, images):
    assert refused(train("imagse"), "imagse: does not exist", "Did you mean images?")
    assert refused(train("far/away"), "far/away: does not exist", "A source is")
    assert nothing_left()


def test_an_empty_folder_is_refused(train):
    Path("empty").mkdir()
    assert refused(train("empty"), "empty: no images", "Pass the folder that holds your images")
    assert nothing_left()


def test_a_folder_of_text_files_says_what_lies_there(train):
    Path("notes").mkdir()
    Path("notes/a.txt").write_text("a")
    assert refused(train("notes"), "notes: no images", "1 .txt")


def test_a_text_file_is_no_source(train):
    Path("notes.txt").write_text("hello")
    assert refused(train("notes.txt"), "notes.txt: is no kind of file", "A source is a folder of images")
    assert nothing_left()


def test_a_single_image_is_answered_with_its_folder(train, images):
    assert refused(train("images/000.png"), "images/000.png: is a single image", "Pass the folder")


@pytest.mark.parametrize(("name", "content", "reason"), [
    ("text.png", lambda folder: b"this is a text", "not an image"),
    ("cut.png", lambda folder: half(folder / "000.png"), "truncated"),
    ("cut.jpg", lambda folder: half(folder / "photo.jpg"), "runcated"),
    ("nothing.png", lambda folder: b"", "the file is empty"),
    ("bomb.png", lambda folder: png_header(60_000, 60_000), "3,600,000,000 pixels"),
])
def test_an_unreadable_image_is_named_with_its_reason_and_left_out_on_request(train, images, name, content, reason):
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(images / "photo.jpg")
    (images / name).write_bytes(content(images))
    assert refused(train("images"), "1 of 22 images cannot be read", f"images/{name}: ", reason, "--skip-bad")
    assert nothing_left()
    done = train("images", "--skip-bad")
    assert done.code == 0, done.err
    assert f"left out: images/{name}" in done.out


def test_images_of_one_pixel_are_trained_on(train):
    Path("dots").mkdir()
    for level in range(8):
        Image.new("RGB", (1, 1), (level, 0, 0)).save(f"dots/{level}.png")
    assert train("dots").code == 0


def test_a_batch_that_was_asked_for_and_is_larger_than_the_set_is_as_large_as_that_or_refused(train):
    image_folder(Path("few"), n=4)
    done = train("few")                                            # --batch 8
    assert done.code == 0 or refused(done, "few: --batch 8", "only 4 images", "Pass --batch 4 or smaller")


@pytest.mark.parametrize("n", [1, 2, 3, 19, 20, 33, 36])
def test_any_few_images_train_without_a_batch_being_named(cli, n):
    """What is held out of them must leave a whole batch."""
    image_folder(Path("few"), n=n, size=16)
    done = cli("train", "few", "--steps", 1, "--size", 16, "--device", "cpu", "--threads", 1, "--set", "network.g_channels=2",
               "--set", "network.d_channels=2", "--set", "output.grid_n=4")
    assert done.code == 0, done.err


def test_a_member_that_leaves_the_archive_is_refused_and_written_nowhere(train, images):
    with zipfile.ZipFile("slip.zip", "w") as archive:
        archive.write("images/000.png", "../../evil.png")
        archive.write("images/001.png", "good.png")
    assert refused(train("slip.zip"), "slip.zip", "../../evil.png", "outside the archive")
    assert not list(Path("../..").rglob("evil.png"))
    assert nothing_left()


def test_an_archive_that_is_none_is_refused(train):
    Path("images.zip").write_bytes(b"PK no")
    assert refused(train("images.zip"), "images.zip: cannot be read as a zip", "again")


def test_an_npz_without_arrays_is_refused(train):
    np.savez("empty.npz")
    assert refused(train("empty.npz"), "empty.npz: no array of images", "np.savez")


@pytest.mark.parametrize("name", ["pickled.npy", "pickled.npz"])
def test_python_objects_in_an_array_file_are_never_run(train, name):
    class Evil:
        def __reduce__(self):
            return os.mkdir, ("ran",)
    array = np.array([Evil()], dtype=object)
    if name.endswith(".npy"):
        np.save(name, array, allow_pickle=True)
    else:
        np.savez(name, images=array)
    assert refused(train(name), name, "Python objects")
    assert not Path("ran").exists()
    assert nothing_left()


# The big ones differ from the smaller ones in numbers alone; what has classes is in test_modern_runs.py.
@pytest.mark.parametrize("preset", [None, *sorted({*preset_names()} - {"modern-128", "modern-256", "conditional"})])
def test_one_image_trains_with_a_hint_or_is_refused_with_what_to_do(cli, preset):
    image_folder(Path("one"), n=1)
    tiny = ["--set", "network.g_channels=2", "--set", "network.d_channels=2", "--set", "output.grid_n=4", "--threads", 1,
            "--steps", 2, "--device", "cpu", *(["--size", 16] if preset != "coursera-mnist-28" else []),
            *(["--preset", preset] if preset else [])]
    done = cli("train", "one", *tiny)
    if done.code:
        assert refused(done, "one: ", "1 image")
        assert nothing_left()
        if "--batch 1" in done.err:
            done = cli("train", "one", *tiny, "--batch", 1)
        else:
            assert "Add at least 1 more" in done.err
            image_folder(Path("one"), n=2)
            done = cli("train", "one", *tiny)
    assert done.code == 0, done.err
    assert "the generator will mostly repeat" in done.out


def test_a_batch_larger_than_the_set_is_the_whole_set(cli, images):
    done = cli("train", "images", "--preset", "digits-16", "--steps", 2, "--device", "cpu", "--threads", 1)
    assert done.code == 0, done.err
    assert "done, 40 images = 2.0 epochs" in done.out


# ---------------------------------------------------------------- where it goes


def test_a_file_in_the_way_of_the_run_folder_is_named(train, images):
    Path("taken").write_text("mine")
    assert refused(train("images", "--out", "taken/run"), "taken/run: cannot be a run folder", "taken is a file", "--out")
    assert refused(train("images", "--out", "taken"), "taken is a file")
    assert Path("taken").read_text() == "mine"
    assert train("images", "--out", "free/run").code == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_run_folder_that_may_not_be_written_is_named(train, images):
    Path("locked").mkdir(mode=0o555)
    assert refused(train("images", "--out", "locked/run"), "locked/run: cannot be written", "--out")


@pytest.mark.parametrize("out", ["images", "images/run", "images/../images/deep/run"])
def test_a_run_among_its_own_images_is_refused(train, images, out):
    assert refused(train("images", "--out", out), f"{out}: lies in images", "--out")
    assert len(list(images.rglob("*"))) == 20


def test_training_on_the_current_folder_asks_for_another_place(train, images, monkeypatch):
    monkeypatch.chdir(images)
    assert refused(train("."), "runs/images: lies in .", "--out")
    assert train(".", "--steps", 1, "--out", "../runs/images").code == 0


def test_a_folder_of_the_users_own_is_not_removed_after_a_fault(train):
    image_folder(Path("bad"), n=2)
    Path("bad/x.png").write_text("x")
    Path("mine").mkdir()
    assert refused(train("bad", "--out", "mine"), "x.png")
    assert Path("mine").is_dir()
    assert refused(train("bad", "--out", "deep/er/run"), "x.png")
    assert not Path("deep").exists()


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(("args", "words"), [
    (["--preset", "faces"], ["'faces'", *preset_names()]),
    (["--set", "train.foo=3"], ["'train.foo'", "did you mean train."]),
    (["--set", "lr=3"], ["'lr'", "train.lr"]),
    (["--set", "train.lr"], ["--set train.lr", "OPTION=VALUE"]),
    (["--set", "train.lr=abc"], ["lr", "abc"]),
    (["--set", "train.lr=[1"], ["--set train.lr=[1", "cannot be read"]),
    (["--set", "data.source=other"], ["data.source other", "SOURCE"]),
    (["--size", "5000x7"], ["5000x7"]),
    (["--size", "big"], ["big", "64x48"]),
    (["--size", "0"], ["at least 1 pixel"]),
    (["--batch", "0"], ["batch", "0"]),
    (["--lr", "-1"], ["lr", "-1"]),
    (["--channels", "2"], ["channels", "2", "1, 3 or 4"]),
    (["--transparency", "red"], ["transparency", "red", "white"]),
    (["--fit", "squash"], ["fit", "squash", "'crop'"]),
    (["--labels", "yes"], ["labels", "yes", "folder"]),
    (["--labels", "folder"], ["--labels folder", "--labels none"]),
    (["--seed", "-1"], ["seed", "-1"]),
    (["--threads", "0"], ["threads", "0"]),
    (["--device", "gpu"], ["gpu", "cuda"]),
    (["--device", "cuda:7"], ["--device cuda:7", "not available here", "cpu"]),
    (["--config", "missing.yaml"], ["--config missing.yaml", "cannot be read"]),
    (["--config", "images"], ["--config images", "run folder"]),
    (["--kimg", "1", "--epochs", "2"], ["--kimg 1", "--epochs 2", "one of them"]),
    (["--time", "2min", "--steps", "5"], ["--time 2min", "5 steps", "one of them"]),
    (["--time", "soon"], ["--time soon", "90s, 10min or 1h30min"]),
    (["--time", "-5s"], ["--time -5s"]),
    (["--time", "soon", "--dry-run"], ["--time soon"]),
    (["--epochs", "-1"], ["-1", "epochs"]),
    (["--steps", "0"], ["0 steps", "positive"]),
    (["--kimg", "nan"], ["nan kimg"]),
    (["--set", "network.family=custom"], ["generator=", "discriminator="]),
])
def test_an_impossible_option_is_named_before_anything_is_made(cli, images, args, words, monkeypatch):
    monkeypatch.setattr("ganvas.dataset.build_pack", None)
    assert refused(cli("train", "images", *args), *words)
    assert nothing_left()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_told_with_what_there_is(cli, images):
    assert refused(cli("train", "images", "--device", "cuda"), "--device cuda", "not available here", "cpu")
    assert refused(cli("sample", "run", "--device", "cuda"), "--device cuda", "cpu")


@pytest.mark.parametrize(("content", "words"), [
    (b"train: [1, 2\n  x: }{", ["is not valid YAML", "line 2"]),
    (bytes(range(256)), ["is not text"]),
    (b"- 1\n- 2\n", ["holds no options"]),
    (b"", ["holds no options"]),
    (b"train:\n  learning: 3\nbatch: 1\n", ["'train.learning'", "'batch'", "train.batch"]),
])
def test_a_config_file_that_cannot_be_is_named(cli, images, content, words):
    Path("own.yaml").write_bytes(content)
    done = cli("train", "images", "--config", "own.yaml")
    assert refused(done, *words)
    assert nothing_left()


# ---------------------------------------------------------------- the run and the disk


def test_a_full_disk_is_told_with_what_is_kept(finished, again, monkeypatch):
    def full(path, *args):
        raise OSError(28, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr("ganvas.run_writer.write_checkpoint", full)
        assert refused(again("--steps", 15), "No space left on device", "Free the disk", "same command")
    (*_, (nimg, _)) = RunFolder(finished[0]).list_checkpoints()
    done = again("--steps", 15)
    assert done.code == 0
    assert f"goes on from {nimg} images (bit-exact)" in done.out


@pytest.mark.parametrize("what", ["save_png", "RunLog"])
def test_a_disk_that_refuses_a_picture_or_the_log_is_no_traceback(train, images, monkeypatch, what):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(f"ganvas.run_writer.{what}", full)
        assert refused(train("images"), "No space left on device", "runs/images")
    assert train("images").code == 0
