"""The three maps of a strided convolution: every kernel gives the library's numbers, and derivatives of any order."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from ganvas.ops.convolution import DOWN, UP, WEIGH, Geometry, Kernels, down, up

# name: (geometry, C, K, (H, W)); odd and even sizes, kernels and strides, one channel and many, padding unlike on both sides.
LAYERS = {
    "dcgan 4x4": (Geometry((4, 4), (2, 2), (1, 1), (1, 1)), 3, 5, (8, 6)),
    "odd size, a row unread": (Geometry((4, 4), (2, 2), (1, 1), (1, 1)), 2, 3, (9, 7)),
    "radford 5x5": (Geometry((5, 5), (2, 2), (2, 2), (2, 2)), 3, 2, (8, 10)),
    "keras same": (Geometry((5, 5), (2, 2), (1, 1), (2, 2)), 2, 3, (8, 6)),
    "mnist 3x3 unpadded": (Geometry((3, 3), (2, 2)), 1, 4, (7, 7)),
    "mnist 3x3, a row unread": (Geometry((3, 3), (2, 2)), 1, 4, (8, 8)),
    "stride 1": (Geometry((4, 4), (1, 1)), 4, 2, (6, 7)),
    "stem": (Geometry((4, 3), (1, 1)), 6, 3, (4, 3)),
    "stride above kernel": (Geometry((2, 2), (3, 3)), 2, 2, (8, 8)),
    "unlike strides": (Geometry((3, 5), (1, 2), (1, 2), (0, 1)), 2, 2, (5, 8)),
}
EVERY = [Kernels(*some) for some in itertools.product(DOWN, UP, WEIGH)]


def case(name: str, dtype: torch.dtype = torch.float64, n: int = 2) -> tuple[Geometry, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(geometry, x, w, y) of one layer, drawn at random, channels_last."""
    geometry, channels, maps, size = LAYERS[name]
    torch.manual_seed(1)
    x = torch.randn(n, channels, *size, dtype=dtype)
    w = torch.randn(maps, channels, *geometry.kernel, dtype=dtype)
    y = torch.randn(n, maps, *geometry.small(*size), dtype=dtype)
    return geometry, *(tensor.to(memory_format=torch.channels_last) for tensor in (x, w, y))


def padded(x: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    (top, left), (bottom, right) = geometry.before, geometry.after
    return F.pad(x, (left, right, top, bottom))


@pytest.mark.parametrize("kernel", DOWN)
@pytest.mark.parametrize("name", LAYERS)
def test_down_is_the_convolution_of_the_padded_image(name, kernel):
    geometry, x, w, _ = case(name)
    made = down(x, w, None, geometry, Kernels(down=kernel))
    torch.testing.assert_close(made, F.conv2d(padded(x, geometry), w, None, geometry.stride), check_stride=False)


@pytest.mark.parametrize("kernels", EVERY, ids="-".join)
@pytest.mark.parametrize("name", LAYERS)
def test_up_and_weigh_are_the_derivatives_of_the_convolution(name, kernels):
    geometry, x, w, y = case(name)
    x.requires_grad_(), w.requires_grad_()
    (F.conv2d(padded(x, geometry), w, None, geometry.stride) * y).sum().backward()
    made = up(y, w.detach(), None, (x.shape[2], x.shape[3]), geometry, kernels)
    torch.testing.assert_close(made, x.grad, check_stride=False)
    torch.testing.assert_close(WEIGH[kernels.weigh](x.detach(), y, geometry), w.grad, check_stride=False)


@pytest.mark.parametrize("kernels", [Kernels(), Kernels("lowered", "lowered", "lowered"), Kernels("lowered", "phases", "native")],
                         ids="-".join)
@pytest.mark.parametrize("name", LAYERS)
def test_first_and_second_derivatives_hold_numerically(name, kernels):
    geometry, x, w, y = case(name, n=1)
    biases, size = [torch.randn(maps, dtype=w.dtype) for maps in w.shape[:2]], (x.shape[2], x.shape[3])
    for tensor in (x, w, y, *biases):
        tensor.requires_grad_()
    assert gradcheck(lambda x, w, b: down(x, w, b, geometry, kernels), (x, w, biases[0]))
    assert gradcheck(lambda y, w, b: up(y, w, b, size, geometry, kernels), (y, w, biases[1]))
    assert gradgradcheck(lambda x, w, b: down(x, w, b, geometry, kernels), (x, w, biases[0]), fast_mode=True)
    assert gradgradcheck(lambda y, w, b: up(y, w, b, size, geometry, kernels), (y, w, biases[1]), fast_mode=True)


@pytest.mark.parametrize("kernels", EVERY, ids="-".join)
def test_the_kernels_agree_in_bfloat16_as_far_as_it_can_tell(kernels):
    geometry, x, w, y = case("dcgan 4x4", torch.bfloat16)
    exact = [tensor.double() for tensor in (x, w, y)]
    size = (x.shape[2], x.shape[3])
    torch.testing.assert_close(
        down(x, w, None, geometry, kernels).double(), down(exact[0], exact[1], None, geometry, Kernels()), rtol=0.02, atol=0.1,
        check_stride=False)
    torch.testing.assert_close(
        up(y, w, None, size, geometry, kernels).double(), up(exact[2], exact[1], None, size, geometry, Kernels()),
        rtol=0.02, atol=0.1, check_stride=False)


@pytest.mark.parametrize("kernels", [Kernels(), Kernels("lowered", "lowered", "lowered"), Kernels("native", "phases", "native")],
                         ids="-".join)
def test_images_in_any_memory_format_give_the_same(kernels):
    geometry, x, w, y = case("radford 5x5")
    size = (x.shape[2], x.shape[3])
    for make in (lambda x, w, y: down(x, w, None, geometry, kernels), lambda x, w, y: up(y, w, None, size, geometry, kernels)):
        torch.testing.assert_close(make(x.contiguous(), w.contiguous(), y.contiguous()), make(x, w, y), check_stride=False)


@pytest.mark.parametrize("kernels", EVERY, ids="-".join)
def test_an_image_does_not_depend_on_its_companions(kernels):
    geometry, x, w, y = case("keras same", torch.float32, n=5)
    size = (x.shape[2], x.shape[3])
    makers = (lambda x: down(x, w, None, geometry, kernels), lambda y: up(y, w, None, size, geometry, kernels))
    for make, image in zip(makers, (x, y), strict=True):
        torch.testing.assert_close(make(image)[:2], make(image[:2]), check_stride=False)


def test_weights_that_need_no_gradient_get_none():
    geometry, x, w, _ = case("dcgan 4x4")
    x.requires_grad_()
    down(x, w, None, geometry, Kernels("lowered", "lowered", "lowered")).sum().backward()
    assert x.grad is not None and w.grad is None


@pytest.mark.parametrize("kernels", EVERY, ids="-".join)
def test_what_comes_out_may_be_changed_in_place(kernels):
    geometry, x, w, y = case("dcgan 4x4")
    x.requires_grad_(), y.requires_grad_()
    for image in (down(x, w, None, geometry, kernels), up(y, w, None, (x.shape[2], x.shape[3]), geometry, kernels)):
        F.leaky_relu(image, 0.2, inplace=True).sum().backward()
