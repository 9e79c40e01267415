import math

import pytest
import torch

from ganvas import engine, recipe
from ganvas.config import RunConfig, fields, flatten, make_config, to_yaml
from ganvas.data.decode import Look
from ganvas.errors import ConfigError
from ganvas.machine import Threads
from ganvas.networks.shapes import stages
from ganvas.presets import load_preset, preset_names
from ganvas.recipe import check_device, complete, config_values, options_from, seconds, table
from ganvas.values import ImageSize


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Two threads on a machine of two processors without bfloat16, about which there is nothing to say."""
    monkeypatch.setattr(recipe, "training_threads", lambda: Threads(2, ""))
    monkeypatch.setattr(engine, "bf16_by", lambda device: "")


def look(common=(100, 100), smallest=None, largest=None, grey=0.0, transparent=0.0, **more):
    divisor = math.gcd(*common)
    return Look(**{
        "looked": 100, "common_size": common, "min_size": smallest or common, "max_size": largest or common,
        "grey_share": grey, "transparent_share": transparent, "transparent_area": transparent / 2,
        "aspect": (common[0] // divisor, common[1] // divisor), "aspect_share": 0.9 if smallest is None else 0.3} | more)


def complete_cpu(source="images", seen=None, preset=None, base=None, **options):
    given = {"execution.device": "cpu"} | {name.replace("__", "."): value for name, value in options.items()}
    return complete(source, seen or look(), preset, base or {}, given)


def said(made, word):
    return [reason for reason in made.reasons if word in reason]


# ---------------------------------------------------------------- presets, files and options in layers


@pytest.mark.parametrize("name", [name for name in preset_names() if load_preset(name).is_complete])
def test_a_complete_preset_is_taken_as_it_is(name):
    made = complete_cpu(preset=name).config
    here = {"data.source": "images", "execution.threads": made.execution.threads, "execution.channels_last": True}
    assert made == make_config(load_preset(name).values, here)


def test_options_win_over_the_file_and_the_file_over_the_preset():
    made = complete_cpu(preset="keras-pokemon-64", base={"train.lr": 0.1, "train.batch": 4}, train__lr=0.2).config
    assert (made.train.lr, made.train.batch, made.train.adam_eps) == (0.2, 4, 1e-7)


def test_a_file_that_names_a_preset_starts_from_it():
    made = complete_cpu(base={"preset": "keras-pokemon-64", "train.lr": 0.1}).config
    assert (made.preset, made.train.lr, made.network.padding) == ("keras-pokemon-64", 0.1, "keras_same")


def test_the_file_of_a_whole_run_is_that_run_without_a_word():
    for name in ("radford-faces-64", None):
        run = complete_cpu(preset=name)
        again = complete_cpu(base=flatten(run.config.model_dump(mode="json")))
        assert again.config == run.config
        assert again.reasons == []


def test_a_file_with_a_few_options_leaves_the_rest_to_the_images():
    made = complete_cpu(seen=look((48, 48)), base={"train.lr": 0.1, "data.size": "32"})
    assert (made.config.train.lr, str(made.config.data.size), made.config.train.loss) == (0.1, "32x32", "relativistic")
    assert not said(made, "size 48x48")


def test_unknown_options_and_presets_are_refused():
    with pytest.raises(ConfigError, match=r"train\.learning_rate"):
        complete_cpu(train__learning_rate=1)
    with pytest.raises(ConfigError, match="keras-pokemon-64"):
        complete_cpu(preset="keras")


def test_the_built_in_digits_have_a_preset_of_their_own():
    assert complete_cpu("digits").config.preset == "digits-16"
    assert complete_cpu("digits", preset="coursera-mnist-28").config.preset == "coursera-mnist-28"


# ---------------------------------------------------------------- what suits the images


@pytest.mark.parametrize(("seen", "size", "word"), [
    (look((64, 64)), "64x64", "all 64x64"), (look((256, 256)), "64x64", "at most 64"), (look((128, 64)), "64x32", "all 128x64"),
    (look((48, 48)), "48x48", "all 48x48"), (look((30, 30)), "32x32", "all 30x30"), (look((1, 1)), "6x6", "all 1x1"),
    (look((4000, 3000), (100, 100)), "64x64", "most often 4000x3000"), (look((64, 48), (32, 32)), "48x48", "most often 64x48")])
def test_the_size_is_the_images_own_up_to_64_pixels_with_its_reason(seen, size, word):
    made = complete_cpu(seen=seen)
    assert str(made.config.data.size) == size
    assert said(made, f"size {size}")[0].count(word) == 1


def test_grey_images_are_trained_in_one_channel_and_sprites_are_padded():
    grey, sprites = complete_cpu(seen=look(grey=1.0)), complete_cpu(seen=look(transparent=0.9))
    assert (grey.config.data.channels, grey.config.data.fit) == (1, "crop")
    assert said(grey, "channels 1")
    assert (sprites.config.data.channels, sprites.config.data.fit, sprites.config.data.transparency) == (4, "pad", "keep")
    assert said(sprites, "fit pad")


def test_every_choice_has_a_reason_and_what_was_given_needs_none():
    assert len(complete_cpu().reasons) == 6
    made = complete_cpu(data__size="32", data__channels=1, data__fit="stretch", data__mirror="off", length="5 steps")
    assert [reason for word in ("size", "channels", "fit", "length") for reason in said(made, f"{word} ")] == []
    assert len(made.reasons) == 1


# ---------------------------------------------------------------- how the device computes


def test_bfloat16_is_chosen_where_the_machine_multiplies_it_and_the_reason_told(monkeypatch):
    monkeypatch.setattr(engine, "bf16_by", lambda device: "the abacus" if device == "cpu" else "")
    made = complete_cpu()
    assert (made.config.execution.precision, made.config.execution.channels_last) == ("bf16", True)
    assert "the abacus" in made.why["execution.precision"]
    asked = complete_cpu(execution__precision="fp32")
    assert (asked.config.execution.precision, "execution.precision" in asked.why) == ("fp32", False)
    assert complete_cpu(execution__precision="auto").config.execution.precision == "bf16"
    assert complete_cpu(base={"execution.precision": "fp32"}).config.execution.precision == "fp32"
    own = complete_cpu(network__family="custom").config.execution
    assert (own.precision, own.channels_last) == ("fp32", False), "what a user's networks do with either nobody knows"


def going_on(**settled):
    settled = {name.replace("__", "."): value for name, value in settled.items()}
    return complete("images", look(), None, {}, {"execution.device": "cpu"}, settled=settled)


def test_a_run_that_goes_on_computes_as_it_did(monkeypatch):
    monkeypatch.setattr(engine, "bf16_by", lambda device: "the abacus")
    assert going_on(execution__device="cpu", execution__precision="fp32").config.execution.precision == "fp32"
    assert going_on(execution__device="cuda", execution__precision="fp32").config.execution.precision == "bf16", "another device"
    before = going_on(execution__device="cpu").config.execution
    assert (before.precision, before.channels_last) == ("fp32", False), "a run from before there was a choice"


def test_bfloat16_of_another_machine_is_left_where_nothing_multiplies_it_fast_and_that_is_said():
    gone_on, from_file = going_on(execution__device="cpu", execution__precision="bf16"), {"execution.precision": "bf16"}
    for made in (gone_on, complete_cpu(base=from_file)):
        assert made.config.execution.precision == "fp32" and "--precision bf16" in made.why["execution.precision"]
    assert complete_cpu(execution__precision="bf16").config.execution.precision == "bf16", "asked for outright"


def test_a_compiled_run_taken_as_config_gives_way_to_a_penalty():
    made = complete_cpu(base={"execution.compile": True}, train__r1_gamma=1.0, train__penalty_every=1).config
    assert (made.execution.compile, made.train.r1_gamma) == (False, 1.0)


# ---------------------------------------------------------------- sizes that cannot be


@pytest.mark.parametrize(("asked", "got"), [
    ("100x100", "96x96"), ("63x64", "64x64"), ("70x100", "64x96"), ("65", "64x64")])
def test_a_size_that_cannot_be_is_rounded_and_said(asked, got):
    made = complete_cpu(preset="pytorch-faces-64", data__size=asked)
    size = made.config.data.size
    assert stages(size.height, size.width) is not None
    assert str(size) == got
    (reason,) = said(made, "instead of")
    assert f"size {got} instead of {ImageSize.parse(asked)}" in reason


@pytest.mark.parametrize(("asked", "nearest"), [("64x200", "96x192"), ("1", "6x6"), ("5000x64", "")])
def test_a_size_far_from_any_that_can_be_is_refused_with_the_nearest(asked, nearest):
    with pytest.raises(ConfigError, match=rf"--size {ImageSize.parse(asked)}: .*nearest is {nearest}"):
        complete_cpu(preset="pytorch-faces-64", data__size=asked)


def test_a_possible_size_is_kept_without_a_word():
    made = complete_cpu(preset="pytorch-faces-64", data__size="64x48")
    assert (str(made.config.data.size), made.reasons) == ("64x48", [])


def test_the_28_pixel_networks_refuse_other_sizes():
    with pytest.raises(ConfigError, match="28x28 images, not 32x32"):
        complete_cpu(preset="coursera-mnist-28", data__size="32")


def test_networks_of_the_user_may_have_any_size():
    made = complete_cpu(network__family="custom", data__size="17x13")
    assert str(made.config.data.size) == "17x13"
    assert not said(made, "pytorch-faces-64")


# ---------------------------------------------------------------- transparency and hints


@pytest.mark.parametrize("given", [{"data__transparency": "keep"}, {"data__channels": 4}])
def test_keeping_transparency_and_four_channels_imply_each_other(given):
    data = complete_cpu(**given).config.data
    assert (data.transparency, data.channels) == ("keep", 4)


def test_a_background_takes_the_fourth_channel_away_and_no_other():
    kept = {"data.transparency": "keep", "data.channels": 4}
    assert complete_cpu(base=kept, data__transparency="black").config.data.channels == 3
    assert complete_cpu(base={"data.channels": 1}, data__transparency="black").config.data.channels == 1
    assert complete_cpu(seen=look(grey=1.0), data__transparency="black").config.data.channels == 1


def test_grey_images_in_three_channels_bring_a_hint():
    assert said(complete_cpu(seen=look(grey=1.0), preset="pytorch-faces-64"), "--channels 1")
    assert not said(complete_cpu(seen=look(grey=0.9), preset="pytorch-faces-64"), "--channels 1")
    assert not said(complete_cpu(seen=look(grey=1.0), preset="pytorch-faces-64", data__channels=1), "--channels 1")


def test_transparent_images_on_a_background_bring_a_hint():
    made = complete_cpu(seen=look(transparent=0.1), preset="pytorch-faces-64", data__transparency="#00ff00")
    assert said(made, "shown on #00ff00")
    assert said(made, "--transparency keep")
    assert not said(complete_cpu(seen=look(transparent=0.1), data__transparency="keep"), "--transparency keep")


# ---------------------------------------------------------------- the machine


def test_a_device_that_is_not_here_is_refused_with_those_that_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for device in ("cuda", "cuda:3", "mps"):
        with pytest.raises(ConfigError, match=rf"--device {device}: .*Use one of: cpu, or auto"):
            check_device(device)
    check_device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device("cuda:1")
    with pytest.raises(ConfigError, match=r"Use one of: cuda:0, cuda:1, cpu"):
        check_device("cuda:2")


def test_an_unknown_device_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"execution\.device = 'gpu'"):
        complete_cpu(execution__device="gpu")


def test_auto_is_the_best_device_and_a_file_or_option_wins_over_it(monkeypatch):
    monkeypatch.setattr(recipe, "best_device", lambda: "cuda")
    monkeypatch.setattr(recipe, "check_device", lambda device: None)
    def device(base, options):
        return complete("images", look(), None, base, options).config.execution.device
    assert device({}, {}) == "cuda"
    assert device({}, {"execution.device": "auto"}) == "cuda"
    assert device({"execution.device": "cpu"}, {}) == "cpu"
    assert device({"execution.device": "auto"}, {}) == "cuda"
    assert device({"execution.device": "cpu"}, {"execution.device": "auto"}) == "cuda"
    assert device({"execution.device": "mps"}, {"execution.device": "cpu"}) == "cpu"


def test_the_threads_are_the_machines_unless_told_otherwise_and_said_where_they_are_not_one_for_each(monkeypatch):
    assert complete_cpu().config.execution.threads == 2
    assert not said(complete_cpu(), "threads")
    monkeypatch.setattr(recipe, "training_threads", lambda: Threads(4, "threads 4: the quota"))
    made = complete_cpu()
    assert (made.config.execution.threads, said(made, "threads")) == (4, ["threads 4: the quota"])
    for made in (complete_cpu(execution__threads=1), complete_cpu(base={"execution.threads": 1})):
        assert (made.config.execution.threads, said(made, "threads")) == (1, [])


# ---------------------------------------------------------------- short names, times, files, tables


def test_short_names_become_options_and_what_is_not_given_stays_out():
    assert options_from({"batch": 4, "size": None, "epochs": 3}, {"train.betas": [0, 0.9]}) == {
        "length": "3 epochs", "train.batch": 4, "train.betas": [0, 0.9]}


@pytest.mark.parametrize(("length", "option"), [
    ({"kimg": 25}, "25 kimg"), ({"epochs": 0.5}, "0.5 epochs"), ({"steps": 10_000}, "10000 steps")])
def test_one_amount_of_training_is_the_length(length, option):
    options = options_from(length, {})
    assert options == {"length": option}
    assert str(make_config(options).length) == option


def test_two_amounts_of_training_are_refused_with_both():
    with pytest.raises(ConfigError, match=r"--kimg 5 and --steps 9 both"):
        options_from({"steps": 9, "kimg": 5, "epochs": None}, {})


def test_an_unknown_short_name_is_told_the_known_ones_and_the_other_way():
    with pytest.raises(ConfigError, match=r"'learning_rate'.*\blr\b.*kimg.*settings="):
        options_from({"learning_rate": 1}, {})


@pytest.mark.parametrize(("text", "expected"), [
    ("90", 90), ("90s", 90), (90, 90), (1.5, 1.5), ("10min", 600), ("10m", 600), ("1.5h", 5400), ("1h30min", 5400),
    (" 1h 1min 1s ", 3661), ("2 min", 120)])
def test_times_are_read_as_people_write_them(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-5", "0min", "soon", "1h30", "10min5", "1.2.3s", "h", "5 days", "nan", "30s 2h"])
def test_what_is_no_time_or_may_mean_two_is_refused_by_name(text):
    with pytest.raises(ConfigError, match=f"--time {text}: write"):
        seconds(text)


def test_a_config_is_read_from_a_file_or_a_run_folder(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(RunConfig()), encoding="utf-8")
    assert config_values(str(tmp_path / "run")) == config_values(str(tmp_path / "run" / "config.yaml"))
    assert make_config(config_values(str(tmp_path / "run"))) == RunConfig()


def test_a_config_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG\xff")
    for name in ("nowhere.yaml", "picture.yaml", "."):
        with pytest.raises(ConfigError, match="Pass a YAML file or a run folder"):
            config_values(str(tmp_path / name))
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        config_values(str(tmp_path / "nowhere.yaml"))


def test_the_table_tells_every_option_with_value_and_meaning():
    rows = table(make_config({"train.lr": 0.1}))
    assert [name for name, _, _ in rows] == [name for name, _ in fields()]
    assert ("train.lr", "0.1", "Adam's learning rate, both networks") in rows
    assert all(meaning for _, _, meaning in rows)


# ---------------------------------------------------------------- what the images decide


def sprites(**more):
    return look((96, 96), transparent=1.0, **more)


@pytest.mark.parametrize("where", ["file", "options"])
@pytest.mark.parametrize(("asked", "channels", "transparency"), [
    ({"data.transparency": "white"}, 3, "white"), ({"data.channels": 3}, 3, "white"), ({"data.transparency": "keep"}, 4, "keep"),
    ({"data.channels": 4}, 4, "keep"), ({"data.channels": 1}, 1, "white"), ({"data.transparency": "checker"}, 3, "checker"),
    ({}, 4, "keep"), ({"data.channels": "auto", "data.transparency": "auto"}, 4, "keep")])
def test_channels_and_transparency_agree_wherever_one_of_them_is_asked_for(where, asked, channels, transparency):
    base, options = (asked, {}) if where == "file" else ({}, asked)
    made = complete("images", sprites(), None, base, {"execution.device": "cpu"} | options, images=500).config.data
    assert (made.channels, made.transparency) == (channels, transparency)


def test_a_classic_shows_transparency_on_white_and_holds_nothing_out_even_if_asked_automatically():
    auto = {f"data.{name}": "auto" for name in ("transparency", "holdout", "fit", "native")}
    made = complete("images", sprites(), "udacity-pokemon-32", {}, {"execution.device": "cpu"} | auto, images=500).config.data
    assert (made.transparency, made.holdout, made.fit) == ("white", 0, "pad")


@pytest.mark.parametrize(("images", "holdout"), [(19, 0), (20, 0.1), (20_000, 0.1), (20_010, 2000), (10**6, 2000)])
def test_a_tenth_is_held_out_and_at_most_2000(images, holdout):
    assert complete("images", look(), None, {}, {"execution.device": "cpu"}, images=images).config.data.holdout == holdout


@pytest.mark.parametrize(("both_ways", "mirror"), [(0.5, True), (0.72, True), (0.8, False), (1.0, False)])
def test_images_are_mirrored_where_they_face_both_ways(both_ways, mirror):
    made = complete_cpu(seen=look(faces_both_ways=both_ways))
    assert made.config.data.mirror == mirror
    assert said(made, f"{both_ways:.0%} of the images can be told")


def test_enlarged_pixel_art_is_brought_to_its_native_size():
    made = complete_cpu(seen=sprites(upscaled_share=0.5, native_size=(48, 48))).config.data
    assert (made.native, str(made.size)) == (True, "48x48")
    assert not complete_cpu(seen=sprites(upscaled_share=0.1, native_size=(48, 48))).config.data.native
    off = complete_cpu(seen=sprites(upscaled_share=0.5, native_size=(48, 48)), data__native="off").config.data
    assert (off.native, str(off.size)) == (False, "64x64")


def test_a_set_of_one_shape_keeps_it_and_a_mixed_one_is_square():
    assert str(complete_cpu(seen=look((400, 300), (30, 30), (400, 400), aspect_share=0.8)).config.data.size) == "64x48"
    assert str(complete_cpu(seen=look((400, 300), (30, 30), (400, 400), aspect_share=0.4)).config.data.size) == "64x64"


def test_a_run_that_goes_on_keeps_what_was_chosen_from_its_images():
    kept = {"data.mirror": True, "data.holdout": 7.0, "data.size": "32x32", "data.channels": 1, "data.transparency": "white"}
    made = complete("images", sprites(), None, {}, {"execution.device": "cpu"}, images=500, settled=kept)
    assert (made.config.data.mirror, made.config.data.holdout, str(made.config.data.size)) == (True, 7, "32x32")
    asked = complete("images", sprites(), None, {}, {"execution.device": "cpu", "data.holdout": 9}, images=500, settled=kept)
    assert asked.config.data.holdout == 9


# ---------------------------------------------------------------- long runs


@pytest.mark.parametrize(("time_sec", "options", "expected"), [
    (3600, {}, True), (600, {}, False), (None, {}, False), (3600, {"data__size": "64"}, False),
    (3600, {"train__penalty_every": 1}, False), (3600, {"execution__compile": False}, False),
    (3600, {"execution__compile": "auto"}, True)])
def test_a_run_of_small_networks_that_is_long_enough_is_compiled(monkeypatch, time_sec, options, expected):
    monkeypatch.setattr(recipe, "cpp_compiler", lambda: "g++")
    given = {"execution.device": "cpu", "data.size": "32"} | {name.replace("__", "."): value for name, value in options.items()}
    made = complete("images", look(), None, {}, given, time_sec=time_sec)
    assert (made.config.execution.compile, "execution.compile" in made.why) == (expected, expected)
    monkeypatch.setattr(recipe, "cpp_compiler", lambda: None)
    assert not complete("images", look(), None, {}, given, time_sec=time_sec).config.execution.compile


def test_what_was_asked_for_and_is_slow_here_is_said(monkeypatch):
    monkeypatch.setattr(recipe, "usable_processors", lambda: 2)
    made = complete_cpu(execution__precision="bf16", execution__threads=99)
    assert (made.config.execution.precision, made.config.execution.threads) == ("bf16", 99)
    assert "many times slower" in made.why["execution.precision"] and "may use 2" in made.why["execution.threads"]
    usual = complete_cpu(execution__precision="fp32", execution__threads=2)
    assert not {"execution.precision", "execution.threads"} & usual.why.keys()
