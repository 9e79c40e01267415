"""What is held out has no twin in training."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from ganvas.data.layout import Layout
from ganvas.data.pack import build_pack
from ganvas.data.sources import open_source
from ganvas.data.split import Subset, grouped, split_images
from ganvas.data.twins import find_twins, load_twins
from ganvas.errors import ConfigError, DataError

DATA = Path(os.environ["GANVAS_TEST_DATA"])
LAYOUT = Layout(24, 24)


def pictures(folder: Path, n=60, seed=0):
    """A folder of `n` unlike soft pictures, 000.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (n, 6, 6, 3), dtype=np.uint8)
    for i, picture in enumerate(small):
        Image.fromarray(picture).resize((24, 24), Image.Resampling.BICUBIC).save(folder / f"{i:03}.png")
    return folder


def planted(folder: Path):
    """The folder with a mirrored, a darker, a copied and a JPEG twin for each of its first 20 pictures."""
    for i in range(20):
        image = Image.open(folder / f"{i:03}.png")
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / f"mirrored-{i:03}.png")
        ImageEnhance.Brightness(image).enhance(0.5).save(folder / f"darker-{i:03}.png")
        image.save(folder / f"again-{i:03}.bmp")
        image.save(folder / f"jpeg-{i:03}.jpg", quality=60)
    return folder


def opened(folder, **how):
    pack = build_pack(open_source(folder, **how), LAYOUT)
    return pack, load_twins(pack)


def names(pack, indices):
    return {pack.names[int(index)].split("/", 1)[1] for index in indices}


@pytest.mark.parametrize("holdout", [0.05, 0.1, 0.3, 0.5, 17, 64])
def test_nothing_held_out_has_a_planted_twin_in_training(tmp_path, holdout):
    pack, twins = opened(planted(pictures(tmp_path / "images")))
    split = split_images(pack, twins, holdout)
    held = names(pack, split.holdout)
    for i in range(20):
        family = {f"{i:03}.png", f"mirrored-{i:03}.png", f"darker-{i:03}.png", f"again-{i:03}.bmp", f"jpeg-{i:03}.jpg"}
        assert family <= held or not family & held
    wanted = round(holdout * len(pack)) if holdout < 1 else holdout
    assert wanted - 4 <= len(split.holdout) <= wanted


def test_train_holdout_and_dropped_are_all_images_each_once(tmp_path):
    pack, twins = opened(planted(pictures(tmp_path / "images")))
    split = split_images(pack, twins, 0.2, drop_duplicates=True)
    assert np.array_equal(np.sort(np.concatenate(split)), np.arange(len(pack)))
    assert len(split.dropped) == 20
    assert len({*split.holdout} & {*split.train}) == 0


def test_of_copies_the_first_stays(tmp_path):
    folder = pictures(tmp_path / "images", 8)
    for name in ("zz.png", "zzz.png"):
        Image.open(folder / "003.png").save(folder / name)
    pack, twins = opened(folder)
    assert names(pack, split_images(pack, twins, drop_duplicates=True).dropped) == {"zz.png", "zzz.png"}
    assert len(split_images(pack, twins).dropped) == 0


def test_the_choice_hangs_on_the_images_and_hardly_changes_when_some_are_added(tmp_path):
    pack, twins = opened(pictures(tmp_path / "a", 100))
    first = names(pack, split_images(pack, twins, 0.2).holdout)
    for path in sorted((tmp_path / "a").iterdir()):
        path.rename(path.with_name(f"other-{999 - int(path.stem)}.png"))           # the order turns around
    pack, twins = opened(tmp_path / "a")
    assert {f"{999 - int(name[6:-4]):03}.png" for name in names(pack, split_images(pack, twins, 0.2).holdout)} == first
    pictures(tmp_path / "b", 10, seed=1)
    for path in (tmp_path / "b").iterdir():
        path.rename(tmp_path / "a" / f"new-{path.name}")
    pack, twins = opened(tmp_path / "a")
    held = names(pack, split_images(pack, twins, 0.2).holdout)
    kept = {f"{999 - int(name[6:-4]):03}.png" for name in held if "new" not in name}
    assert len(kept & first) >= 15


def test_a_share_is_of_the_images_that_are_not_dropped(tmp_path):
    folder = pictures(tmp_path / "images", 5)
    for i in range(60):
        Image.open(folder / "000.png").save(folder / f"copy-{i:02}.png")
    pack, twins = opened(folder)
    split = split_images(pack, twins, 0.4, drop_duplicates=True)
    assert (len(split.train), len(split.holdout), len(split.dropped)) == (3, 2, 60)


def test_a_group_larger_than_the_holdout_is_trained_on(tmp_path):
    folder = pictures(tmp_path / "images", 30)
    for i in range(20):
        Image.open(folder / "000.png").save(folder / f"copy-{i:02}.png")
    pack, twins = opened(folder)
    held = names(pack, split_images(pack, twins, 5).holdout)
    assert len(held) == 5
    assert not any(name.startswith("copy") or name == "000.png" for name in held)


def test_images_of_one_folder_or_one_text_in_their_names_stay_together(tmp_path):
    for owner in range(12):
        pictures(tmp_path / "images" / f"person{owner:02}", 5, seed=owner)
    pack, twins = opened(tmp_path / "images")
    for group_by in ("folder", r"person(\d+)", r"person\d+/"):
        split = split_images(pack, twins, 0.25, group_by)
        owners = [{name.split("/")[0] for name in names(pack, part)} for part in (split.train, split.holdout)]
        assert len(split.holdout) == 15
        assert not owners[0] & owners[1]
    assert len({name.split("/")[0] for name in names(pack, split_images(pack, twins, 0.25).holdout)}) > 5
    assert len(np.unique(grouped(pack, twins, "folder"))) == 12


def test_what_cannot_be_divided_is_named(tmp_path):
    pack, twins = opened(pictures(tmp_path / "images", 10))
    with pytest.raises(DataError, match=r"--holdout 10: would hold out 10 of 10 images .* Pass at most 9"):
        split_images(pack, twins, 10)
    for holdout in (0, 0.2):
        with pytest.raises(ConfigError, match=r"--group-by \(oops: is neither none nor folder"):
            split_images(pack, twins, holdout, "(oops")
    with pytest.raises(DataError, match=r"--group-by nobody: matches none .* such as 'images/000\.png'"):
        split_images(pack, twins, 0.2, "nobody")


def test_a_subset_reads_its_own_images(tmp_path):
    pack, _ = opened(pictures(tmp_path / "images", 10))
    some = Subset(pack, np.array([7, 2, 5]))
    assert len(some) == 3
    assert np.array_equal(some.read([2, 0, 0]), pack.read([5, 7, 7]))


def test_twins_are_looked_for_once_and_kept_with_the_pack(tmp_path, monkeypatch):
    pack, twins = opened(planted(pictures(tmp_path / "images")))
    monkeypatch.setattr("ganvas.data.twins.find_twins", None)
    again = load_twins(pack)
    assert np.array_equal(again.groups, twins.groups) and np.array_equal(again.pairs, twins.pairs)
    monkeypatch.undo()
    (pack.path / "twins.npz").write_bytes(b"torn")
    assert np.array_equal(load_twins(pack).groups, twins.groups)


@pytest.mark.parametrize("archive", ["pokemon-sprites.zip", "pokemon-artwork.zip"])
def test_no_held_out_image_of_the_real_sets_has_a_twin_in_training(archive):
    if not (DATA / archive).is_file():
        pytest.skip(f"no real data at {DATA / archive}")
    pack = build_pack(open_source(DATA / archive), Layout(32, 32, fit="pad"))
    split = split_images(pack, load_twins(pack), 0.1)
    assert len(split.holdout) == round(0.1 * len(pack))
    both = np.concatenate([split.train, split.holdout])
    held = np.zeros(len(pack), bool)
    held[split.holdout] = True
    # Looked for anew, in the opposite order.
    found = find_twins(pack.facts[both[::-1]], np.asarray(pack.thumbs)[both[::-1]])
    held = held[both[::-1]]
    assert len(found.pairs) and [pair for pair in found.pairs if held[pair["a"]] != held[pair["b"]]] == []
    # And by hand: no two equal pixel arrays across the split, straight or mirrored.
    pixels = [pack.read(part) for part in split[:2]]
    trained = {image.tobytes() for image in pixels[0]}
    assert not any(image.tobytes() in trained or image[:, :, ::-1].tobytes() in trained for image in pixels[1])


