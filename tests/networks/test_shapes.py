import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganvas.networks.shapes import Stages, nearest_size, stages, widths

bases, doublings, sides = st.integers(3, 8), st.integers(1, 8), st.integers(1, 2048)


@given(bases, bases, doublings)
def test_every_base_of_3_to_8_pixels_doubled_equally_often_is_possible(height, width, k):
    way = stages(height << k, width << k)
    assert way is not None
    assert (way.base_height << way.doublings, way.base_width << way.doublings) == (height << k, width << k)
    assert all(3 <= side <= 8 for side in way[:2])


@given(sides, sides)
def test_a_size_is_possible_if_and_only_if_its_sides_halve_to_3_to_8_pixels_together(height, width):
    halved = [(height / 2**k, width / 2**k) for k in range(1, 9)]
    possible = any(all(side in range(3, 9) for side in pair) for pair in halved)
    assert (stages(height, width) is not None) == possible


@pytest.mark.parametrize(("height", "width", "way"), [
    (64, 64, (4, 4, 4)), (32, 32, (4, 4, 3)), (28, 28, (7, 7, 2)), (48, 64, (3, 4, 4)), (96, 96, (3, 3, 5)), (80, 80, (5, 5, 4)),
    (128, 64, (8, 4, 4)), (6, 6, (3, 3, 1)), (2048, 768, (8, 3, 8))])
def test_the_base_is_the_papers_4_pixels_where_it_can_be_and_near_it_elsewhere(height, width, way):
    assert stages(height, width) == Stages(*way)


@pytest.mark.parametrize("size", [(63, 64), (64, 192), (4, 4), (64, 1), (0, 0), (4096, 4096), (36, 64)])
def test_other_sizes_are_impossible(size):
    assert stages(*size) is None


@given(sides, sides)
def test_the_nearest_size_is_possible_and_a_possible_one_is_its_own(height, width):
    nearest = nearest_size(height, width)
    assert stages(*nearest) is not None
    assert nearest == (height, width) or stages(height, width) is None


@pytest.mark.parametrize(("wanted", "nearest"), [
    ((100, 100), (96, 96)), ((63, 65), (64, 64)), ((1, 1), (6, 6)), ((29, 29), (28, 28)), ((50, 20), (48, 24))])
def test_the_nearest_size_is_near(wanted, nearest):
    assert nearest_size(*wanted) == nearest


def test_maps_double_up_to_eight_times():
    assert widths(64, 6) == [64, 128, 256, 512, 512, 512]
