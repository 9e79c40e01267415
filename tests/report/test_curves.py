"""curves.png."""

from PIL import Image

from ganvas.report.curves import plot_curves


def row(step, **more):
    return {"nimg": 64 * step, "step": step, "epoch": step / 10, "Loss_D": 1.0 / step, "Loss_G": 2.0, **more}


def test_curves_are_drawn_from_one_row_from_many_and_from_rows_that_lack_a_statistic(tmp_path):
    alternating = [row(i, **({"D(x)": 0.5} if i % 2 else {"D(G(z))_after": None})) for i in range(1, 100)]
    for name, rows in (("one", [row(1)]), ("many", alternating)):
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
