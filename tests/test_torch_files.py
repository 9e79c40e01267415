"""What is found in files that torch.save wrote, and what is refused."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from ganvas.errors import RunError
from ganvas.torch_files import read_networks


class RunsCode:
    """Makes a folder where it is unpickled."""

    def __init__(self, where):
        self.where = str(where)

    def __reduce__(self):
        return os.mkdir, (self.where,)


def linear():
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).state_dict()


def read(folder, content):
    torch.save(content, folder / "net.pth")
    return read_networks(folder / "net.pth")


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_a_state_dict_is_one_network_in_its_own_order(tmp_path):
    weights = linear()
    networks = read(tmp_path, weights)
    assert list(networks) == [""]
    assert same(networks[""], weights)


@pytest.mark.parametrize(("names", "expected"), [
    (["state_dict"], ""), (["model"], ""), (["params"], ""), (["model_state_dict"], ""), (["weights"], ""),
    (["netG"], "G"), (["generator"], "G"), (["G"], "G"), (["G_state_dict"], "G"), (["generator_state"], "G"), (["gen"], "G"),
    (["netD"], "D"), (["discriminator_state_dict"], "D"), (["critic"], "D"), (["g_ema"], "G_ema"), (["G_ema"], "G_ema"),
    (["model", "generator"], "G"), (["netG", "state_dict"], "G"), (["optimizerG_state_dict"], None), (["ema_decay"], None),
])
def test_a_state_dict_is_found_by_the_names_of_the_dicts_around_it(tmp_path, names, expected):
    weights = content = linear()
    for name in reversed(names):
        content = {name: content, "epoch": 7}
    if expected is None:
        with pytest.raises(RunError, match="holds no state dict"):
            read(tmp_path, content)
    else:
        networks = read(tmp_path, content)
        assert list(networks) == [expected]
        assert same(networks[expected], weights)


def test_both_networks_of_one_checkpoint_are_found_and_its_optimizers_are_not(tmp_path):
    G, D = linear(), linear()
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(2))]).state_dict()
    networks = read(tmp_path, {"netG": G, "netD": D, "optimizerG": optimizer, "epoch": 3, "lr": 2e-4})
    assert set(networks) == {"G", "D"}
    assert same(networks["G"], G) and same(networks["D"], D)


def test_one_state_dict_is_taken_apart_where_its_names_begin_with_networks(tmp_path):
    G, D = linear(), linear()
    both = {f"{which}.{name}": value for which, own in (("generator", G), ("discriminator", D)) for name, value in own.items()}
    networks = read(tmp_path, {"state_dict": both | {"loss.scale": torch.ones(1)}})
    assert same(networks["G"], G) and same(networks["D"], D)


def test_what_data_parallel_puts_before_the_names_is_taken_off(tmp_path):
    weights = linear()
    assert same(read(tmp_path, {f"module.{name}": value for name, value in weights.items()})[""], weights)


def test_parameters_and_half_precision_are_weights_and_sparse_and_meta_tensors_are_not(tmp_path):
    networks = read(tmp_path, {
        "a": nn.Parameter(torch.ones(2)), "b": torch.ones(2).half(), "sparse": torch.eye(2).to_sparse(),
        "meta": torch.ones(2, device="meta"), "complex": torch.ones(2, dtype=torch.complex64), "epoch": 3})
    assert list(networks[""]) == ["a", "b"]


@pytest.mark.parametrize("wrap", [lambda bad: bad, lambda bad: {"netG": linear(), "more": bad}])
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, wrap):
    path, made = tmp_path / "netG.pth", tmp_path / "made"
    torch.save(wrap(RunsCode(made)), path)
    with pytest.raises(RunError, match=r"netG\.pth: holds more than tensors \(.*mkdir\).*could run code.*state_dict"):
        read_networks(path)
    assert not made.exists()
    torch.load(path, weights_only=False)
    assert made.exists(), "the file does run code where it is let"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_bare_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path, protocol):
    path, made = tmp_path / "netG.pth", tmp_path / "made"
    path.write_bytes(pickle.dumps(RunsCode(made), protocol))
    with pytest.raises(RunError, match=r"netG\.pth"):
        read_networks(path)
    assert not made.exists()
    pickle.loads(path.read_bytes())
    assert made.exists(), "the file does run code where it is let"


def test_a_whole_module_is_refused_with_what_to_save_instead(tmp_path):
    with pytest.raises(RunError, match=r"net\.pth: holds more than tensors \(torch\.nn.*torch\.save\(netG\.state_dict\(\)"):
        read(tmp_path, nn.Sequential(nn.Linear(2, 2)))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"\x89PNG\r\n", bytes(range(256))])
def test_what_is_no_file_of_weights_is_refused(tmp_path, content):
    path = tmp_path / "picture.pth"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"picture\.pth: is no file of weights, or is torn"):
        read_networks(path)


def test_a_torn_file_is_refused_wherever_it_ends(tmp_path):
    path = tmp_path / "netG.pth"
    torch.save(linear(), path)
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(RunError, match="netG"):
            read_networks(path)


@pytest.mark.parametrize("content", [3, [torch.ones(2)], torch.ones(2), {}, {"epoch": 3}, {"netG": {}}])
def test_a_file_without_a_state_dict_is_refused(tmp_path, content):
    with pytest.raises(RunError, match=r"holds no state dict.*torch\.save"):
        read(tmp_path, content)


def test_a_dict_that_holds_itself_ends(tmp_path):
    content = {}
    content["model"] = content
    with pytest.raises(RunError, match="holds no state dict"):
        read(tmp_path, content)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RunError, match=r"gone\.pth: cannot be read"):
        read_networks(Path(tmp_path / "gone.pth"))
