"""The plain scripts in examples/plain: the presets are compared with them, so here they are pinned to the specification."""

import copy
import gzip
import importlib.util
import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.testing import assert_close

pytest.importorskip("torchvision", reason="the plain scripts read images with torchvision: pip install ganvas[examples]")

FOLDER = Path(__file__).parents[1] / "examples" / "plain"
NAMES = [
    "d2l-pokemon-64",
    "udacity-pokemon-32",
    "coursera-mnist-28",
    "pytorch-faces-64",
    "keras-pokemon-64",
    "radford-faces-64",
]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Example:
    name: str
    module: Any
    G: nn.Module
    D: nn.Module

    def step(self, G: nn.Module, D: nn.Module, optimizers: tuple[Any, Any], reals: Tensor, step: int = 0) -> dict[str, Tensor]:
        return self.module.train_step(G, D, *optimizers, reals, self.module.draw_z, step=step)  # type: ignore[no-any-return]

    def reals(self, n: int) -> Tensor:
        return torch.rand(n, self.module.CHANNELS, self.module.IMAGE_SIZE, self.module.IMAGE_SIZE) * 2 - 1


@pytest.fixture(scope="module", params=NAMES)
def example(request: pytest.FixtureRequest) -> Iterator[Example]:
    """One script with its freshly made networks; a test that trains them works on copies."""
    torch.manual_seed(0)
    module = load(request.param)
    G, D = module.make_networks()
    yield Example(request.param, module, G, D)


def modules_of(*networks: nn.Module) -> Iterator[nn.Module]:
    return itertools.chain.from_iterable(network.modules() for network in networks)


def kernels(*networks: nn.Module) -> list[nn.Module]:
    return [m for m in modules_of(*networks) if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]


def norms(*networks: nn.Module) -> list[nn.Module]:
    return [m for m in modules_of(*networks) if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]


def pooled(layers: list[nn.Module], name: str) -> Tensor:
    return torch.cat([getattr(layer, name).detach().flatten() for layer in layers])


# Shapes, ranges, sizes.


def test_no_script_imports_the_library() -> None:
    for name in NAMES:
        assert not re.search(r"^\s*(import|from)\s+ganvas", (FOLDER / f"{name}.py").read_text(encoding="utf-8"), re.MULTILINE)


def test_generator_turns_z_into_images_in_range(example: Example) -> None:
    module = example.module
    torch.manual_seed(1)
    with torch.no_grad():
        images = copy.deepcopy(example.G)(module.draw_z(2))
    assert images.shape == (2, module.CHANNELS, module.IMAGE_SIZE, module.IMAGE_SIZE)
    assert images.abs().max() <= 1 and images.std() > 0


def test_discriminator_returns_one_number_for_each_image_and_a_probability_only_after_a_sigmoid(example: Example) -> None:
    D = copy.deepcopy(example.D)
    with torch.no_grad():
        for parameter in D.parameters():
            parameter.mul_(30)                      # far from undecided, so that logits leave [0, 1]
        out = D(example.reals(3) * torch.tensor([1.0, 5.0, -5.0]).view(3, 1, 1, 1))
    assert out.shape == (3,)
    is_probability = bool(((out >= 0) & (out <= 1)).all())
    assert is_probability == (example.name in {"pytorch-faces-64", "keras-pokemon-64", "radford-faces-64"})


@pytest.mark.parametrize(("name", "low", "std"), [
    ("d2l-pokemon-64", None, 1.0),
    ("udacity-pokemon-32", -1.0, 1 / math.sqrt(3)),
    ("coursera-mnist-28", None, 1.0),
    ("pytorch-faces-64", None, 1.0),
    ("keras-pokemon-64", None, 1.0),
    ("radford-faces-64", -1.0, 1 / math.sqrt(3)),
])
def test_z_has_the_original_distribution(name: str, low: float | None, std: float) -> None:
    module: Any = load(name)
    torch.manual_seed(0)
    z = module.draw_z(1000)
    assert z.shape == (1000, module.Z_DIM)
    assert_close((z.mean().item(), z.std().item()), (0.0, std), atol=0.02, rtol=0)
    if low is None:
        assert z.min() < -3 and z.max() > 3
    else:
        assert low <= z.min() < -0.99 and 0.99 < z.max() <= 1


def conv(inside: int, outside: int, kernel: int, bias: bool) -> int:
    return inside * outside * kernel * kernel + outside * bias


def linear(inside: int, outside: int, bias: bool) -> int:
    return (inside + bias) * outside


def chain(widths: list[int], kernel: int, bias: bool) -> int:
    return sum(conv(a, b, kernel, bias) for a, b in itertools.pairwise(widths))


def norm(*widths: int) -> int:
    return 2 * sum(widths)


# From the specification's layers by hand, not from the code.
PARAMETERS = {
    "d2l-pokemon-64": (
        chain([100, 512, 256, 128, 64, 3], 4, False) + norm(512, 256, 128, 64),
        chain([3, 64, 128, 256, 512, 1], 4, False) + norm(64, 128, 256, 512),
    ),
    "udacity-pokemon-32": (
        linear(100, 8192, True) + chain([512, 256, 128, 3], 4, False) + norm(512, 256, 128),
        chain([3, 64, 128, 256], 4, False) + norm(128, 256) + linear(4096, 1, True),
    ),
    "coursera-mnist-28": (
        conv(64, 256, 3, True) + conv(256, 128, 4, True) + conv(128, 64, 3, True) + conv(64, 1, 4, True) + norm(256, 128, 64),
        conv(1, 16, 3, True) + conv(16, 32, 5, True) + conv(32, 64, 5, True) + norm(16, 32, 64) + linear(64, 1, True),
    ),
    "pytorch-faces-64": (
        chain([100, 512, 256, 128, 64, 3], 4, False) + norm(512, 256, 128, 64),
        chain([3, 64, 128, 256, 512, 1], 4, False) + norm(128, 256, 512),
    ),
    "keras-pokemon-64": (
        linear(100, 8192, True) + chain([512, 256, 128, 64, 3], 5, True) + norm(512, 256, 128, 64),
        chain([3, 64, 128, 256, 512], 5, True) + norm(128, 256, 512) + linear(8192, 1, True),
    ),
    "radford-faces-64": (
        linear(100, 16384, False) + chain([1024, 512, 256, 128, 3], 5, False) + norm(16384, 512, 256, 128),
        chain([3, 128, 256, 512, 1024], 5, False) + norm(256, 512, 1024) + linear(16384, 1, False),
    ),
}


def test_parameter_counts_are_those_of_the_specified_layers_and_of_the_docstring(example: Example) -> None:
    g, d = (sum(p.numel() for p in network.parameters()) for network in (example.G, example.D))
    assert (g, d) == PARAMETERS[example.name]
    assert f"Parameters: G {g:,}, D {d:,}." in (example.module.__doc__ or "")
    assert f"| {g:,}, {d:,} |" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_published_parameter_counts_agree() -> None:
    assert PARAMETERS["d2l-pokemon-64"] == (3_576_704, 2_765_696)
    assert PARAMETERS["pytorch-faces-64"] == (3_576_704, 2_765_568)


def test_grey_images_change_only_the_first_and_last_layer() -> None:
    for name in ("d2l-pokemon-64", "udacity-pokemon-32", "pytorch-faces-64", "keras-pokemon-64"):
        module: Any = load(name)
        G, D = module.make_networks(channels=1)
        assert G(module.draw_z(2)).shape == (2, 1, module.IMAGE_SIZE, module.IMAGE_SIZE)
        assert D(torch.zeros(2, 1, module.IMAGE_SIZE, module.IMAGE_SIZE)).shape == (2,)


# Initialisation.


def assert_normal(values: Tensor, mean: float, std: float) -> None:
    """Sample mean and deviation within 5 standard errors, and not everything within 2 deviations, as a uniform's would be."""
    values = values[:: max(1, len(values) // 1_000_000)]
    n = len(values)
    assert abs(values.mean().item() - mean) < 5 * std / math.sqrt(n)
    assert abs(values.std().item() - std) < 5 * std / math.sqrt(2 * n)
    assert (values - mean).abs().max() > 2 * std


def test_initial_weights_have_the_original_distribution(example: Example) -> None:
    weights, norm_layers = kernels(example.G, example.D), norms(example.G, example.D)
    gains, shifts = pooled(norm_layers, "weight"), pooled(norm_layers, "bias")
    match example.name:
        case "d2l-pokemon-64":
            for values in (pooled(weights, "weight"), gains, shifts):
                assert_normal(values, 0, 0.02)
        case "coursera-mnist-28":
            assert_normal(pooled([w for w in weights if not isinstance(w, nn.Linear)], "weight"), 0, 0.02)
            assert_normal(gains, 0, 0.02)
            assert not shifts.any()
            assert all(w.bias.detach().std() > 0 for w in weights if w.bias.numel() > 1)  # type: ignore[operator]
        case "pytorch-faces-64" | "radford-faces-64":
            assert_normal(pooled(weights, "weight"), 0, 0.02)
            assert_normal(gains, 1, 0.02)
            assert not shifts.any()
        case _:
            assert (gains == 1).all() and not shifts.any()


@pytest.mark.parametrize("name", ["udacity-pokemon-32", "keras-pokemon-64"])
def test_uniform_initial_weights_have_the_original_bounds(name: str) -> None:
    G, D = load(name).make_networks()
    for layer in kernels(G, D):
        weight: Any = layer.weight
        area = weight[0, 0].numel()
        fan_0, fan_1 = weight.shape[0] * area, weight.shape[1] * area
        # Glorot: sqrt(6 / (fan in + fan out)); PyTorch's default: 1 / sqrt(fan in), which it takes from dimension 1.
        bound = math.sqrt(6 / (fan_0 + fan_1)) if name.startswith("keras") else 1 / math.sqrt(fan_1)
        assert 0.95 * bound < weight.detach().abs().max() <= bound * 1.0001
        assert_close(weight.detach().std().item(), bound / math.sqrt(3), rtol=0.05, atol=0)
        if name.startswith("keras"):
            assert not layer.bias.detach().any()  # type: ignore[operator]


# Optimizers and norms.

ADAM = {                                            # lr, betas, eps, weight_decay
    "d2l-pokemon-64": (0.005, (0.5, 0.999), 1e-8, 0),
    "udacity-pokemon-32": (2e-4, (0.5, 0.9), 1e-8, 0),
    "coursera-mnist-28": (2e-4, (0.5, 0.99), 1e-8, 0),
    "pytorch-faces-64": (2e-4, (0.5, 0.999), 1e-8, 0),
    "keras-pokemon-64": (2e-4, (0.5, 0.999), 1e-7, 0),
    "radford-faces-64": (2e-4, (0.5, 0.999), 1e-8, 1e-5),
}


def test_optimizers_and_norms_have_the_original_constants(example: Example) -> None:
    for network, optimizer in zip((example.G, example.D), example.module.make_optimizers(example.G, example.D), strict=True):
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == ADAM[example.name]
        assert {id(p) for p in group["params"]} == {id(p) for p in network.parameters()}
    eps = {"keras-pokemon-64": 1e-3, "radford-faces-64": 1e-8}.get(example.name, 1e-5)
    for layer in norms(example.G, example.D):
        assert layer.eps == eps and layer.momentum == 0.1
        assert (layer.running_mean is None) == (example.name == "radford-faces-64")


def test_keras_padding_starts_one_pixel_before_the_image_and_the_transposed_convolution_is_its_adjoint() -> None:
    module: Any = load("keras-pokemon-64")
    down, up = module.SameConv2d(1, 1).double(), module.SameConvTranspose2d(1, 1).double()
    nn.init.zeros_(down.bias), nn.init.zeros_(up.bias)
    x, y = torch.randn(1, 1, 8, 8, dtype=torch.float64), torch.randn(1, 1, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        down.weight.zero_()[0, 0, 1, 1] = 1         # the kernel's tap (1, 1) falls on pixel (2i, 2j): one row was padded before
        assert_close(down(x), x[:, :, ::2, ::2])
        up.weight.copy_(nn.init.normal_(down.weight))
        assert_close((down(x) * y).sum(), (x * up(y)).sum())


# Updates.


def test_two_steps_change_every_parameter_of_the_networks_whose_turn_it_is(example: Example) -> None:
    torch.manual_seed(2)
    G, D = copy.deepcopy(example.G), copy.deepcopy(example.D)
    optimizers = example.module.make_optimizers(G, D)
    alternating = example.name == "radford-faces-64"
    for step in range(2):
        before = [[p.detach().clone() for p in network.parameters()] for network in (G, D)]
        stats = example.step(G, D, optimizers, example.reals(4), step)
        turns = (step == 0, step == 1) if alternating else (True, True)
        for network, old, its_turn in zip((G, D), before, turns, strict=True):
            changed = [not torch.equal(p, q) for p, q in zip(network.parameters(), old, strict=True)]
            assert all(changed) if its_turn else not any(changed)
        assert ("Loss_G" in stats, "Loss_D" in stats) == turns
        assert all(math.isfinite(value) for value in stats.values())


PASSES = {                                          # in one step: draws of z, G's forward passes, D's updates
    "d2l-pokemon-64": (1, 2, 1),
    "udacity-pokemon-32": (2, 2, 1),
    "coursera-mnist-28": (2, 2, 1),
    "pytorch-faces-64": (1, 1, 1),
    "keras-pokemon-64": (2, 2, 2),
}


@pytest.mark.parametrize("name", PASSES)
def test_a_step_draws_runs_and_updates_as_often_as_the_original_and_keeps_float64(name: str) -> None:
    module: Any = load(name)
    torch.manual_seed(3)
    G, D = (network.double() for network in module.make_networks())
    opt_G, opt_D = module.make_optimizers(G, D)
    draws: list[int] = []

    def draw_z(n: int) -> Tensor:
        draws.append(n)
        return module.draw_z(n)  # type: ignore[no-any-return]

    reals = torch.rand(2, module.CHANNELS, module.IMAGE_SIZE, module.IMAGE_SIZE, dtype=torch.float64) * 2 - 1
    stats = module.train_step(G, D, opt_G, opt_D, reals, draw_z)
    n_draws, n_passes, n_updates = PASSES[name]
    assert draws == [2] * n_draws
    assert {int(layer.num_batches_tracked) for layer in norms(G)} == {n_passes}  # type: ignore[arg-type]
    assert {int(layer.num_batches_tracked) for layer in norms(D)} == {3}  # type: ignore[arg-type]
    assert {int(state["step"]) for state in opt_D.state.values()} == {n_updates}
    assert {int(state["step"]) for state in opt_G.state.values()} == {1}
    assert {value.dtype for value in stats.values()} == {torch.float64}


def test_an_undecided_discriminator_loses_ln_2_for_each_side(example: Example) -> None:
    torch.manual_seed(4)
    G, D = copy.deepcopy(example.G), copy.deepcopy(example.D)
    for parameter in D.parameters():
        nn.init.zeros_(parameter)
    loss_D = example.step(G, D, example.module.make_optimizers(G, D), example.reals(2), step=1)["Loss_D"]
    sides = 1 if example.name in {"d2l-pokemon-64", "coursera-mnist-28"} else 2    # halved, or the sum
    assert_close(loss_D.item(), sides * math.log(2), atol=1e-3, rtol=0)            # keras: its second update follows its first


# Data and the whole script.


def write_images(folder: Path, n: int) -> None:
    rng = np.random.default_rng(0)
    (folder / "class").mkdir(parents=True)
    for i in range(n):
        pixels = rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / ("class" if i % 2 else ".") / f"{i}.png")


def write_digits(folder: Path, n: int) -> None:
    folder.mkdir()
    header = np.array([0x803, n, 28, 28], dtype=">i4").tobytes()
    pixels = np.random.default_rng(0).integers(0, 256, (n, 28, 28), dtype=np.uint8)
    with gzip.open(folder / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(header + pixels.tobytes())


STATISTICS = {
    "d2l-pokemon-64": r"epoch 1, loss_D \d+\.\d{3}, loss_G \d+\.\d{3}, \d+\.\d examples/sec on \w+",
    "udacity-pokemon-32": r"Epoch \[    1/    1\] \| d_loss: \d\.\d{4} \| g_loss: \d\.\d{4}",
    "coursera-mnist-28": r"step 2: mean Loss_D \d\.\d{4}, mean Loss_G \d\.\d{4}",
    "pytorch-faces-64": r"\[0/3\] Loss_D: \d\.\d{4} Loss_G: \d+\.\d{4} D\(x\): 0\.\d{4} D\(G\(z\)\): 0\.\d{4} / 0\.\d{4}",
    "keras-pokemon-64": r"2/2 \[D loss: \d+\.\d{4}\] \[G loss: \d+\.\d{4}\]",
    "radford-faces-64": r"1 2 g_cost \d+\.\d{4} d_cost \d+\.\d{4}",
}
PICTURES = {
    "d2l-pokemon-64": {"epoch_001.png"},
    "udacity-pokemon-32": {"epoch_001.png"},
    "coursera-mnist-28": {"step_000002_fake.png", "step_000002_real.png"},
    "pytorch-faces-64": {"epoch_001.png"},
    "keras-pokemon-64": {"step_00002.png", "progress.gif"},
    "radford-faces-64": {"epoch_001.png"},
}


@pytest.mark.parametrize("name", NAMES)
def test_script_trains_on_a_folder_and_draws_its_pictures(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module: Any = load(name)
    monkeypatch.setattr(module, "PICTURES", 4)      # radford's 196 would be most of the test's time
    is_mnist = name == "coursera-mnist-28"
    (write_digits if is_mnist else write_images)(tmp_path / "data", 5)    # batches of 2, 2 and a single image
    length = ["--steps", "2"] if name == "keras-pokemon-64" else ["--epochs", "1"]
    module.main([str(tmp_path / "data"), *length, "--batch", "2", "--workers", "0", "--out", str(tmp_path / "out")])
    assert re.search(STATISTICS[name], capsys.readouterr().out)
    assert {path.name for path in (tmp_path / "out").iterdir()} == PICTURES[name]
    with Image.open(tmp_path / "out" / min(PICTURES[name] - {"progress.gif"})) as picture:
        assert min(picture.size) >= module.IMAGE_SIZE
        assert len(np.unique(np.asarray(picture))) > 2     # more than the frame and one grey


@pytest.mark.parametrize("name", [name for name in NAMES if name != "coursera-mnist-28"])
def test_images_are_squashed_or_cut_as_in_the_original(name: str, tmp_path: Path) -> None:
    pixels = np.zeros((64, 192, 3), dtype=np.uint8)
    pixels[:, 64:128] = 255                         # black, white, black: three squares
    Image.fromarray(pixels).save(tmp_path / "three.png")
    module: Any = load(name)
    image = module.make_dataset(tmp_path)[0]
    square_cut = name in {"pytorch-faces-64", "radford-faces-64"}
    assert image.shape == (3, module.IMAGE_SIZE, module.IMAGE_SIZE)
    assert (image.min(), image.max()) == ((1, 1) if square_cut else (-1, 1))
    assert module.make_dataset(tmp_path, channels=1)[0].shape == (1, module.IMAGE_SIZE, module.IMAGE_SIZE)


def test_digits_are_turned_anew_each_time_and_lie_between_minus_one_and_one(tmp_path: Path) -> None:
    write_digits(tmp_path / "mnist", 3)
    dataset = load("coursera-mnist-28").make_dataset(tmp_path / "mnist")
    torch.manual_seed(0)
    first, again = dataset[0], dataset[0]
    assert len(dataset) == 3 and first.shape == (1, 28, 28)
    assert first.min() == -1 and 0.9 < first.max() <= 1
    assert not torch.equal(first, again)


def test_an_empty_folder_is_named_in_the_error(tmp_path: Path) -> None:
    for name in NAMES:
        with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))):
            load(name).make_dataset(tmp_path)
