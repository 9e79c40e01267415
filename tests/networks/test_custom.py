import pytest
import torch
from torch import nn

from ganvas.config import make_config
from ganvas.errors import ConfigError
from ganvas.networks.custom import own_networks

CONFIG = make_config({"network.family": "custom", "data.size": "5x4", "data.channels": 1, "network.z_dim": 6, "train.seed": 3})


class MyGenerator(nn.Module):
    def __init__(self, z_dim=6, shape=(1, 4, 5)):
        super().__init__()
        self.linear, self.norm, self.shape = nn.Linear(z_dim, shape[0] * shape[1] * shape[2]), nn.BatchNorm1d(20), shape

    def forward(self, z):
        x = self.linear(z)
        return (self.norm(x) if x.shape[1] == 20 else x).unflatten(1, self.shape).tanh()


class MyDiscriminator(nn.Module):
    def __init__(self, inputs=20, outputs=1):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, images):
        return self.linear(images.flatten(1))


def test_modules_are_taken_as_they_are():
    G, D = MyGenerator(), MyDiscriminator()
    assert own_networks(G, D, CONFIG) == (G, D)


def test_functions_that_make_networks_are_called_with_the_seed_of_the_run():
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    first, second = (own_networks(MyGenerator, MyDiscriminator, CONFIG) for _ in range(2))
    assert torch.equal(first[0].linear.weight, second[0].linear.weight)
    assert torch.equal(first[1].linear.weight, second[1].linear.weight)
    assert torch.equal(torch.random.get_rng_state(), before)
    other = own_networks(MyGenerator, MyDiscriminator, make_config({**_options(), "train.seed": 4}))
    assert not torch.equal(first[0].linear.weight, other[0].linear.weight)


def _options():
    return {"network.family": "custom", "data.size": "5x4", "data.channels": 1, "network.z_dim": 6}


def test_a_look_leaves_batch_norm_alone():
    G = MyGenerator()
    own_networks(G, MyDiscriminator(), CONFIG)
    assert int(G.norm.num_batches_tracked) == 0


@pytest.mark.parametrize(("G", "D", "named"), [
    (MyGenerator(z_dim=7), MyDiscriminator(), ["generator MyGenerator", "(N, 6)", "network.z_dim"]),
    (MyGenerator(shape=(3, 4, 5)), MyDiscriminator(), ["generator MyGenerator", "(2, 3, 4, 5)", "(2, 1, 4, 5)", "size="]),
    (MyGenerator(shape=(1, 5, 4)), MyDiscriminator(), ["(2, 1, 5, 4)", "(2, 1, 4, 5)"]),
    (MyGenerator(), MyDiscriminator(outputs=2), ["discriminator MyDiscriminator", "(2, 2)", "logit for each"]),
    (MyGenerator(), MyDiscriminator(inputs=30), ["discriminator MyDiscriminator", "(N, 1, 4, 5)"]),
])
def test_networks_that_do_not_fit_the_run_are_refused_before_training(G, D, named):
    with pytest.raises(ConfigError) as error:
        own_networks(G, D, CONFIG)
    assert [part for part in named if part not in str(error.value)] == []
