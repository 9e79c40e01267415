import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ganvas.ops.alpha import has_alpha
from ganvas.ops.augment import augment, rotate
from ganvas.ops.pixels import to_float, to_uint8

BACKGROUNDS = (0.0, 31.0, 128.0, 255.0)


def every_colour_under_every_alpha() -> Tensor:
    """(1, 4, 256, 256) uint8: a row for each alpha, a column for each level, the other colours mixed up."""
    levels, alphas = torch.arange(256).expand(256, 256), torch.arange(256).view(256, 1).expand(256, 256)
    return torch.stack([levels, 255 - levels, (levels * 7 + alphas * 3) % 256, alphas])[None].to(torch.uint8)


def straight_on(images_u8: Tensor, background: float) -> Tensor:
    colour, alpha = images_u8[:, :3].double(), images_u8[:, 3:].double() / 255
    return colour * alpha + background * (1 - alpha)


def premultiplied_on(images: Tensor, background: float) -> Tensor:
    whole = ((images.double() + 1) * 127.5).clamp(0, 255)
    return torch.minimum(whole[:, :3], whole[:, 3:]) + background * (1 - whole[:, 3:] / 255)


def outputs(seed: int = 0) -> Tensor:
    """What a network may say, colour larger than alpha and beyond the range included: (8, 4, 16, 16)."""
    return 2.4 * torch.rand(8, 4, 16, 16, generator=torch.Generator().manual_seed(seed)) - 1.2


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_an_image_looks_the_same_on_any_background_when_premultiplied(background):
    images_u8 = every_colour_under_every_alpha()
    assert_close(premultiplied_on(to_float(images_u8), background), straight_on(images_u8, background), atol=1e-4, rtol=0)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_networks_output_looks_the_same_on_any_background_when_written(background):
    images = outputs()
    away = straight_on(to_uint8(images), background) - premultiplied_on(images, background)
    assert away.abs().max() <= 1.001                   # half a level from rounding alpha, half a level from rounding colour


def test_every_visible_pixel_survives_the_way_there_and_back():
    images_u8 = every_colour_under_every_alpha()
    back = to_uint8(to_float(images_u8))
    assert torch.equal(back[:, :, 1:], images_u8[:, :, 1:])
    assert not back[:, :, 0].any()


def test_opaque_pixels_are_what_they_are_without_alpha():
    images_u8 = every_colour_under_every_alpha()
    images_u8[:, 3] = 255
    assert torch.equal(to_float(images_u8)[:, :3], to_float(images_u8[:, :3]))
    images = torch.cat([outputs()[:, :3], torch.ones(8, 1, 16, 16)], dim=1)
    assert torch.equal(to_uint8(images)[:, :3], to_uint8(images[:, :3]))


def test_what_is_painted_under_alpha_0_has_no_influence():
    images_u8 = every_colour_under_every_alpha()
    repainted = torch.where(images_u8[:, 3:] == 0, torch.tensor([9, 90, 200, 0], dtype=torch.uint8).view(1, 4, 1, 1), images_u8)
    assert not torch.equal(repainted, images_u8)
    assert torch.equal(to_float(repainted), to_float(images_u8))
    assert (to_float(images_u8)[:, :, 0] == -1).all()


def test_a_colour_larger_than_its_alpha_is_clipped_to_white_and_never_wraps():
    images = outputs()
    images_u8 = to_uint8(images)
    assert torch.equal(images_u8[:, 3], to_uint8(images[:, 3]))
    over = images[:, :3] > images[:, 3:]
    visible = images_u8[:, 3:] > 0
    assert over.any() and (images_u8[:, :3][over & visible] == 255).all()
    assert (images_u8[:, :3][(~visible).expand(-1, 3, -1, -1)] == 0).all()
    again = to_uint8(to_float(images_u8))
    assert torch.equal(again, images_u8)               # so it was a picture that a file can hold


def test_faint_pixels_keep_their_hue():
    faint = torch.full((1, 4, 1, 1), -1.0)
    faint[0, 0], faint[0, 3] = 0.7 / 127.5 - 1, 0.7 / 127.5 - 1     # pure red of 0.7 of a level
    assert to_uint8(faint).flatten().tolist() == [255, 0, 0, 1]


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 1, 4, 4), (4, 4, 4), (4,), (2, 4)])
def test_all_other_shapes_are_converted_value_by_value(shape):
    images_u8 = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert not has_alpha(images_u8)
    assert torch.equal(to_float(images_u8), images_u8.float() / 127.5 - 1)
    assert torch.equal(to_uint8(to_float(images_u8)), images_u8)


def test_neither_way_changes_its_argument_or_its_memory_format():
    images_u8 = every_colour_under_every_alpha().to(memory_format=torch.channels_last)
    kept, images = images_u8.clone(), outputs().to(memory_format=torch.channels_last)
    before = images.clone()
    for made in (to_float(images_u8), to_uint8(images)):
        assert made.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images_u8, kept) and torch.equal(images, before)


def test_no_images_are_converted_to_no_images():
    assert to_uint8(torch.empty(0, 4, 3, 3)).shape == to_float(torch.empty(0, 4, 3, 3, dtype=torch.uint8)).shape == (0, 4, 3, 3)


def test_corners_that_rotation_leaves_empty_are_clear():
    turned = to_uint8(rotate(torch.ones(1, 4, 16, 16), torch.tensor([45.0])))
    assert turned[0, :, 0, 0].tolist() == [0, 0, 0, 0]
    assert turned[0, :, 8, 8].tolist() == [255, 255, 255, 255]


def test_rotation_and_mirroring_invent_no_colour_under_alpha():
    images_u8 = every_colour_under_every_alpha()[:, :, ::16, ::16].repeat(6, 1, 1, 1)
    moved = augment(to_float(images_u8), 0, torch.arange(6).numpy(), 30, True)
    assert (moved[:, :3] <= moved[:, 3:] + 1e-6).all()
    seen = {tuple(pixel) for pixel in images_u8.permute(0, 2, 3, 1).reshape(-1, 4).tolist() if pixel[3]}
    assert {tuple(pixel) for pixel in to_uint8(moved).permute(0, 2, 3, 1).reshape(-1, 4).tolist()} <= seen | {(0, 0, 0, 0)}
