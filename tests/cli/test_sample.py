import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ganvas
from ganvas.run_folder import RunFolder


def checkpoints():
    """The images seen at each of the run's checkpoints, oldest first."""
    return [nimg for nimg, _ in RunFolder(Path("runs/images")).list_checkpoints()]


def pictures(folder):
    return [np.asarray(Image.open(path)) for path in sorted(Path(folder).iterdir())]


def test_a_grid_is_made_of_the_newest_run_and_both_are_named(finished, cli):
    shutil.copytree("runs/images", "runs/older")
    for path in Path("runs/older").rglob("*"):
        os.utime(path, (1, 1))
    done = cli("sample")
    assert done.code == 0
    assert done.out.splitlines() == [
        f"runs/images: generator after {checkpoints()[-1]} images (the last checkpoint; none was measured)", "samples.png"]
    assert Image.open("samples.png").size == (3 * (8 * 18 - 2), 3 * (8 * 18 - 2))       # small pictures are enlarged


def test_a_named_run_wins_over_the_newest(finished, cli):
    shutil.copytree("runs/images", "elsewhere")
    assert cli("sample", "elsewhere", "--n", 1).out.startswith("elsewhere: ")


def test_a_generator_file_alone_can_be_sampled(finished, cli):
    file = shutil.copy(RunFolder(finished[0]).generator(checkpoints()[-1]), "mailed.safetensors")
    assert cli("sample", file, "--n", 3, "--dir", "a").code == 0
    assert cli("sample", "--n", 3, "--dir", "b").code == 0
    assert np.array_equal(pictures("a"), pictures("b"))


def test_grid_folder_and_array_hold_the_same_pictures(finished, cli):
    done = cli("sample", "--n", 5, "--seed", 7, "--grid", "deep/all.png", "--scale", 1, "--dir", "each", "--npz", "all.npz")
    assert done.code == 0
    assert done.out.splitlines()[1:] == ["deep/all.png", "each", "all.npz"]
    assert not Path("samples.png").exists()
    with np.load("all.npz") as arrays:
        images, z = arrays["images"], arrays["z"]
    assert images.shape == (5, 16, 16, 3) and images.dtype == np.uint8
    assert np.array_equal(z, ganvas.load("runs/images").z(5, seed=7))
    assert np.array_equal(images, pictures("each"))
    grid = np.asarray(Image.open("deep/all.png"))
    assert np.array_equal(grid[:16, :16], images[0]) and np.array_equal(grid[:16, 18:34], images[1])
    assert np.array_equal(images, ganvas.load("runs/images").sample(5, seed=7))


def test_the_same_seed_gives_the_same_pictures_however_many(finished, cli):
    assert cli("sample", "--n", 3, "--seed", 4, "--dir", "few").code == 0
    assert cli("sample", "--n", 70, "--seed", 4, "--dir", "many").code == 0
    assert cli("sample", "--n", 3, "--seed", 5, "--dir", "others").code == 0
    assert np.array_equal(pictures("few"), pictures("many")[:3])
    assert len(pictures("many")) == 70
    assert not np.array_equal(pictures("few"), pictures("others"))


def test_a_png_says_which_picture_it_is(finished, cli):
    cli("sample", "--n", 2, "--seed", 9, "--dir", "each", "--grid", "all.png")
    text = Image.open("each/9-00001.png").text
    assert (text["ganvas:seed"], text["ganvas:number"], text["ganvas:nimg"]) == ("9", "1", str(checkpoints()[-1]))
    assert Image.open("all.png").text["ganvas:seed"] == "9"


def test_scale_enlarges_each_pixel(finished, cli):
    cli("sample", "--n", 1, "--dir", "small")
    cli("sample", "--n", 1, "--dir", "large", "--scale", 3)
    (small,), (large,) = pictures("small"), pictures("large")
    assert np.array_equal(large, small.repeat(3, 0).repeat(3, 1))


def test_a_checkpoint_is_chosen_by_its_number_of_images(finished, cli):
    first = checkpoints()[0]
    done = cli("sample", "--checkpoint", first, "--n", 2, "--dir", "then")
    assert done.out.startswith(f"runs/images: generator after {first} images")
    cli("sample", "--n", 2, "--dir", "now")
    assert not np.array_equal(pictures("then"), pictures("now"))


@pytest.mark.parametrize(("args", "words"), [
    (["--checkpoint", "41"], ["runs/images", "'41'", "last, {listed}"]),
    (["--checkpoint", "newest"], ["'newest'", "best, last, {listed}"]),
    (["runs/imagse"], ["runs/imagse: no such run folder", "Did you mean runs/images?"]),
    (["runs"], ["runs: not a run folder", "runs/images"]),
    (["images/000.png"], ["images/000.png"]),
    (["{state}"], ["is a training state", "generator-"]),
    (["--grid", "all.jpg"], ["--grid all.jpg", "all.png"]),
    (["--device", "cuda:x"], ["cuda:x"]),
    (["--device", "cuda:99"], ["--device cuda:99", "not available here"]),
    (["--grid", "images/000.png/a.png"], ["images/000.png", "cannot be written"]),
    (["--dir", "images/000.png"], ["images/000.png", "cannot be written"]),
])
def test_what_cannot_be_sampled_is_named(finished, cli, args, words):
    state = RunFolder(finished[0]).list_checkpoints()[-1][1]
    done = cli("sample", *(arg.format(state=state) for arg in args))
    assert done.code == 1
    listed = ", ".join(map(str, checkpoints()))
    assert all(word.format(listed=listed) in done.err for word in words), done.err
    assert not Path("samples.png").exists()


def test_without_any_run_the_next_step_is_named(cli):
    done = cli("sample")
    assert done.code == 1
    assert "ganvas train" in done.err


def test_the_fastest_device_is_taken_on_request(finished, cli):
    assert cli("sample", "--n", 1, "--device", "auto").code == 0
