import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganvas.config import (
    SHORT,
    Amount,
    ImageSize,
    RunConfig,
    Section,
    describe,
    differences,
    fields,
    flatten,
    from_yaml,
    make_config,
    parse_setting,
    to_yaml,
)
from ganvas.errors import ConfigError
from ganvas.presets import load_preset, preset_names


def fault(*layers) -> str:
    with pytest.raises(ConfigError) as error:
        make_config(*layers)
    return str(error.value)


# ---------------------------------------------------------------- amounts and sizes


@pytest.mark.parametrize(("text", "value", "unit"), [
    ("20 epochs", 20, "epochs"), ("1 epoch", 1, "epochs"), ("10000steps", 10000, "steps"), (" 1.5 kimg ", 1.5, "kimg"),
    (".5 epochs", 0.5, "epochs"), ("1e3 steps", 1000, "steps"), ("2.5e-1 kimg", 0.25, "kimg")])
def test_amounts_are_read_as_people_write_them(text, value, unit):
    assert Amount.parse(text) == (value, unit)


@pytest.mark.parametrize("text", [
    "20", "epochs", "-1 epochs", "0 steps", "1.5 steps", "20 minutes", "nan kimg", "inf kimg", "1e999 steps", "", None,
    "1 2 kimg"])
def test_what_is_no_amount_is_refused_with_a_way_to_write_one(text):
    with pytest.raises(ValueError, match="amount of training"):
        Amount.parse(text)


@given(st.floats(min_value=1e-9, max_value=1e18), st.sampled_from(["epochs", "kimg"]))
def test_an_amount_is_read_back_as_it_was_written(value, unit):
    assert Amount.parse(str(Amount(value, unit))) == (value, unit)


def test_amounts_are_written_without_an_empty_fraction():
    written = [str(Amount.parse(text)) for text in ("20 epochs", "10000 steps", "2.50 kimg")]
    assert written == ["20 epochs", "10000 steps", "2.5 kimg"]


@pytest.mark.parametrize(("text", "width", "height"), [
    ("64", 64, 64), (64, 64, 64), ("64x48", 64, 48), ("96 X 32", 96, 32), ("8×16", 8, 16)])
def test_sizes_are_width_then_height(text, width, height):
    size = ImageSize.parse(text)
    assert (size.width, size.height) == (width, height)
    assert ImageSize.parse(str(size)) == size


@pytest.mark.parametrize("text", ["", "x64", "64x", "-64", "64.5", "0", "64x0", "64x48x3", "123456", None])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="pixel"):
        ImageSize.parse(text)


# ---------------------------------------------------------------- checks


def test_defaults_make_a_config():
    assert make_config() == RunConfig()


def test_later_layers_win():
    config = make_config({"train.lr": 0.1, "train.batch": 8}, {"train.lr": 0.2})
    assert (config.train.lr, config.train.batch) == (0.2, 8)


def test_values_cannot_be_changed_after_the_check():
    with pytest.raises(ValueError, match="frozen"):
        make_config().train.lr = 1.0


@pytest.mark.parametrize(("name", "meant"), [
    ("train.learning_rate", "train."), ("lenght", "length"), ("lr", "train.lr"), ("network.lr", "train.lr"),
    ("trian.batch", "train.batch"), ("plan.real_lable", "plan.real_label"), ("network.z", "network.z_dim")])
def test_an_unknown_option_is_named_with_the_nearest_known_one(name, meant):
    text = fault({name: 1})
    assert f"unknown option '{name}'" in text
    assert meant in text.partition("did you mean")[2]


def test_an_option_like_no_other_is_told_where_the_options_are_listed():
    assert "ganvas presets" in fault({"qqqq": 1})


def test_all_faults_are_told_at_once_each_with_option_value_and_meaning():
    lines = fault({"train.batch": 0, "train.lr": -1, "network.kernel": 7, "length": "soon", "lenght": "20 epochs",
                   "data.size": "big", "output.keep_every": "never"}).splitlines()
    assert len(lines) == 7
    for name, value in [("train.batch", 0), ("train.lr", -1), ("network.kernel", 7), ("length", "soon"), ("data.size", "big"),
                        ("output.keep_every", "never")]:
        (line,) = [line for line in lines if line.startswith(f"{name} = {value!r}: ")]
        assert describe(name) in line


@pytest.mark.parametrize(("options", "named"), [
    ({"data.transparency": "keep"}, ["data.transparency", "data.channels"]),
    ({"data.channels": 4}, ["data.transparency", "data.channels"]),
    ({"network.padding": "keras_same"}, ["network.padding", "network.kernel 5"]),
    ({"network.g_stem_norm": "units"}, ["network.g_stem_norm", "network.g_stem 'linear'"]),
    ({"train.betas": [0.5, 1.0]}, ["train.betas", "[0.5, 1.0]"]),
    ({"train.betas": [0.5]}, ["train.betas", "[0.5]"]),
    ({"train.betas": ["a", 0.5]}, ["train.betas", "'a'"]),
    ({"plan.d_step": "real_then_fake", "train.loss": "relativistic"}, ["plan.d_step", "pairing"]),
    ({"plan.d_step": "real_then_fake", "train.r1_gamma": 1}, ["plan.d_step", "train.r1_gamma 0"]),
    ({"plan.real_label": 0.9, "train.loss": "hinge"}, ["plan.real_label 0.9", "train.loss 'hinge'"]),
    ({"plan.d_step": "real_then_fake", "train.r2_gamma": 1}, ["plan.d_step", "r2_gamma"]),
    ({"plan.d_step": "real_then_fake", "train.gp_weight": 1}, ["plan.d_step", "gp_weight"]),
    ({"train.penalty": "differences", "train.gp_weight": 1}, ["train.penalty 'differences'", "train.gp_weight", "'exact'"]),
    ({"train.penalty": "differences", "network.d_spectral_norm": True}, ["'differences'", "network.d_spectral_norm", "'exact'"]),
    ({"train.penalty": "lazy"}, ["train.penalty", "'lazy'"]),
    ({"train.penalty_every": 0}, ["train.penalty_every", "0"]),
    ({"train.gamma_start": 0}, ["train.gamma_start", "0"]),
    ({"execution.compile": True, "train.r2_gamma": 1}, ["execution.compile", "second derivatives"]),
    ({"augment.color": 1.5}, ["augment.color", "1.5"]),
    ({"augment.translation": 0.6}, ["augment.translation", "0.6"]),
    ({"augment.probability": -0.1}, ["augment.probability", "-0.1"]),
    ({"network.g_depth": 1}, ["network.g_depth", "'dcgan' does not read it"]),
    ({"network.conditional": True}, ["network.conditional", "'dcgan' does not read it"]),
    ({"network.family": "residual", "network.kernel": 5}, ["network.kernel", "'residual' does not read it"]),
    ({"network.family": "residual", "network.g_depth": 9}, ["network.g_depth", "9"]),
    ({"network.family": "residual", "network.bn_eps": 0.1, "network.init": "torch"}, ["network.bn_eps", "network.init"]),
    ({"data.class_names": ["a", "b"]}, ["data.class_counts", "0 of them for 2"]),
    ({"data.class_names": ["a"], "data.class_counts": [-1]}, ["data.class_counts"]),
    ({"network.family": "mnist28"}, ["28x28", "64x64", "data.size"]),
    ({"network.family": "mnist28", "data.size": 28, "network.kernel": 5}, ["network.kernel", "mnist28"]),
    ({"network.g_stem": "linear", "network.g_stem_norm": "units", "output.grid_n": 1}, ["output.grid_n 1", "units"]),
    ({"train.lr": float("inf")}, ["train.lr", "inf", "finite"]),
    ({"train.lr": {"D": 1}}, ["train.lr", "{'D': 1}"]),
    ({"execution.device": "gpu"}, ["execution.device", "'gpu'", "cuda:1"]),
    ({"data.transparency": "red"}, ["data.transparency", "'red'", "#rrggbb"]),
])
def test_what_cannot_be_is_refused_in_the_users_terms(options, named):
    text = fault(options)
    assert [part for part in named if part not in text] == []


@pytest.mark.parametrize("options", [
    {"execution.compile": True, "train.r1_gamma": 1, "train.penalty_every": 2},
    {"execution.compile": True, "train.r1_gamma": 1, "train.penalty": "differences"},
    {"network.d_spectral_norm": True, "train.r1_gamma": 1}, {"network.d_spectral_norm": True, "train.gp_weight": 10},
    {"train.penalty": "differences", "train.r1_gamma": 1, "train.r2_gamma": 1, "train.penalty_every": 4}])
def test_what_goes_together_is_allowed(options):
    assert make_config(options)


@pytest.mark.parametrize(("options", "on"), [
    ({}, False), ({"augment.color": 1}, True), ({"augment.translation": 0.1}, True), ({"augment.cutout": 0.5}, True),
    ({"augment.color": 1, "augment.probability": 0}, False)])
def test_augmentation_is_on_where_anything_is_changed(options, on):
    assert make_config(options).augment.is_on == on


@pytest.mark.parametrize(("conditional", "number"), [(True, 2), (False, 0)])
def test_classes_count_where_the_networks_are_told_them(conditional, number):
    config = make_config({"network.family": "residual", "network.conditional": conditional, "data.class_names": ["a", "b"],
                          "data.class_counts": [3, 4]})
    assert config.num_classes == number


def test_what_decides_over_weights_may_not_change_on_the_way():
    names = ("train.r2_gamma", "train.gamma_start", "train.gamma_ramp_kimg", "train.gp_weight", "augment.color",
             "augment.translation", "augment.cutout")
    changed = make_config({name: 0.5 for name in names}, {"train.penalty_every": 2, "train.penalty": "exact"})
    assert [line.partition(":")[0] for line in differences(make_config(), changed)] == [
        name for name, _ in fields() if name in (*names, "train.penalty_every")]


def test_checks_over_several_options_tell_all_their_faults():
    text = fault({"plan.d_step": "real_then_fake", "train.loss": "relativistic", "plan.real_label": 0.9,
                  "network.family": "mnist28"})
    assert [name for name in ("plan.d_step", "plan.real_label", "network.family") if name not in text] == []


def test_every_default_passes_its_own_check():
    assert make_config(flatten(RunConfig().model_dump(mode="json"))) == RunConfig()


def test_every_option_says_what_it_means():
    assert [name for name, _ in fields() if not describe(name)] == []


def test_the_short_names_stand_for_options():
    known = {name for name, _ in fields()}
    assert set(SHORT.values()) <= known


def test_each_option_appears_once_in_the_dotted_names():
    names = [name for name, _ in fields()]
    assert len(names) == len(set(names))
    assert set(names) == set(flatten(RunConfig().model_dump(mode="json")))
    assert not any(isinstance(field.annotation, type) and issubclass(field.annotation, Section) for _, field in fields())


# ---------------------------------------------------------------- files and --set


@pytest.mark.parametrize("name", preset_names())
def test_config_yaml_reads_back_as_it_was_written(name):
    config = make_config(load_preset(name).values)
    text = to_yaml(config)
    assert make_config(from_yaml(text, "config.yaml")) == config
    assert to_yaml(make_config(from_yaml(text, "config.yaml"))) == text


@pytest.mark.parametrize("text", ["train: [", "- a\n- b", "", "just words"])
def test_a_file_that_holds_no_options_is_named(text):
    with pytest.raises(ConfigError, match=re.escape("my.yaml")):
        from_yaml(text, "my.yaml")


def test_dotted_and_nested_names_mean_the_same_in_a_file():
    assert from_yaml("train: {lr: 0.1}", "a") == from_yaml("train.lr: 0.1", "b") == {"train.lr": 0.1}


@pytest.mark.parametrize(("text", "name", "value"), [
    ("train.lr=1e-4", "train.lr", 1e-4), ("train.batch=64", "train.batch", 64),
    ("train.betas=[0.5, 0.9]", "train.betas", [0.5, 0.9]), ("data.mirror=true", "data.mirror", True),
    ("length=20 epochs", "length", "20 epochs"), ("data.size = 64x48", "data.size", "64x48"),
    ("output.keep_every=null", "output.keep_every", None), ("data.source=a=b", "data.source", "a=b")])
def test_a_setting_is_read_as_a_file_would_be(text, name, value):
    assert parse_setting(text) == (name, value)


@pytest.mark.parametrize("text", ["train.lr", "=1", "train.lr=[1"])
def test_a_setting_that_cannot_be_read_is_shown(text):
    with pytest.raises(ConfigError, match=re.escape(f"--set {text}")):
        parse_setting(text)


# ---------------------------------------------------------------- what a run may change


@pytest.mark.parametrize(("name", "value"), [
    ("preset", "other"), ("data.source", "elsewhere"), ("data.skip_bad", True), ("length", "1000 kimg"),
    ("output.log_every", "1 steps"), ("output.grid_n", 4), ("output.keep_last", 5), ("execution.device", "mps"),
    ("execution.threads", 7)])
def test_cadence_length_and_machine_may_change_when_a_run_goes_on(name, value):
    assert differences(make_config(), make_config({name: value})) == []


@pytest.mark.parametrize(("name", "value", "shown"), [
    ("train.lr", 0.1, "train.lr: 0.0002 -> 0.1"), ("train.seed", 7, "train.seed: 0 -> 7"),
    ("data.size", "32x48", "data.size: 64x64 -> 32x48"), ("data.mirror", True, "data.mirror: False -> True"),
    ("network.z_dim", 64, "network.z_dim: 100 -> 64"), ("plan.g_fakes", "fresh", "plan.g_fakes: reuse -> fresh"),
    ("train.betas", [0.5, 0.9], "train.betas: [0.5, 0.999] -> [0.5, 0.9]")])
def test_what_a_run_may_not_change_is_shown_old_and_new(name, value, shown):
    assert differences(make_config(), make_config({name: value})) == [shown]


def test_all_differences_are_shown():
    changed = {"train.lr": 0.1, "data.channels": 1, "plan.tail": "drop", "length": "5 steps"}
    assert len(differences(make_config(), make_config(changed))) == 3
