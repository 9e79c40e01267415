import numpy as np
import pytest
from PIL import Image

from ganvas import engine, recipe
from ganvas.config import differences, flatten, make_config
from ganvas.data.decode import Look
from ganvas.errors import ConfigError
from ganvas.machine import Threads
from ganvas.presets import load_preset
from ganvas.recipe import complete
from ganvas.recipe_modern import (
    AUGMENTED_BELOW,
    FEWEST_OF_A_CLASS,
    MOST_CLASSES,
    STRONGLY_BELOW,
    Labels,
    augmentation,
    conditional,
    modern,
)
from ganvas.request import resolve
from ganvas.values import ImageSize
from makers import image_folder

SQUARE = ImageSize(64, 64)
AUGMENT = ("augment.color", "augment.translation", "augment.cutout")


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    monkeypatch.setattr(recipe, "training_threads", lambda: Threads(2, ""))
    monkeypatch.setattr(engine, "bf16_by", lambda device: "")


def look(side=64):
    return Look(looked=100, common_size=(side, side), min_size=(side, side), max_size=(side, side), grey_share=0.0,
                transparent_share=0.0, transparent_area=0.0, aspect=(1, 1), aspect_share=1.0)


def completed(images=500, settled=None, labels=None, preset=None, base=None, time_sec=None, **options):
    given = {"execution.device": "cpu"} | {name.replace("__", "."): value for name, value in options.items()}
    return complete("images", look(), preset, base or {}, given, images=images, labels=labels, settled=settled, time_sec=time_sec)


# ---------------------------------------------------------------- number and size of the images, device


@pytest.mark.parametrize(("images", "some", "holes"), [
    (STRONGLY_BELOW - 1, True, True), (STRONGLY_BELOW, True, False), (AUGMENTED_BELOW - 1, True, False),
    (AUGMENTED_BELOW, False, False), (10**6, False, False)])
def test_the_fewer_the_images_the_more_of_them_is_changed_for_d(images, some, holes):
    values, why = augmentation(images)
    assert [values.get(name, 0) > 0 for name in AUGMENT] == [some, some, holes]
    assert ("augment.color" in why) == some
    if some:
        assert f"{images:,} images" in why["augment.color"] and ("holes" in why["augment.color"]) == holes


def test_what_is_asked_for_of_the_augmentation_wins_over_what_is_chosen():
    made = completed(100, augment__color=0.0, augment__translation=0.0, augment__cutout=0.0)
    assert not made.config.augment.is_on
    assert "augment.color" not in made.why
    assert completed(10**6, augment__cutout=0.25).config.augment.cutout == 0.25
    assert not completed(100, augment__probability=0.0).config.augment.is_on


def test_few_images_are_augmented_with_a_preset_of_one_size_too():
    assert completed(100, preset="modern-64").config.augment.is_on
    assert not completed(100, preset="pytorch-faces-64").config.augment.is_on


@pytest.mark.parametrize("images", [1, 3, 31])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_batch_is_never_larger_than_the_images_and_that_is_said(images, device):
    values, why = modern(images, SQUARE, device)
    assert values["train.batch"] <= images
    assert (f"batch {images}" in why.get("train.batch", "")) == (values["train.batch"] == images)


def test_with_enough_images_or_an_unknown_number_the_batch_is_the_presets():
    usual = load_preset("modern-64").values["train.batch"]
    for images in (0, usual, 10**5):
        values, why = modern(images, SQUARE, "cpu")
        assert (values["train.batch"], "train.batch" in why) == (usual, False)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_card_gets_wider_networks_with_a_reason(device):
    values, why = modern(10**5, SQUARE, device)
    on_cpu, _ = modern(10**5, SQUARE, "cpu")
    for name in ("network.g_channels", "network.d_channels"):
        assert values[name] > on_cpu[name]
    assert str(values["network.g_channels"]) in why["network.g_channels"]


@pytest.mark.parametrize(("size", "preset"), [
    ((28, 28), 28), ((16, 16), 28), ((32, 32), 32), ((48, 64), 64), ((64, 64), 64), ((96, 96), 128), ((96, 64), 64),
    ((256, 256), 256), ((1024, 1024), 256)])
def test_the_numbers_are_those_of_the_preset_nearest_in_area(size, preset):
    values, why = modern(10**6, ImageSize(*size), "cpu")
    expected = load_preset(f"modern-{preset}").values | {"preset": "", "data.size": f"{size[0]}x{size[1]}"}
    assert {name: value for name, value in values.items() if name not in AUGMENT} == {
        name: value for name, value in expected.items() if name not in AUGMENT}
    assert f"modern-{preset}" in why["network.family"]


def test_without_a_preset_the_modern_recipe_trains():
    config = completed().config
    assert (config.preset, config.network.family) == ("", "residual")
    assert completed(network__family="dcgan").config.network.family == "dcgan"       # but for what is asked for


def test_thin_presets_leave_the_rest_to_the_recipe():
    sprites = completed(preset="sprites").config
    assert (sprites.preset, sprites.data.channels, sprites.data.transparency) == ("sprites", 4, "keep")
    own = completed(data__channels=4, data__transparency="keep", data__fit="pad", data__native=True).config
    assert sprites.model_copy(update={"preset": ""}) == own


# ---------------------------------------------------------------- a run that goes on


def flat(made):
    return flatten(made.config.model_dump(mode="json"))


@pytest.mark.parametrize("time_sec", [None, 60.0, 6000.0])
def test_what_was_chosen_stays_when_a_run_goes_on_whatever_would_be_chosen_now(time_sec):
    first = completed(STRONGLY_BELOW - 1)
    now = completed(AUGMENTED_BELOW, settled=flat(first), time_sec=time_sec)
    assert differences(first.config, now.config) == []
    assert differences(first.config, completed(AUGMENTED_BELOW).config)
    assert not [line for line in now.reasons if "holes" in line]
    small = completed(3)
    assert completed(500, settled=flat(small), time_sec=time_sec).config.train.batch == 3


def test_a_run_of_a_card_goes_on_with_its_width_on_a_processor(monkeypatch):
    monkeypatch.setattr(recipe, "check_device", lambda device: None)
    first = completed(execution__device="cuda")
    now = completed(settled=flat(first))
    assert now.config.network.g_channels == first.config.network.g_channels > completed().config.network.g_channels
    assert differences(first.config, now.config) == []
    assert "network.g_channels" not in now.why


def test_what_is_asked_for_wins_over_what_was_chosen_and_is_then_a_difference():
    first = completed()
    now = completed(settled=flat(first), train__batch=5)
    assert [line.partition(":")[0] for line in differences(first.config, now.config)] == ["train.batch"]


# ---------------------------------------------------------------- labels


def labels(counts, contradicted=0.0):
    return Labels(tuple(f"class {i}" for i in range(len(counts))), tuple(counts), lambda: contradicted)


def never():
    pytest.fail("read all images")


@pytest.mark.parametrize(("given", "asked", "value", "words"), [
    (None, True, False, []),
    (labels([50]), True, False, []),                             # one class is none
    (labels([50, 50]), True, True, ["conditional", "2 classes"]),
    (labels([50, 50]), False, False, ["2 classes", "--preset conditional"]),
    (labels([50, FEWEST_OF_A_CLASS - 1]), True, False, ["labels not used", "class 1", f"{FEWEST_OF_A_CLASS - 1} images"]),
    (labels([FEWEST_OF_A_CLASS] * MOST_CLASSES), True, True, [f"{MOST_CLASSES:,}"]),
    (labels([50] * (MOST_CLASSES + 1)), True, False, ["labels not used", f"{MOST_CLASSES + 1:,} classes"]),
    (labels([50, 50], 0.25), True, False, ["labels not used", "25%", "two"]),
    (labels([50, 50], 0.005), True, True, ["conditional"]),
])
def test_labels_are_used_where_they_are_asked_for_and_good_for_something(given, asked, value, words):
    found, why = conditional(given, asked)
    assert found == value
    assert [word for word in words if word not in why] == []
    assert bool(why) == bool(words)
    if "labels not used" in why:
        assert "--set network.conditional=true" in why


def test_images_are_read_for_contradictions_only_where_all_else_speaks_for_their_labels():
    for given, asked in ((labels([50, 50]), False), (labels([50, 1]), True), (labels([50] * 2000), True)):
        assert not conditional(given._replace(contradicted=never), asked)[0]


def labelled_folder(path, counts, copies=0):
    """A folder for each class; the first `copies` of the first class lie in the second one, too."""
    for number, count in enumerate(counts):
        image_folder(path / f"kind {number}", n=count, size=16, seed=number)
    for i in range(copies):
        Image.open(path / "kind 0" / f"{i:03d}.png").save(path / "kind 1" / f"copy {i}.png")
    return path


def resolved(source, **short):
    preset, settings = short.pop("preset", None), short.pop("settings", None)
    made = resolve(source, preset=preset, settings=settings, short={"device": "cpu", "size": "16"} | short)
    made.source.close()
    return made


def test_folders_of_images_become_classes_with_their_names_and_counts(tmp_path):
    made = resolved(labelled_folder(tmp_path / "kinds", (7, 9)), labels="folder")
    data = made.config.data
    assert (made.config.network.conditional, data.class_names, data.class_counts) == (True, ("kind 0", "kind 1"), (7, 9))
    assert (made.config.num_classes, "2 classes" in made.why["network.conditional"]) == (2, True)
    kept = complete("kinds", look(), None, {}, {"execution.device": "cpu", "data.labels": "folder"}, images=16,
                    labels=labels([8, 8]), settled=flat(made)).config
    assert kept.data.class_names == data.class_names and kept.data.class_counts == data.class_counts


def test_labels_that_copies_contradict_are_not_used_unless_asked_for(tmp_path):
    source = labelled_folder(tmp_path / "kinds", (7, 9), copies=3)
    made = resolved(source, labels="folder")
    assert (made.config.network.conditional, made.config.num_classes) == (False, 0)
    assert "stand under two" in made.why["network.conditional"]
    forced = resolved(source, labels="folder", settings={"network.conditional": True})
    assert (forced.config.num_classes, "network.conditional" in forced.why) == (2, False)
    assert resolved(source, labels="folder", preset="conditional").config.num_classes == 2


def test_a_class_with_too_few_images_is_named_and_labels_may_be_declined(tmp_path):
    source = labelled_folder(tmp_path / "kinds", (9, 2))
    assert "kind 1 has 2 images" in resolved(source, labels="folder").why["network.conditional"]
    assert "network.conditional" not in resolved(source, labels="folder", settings={"network.conditional": False}).why


def test_a_conditional_preset_without_labels_is_refused_with_how_to_name_them(tmp_path):
    with pytest.raises(ConfigError, match=r"network\.conditional: .*--labels folder"):
        resolved(image_folder(tmp_path / "images", n=5), preset="conditional")


def test_labels_stored_with_the_images_are_told_of_and_used_by_the_preset(tmp_path):
    np.savez(tmp_path / "some.npz", images=np.zeros((12, 8, 8), np.uint8), labels=np.arange(12) % 2)
    plain = resolved(tmp_path / "some.npz")
    assert not plain.config.network.conditional
    assert "--preset conditional" in plain.why["network.conditional"]
    told = resolved(tmp_path / "some.npz", preset="conditional").config
    assert (told.preset, told.num_classes, told.data.class_counts) == ("conditional", 2, (6, 6))


def test_a_classic_knows_no_classes(tmp_path):
    source = labelled_folder(tmp_path / "kinds", (7, 9))
    assert resolved(source, preset="pytorch-faces-64", labels="folder").config.num_classes == 0
    with pytest.raises(ConfigError, match=r"network\.conditional: network\.family 'dcgan' does not read it"):
        resolved(source, preset="pytorch-faces-64", labels="folder", settings={"network.conditional": True})


def test_the_config_of_a_conditional_run_says_all_of_its_classes(tmp_path):
    made = resolved(labelled_folder(tmp_path / "kinds", (7, 9)), labels="folder")
    again = make_config(flat(made))
    assert again == made.config
