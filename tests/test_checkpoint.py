import os
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ganvas import checkpoint, files
from ganvas.checkpoint import read_checkpoint, read_newest, snapshot, write_checkpoint
from ganvas.errors import RunError

META = {"nimg": 12345678901, "name": "Pokémon", "nested": {"list": [1, 2.5, None, True]}}


def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "float32": torch.randn(3, 4, generator=generator),
        "float64": torch.randn(2, 2, generator=generator, dtype=torch.float64),
        "bfloat16": torch.randn(5, generator=generator).bfloat16(),
        "float16": torch.randn(5, generator=generator).half(),
        "int64": torch.tensor([2**62, -1]),
        "bool": torch.tensor([True, False, True]),
        "scalar": torch.tensor(3.25),
        "counter": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "nan": torch.tensor([float("nan"), float("inf"), -0.0]),
        "transposed": torch.randn(3, 4, generator=generator).t(),
        "every other": torch.randn(8, generator=generator)[::2],
        "expanded": torch.ones(1).expand(4),
        "channels last": torch.randn(2, 3, 4, 5, generator=generator).to(memory_format=torch.channels_last),
    }


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


@pytest.fixture
def path(tmp_path):
    target = tmp_path / "000000000008.safetensors"
    write_checkpoint(target, tensors(), META)
    return target


def test_every_kind_of_tensor_comes_back_bit_for_bit(path):
    found, meta = read_checkpoint(path)
    assert meta == META
    assert found.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert torch.equal(bits(found[name]), bits(tensor)), name


def test_parameters_and_tensors_that_share_memory_are_kept_apart(tmp_path):
    weight = torch.nn.Parameter(torch.arange(6.0))
    write_checkpoint(tmp_path / "a", {"all": weight, "first": weight[:3], "again": weight}, {})
    found, _ = read_checkpoint(tmp_path / "a")
    assert torch.equal(found["all"], weight.detach())
    assert torch.equal(found["first"], weight.detach()[:3])
    assert not found["all"].requires_grad


def test_a_part_of_a_larger_memory_is_written_without_the_rest(tmp_path):
    write_checkpoint(tmp_path / "part", {"part": torch.arange(10000.0)[5:7]}, {})
    assert torch.equal(read_checkpoint(tmp_path / "part")[0]["part"], torch.tensor([5.0, 6.0]))
    assert (tmp_path / "part").stat().st_size < 1000


def test_a_snapshot_stays_as_it_is_when_its_originals_change_in_place():
    originals = tensors() | {"weight": torch.nn.Parameter(torch.ones(3))}
    originals["expanded"] = originals["expanded"].clone()      # nothing can be written into one memory for four
    taken = snapshot(originals)
    before = {name: bits(tensor).clone() for name, tensor in taken.items()}
    with torch.no_grad():
        for tensor in originals.values():
            tensor.copy_(~tensor if tensor.dtype == torch.bool else tensor + 1)
    assert taken.keys() == originals.keys()
    for name, tensor in taken.items():
        assert torch.equal(bits(tensor), before[name]), name
        assert tensor.is_contiguous() and not tensor.requires_grad
    assert torch.equal(taken["channels last"], tensors()["channels last"])


def test_writing_a_snapshot_copies_none_of_it(tmp_path, monkeypatch):
    written, save = [], checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda tensors, header: (written.append(tensors), save(tensors, header))[1])
    taken = snapshot(tensors())
    write_checkpoint(tmp_path / "a", taken, META)
    assert all(written[0][name].data_ptr() == tensor.data_ptr() for name, tensor in taken.items())


def test_the_file_is_plain_safetensors_that_other_programs_can_read(path):
    assert torch.equal(load_file(path)["float32"], tensors()["float32"])


def test_the_file_is_readable_by_whom_the_umask_allows(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_checkpoint(tmp_path / "a", tensors(), META)
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("keep", [0, 4, 8, 200, -1, -8])
def test_a_torn_file_is_refused_by_name(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunError, match=path.name):
        read_checkpoint(path)


def test_a_flipped_bit_anywhere_in_the_tensors_or_the_json_is_noticed(path):
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    for position in (*range(start, len(content), 17), len(content) - 1, content.index(b"Pok"), content.index(b"12345678901")):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=path.name):
            read_checkpoint(path)


def test_a_flipped_bit_in_the_header_never_passes_as_other_tensors(path):
    content = path.read_bytes()
    for position in range(8, 8 + int.from_bytes(content[:8], "little"), 3):
        damaged = bytearray(content)
        damaged[position] ^= 0x01
        path.write_bytes(damaged)
        try:
            found, meta = read_checkpoint(path)
        except RunError as error:
            assert path.name in str(error)
        else:                                                   # a name of no consequence, such as the header's own padding
            assert (meta, found.keys()) == (META, tensors().keys())


def test_swapped_tensors_are_noticed(tmp_path, path):
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    swapped = tensors() | {"nan": tensors()["float32"][0, :3]}
    save_file({name: tensor.contiguous().clone() for name, tensor in swapped.items()}, tmp_path / "swapped", header)
    with pytest.raises(RunError, match="checksum"):
        read_checkpoint(tmp_path / "swapped")


def test_another_format_asks_for_an_update(path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    write_checkpoint(path, tensors(), META)
    monkeypatch.undo()
    with pytest.raises(RunError, match=r"format 2.*reads format 1.*update"):
        read_checkpoint(path)


def test_another_programs_safetensors_file_is_told_as_such(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(RunError, match=r"other\.safetensors.*not a Ganvas checkpoint"):
        read_checkpoint(tmp_path / "other.safetensors")


@pytest.mark.parametrize("content", [b"not a checkpoint at all", b"\x00" * 100, b"\xff" * 100, "Größe".encode()])
def test_any_other_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "file.safetensors").write_bytes(content)
    with pytest.raises(RunError, match=r"file\.safetensors"):
        read_checkpoint(tmp_path / "file.safetensors")


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path):
    with pytest.raises(RunError, match=r"nothing.*no such checkpoint"):
        read_checkpoint(tmp_path / "nothing")
    with pytest.raises(RunError, match="folder"):
        (tmp_path / "folder").mkdir()
        read_checkpoint(tmp_path / "folder")


class Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["BOMB"],)


def test_a_pickle_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    (tmp_path / "a.safetensors").write_bytes(pickle.dumps(Bomb()))
    torch.save({"a": Bomb()}, tmp_path / "b.safetensors")
    for name in ("a.safetensors", "b.safetensors"):
        with pytest.raises(RunError, match=name):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_reading_never_unpickles(path, monkeypatch):
    for module, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(module, name, lambda *a, **k: pytest.fail("unpickled"))
    monkeypatch.setattr(pickle, "Unpickler", None)
    read_checkpoint(path)


# ---------------------------------------------------------------- writes that do not end


def test_an_interrupted_write_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr(checkpoint, "save", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(path, {"a": torch.zeros(2)}, {})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_write_leaves_nothing_beside_the_file_but_what_the_next_run_removes(path, monkeypatch):
    seen = []
    rename = files._rename_over
    monkeypatch.setattr(files, "_rename_over", lambda *paths: (seen.extend(path.parent.iterdir()), rename(*paths)))
    write_checkpoint(path, tensors(), META)
    left_by_a_kill = [name for name in seen if name != path]
    assert len(left_by_a_kill) == 1
    left_by_a_kill[0].touch()
    files.remove_partials(path.parent, os.getpid())
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_an_oserror_and_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()
    def full(self, content):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(type(path), "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(path, tensors(), META)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


# ---------------------------------------------------------------- the newest that can be read


def three(folder):
    paths = [folder / f"{nimg:012d}.safetensors" for nimg in (1, 2, 3)]
    for nimg, path in enumerate(paths, 1):
        write_checkpoint(path, {"a": torch.tensor(nimg)}, {"nimg": nimg})
    return paths


def test_the_newest_is_read_and_nothing_passed_over(tmp_path):
    found, meta, passed_over = read_newest(three(tmp_path))
    assert (int(found["a"]), meta["nimg"], passed_over) == (3, 3, [])


def test_a_torn_newest_falls_back_to_the_one_before_and_says_so(tmp_path):
    paths = three(tmp_path)
    paths[2].write_bytes(paths[2].read_bytes()[:-1])
    found, meta, passed_over = read_newest(paths)
    assert (int(found["a"]), meta["nimg"]) == (2, 2)
    assert [paths[2].name in fault for fault in passed_over] == [True]


def test_nothing_readable_is_an_error_that_names_each(tmp_path):
    paths = three(tmp_path)
    for path in paths:
        path.write_bytes(b"torn")
    with pytest.raises(RunError) as error:
        read_newest(paths)
    assert all(path.name in str(error.value) for path in paths)
    assert "--out" in str(error.value)


def test_no_checkpoints_at_all_are_no_error():
    assert read_newest([]) is None
