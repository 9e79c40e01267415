"""The pages in docs/ say what the code does: pictures, tables, commands, links and examples are checked against it."""

import importlib.util
import math
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
import typer
import yaml
from torch.testing import assert_close

from ganvas.cli.main import app as cli
from ganvas.config import fields, make_config, parse_setting
from ganvas.errors import ConfigError
from ganvas.losses import LOSSES, nonsaturating_d
from ganvas.presets import load_preset, preset_names
from ganvas.report.log import read_rows
from ganvas.run_folder import RunFolder
from makers import image_folder

ROOT = Path(__file__).parents[1]
PAGES = ["docs/presets.md", "docs/training.md"]
PRESETS, TRAINING = ((ROOT / page).read_text(encoding="utf-8") for page in PAGES)


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_diagrams", ROOT / "docs" / "make_diagrams.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_diagrams = load_script()


def section(page: str, heading: str) -> str:
    """The text under a heading of the second level."""
    return page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def cells(table_row: str) -> list[str]:
    return [cell.strip() for cell in table_row.strip().strip("|").split(" | ")]


# Diagrams and the table of presets.


@pytest.mark.parametrize("preset", make_diagrams.DRAWN)
def test_drawing_a_diagram_again_gives_the_committed_picture(preset):
    committed = (ROOT / "docs" / "pictures" / f"{preset}.svg").read_text(encoding="utf-8")
    assert make_diagrams.diagram(preset) == committed, "run `python docs/make_diagrams.py`"


def test_filling_the_table_again_gives_the_committed_page():
    assert make_diagrams.with_table(PRESETS) == PRESETS, "run `python docs/make_diagrams.py`"


@pytest.mark.parametrize("preset", make_diagrams.DRAWN)
def test_a_chain_runs_from_z_through_tanh_to_images_and_from_images_to_a_logit(preset):
    config = make_config(load_preset(preset).values)
    image = (config.data.channels, config.data.size.height, config.data.size.width)
    G, D = make_diagrams.chains_of(preset)
    assert G.given == (config.network.z_dim,)
    assert G.stages[-1].output == D.given == image
    assert math.prod(D.stages[-1].output) == 1
    ends_in_tanh = [stage.layers[-1] == "tanh" for chain in (G, D) for stage in chain.stages]
    assert ends_in_tanh.index(True) == len(G.stages) - 1 and sum(ends_in_tanh) == 1


@pytest.mark.parametrize("preset", make_diagrams.DRAWN)
def test_the_table_states_the_values_of_the_preset_file(preset):
    values = yaml.safe_load((ROOT / "src" / "ganvas" / "presets" / f"{preset}.yaml").read_text(encoding="utf-8"))
    train, data, network = values["train"], values["data"], values["network"]
    (row,) = [line for line in PRESETS.splitlines() if line.startswith(f"| [`{preset}`]")]
    _, images, z, loss, _, adam, batch, length, _ = cells(row)
    assert images == f"{data['size'].replace('x', '×')}×{data['channels']}"
    assert z.startswith(f"{network['z_dim']}, ")
    assert ("sum" in loss, "½" in loss) == (values["plan"]["reduction"] == "sum", values["plan"]["d_scale"] == 0.5)
    assert [float(number) for number in adam.split(", ")] == [train["lr"], *train["betas"]]
    assert (int(batch), length) == (train["batch"], values["length"])


@pytest.mark.parametrize("preset", make_diagrams.DRAWN)
def test_every_preset_has_a_section_with_its_picture_command_and_script(preset):
    text = section(PRESETS, preset)
    assert f"](pictures/{preset}.svg)" in text
    assert f"--preset {preset}" in text
    if preset != "digits-16":
        assert f"](../examples/plain/{preset}.py)" in text
    assert "**A healthy run" in text


# Numbers.


def test_the_losses_of_an_undecided_discriminator_are_those_of_the_page():
    lines = section(TRAINING, "The numbers").splitlines()
    rows = {cells(line)[0].strip("`"): cells(line)[1:3] for line in lines if cells(line)[0].strip("`") in LOSSES}
    assert rows.keys() == LOSSES.keys()
    for name, stated in rows.items():
        undecided = torch.tensor([0.5 if name == "least_squares" else 0.0], dtype=torch.float64)
        found = [float(loss(undecided, undecided)) for loss in (LOSSES[name].d, LOSSES[name].g)]
        assert_close([float(number) for number in stated], found, atol=5e-4, rtol=0)


def test_with_a_label_of_nine_tenths_balance_and_floor_are_those_of_the_pages():
    assert all(".45" in page and "1.376" in page and ".325" in page for page in (PRESETS, TRAINING))
    logits = torch.linspace(-8, 8, 401, dtype=torch.float64)
    nothing = logits.new_empty(0)
    balanced = torch.stack([nonsaturating_d(x[None], x[None], 0.9) for x in logits])
    assert_close(float(balanced.min()), 1.376, atol=5e-4, rtol=0)
    assert_close(float(logits[balanced.argmin()].sigmoid()), 0.45, atol=5e-3, rtol=0)
    floor = min(float(nonsaturating_d(x[None], nothing, 0.9)) for x in logits)
    assert_close(floor, 0.325, atol=5e-4, rtol=0)


@pytest.mark.parametrize("preset", ["coursera-mnist-28", "d2l-pokemon-64"])
def test_the_halved_loss_starts_at_log_two(preset):
    config, G, D = make_diagrams.networks_of(preset)
    generator = torch.Generator().manual_seed(0)
    width, height = config.data.size
    reals = torch.rand(16, config.data.channels, height, width, generator=generator) * 2 - 1
    z = torch.randn(16, config.network.z_dim, generator=generator)
    with torch.no_grad():
        loss = config.plan.d_scale * nonsaturating_d(D(reals), D(G(z))) / 16
    assert_close(float(loss), math.log(2), atol=0.01, rtol=0)


# Commands, options, links.


@pytest.mark.parametrize("page", PAGES)
def test_every_option_that_a_page_names_exists(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    known = {name for name, _ in fields()}
    assert set(re.findall(r"`(?:--set )?((?:data|network|plan|train|output)\.\w+)", text)) <= known | {"data.html"}
    for setting in re.findall(r"--set ([\w.]+=[^\s`|]+)", text):
        name, value = parse_setting(setting)
        make_config(load_preset("pytorch-faces-64").values, {name: value})


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_and_preset_of_a_command_exists(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    commands = typer.main.get_command(cli).commands
    flags = {name: {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
             for name, command in commands.items()}
    written = re.findall(r"(?:^|`)ganvas (\w+)([^`\n]*)", text, flags=re.MULTILINE)
    assert written
    for command, rest in written:
        assert set(re.findall(r"--[\w-]+", rest)) <= flags[command], (command, rest)
        assert set(re.findall(r"--preset ([\w-]+)", rest)) <= set(preset_names())
    every = set().union(*flags.values()) | {"--logdir"}                # TensorBoard's
    assert set(re.findall(r"`(--[\w-]+)", text)) <= every


def test_what_the_advice_says_about_two_presets_is_so():
    keras, udacity = (load_preset(name).values for name in ("keras-pokemon-64", "udacity-pokemon-32"))
    for values, wish, remedy in ((keras, {"train.r1_gamma": 1}, {"plan.d_step": "joint"}),
                                 (keras, {"train.loss": "relativistic"}, {"plan.d_step": "joint"}),
                                 (udacity, {"train.loss": "relativistic"}, {"plan.real_label": 1})):
        with pytest.raises(ConfigError):
            make_config(values, wish)
        make_config(values, wish, remedy)
    make_config(keras, {"network.kernel": 4, "network.padding": "symmetric"})


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page):
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        file = folder / name if name else ROOT / page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


# Examples.


def test_the_python_of_the_training_page_runs_and_leaves_the_files_it_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    image_folder(tmp_path / "images", n=8, size=16)
    blocks = re.findall(r"```python\n(.*?)```", TRAINING, flags=re.DOTALL)
    names: dict[str, object] = {"__name__": "docs"}
    for block in blocks:
        short = block.replace("kimg=200", f"steps={10 if 'iterate' in block else 2}, threads=1, device='cpu'")
        assert ("ganvas.iterate" in block or "ganvas.train" in block) == (short != block), "a run too long for a test"
        exec(compile(short, "docs/training.md", "exec"), names)
    assert names["images"].shape == (16, 32, 32, 3)
    assert names["more"].shape == (4, 16, 16, 3)
    assert "Loss_D" in capsys.readouterr().out

    run = RunFolder(Path("runs/images"))
    row = read_rows(run.stats)[-1]
    numbers = section(TRAINING, "The numbers").partition("Some of this")[0]
    stated = {name for line in numbers.splitlines() if line.startswith("|") for name in re.findall(r"`([^`]+)`", cells(line)[0])}
    assert stated == row.keys() | {"R1"}

    files = [name for line in section(TRAINING, "The files of a run").splitlines() if line.startswith("| `")
             for name in re.findall(r"`([^`]+)`", cells(line)[0])]
    assert len(files) >= 12
    for name in set(files) - {"run.lock"}:
        assert list(run.path.glob(re.sub(r"<[^>]+>", "[0-9]*", name.rstrip("/")))), name
    assert not run.lock.exists()                     # it is there while a process trains
