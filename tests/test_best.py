"""The best checkpoint, and how it is found again."""

import pytest

from ganvas.best import Best, best_of, read_best, which_of, write_best
from ganvas.run_folder import RunFolder


def measured(nimg, kid, over=False):
    return {"nimg": nimg, "kid": kid, "copies_over_limit": over, "extractor": "random"}


def test_the_lowest_figure_wins_and_the_earlier_of_equals():
    assert best_of([measured(1, 0.3), measured(2, 0.1), measured(3, 0.1), measured(4, 0.2)]) == Best(2, "kid", 0.1, "random")


def test_a_copier_does_not_become_the_best_however_low_its_figure():
    assert best_of([measured(1, 0.3), measured(2, 0.001, over=True)]) == Best(1, "kid", 0.3, "random")
    assert best_of([measured(2, 0.001, over=True)]) is None


def test_what_was_not_measured_or_is_not_kept_does_not_count():
    rows = [measured(1, None), {"nimg": 2}, measured(3, 0.2), measured(4, 0.1)]
    assert best_of(rows) == Best(4, "kid", 0.1, "random")
    assert best_of(rows, [1, 3]) == Best(3, "kid", 0.2, "random")
    assert best_of([]) is None


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    for nimg in (1000, 2000):
        folder.checkpoint(nimg).touch()
        folder.generator(nimg).touch()
    return folder


def test_the_note_is_read_as_it_was_written(folder):
    write_best(folder, Best(1000, "kid", 0.25, "random"))
    assert read_best(folder) == Best(1000, "kid", 0.25, "random")
    assert which_of(folder, 1000) == "the best checkpoint by KID; the last is at 2.0 kimg"
    assert which_of(folder, 2000) == "the last checkpoint; the best is at 1.0 kimg"
    write_best(folder, None)
    assert read_best(folder) is None
    assert which_of(folder, 2000) == "the last checkpoint; none was measured"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"nimg": "x"}', '{"nimg": 1000}', "null"])
def test_a_damaged_note_is_none(folder, content):
    folder.best.write_text(content)
    assert read_best(folder) is None


def test_a_best_whose_file_has_gone_is_none(folder):
    write_best(folder, Best(3000, "kid", 0.25, "random"))
    assert read_best(folder) is None
