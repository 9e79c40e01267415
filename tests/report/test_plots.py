"""Curves show the values that are there, at their places, whatever a torn or diverged log holds."""

import math
import re
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganvas.report.plots import HEIGHT, MOST_POINTS, WIDTH, Level, Line, figure, number, plot, round_figure, thousands

LOSS = [Line("Loss_D", "D", 1)]


def rows_of(values, every=100):
    return [{"nimg": every * (i + 1), "Loss_D": value} for i, value in enumerate(values)]


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)]


def test_values_stand_at_their_images_and_in_their_order():
    drawn = plot("Losses", "", rows_of([1.0, 3.0, 2.0]), LOSS, 300)
    (x1, y1), (x2, y2), (x3, y3) = points(drawn.paths[0].line)
    assert (x1, x2 - x1) == (pytest.approx(x2 / 2, abs=0.1), pytest.approx(x3 - x2, abs=0.1))
    assert 0 <= y2 < y3 < y1 <= HEIGHT                     # the SVG counts from the top
    assert 0.97 * WIDTH < x3 < WIDTH
    assert drawn.paths[0].dots
    assert [float(tick.text) for tick in drawn.y_ticks] == sorted(float(tick.text) for tick in drawn.y_ticks)
    assert drawn.points["lines"] == [["D", 1, ["1", "3", "2"]]]
    assert drawn.points["x"][0] == "100 images"


def test_what_is_missing_null_or_not_finite_is_left_out():
    rows = [{"nimg": 1, "Loss_D": 1.5}, {"nimg": 2}, {"nimg": 3, "Loss_D": None}, {"nimg": 4, "Loss_D": math.nan},
            {"Loss_D": 7.0}, {"nimg": 5, "Loss_D": True}, {"nimg": 6, "Loss_D": "x"}, {"nimg": 7, "Loss_D": 10 ** 400},
            {"nimg": 8, "Loss_D": 2.5}]
    assert plot("", "", rows, LOSS, 8).points["lines"][0][2] == ["1.50", "2.50"]
    assert plot("", "", rows[1:4], LOSS, 8) is None
    assert plot("", "", [], LOSS, 8) is None


def test_a_long_run_is_drawn_with_few_points_smoothed_between_its_extremes():
    drawn = plot("", "", rows_of([5.0 + (i % 2) for i in range(10_000)]), LOSS, 1e6)
    (path,) = drawn.paths
    assert len(points(path.line)) == len(drawn.points["percent"]) == MOST_POINTS
    assert path.area and not path.dots and not path.faint
    heights = {round(y) for _, y in points(path.area)}
    assert len(heights) == 2                               # least and greatest, not their mean
    assert {round(y) for _, y in points(path.line)} == {round(sum(heights) / 2)}


def test_a_few_wild_values_do_not_flatten_the_rest():
    drawn = plot("", "", rows_of([1e6] + [1.0 + i % 5 for i in range(300)]), LOSS, 3e4)
    assert float(drawn.y_ticks[-1].text) < 10


def test_a_level_stands_at_its_value_and_is_always_within_the_picture():
    (top, name, filled), = plot("", "", rows_of([0.5, 1.0]), LOSS, 200, levels=[Level(0.03, "limit", True)]).levels
    assert (name, filled) == ("limit 0.03", True)
    assert 80 < top < 100


def test_the_axis_is_logarithmic_only_where_that_was_allowed_and_helps():
    steep = rows_of([1000.0, 1.0, 0.001])
    drawn = plot("", "", steep, LOSS, 300, may_be_log=True)
    ys = [y for _, y in points(drawn.paths[0].line)]
    assert drawn.logarithmic and ys[1] - ys[0] == pytest.approx(ys[2] - ys[1], abs=0.2)
    assert not plot("", "", steep, LOSS, 300).logarithmic
    assert not plot("", "", rows_of([1.0, 2.0]), LOSS, 300, may_be_log=True).logarithmic
    assert not plot("", "", rows_of([1000.0, -1.0]), LOSS, 300, may_be_log=True).logarithmic


def test_the_standard_error_is_a_band_of_twice_its_width():
    rows = [{"nimg": n, "kid": 1.0, "error": 0.25} for n in (100, 200)] + [{"nimg": 300, "kid": 2.0, "error": None}]
    drawn = plot("", "", rows, [Line("kid", "KID", 1, "error")], 300, limits=(0, 2))
    assert {y for _, y in points(drawn.paths[0].area)} == {HEIGHT * 0.375, HEIGHT * 0.625}


def test_the_best_is_marked_at_its_images_and_not_beyond_the_end():
    rows = rows_of([1.0, 2.0])
    assert plot("", "", rows, LOSS, 200, best=100).best == pytest.approx(50, abs=1)
    assert plot("", "", rows, LOSS, 200, best=None).best is None
    assert plot("", "", rows, LOSS, 200, best=999).best is None


@pytest.mark.parametrize(("value", "text"), [
    (0.0, "0"), (0.02134, "0.0213"), (0.81, "0.810"), (10.0, "10"), (12.345, "12.3"), (98765.4, "98,765"), (-0.4, "−0.400"),
    (3.2e-7, "3.2e-07"), (None, "–"), (math.nan, "not a number"), (math.inf, "infinite")])
def test_figures_have_three_digits_and_whole_ones_no_point(value, text):
    assert figure(value) == text


def test_chosen_numbers_have_no_zeros_at_their_end():
    assert [round_figure(value) for value in (0.03, 0.5, 100.0, 1000.0, 2.5e-7)] == ["0.03", "0.5", "100", "1,000", "2.5e-07"]
    assert [thousands(nimg) for nimg in (0, 500, 20_000, 1_500_000)] == ["0", "500", "20k", "1.5M"]


values = st.one_of(st.none(), st.booleans(), st.text(max_size=3), st.floats(), st.integers(),
                   st.just(10 ** 400), st.lists(st.none()))


@settings(deadline=None, max_examples=80)
@given(st.lists(st.fixed_dictionaries({}, optional={key: values for key in ("nimg", "epoch", "a", "b", "e")}), max_size=8),
       st.integers(0, 10 ** 9), st.booleans(), st.integers(1, 30))
def test_no_log_breaks_a_curve(rows, end, may_be_log, times):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = plot("t", "m", rows * times, [Line("a", "A", 1, "e"), Line("b", "B", 2)], end, best=7, may_be_log=may_be_log,
                     levels=[Level(0.1, "floor", True)])
    assert (drawn is None) == (not any(number(row, "nimg") is not None and number(row, key) is not None
                                       for row in rows for key in "ab"))
    if drawn:
        text = " ".join(path.line + path.area + path.faint for path in drawn.paths)
        assert "nan" not in text and "inf" not in text
        assert all(math.isfinite(tick.percent) for tick in (*drawn.x_ticks, *drawn.y_ticks))
