"""Draws docs/pictures/<preset>.svg and fills the table of docs/presets.md, both from the presets and their networks.

    python docs/make_diagrams.py

A diagram shows what the modules themselves report, so it cannot differ from the code; tests/test_docs.py checks that the
committed files are what this makes.
"""

import itertools
import math
import re
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import torch
from torch import Tensor, nn

from ganvas.config import RunConfig, make_config
from ganvas.networks.build import build_networks
from ganvas.networks.summary import LayerRow, summarise
from ganvas.presets import load_preset, preset_names

DOCS = Path(__file__).parent
TABLE = re.compile(r"(<!-- table: made by docs/make_diagrams\.py -->\n).*?(<!-- end of table -->)", re.DOTALL)

# ---------------------------------------------------------------- from modules to stages


class Stage(NamedTuple):
    """One convolution or linear layer and what follows it, up to the next one."""

    layers: list[str]              # lines of text
    output: tuple[int, ...]        # without the batch


class Chain(NamedTuple):
    """A network as a chain of stages."""

    title: str
    given: tuple[int, ...]
    stages: list[Stage]
    parameters: int


def networks_of(preset: str) -> tuple[RunConfig, nn.Module, nn.Module]:
    """(config, G, D) of a preset."""
    config = make_config(load_preset(preset).values)
    return config, *build_networks(config.network, config.data, seed=0)


def chains_of(preset: str) -> list[Chain]:
    """G and D of a preset, read from the modules while two examples run through them."""
    config, G, D = networks_of(preset)
    width, height = config.data.size
    images = torch.zeros(2, config.data.channels, height, width)
    return [_chain("Generator", G, torch.zeros(2, config.network.z_dim)), _chain("Discriminator", D, images)]


def _chain(title: str, network: nn.Module, example: Tensor) -> Chain:
    rows = summarise(network, example)
    stages: list[Stage] = []
    for row in rows:
        has_kernel = bool(row.parameters) and not row.layer.startswith("BatchNorm")
        after_flatten = bool(stages) and stages[-1].layers == ["Flatten"]
        if row.layer == "Flatten" or (has_kernel and not after_flatten):
            stages.append(Stage([], ()))
        stages[-1] = Stage(stages[-1].layers + _lines(row), row.output)
    if _ends_in_tanh(network, rows[-1].name, example):       # a function in forward, so no row of its own
        stages[-1].layers.append("tanh")
    return Chain(title, tuple(example.shape[1:]), stages, sum(row.parameters for row in rows))


@torch.no_grad()
def _ends_in_tanh(network: nn.Module, last: str, example: Tensor) -> bool:
    seen: list[Tensor] = []
    hook = network.get_submodule(last).register_forward_hook(lambda module, given, output: seen.append(output))
    made = network.eval()(example)
    hook.remove()
    return made.shape == seen[0].shape and torch.equal(made, seen[0].tanh())


def _lines(row: LayerRow) -> list[str]:
    convolution = re.fullmatch(r"(\w+) \d+→\d+ k(\S+) s(\d+)(?: p(\d+))?( bias)?", row.layer)
    if convolution:
        kind, kernel, stride, padding, bias = convolution.groups()
        return [kind, f"{kernel}, stride {stride}" + (f", pad {padding}" if padding else "") + (", bias" if bias else "")]
    linear = re.fullmatch(r"Linear (\d+)→(\d+)( bias)?", row.layer)
    if linear:
        return ["Linear", f"{linear[1]} → {linear[2]}" + (", bias" if linear[3] else "")]
    return [row.layer]


# ---------------------------------------------------------------- from stages to a picture

COLUMN, MIDDLE, BLOCKS_HEIGHT, LINE = 160, 76, 140, 15       # pixels
STYLE = """
  svg { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
  .card { fill: #ffffff; stroke: #d0d7de; }
  text { fill: #1f2328; text-anchor: middle; font-size: 11px; }
  .title { font-size: 14px; font-weight: 600; text-anchor: start; }
  .shape { font-size: 12.5px; font-weight: 600; }
  .layer { fill: #57606a; }
  .arrow { stroke: #57606a; stroke-width: 1.5; fill: none; }
  .Generator { fill: #6ea8e6; } .Discriminator { fill: #efb05c; } .image { fill: #7cc48a; } .vector { fill: #a9b1ba; }
  .block { stroke: #1f2328; stroke-width: 1; stroke-linejoin: round; }
  .lighter { fill: #ffffff; fill-opacity: 0.45; stroke: none; } .darker { fill: #000000; fill-opacity: 0.18; stroke: none; }
  @media (prefers-color-scheme: dark) {
    .card { fill: #0d1117; stroke: #30363d; }
    text { fill: #e6edf3; }
    .layer { fill: #9aa4af; }
    .arrow { stroke: #9aa4af; }
    .Generator { fill: #3f7fc4; } .Discriminator { fill: #c0822f; } .image { fill: #4a9a5b; } .vector { fill: #6e7681; }
    .block { stroke: #0d1117; }
  }
"""


def diagram(preset: str) -> str:
    """The SVG text of a preset's two networks: a block is as high and deep as its maps, and as thick as there are many."""
    chains = chains_of(preset)
    columns = max(len(chain.stages) for chain in chains) + 1
    width = columns * COLUMN + 16
    parts: list[str] = []
    top = 12
    for chain in chains:
        drawn, height = _draw(chain)
        parts.append(f'<g transform="translate(8 {top})">\n{drawn}\n</g>')
        top += height
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" height="{top}" role="img">',
        f"<title>The networks of {preset}</title>", f"<style>{STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{width - 1}" height="{top - 1}" rx="8"/>', *parts, "</svg>", ""])


def _draw(chain: Chain) -> tuple[str, int]:
    """(SVG of one network, its height)."""
    title = f"{chain.title} · {chain.parameters:,} parameters"
    parts = [f'<text class="title" x="8" y="16">{title}</text>']
    is_generator = chain.title == "Generator"
    what = "z" if is_generator else "image"
    columns = [Stage([what], chain.given), *chain.stages]
    edges = []
    for i, stage in enumerate(columns):
        is_image = i == (len(columns) - 1 if is_generator else 0)
        x, y = COLUMN // 2 + i * COLUMN, MIDDLE + 24
        drawn, reach = _block(x, y, stage.output, "image" if is_image else chain.title)
        parts.append(drawn)
        edges.append((x - reach, x + reach))
        below = y + BLOCKS_HEIGHT // 2
        parts.append(f'<text class="shape" x="{x}" y="{below}">{_shape_text(stage, i == len(columns) - 1)}</text>')
        parts += [f'<text class="layer" x="{x}" y="{below + LINE * (n + 1)}">{escape(text)}</text>'
                  for n, text in enumerate(stage.layers)]
    for (_, start), (end, _) in itertools.pairwise(edges):
        y, tip = MIDDLE + 24, end - 5
        parts.append(f'<path class="arrow" d="M{start + 5:.1f} {y} H{tip:.1f} m-5 -4 l5 4 l-5 4"/>')
    return "\n".join(parts), 24 + MIDDLE + BLOCKS_HEIGHT // 2 + LINE * max(len(stage.layers) for stage in columns) + 14


def _shape_text(stage: Stage, last: bool) -> str:
    if last and math.prod(stage.output) == 1:
        return "1 logit"
    return " × ".join(map(str, stage.output))


def _block(x: float, y: float, shape: tuple[int, ...], kind: str) -> tuple[str, float]:
    """(SVG of a block centred at x, y; half its width)."""
    if math.prod(shape) == 1:
        return f'<circle class="block vector" cx="{x}" cy="{y}" r="7"/>', 7
    if len(shape) == 1:                                      # a vector: a bar
        return f'<rect class="block vector" x="{x - 5}" y="{y - 36}" width="10" height="72" rx="2"/>', 5
    maps, height, width = shape
    thick, high, deep = 1.6 * math.sqrt(maps), 10.5 * math.sqrt(height), 10.5 * math.sqrt(width)
    dx, dy = 0.42 * deep, 0.30 * deep
    left, bottom = x - (thick + dx) / 2, y + (high + dy) / 2
    def polygon(name: str, *points: tuple[float, float]) -> str:
        return f'<polygon class="{name}" points="' + " ".join(f"{a:.1f},{b:.1f}" for a, b in points) + '"/>'
    right, ceiling = left + thick, bottom - high
    top = (left, ceiling), (left + dx, ceiling - dy), (right + dx, ceiling - dy), (right, ceiling)
    side = (right, ceiling), (right + dx, ceiling - dy), (right + dx, bottom - dy), (right, bottom)
    outline = (left, bottom), *top[:3], side[2], (right, bottom)
    return "\n".join([
        polygon(f"block {kind}", *outline), polygon("lighter", *top), polygon("darker", *side),
    ]), (thick + dx) / 2


# ---------------------------------------------------------------- the table

TURNS = {"alternate_g_first": "G or D in turn, G first", "alternate_d_first": "D or G in turn, D first"}
# The modern ones are one network at several sizes, or leave it to the images: docs/modern.md has them.
DRAWN = [name for name in preset_names() if load_preset(name).values.get("network.family", "residual") != "residual"]
D_STEP = {"joint": "D", "real_then_fake": "D on reals, D on fakes"}
G_FAKES = {"reuse": "G on the same fakes", "same_z": "G on the same z, run again", "fresh": "G on fresh z"}
PRIOR = {"normal": "N(0, 1)", "uniform": "U(−1, 1)"}


def table() -> str:
    """The table of all presets, in Markdown."""
    lines = ["| preset | images | z | loss | one step | Adam: lr, β₁, β₂ | batch | length | parameters of G, D |",
             "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for preset in sorted(DRAWN, key=lambda name: (name == "digits-16", name)):        # the classics first
        config, G, D = networks_of(preset)
        data, network, plan, train = config.data, config.network, config.plan, config.train
        order = TURNS.get(plan.turns) or f"{D_STEP[plan.d_step]}, then {G_FAKES[plan.g_fakes]}"
        cells = [
            f"[`{preset}`](#{preset})", f"{data.size.width}×{data.size.height}×{data.channels}",
            f"{network.z_dim}, {PRIOR[network.z_distribution]}", _loss(config), order,
            f"{train.lr:g}, {train.betas[0]:g}, {train.betas[1]:g}", str(train.batch), str(config.length),
            f"{_parameters(G):,}, {_parameters(D):,}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _loss(config: RunConfig) -> str:
    plan, train = config.plan, config.train
    assert train.loss == "nonsaturating", "no preset so far has another loss: name it here"
    extras = ["D's × ½"] if plan.d_scale == 0.5 else []
    extras += [f"D's label for reals {plan.real_label:g}"] if plan.real_label != 1 else []
    extras += [f"R1 with γ {train.r1_gamma:g}"] if train.r1_gamma else []
    return "; ".join([f"cross-entropy, {plan.reduction}", *extras])


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def with_table(text: str) -> str:
    """The text of presets.md with a fresh table between its marks."""
    found, count = TABLE.subn(lambda match: match[1] + table() + match[2], text)
    if count != 1:
        raise ValueError("docs/presets.md: the two marks around the table are missing")
    return found


def main() -> None:
    (DOCS / "pictures").mkdir(exist_ok=True)
    for preset in DRAWN:
        (DOCS / "pictures" / f"{preset}.svg").write_text(diagram(preset), encoding="utf-8", newline="\n")
    page = DOCS / "presets.md"
    page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
