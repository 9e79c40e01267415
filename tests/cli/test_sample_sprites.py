"""What `ganvas sample` does for game artists: palettes, hard edges, sheets and their JSON, classes."""

import itertools
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer.main
from PIL import Image

import ganvas
from ganvas.app import class_number, palette_of_run
from ganvas.cli.main import app
from ganvas.errors import ConfigError
from ganvas.generator import ImageGenerator
from ganvas.watcher import Silent

OPTIONS = {name for param in typer.main.get_command(app).commands["sample"].params for name in param.opts}
COLOURS = [(20, 20, 40), (250, 240, 230), (200, 40, 60)]
PALETTE = "GIMP Palette\n#\n15 56 15 dark\n48 98 48\n139 172 15\n155 188 15 light\n"
FOUR = {(15, 56, 15), (48, 98, 48), (139, 172, 15), (155, 188, 15)}


@pytest.fixture(scope="module")
def _clear(tmp_path_factory):
    """A folder with sprites of three colours on nothing, and a run that learnt a few steps of them, transparency included."""
    return tmp_path_factory.mktemp("clear")


@pytest.fixture
def clear(_clear, train, monkeypatch):
    """sprites/ and runs/sprites, of RGBA pictures 16 pixels wide, in this test's own folder."""
    if not (_clear / "runs").is_dir():
        with monkeypatch.context() as patch:
            patch.chdir(_clear)
            rng = np.random.default_rng(0)
            Path("sprites").mkdir()
            for i in range(16):
                pixels = np.zeros((16, 16, 4), np.uint8)
                pixels[3:13, 4:12, :3], pixels[3:13, 4:12, 3] = rng.choice(COLOURS, (10, 8)), 255
                Image.fromarray(pixels).save(f"sprites/{i:02d}.png")
            done = train("sprites", "--transparency", "keep", "--preset", "d2l-pokemon-64", "--steps", 3)
            assert done.code == 0, done.err
    shutil.copytree(_clear / "sprites", "sprites")
    shutil.copytree(_clear / "runs", "runs")
    return Path("runs/sprites")


def pixels(path, mode=None):
    image = Image.open(path)
    return np.asarray(image if mode is None else image.convert(mode))


def seen_colours(picture):
    """The colours of all pixels that are at all to be seen."""
    flat = picture.reshape(-1, picture.shape[-1])
    return {tuple(pixel[:3]) for pixel in flat.tolist() if len(pixel) == 3 or pixel[3]}


# ---------------------------------------------------------------- transparency


def test_grid_folder_array_and_sheet_keep_alpha_and_hold_the_same_pictures(clear, cli):
    done = cli("sample", "--n", 5, "--grid", "g.png", "--dir", "d", "--npz", "a.npz", "--sheet", "s.png", "--scale", 2)
    assert done.code == 0, done.err
    assert done.out.splitlines()[1:] == ["g.png", "s.png", "d", "a.npz"]
    with np.load("a.npz") as arrays:
        images = arrays["images"]
    assert images.shape == (5, 16, 16, 4) and 0 < (images[..., 3] < 128).mean() < 1
    large = images.repeat(2, 1).repeat(2, 2)
    for number in range(5):
        row, column = divmod(number, 3)
        assert np.array_equal(pixels(f"d/0-{number:05d}.png"), large[number])
        assert np.array_equal(pixels("s.png")[32 * row:, 32 * column:][:32, :32], large[number])
    grid = pixels("g.png")
    assert np.array_equal(grid[:32, :32], large[0]) and np.array_equal(grid[:32, 36:68], large[1])
    assert not grid[:, 32:36, 3].any() and not pixels("s.png")[32:, 64:].any()


def test_colour_is_black_where_a_sample_is_clear(clear, cli):
    cli("sample", "--n", 64, "--npz", "a.npz")
    with np.load("a.npz") as arrays:
        images = arrays["images"]
    assert not images[images[..., 3] == 0].any()


def test_hard_alpha_leaves_nothing_between_opaque_and_clear(clear, cli):
    cli("sample", "--n", 6, "--npz", "soft.npz")
    done = cli("sample", "--n", 6, "--hard-alpha", "--npz", "hard.npz", "--dir", "d")
    assert done.code == 0
    with np.load("soft.npz") as soft, np.load("hard.npz") as hard:
        before, after = soft["images"], hard["images"]
        assert np.array_equal(soft["z"], hard["z"])
    assert set(np.unique(after[..., 3])) == {0, 255}
    assert np.array_equal(after[..., 3] == 255, before[..., 3] >= 128)
    assert np.array_equal(after[after[..., 3] > 0][:, :3], before[before[..., 3] >= 128][:, :3])
    assert np.array_equal(pixels("d/0-00003.png"), after[3])


# ---------------------------------------------------------------- palettes


def test_the_palette_of_the_data_is_the_colours_of_the_training_images(clear, cli):
    done = cli("sample", "--n", 6, "--palette", "data", "--dir", "d", "--sheet", "s.png")
    assert done.code == 0, done.err
    assert "painted in the 3 colours of 16 training images" in done.out
    for path in [*Path("d").iterdir(), Path("s.png")]:
        assert seen_colours(pixels(path)) <= set(COLOURS)


def test_the_palette_is_the_same_whichever_pictures_are_painted(finished, cli):
    first, second = (cli("sample", "--n", 40, "--seed", seed, "--palette", "data", "--dir", f"{seed}") for seed in (0, 1))
    assert first.out.splitlines()[-2] == second.out.splitlines()[-2]
    assert first.out.splitlines()[-2].endswith(" of the colours of 20 training images")        # resizing has mixed many
    palette, _ = palette_of_run("runs/images", ganvas.load("runs/images"), watch=Silent())
    for seed in (0, 1):
        painted = set().union(*(seen_colours(pixels(path)) for path in Path(str(seed)).iterdir()))
        assert painted <= {tuple(colour) for colour in palette.tolist()}


@pytest.mark.parametrize("name", ["four.gpl", "four.png"])
def test_pictures_are_painted_in_the_colours_of_a_file_with_seeds_unchanged(finished, cli, name):
    Path("four.gpl").write_text(PALETTE)
    Image.fromarray(np.array([sorted(FOUR)], np.uint8)).save("four.png")
    done = cli("sample", "--n", 4, "--seed", 3, "--palette", name, "--npz", "painted.npz", "--grid", "g.png", "--scale", 1)
    assert done.code == 0, done.err
    assert done.out.splitlines()[1] == f"painted in the 4 colours of {name}"
    with np.load("painted.npz") as arrays:
        assert np.array_equal(arrays["z"], ganvas.load("runs/images").z(4, 3))
        assert seen_colours(arrays["images"]) <= FOUR
        assert np.array_equal(pixels("g.png")[:16, :16], arrays["images"][0])


def test_hard_edges_and_colours_go_together(clear, cli):
    Path("four.gpl").write_text(PALETTE)
    done = cli("sample", "--n", 9, "--palette", "four.gpl", "--hard-alpha", "--sheet", "s.png")
    assert done.code == 0, done.err
    found = {tuple(pixel) for pixel in pixels("s.png").reshape(-1, 4).tolist()}
    assert found <= {(*colour, 255) for colour in FOUR} | {(0, 0, 0, 0)}


def test_grey_pictures_can_be_painted_in_colours(train, images, cli):
    assert train("images", "--channels", 1).code == 0
    Path("four.gpl").write_text(PALETTE)
    assert cli("sample", "--n", 2, "--palette", "four.gpl", "--dir", "green").code == 0
    assert seen_colours(pixels("green/0-00000.png")) <= FOUR
    assert cli("sample", "--n", 2, "--palette", "data", "--dir", "grey", "--sheet", "s.png").code == 0
    assert pixels("grey/0-00000.png").ndim == 2
    assert np.array_equal(pixels("s.png")[:16, :16, 0], pixels("grey/0-00000.png"))


def test_images_that_have_moved_can_be_named(clear, cli):
    Path("sprites").rename("elsewhere")
    done = cli("sample", "--palette", "data")
    assert done.code == 1 and all(word in done.err for word in ("--palette data", "sprites", "--data"))
    done = cli("sample", "--palette", "data", "--data", "elsewhere")
    assert done.code == 0, done.err
    assert "the 3 colours" in done.out


# ---------------------------------------------------------------- JSON


@pytest.mark.parametrize(("args", "image", "gap"), [
    (("--sheet", "deep/s.png"), "deep/s.png", 0), (("--sheet", "s.png", "--grid", "g.png"), "s.png", 0), ((), "samples.png", 2),
    (("--grid", "g.png", "--npz", "a.npz"), "g.png", 2),
])
@pytest.mark.parametrize("scale", [(), ("--scale", 3)])
def test_the_json_says_where_each_picture_lies(finished, cli, args, image, gap, scale):
    done = cli("sample", "--n", 7, "--seed", 2, "--json", *args, *scale)
    assert done.code == 0, done.err
    file = Path(image).with_suffix(".json")
    assert str(file) in done.out.splitlines()
    assert [path for path in Path().rglob("*.json") if "runs" not in path.parts] == [file]
    content, picture = json.loads(file.read_text(encoding="utf-8")), pixels(image, "RGB")
    frames = content["frames"]
    assert content["meta"]["image"] == file.with_suffix(".png").name
    assert content["meta"]["size"] == {"w": picture.shape[1], "h": picture.shape[0]}
    assert [(frame["filename"], frame["seed"], frame["number"]) for frame in frames] == [
        (f"2-{number:05d}.png", 2, number) for number in range(7)]
    for frame, made in zip(frames, ganvas.load("runs/images").sample(7, 2), strict=True):
        at = frame["frame"]
        cut = picture[at["y"]:at["y"] + at["h"], at["x"]:at["x"] + at["w"]]
        enlarged = at["w"] // 16
        assert enlarged == 3 or not scale
        assert np.array_equal(cut, made.repeat(enlarged, 0).repeat(enlarged, 1))
    assert frames[1]["frame"]["x"] - frames[0]["frame"]["w"] == gap * (frames[0]["frame"]["w"] // 16)


def test_a_sheet_says_which_seed_made_it(finished, cli):
    cli("sample", "--n", 2, "--seed", 9, "--sheet", "s.png")
    assert Image.open("s.png").text["ganvas:seed"] == "9"
    assert Image.open("s.png").mode == "RGBA" and not Path("samples.png").exists()


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(("args", "words"), [
    (["--hard-alpha"], ["--hard-alpha", "no transparency", "--transparency keep"]),
    (["--sheet", "s.jpg"], ["--sheet s.jpg", "s.png"]),
    (["--sheet", "./a.png", "--grid", "a.png"], ["--sheet ./a.png", "--grid"]),
    (["--json", "--dir", "d"], ["--json", "--sheet"]),
    (["--json", "--npz", "a.npz"], ["--json", "--sheet"]),
    (["--palette", "missing.gpl"], ["--palette missing.gpl", "cannot be read"]),
    (["--palette", "16"], ["--palette 16", ".gpl", "data"]),
    (["--palette", "notes.gpl"], ["notes.gpl, line 1", "GIMP Palette"]),
    (["--data", "images"], ["--data images", "--palette data"]),
    (["--palette", "data", "--data", "nowhere"], ["--palette data", "nowhere"]),
    (["--palette", "data", "--data", "others"], ["--palette data", "others", "trained on"]),
    (["mailed.safetensors", "--palette", "data"], ["--palette data", "mailed.safetensors", "run folder"]),
    (["--label", "cat"], ["--label cat", "without classes"]),
    (["--sheet", "images/000.png/s.png"], ["images/000.png", "cannot be written"]),
])
def test_what_cannot_be_made_is_named_and_nothing_is_written(finished, cli, args, words):
    Path("notes.gpl").write_text("hello")
    shutil.copytree("images", "others")
    Path("others/000.png").unlink()
    shutil.copy(next(Path("runs/images/checkpoints").glob("generator-*")), "mailed.safetensors")
    done = cli("sample", *args)
    assert done.code == 1
    assert all(word in done.err for word in words), done.err
    assert not Path("samples.png").exists() and not Path("d").exists() and not Path("a.npz").exists()


# ---------------------------------------------------------------- classes


class Conditional(ImageGenerator):
    """Stands for a generator that knows classes: each one's pictures have a level of their own."""

    def __init__(self, *names):
        self.class_names, self.nimg, self.image_channels, self.z_dim, self.averaged = names, 40, 3, 2, True

    def z(self, n, seed=0, start=0, purpose=None, label=None):
        labels = np.arange(n) % len(self.class_names) if label is None else np.full(n, label)
        return np.concatenate([np.zeros((n, 2)), np.eye(len(self.class_names))[labels]], axis=1).astype(np.float32)

    def sample(self, n, seed=0, start=0, purpose=None, label=None):
        levels = self.z(n, seed, label=label)[:, 2:].argmax(1).astype(np.uint8)
        return np.broadcast_to(10 * levels[:, None, None, None], (n, 4, 4, 3)).copy()


@pytest.fixture
def conditional(monkeypatch):
    made = Conditional("cat", "Dog", "dog", "Owl")
    monkeypatch.setattr("ganvas.generator.load", lambda *args, **kwargs: made)
    Path("run.safetensors").touch()
    return made


def test_all_pictures_are_of_the_class_that_is_named(conditional, cli):
    files = ("--dir", "d", "--sheet", "s.png", "--json", "--npz", "a.npz")
    done = cli("sample", "run.safetensors", "--label", "owl", "--n", 3, *files)
    assert done.code == 0, done.err
    assert all((pixels(path) == 30).all() for path in Path("d").iterdir())
    assert Image.open("d/0-00001.png").text["ganvas:label"] == Image.open("s.png").text["ganvas:label"] == "Owl"
    assert [frame["label"] for frame in json.loads(Path("s.json").read_text())["frames"]] == ["Owl"] * 3
    with np.load("a.npz") as arrays:
        assert (arrays["z"][:, 2:].argmax(1) == 3).all()


def test_without_a_label_each_picture_says_which_class_was_drawn(conditional, cli):
    assert cli("sample", "run.safetensors", "--n", 5, "--dir", "d", "--sheet", "s.png", "--json").code == 0
    drawn = [frame["label"] for frame in json.loads(Path("s.json").read_text())["frames"]]
    assert drawn == [Image.open(f"d/0-{number:05d}.png").text["ganvas:label"] for number in range(5)] == [
        *itertools.islice(itertools.cycle(conditional.class_names), 5)]
    assert "ganvas:label" not in Image.open("s.png").text


@pytest.mark.parametrize(("label", "words"), [
    ("bird", ["--label bird", "cat, Dog, dog, Owl"]), ("DOG", ["--label DOG", "Dog or dog"]), ("", ["cat, Dog, dog, Owl"]),
])
def test_a_class_that_there_is_not_is_answered_with_those_that_there_are(conditional, cli, label, words):
    done = cli("sample", "run.safetensors", "--label", label)
    assert done.code == 1 and all(word in done.err for word in words), done.err


def test_a_class_is_looked_for_exactly_and_then_whatever_its_case():
    names = Conditional("A", "a", "Straße", "7")
    assert [class_number(names, label) for label in ("A", "a", "STRASSE", "7")] == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match=r"0, 1, 2, .*, 39, … \(1,000 in all\)"):
        class_number(Conditional(*map(str, range(1000))), "x")


# ---------------------------------------------------------------- the page


def test_the_commands_of_the_page_run_and_say_and_write_what_it_shows(clear, cli):
    page = (Path(__file__).parents[2] / "docs" / "sprites.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(\w*)\n(.*?)```", page, flags=re.DOTALL)
    (palette,) = [text for _, text in blocks if text.startswith("GIMP Palette")]
    (shown,) = [text for _, text in blocks if text.startswith("runs/")]
    (frames,) = [text for kind, text in blocks if kind == "json"]
    Path("four.gpl").write_text(palette, encoding="utf-8")
    commands = [shlex.split(line, comments=True)[1:] for kind, text in blocks if kind == "sh" for line in text.splitlines()]
    assert [command[0] for command in commands] == ["train", "sample", "sample", "sample"]
    done = [cli(*command) for command in commands[1:]]
    assert all(one.code == 0 for one in done), done
    assert done[-1].out.splitlines()[1:] == shown.splitlines()[1:]
    entries = [re.sub(r'"([xywh])": (\d+)', lambda found: f'"{found[1]}": {int(found[2]) * 2}', line)      # 32 pixels, not 16
               for line in Path("sheet.json").read_text(encoding="utf-8").splitlines()]
    assert all(entry.startswith(line.rstrip("…},")) for entry, line in zip(entries, frames.splitlines(), strict=False))
    rows = "".join(line for line in page.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`(--[a-z-]+)", rows)) <= OPTIONS
