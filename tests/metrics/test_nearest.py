import numpy as np
import pytest

from ganvas.errors import DataError
from ganvas.metrics import nearest
from ganvas.metrics.nearest import inside_balls, k_nearest

RNG = np.random.Generator(np.random.Philox(1))
QUERIES, REFERENCES = RNG.normal(size=(300, 20)).astype(np.float32), RNG.normal(size=(1700, 20)).astype(np.float32)


def slow(queries, references):
    return np.sqrt(np.square(queries[:, None].astype(float) - references[None].astype(float)).sum(axis=2))


@pytest.fixture(params=["one block", "many blocks"])
def blocks(request, monkeypatch):
    if request.param == "many blocks":
        monkeypatch.setattr(nearest, "QUERY_ROWS", 64)
        monkeypatch.setattr(nearest, "_rows_of_block", lambda dim: 100)


def test_neighbours_are_those_of_a_full_matrix_of_distances(blocks):
    distances, indices = k_nearest(QUERIES, REFERENCES, 5)
    full = slow(QUERIES, REFERENCES)
    assert np.array_equal(indices, np.argsort(full, axis=1)[:, :5])
    np.testing.assert_allclose(distances, np.sort(full, axis=1)[:, :5], rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_a_copy_is_at_exactly_zero_though_all_vectors_are_far_from_the_origin(dtype):
    references = RNG.integers(240, 256, (500, 784)).astype(dtype)
    distances, indices = k_nearest(references[[7, 480]], references, 1)
    assert distances.tolist() == [[0.0], [0.0]]
    assert indices.tolist() == [[7], [480]]


def test_a_copy_is_found_among_many_near_copies_that_single_precision_cannot_tell_apart():
    far = np.full((1, 400), 3e3)                              # an outlier: the mean of all is no help
    references = np.concatenate([-far, far + 1e-3 * RNG.normal(size=(2000, 400))])
    _, indices = k_nearest(references[[5, 1234, 2000]], references, 1)
    assert indices[:, 0].tolist() == [5, 1234, 2000]


def test_of_many_copies_different_ones_are_given_in_their_order(blocks):
    references = np.repeat(REFERENCES[:3], 40, axis=0)
    distances, indices = k_nearest(REFERENCES[:3], references, 30)
    assert not distances.any()
    assert (np.diff(indices, axis=1) > 0).all()
    assert np.array_equal(indices // 40, np.repeat([[0], [1], [2]], 30, axis=1))


def test_pairs_of_one_group_are_passed_over(blocks):
    some = REFERENCES[:500]
    groups = np.arange(len(some)) // 3
    distances, indices = k_nearest(some, some, 4, exclude=(groups, groups))
    full = slow(some, some)
    full[groups[:, None] == groups[None]] = np.inf
    np.testing.assert_allclose(distances, np.sort(full, axis=1)[:, :4], rtol=1e-14)
    assert not (groups[indices] == groups[:, None]).any()


def test_rows_with_too_few_references_left_end_in_infinity():
    distances, indices = k_nearest(QUERIES[:2], REFERENCES[:4], 3, exclude=(np.array([0, 1]), np.array([0, 0, 0, 1])))
    assert np.isinf(distances).tolist() == [[False, True, True], [False, False, False]]
    assert indices[0].tolist() == [3, -1, -1]


def test_more_neighbours_than_references_is_an_error_that_names_both():
    with pytest.raises(DataError, match=r"9 nearest neighbours .* 8 images"):
        k_nearest(QUERIES, REFERENCES[:8], 9)


def test_nan_is_an_error_that_counts_the_rows():
    broken = QUERIES.copy()
    broken[[3, 5], 2] = np.nan, np.inf
    with pytest.raises(DataError, match=r"queries: .* 2 of 300"):
        k_nearest(broken, REFERENCES, 1)


def test_another_image_size_is_an_error():
    with pytest.raises(DataError, match="20 features an image, but references 19"):
        k_nearest(QUERIES, REFERENCES[:, :19], 1)


def test_points_in_balls_are_counted_as_by_a_full_matrix(blocks):
    radii = RNG.uniform(3, 6, len(REFERENCES))
    inside = slow(QUERIES, REFERENCES) < radii
    of_points, of_balls = inside_balls(QUERIES, REFERENCES, radii)
    assert np.array_equal(of_points, inside.sum(axis=1))
    assert np.array_equal(of_balls, inside.sum(axis=0))


def test_a_point_on_the_surface_is_outside_and_one_just_within_is_inside():
    distances, indices = k_nearest(QUERIES, REFERENCES, 1)
    centres = REFERENCES[indices[:, 0]]
    for radii, expected in ((distances[:, 0], 0), (np.nextafter(distances[:, 0], 99), 1)):
        counts = [inside_balls(QUERIES[i : i + 1], centres[i : i + 1], radii[i : i + 1])[0][0] for i in range(50)]
        assert set(counts) == {expected}
