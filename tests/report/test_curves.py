"""curves.png."""

import sys

import numpy as np
import pytest
from PIL import Image

from ganvas.report import curves
from ganvas.report.curves import plot_curves


def row(step, **more):
    return {"nimg": 64 * step, "step": step, "epoch": step / 10, "Loss_D": 1.0 / step, "Loss_G": 2.0, **more}


@pytest.fixture
def drawn(monkeypatch):
    """The figure of the latest plot_curves, as matplotlib's own object."""
    figures = []

    class Watched(curves.Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            figures.append(self)

    monkeypatch.setattr(curves, "Figure", Watched)
    return figures


def line(axes, label):
    found, = [line for line in axes.lines if line.get_label() == label]
    return found.get_xydata()


def test_curves_are_drawn_from_one_row_from_many_and_from_rows_that_lack_a_statistic(tmp_path):
    alternating = [row(i, **({"D(x)": 0.5} if i % 2 else {"D(G(z))_after": None})) for i in range(1, 100)]
    for name, rows in (("one", [row(1)]), ("many", alternating), ("start", [row(1) | {"nimg": 0, "epoch": 0}])):
        plot_curves(tmp_path / f"{name}.png", rows)
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 600
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 3


def test_a_line_moves_the_picture(tmp_path):
    plot_curves(tmp_path / "a.png", [row(i) for i in range(1, 9)])
    plot_curves(tmp_path / "b.png", [row(i) | {"Loss_G": float(i)} for i in range(1, 9)])
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_without_rows_there_is_no_picture(tmp_path):
    plot_curves(tmp_path / "a.png", [])
    assert not (tmp_path / "a.png").exists()


def test_a_short_run_is_drawn_point_by_point_over_kimg_without_what_is_missing_or_not_finite(tmp_path, drawn):
    rows = [row(i) for i in range(1, 6)]
    rows[1]["Loss_D"], rows[2]["Loss_D"] = None, float("nan")
    del rows[3]["Loss_D"]
    plot_curves(tmp_path / "a.png", rows)
    np.testing.assert_allclose(line(drawn[-1].axes[0], "Loss_D"), [[0.064, 1.0], [0.320, 0.2]])


def test_epochs_stand_above_only_where_the_rows_count_them(tmp_path, drawn):
    plot_curves(tmp_path / "a.png", [row(i) for i in range(1, 51)])
    above, = drawn[-1].axes[0].child_axes
    assert above.get_xlabel() == "epochs"
    assert above.get_xlim() == pytest.approx((0, 5.0 * 1.01))
    plot_curves(tmp_path / "a.png", [{"nimg": 64, "Loss_D": 1.0}])
    assert not drawn[-1].axes[0].child_axes


def gradient_row(step, **more):
    return row(step, logit_real=0.1 * step, logit_fake=-0.1, grad_D=10.0**step, grad_G=0.0 if step == 2 else 0.5, **more)


def test_logits_and_gradients_have_panels_of_their_own_where_the_rows_have_them(tmp_path, drawn):
    plot_curves(tmp_path / "a.png", [gradient_row(i) for i in range(1, 5)])
    losses, _, logits, gradients = drawn[-1].axes
    assert losses.get_yscale() == logits.get_yscale() == "linear"
    assert gradients.get_yscale() == "log"
    np.testing.assert_allclose(line(logits, "reals")[:, 1], [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(line(gradients, "grad_D")[:, 1], [10, 100, 1000, 10000])
    np.testing.assert_allclose(line(gradients, "grad_G")[:, 0], [0.064, 0.192, 0.256])         # 0 has no logarithm
    plot_curves(tmp_path / "b.png", [row(i, logit_real=None, grad_D=float("nan")) for i in range(1, 5)])
    assert len(drawn[-1].axes) == 2


def test_without_probabilities_d_s_logits_stand_in_their_place(tmp_path, drawn):
    plot_curves(tmp_path / "a.png", [gradient_row(i, **{"D(x)": 0.5}) for i in range(1, 5)], best_nimg=128, probabilities=False)
    labels = [axes.get_ylabel() for axes in drawn[-1].axes]
    assert labels == ["loss", "mean logit: differences count", "length of the gradient"]
    np.testing.assert_allclose(line(drawn[-1].axes[1], "reals")[:, 1], [0.1, 0.2, 0.3, 0.4])
    plot_curves(tmp_path / "b.png", [row(i) for i in range(1, 5)], probabilities=False)
    assert [axes.get_ylabel() for axes in drawn[-1].axes] == ["loss"]


def test_many_gradients_are_smoothed_by_their_logarithms(tmp_path, drawn):
    plot_curves(tmp_path / "a.png", [gradient_row(1) | {"nimg": 64 * i, "grad_D": 10.0 ** (i % 2 * 2)} for i in range(1, 201)])
    middle = line(drawn[-1].axes[3], "grad_D")[80:120, 1]
    np.testing.assert_allclose(middle, 10.0, rtol=0.05)


def test_the_best_checkpoint_is_marked_in_each_panel(tmp_path, drawn):
    rows = [gradient_row(i) for i in range(1, 9)]
    plot_curves(tmp_path / "a.png", rows, best_nimg=256)
    for axes in drawn[-1].axes:
        assert any(np.array_equal(line.get_xdata(), [0.256, 0.256]) for line in axes.lines)
    assert [text.get_text() for text in drawn[-1].axes[0].texts] == ["best checkpoint"]
    plot_curves(tmp_path / "b.png", rows)
    assert not drawn[-1].axes[0].texts


def test_the_smoothed_line_keeps_a_constant_and_takes_most_of_the_noise_away():
    kimg = np.arange(500.0)
    np.testing.assert_allclose(curves._smooth(kimg, np.full(500, 3.0))[1], 3.0)
    noise = np.random.default_rng(0).normal(size=500)
    assert curves._smooth(kimg, noise)[1].std() < noise.std() / 4


@pytest.mark.parametrize("n", [100, 2000, 2001, 54_321])
def test_a_line_has_no_more_points_than_can_be_seen_and_keeps_every_peak(n):
    values = np.random.default_rng(0).normal(size=n)
    values[n // 3] = 50
    kimg, thinned = curves._envelope(np.arange(float(n)), values)
    assert len(kimg) == len(thinned) <= 2 * curves.MOST_POINTS
    assert (thinned.min(), thinned.max()) == (values.min(), values.max())
    smooth_kimg, smooth = curves._smooth(np.arange(float(n)), values)
    assert len(smooth_kimg) == len(smooth) <= curves.MOST_POINTS
    assert (np.diff(smooth_kimg) > 0).all()


def test_one_wild_loss_does_not_flatten_the_others(tmp_path, drawn):
    rows = [row(i) | {"Loss_D": 0.5 + i % 3, "Loss_G": 2.0} for i in range(1, 1001)]
    rows[3]["Loss_G"] = 1e6
    plot_curves(tmp_path / "a.png", rows)
    low, high = drawn[-1].axes[0].get_ylim()
    assert low < 0.5
    assert 2.5 < high < 10


def test_the_notebooks_own_pyplot_is_left_alone(tmp_path):
    plot_curves(tmp_path / "a.png", [row(1)])
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
