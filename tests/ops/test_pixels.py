import pytest
import torch
from torch.testing import assert_close

from ganvas.ops.pixels import to_float, to_uint8

EVERY_BYTE = torch.arange(256, dtype=torch.uint8)


def test_bytes_fill_minus_one_to_one():
    images = to_float(EVERY_BYTE)
    assert images.dtype == torch.float32
    assert_close(images, torch.arange(256) / 127.5 - 1)
    assert images[0] == -1 and images[255] == 1


def test_the_way_there_and_back_changes_no_byte():
    assert torch.equal(to_uint8(to_float(EVERY_BYTE)), EVERY_BYTE)


def test_bfloat16_is_rounded_once_at_the_end():
    assert torch.equal(to_float(EVERY_BYTE, torch.bfloat16), to_float(EVERY_BYTE).to(torch.bfloat16))


def test_to_uint8_takes_the_nearest_byte():
    shade = to_float(torch.tensor([100], dtype=torch.uint8))
    assert to_uint8(shade + 0.49 / 127.5) == 100
    assert to_uint8(shade + 0.51 / 127.5) == 101
    assert to_uint8(shade - 0.51 / 127.5) == 99


def test_to_uint8_clamps_what_is_outside():
    assert to_uint8(torch.tensor([-7.0, -1.001, 1.001, 300.0])).tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_neither_way_changes_its_argument_or_the_shape(dtype):
    images = torch.linspace(-1, 1, 24, dtype=dtype).view(1, 2, 3, 4).requires_grad_()
    before = images.clone()
    images_u8 = to_uint8(images)
    kept = images_u8.clone()
    assert to_float(images_u8).shape == images_u8.shape == images.shape
    assert torch.equal(images, before) and torch.equal(images_u8, kept)


def test_converting_twice_is_refused():
    with pytest.raises(TypeError, match="uint8"):
        to_float(to_float(EVERY_BYTE))
