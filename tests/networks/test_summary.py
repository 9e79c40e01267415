import torch
from torch import nn

from ganvas.config import make_config
from ganvas.networks.build import build_networks
from ganvas.networks.summary import as_text, summarise
from ganvas.presets import load_preset


def tiny():
    config = make_config({"data.size": "16", "network.g_channels": 4, "network.d_channels": 4})
    return build_networks(config.network, config.data, seed=0)


def test_parameters_of_the_rows_add_up_to_the_networks():
    for network, example in zip(tiny(), (torch.zeros(2, 100), torch.zeros(2, 3, 16, 16)), strict=True):
        assert sum(row.parameters for row in summarise(network, example)) == sum(p.numel() for p in network.parameters())


def test_the_mnist_generator_is_told_as_its_guided_project_prints_it():
    config = make_config(load_preset("coursera-mnist-28").values)
    G, _ = build_networks(config.network, config.data, seed=0)
    rows = [row for row in summarise(G, torch.zeros(2, 64)) if "Conv" in row.layer]
    assert [row.output for row in rows] == [(256, 3, 3), (128, 6, 6), (64, 13, 13), (1, 28, 28)]
    assert [row.parameters for row in rows] == [147_712, 524_416, 73_792, 1_025]
    assert rows[0].layer == "ConvTranspose2d 64→256 k3×3 s2 bias"


def test_a_look_changes_neither_buffers_nor_mode():
    G, _ = tiny()
    G.train()
    before = [b.clone() for b in G.buffers()]
    summarise(G, torch.zeros(2, 100))
    assert G.training
    assert all(torch.equal(a, b) for a, b in zip(G.buffers(), before, strict=True))
    assert not any(m._forward_hooks for m in G.modules())


class Odd(nn.Module):
    """A layer that runs twice, and a weight outside all layers."""

    def __init__(self):
        super().__init__()
        self.layer, self.own = nn.Linear(4, 4, bias=False), nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return self.layer(self.layer(x)) + self.own.sum()


def test_every_weight_of_a_users_network_is_counted_once():
    rows = summarise(Odd(), torch.zeros(2, 4))
    assert [row.parameters for row in rows] == [16, 0, 3]


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 6))

    def forward(self, x):
        return x @ self.weight


def test_a_network_without_layers_can_be_told_too():
    assert "24 parameters, from 4" in as_text("Generator", (4,), summarise(Bare(), torch.zeros(2, 4)))
    assert "0 parameters" in as_text("Generator", (4,), summarise(nn.Identity(), torch.zeros(2, 4)))


def test_the_text_names_total_shapes_and_layers():
    G, _ = tiny()
    text = as_text("Generator", (100,), summarise(G, torch.zeros(2, 100)))
    total = sum(p.numel() for p in G.parameters())
    assert text.splitlines()[0] == f"Generator: {total:,} parameters, from 100"
    assert "3 × 16 × 16" in text
    assert all(line == line.rstrip() for line in text.splitlines())
