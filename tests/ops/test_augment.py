import numpy as np
import pytest
import torch
from torch import Tensor

from ganvas.ops.augment import augment, flip, rotate
from ganvas.ops.pixels import to_float


def random_images(n: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return to_float(torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=generator))


def indices(start: int, stop: int) -> np.ndarray:
    return np.arange(start, stop, dtype=np.int64)


@pytest.mark.parametrize("side", [8, 9])
def test_quarter_turns_are_exact_and_counter_clockwise(side):
    images = random_images(5, side, side)
    turned = rotate(images, torch.tensor([0.0, 90.0, 180.0, 270.0, -90.0]))
    for image, result, quarters in zip(images, turned, (0, 1, 2, 3, -1), strict=True):
        assert torch.equal(result, torch.rot90(image, quarters, dims=(1, 2)))


def test_a_half_turn_of_an_image_that_is_not_square_is_exact():
    images = random_images(1, 6, 9)
    assert torch.equal(rotate(images, torch.tensor([180.0])), images.flip(2, 3))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (33, 48)])
def test_rotate_is_torchvisions(height, width):
    functional = pytest.importorskip("torchvision.transforms.functional", reason="torchvision is not installed")
    degrees = [-15.0, -3.3, 0.7, 10.0, 44.0, 123.4]
    images = random_images(len(degrees), height, width)
    nearest = functional.InterpolationMode.NEAREST
    pairs = zip(images, degrees, strict=True)
    theirs = [functional.rotate(image, angle, nearest, fill=[-1.0]) for image, angle in pairs]
    differing = (rotate(images, torch.tensor(degrees)) != torch.stack(theirs)).any(dim=1).float().mean()
    assert differing < 0.001


def test_corners_without_a_source_are_black():
    turned = rotate(torch.ones(1, 3, 16, 16), torch.tensor([45.0]))
    assert (turned[:, :, 0, 0] == -1).all() and (turned[:, :, 8, 8] == 1).all()
    assert set(turned.unique().tolist()) == {-1.0, 1.0}


def test_each_image_is_turned_by_its_own_angle():
    images, degrees = random_images(6, 16, 16), torch.linspace(-50, 50, 6)
    one_by_one = [rotate(images[i : i + 1], degrees[i : i + 1]) for i in range(6)]
    assert torch.equal(rotate(images, degrees), torch.cat(one_by_one))


def test_rotate_keeps_the_dtype():
    assert rotate(random_images(1, 8, 8).bfloat16(), torch.tensor([10.0])).dtype == torch.bfloat16


def test_flip_mirrors_exactly_the_images_of_the_mask():
    images = random_images(3, 4, 5)
    mirrored = flip(images, torch.tensor([True, False, True]))
    assert torch.equal(mirrored[1], images[1])
    assert torch.equal(mirrored[0, :, :, 0], images[0, :, :, -1])
    assert torch.equal(flip(mirrored, torch.tensor([True, False, True])), images)


def test_without_rotation_and_mirroring_the_images_are_passed_through():
    images = random_images(2, 8, 8)
    assert augment(images, 0, indices(0, 2), rotation_degrees=0, mirror=False) is images


def test_augmentation_follows_the_image_and_not_the_batch():
    images = random_images(12, 16, 16)
    whole = augment(images, 5, indices(100, 112), 20, True)
    parts = [augment(images[a:b], 5, indices(100 + a, 100 + b), 20, True) for a, b in ((0, 1), (1, 8), (8, 12))]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, augment(images, 6, indices(100, 112), 20, True))


def test_half_of_the_images_are_mirrored():
    images = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2).expand(2000, 1, 1, 2)
    mirrored = augment(images, 0, indices(0, 2000), 0, True)[:, 0, 0, 0] == 1
    assert abs(mirrored.float().mean() - 0.5) < 4 * 0.5 / 2000**0.5


def test_angles_are_uniform_on_both_sides(monkeypatch):
    seen = []
    monkeypatch.setattr("ganvas.ops.augment.rotate", lambda images, degrees: seen.append(degrees) or images)
    augment(torch.zeros(4000, 1, 1, 1), 0, indices(0, 4000), 15.0, False)
    degrees = seen[0]
    assert degrees.shape == (4000,)
    assert -15 < degrees.min() < -14.9 and 14.9 < degrees.max() < 15
    assert abs(degrees.mean()) < 4 * 15 / 3**0.5 / 4000**0.5


def test_the_picture_is_turned_first_and_mirrored_after():
    images = random_images(40, 9, 9)
    turned = augment(images, 1, indices(0, 40), 30, False)
    mask = augment(torch.arange(2.0).expand(40, 1, 1, 2), 1, indices(0, 40), 0, True)[:, 0, 0, 0] == 1
    assert torch.equal(augment(images, 1, indices(0, 40), 30, True), flip(turned, mask))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_augmentation_on_the_gpu_is_the_cpus_but_for_ties():
    images = random_images(32, 64, 64)
    on_cpu = augment(images, 3, indices(0, 32), 15, True)
    on_gpu = augment(images.cuda(), 3, indices(0, 32), 15, True).cpu()
    assert (on_cpu != on_gpu).float().mean() < 0.001
