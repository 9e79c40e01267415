"""What a layout may be, and what it says of itself."""

import pytest

from ganvas.data.layout import Layout
from ganvas.errors import ConfigError


@pytest.mark.parametrize(("how", "said"), [
    ({"channels": 2}, "channels 2: must be 1"),
    ({"fit": "tile"}, "fit 'tile': must be crop, pad or stretch"),
    ({"transparency": "pink"}, "transparency 'pink': must be keep, white, black, checker, or a colour such as #ffcc00"),
    ({"transparency": "#fc0"}, "transparency '#fc0'"),
    ({"transparency": "keep"}, "transparency keep needs a fourth channel, but channels is 3: .* white, black, checker"),
    ({"channels": 4, "transparency": "checker"}, "4 channels keep transparency, but transparency is 'checker'"),
    ({"height": 0}, "image size 8x0"),
])
def test_layouts_that_cannot_be_are_refused_with_what_can(how, said):
    with pytest.raises(ConfigError, match=said):
        Layout(**({"height": 8, "width": 8} | how))


def test_the_background_is_one_colour_even_where_a_board_is_drawn():
    assert Layout(8, 8, transparency="#ff8000").background == (255, 128, 0)
    assert Layout(8, 8, transparency="checker").background == (224,) * 3       # the mean of #ffffff and #c0c0c0
    assert Layout(8, 8, 4, transparency="keep").background == (0, 0, 0)
    assert Layout(8, 8).native is False


@pytest.mark.parametrize(("height", "width", "side"), [(64, 64, 8), (128, 64, 8), (28, 28, 3), (8, 8, 2), (1, 1, 2)])
def test_a_checker_board_has_about_eight_squares_along_its_shorter_side(height, width, side):
    assert Layout(height, width, transparency="checker").checker_px == side
