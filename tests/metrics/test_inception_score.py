import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from ganvas.errors import DataError
from ganvas.metrics.inception_score import inception_score

RNG = np.random.Generator(np.random.Philox(7))


def test_sure_and_even_images_score_the_number_of_classes_and_unsure_ones_1():
    sure = np.repeat(np.eye(10), 10, axis=0)
    assert inception_score(sure, splits=1).value == pytest.approx(10)
    assert inception_score(np.full((100, 10), 0.1)).value == pytest.approx(1)
    assert inception_score(np.repeat(np.eye(10)[:1], 100, axis=0)).value == pytest.approx(1)


def test_with_one_split_it_equals_torch_fidelitys():
    logits = RNG.normal(size=(500, 20)) * 2
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits=1, shuffle=False)["inception_score_mean"]
    ours = inception_score(torch.from_numpy(logits).softmax(dim=1).numpy(), splits=1)
    assert ours.value == pytest.approx(theirs, rel=1e-9)
    assert ours.spread == 0


def test_images_sorted_by_class_are_shuffled_before_they_are_split():
    assert inception_score(np.repeat(np.eye(5), 200, axis=0), splits=10).value > 4.5


def test_logits_nan_and_too_few_images_are_clear_errors():
    with pytest.raises(DataError, match="30 of 30 images are negative or do not sum to 1"):
        inception_score(RNG.normal(size=(30, 4)))
    with pytest.raises(DataError, match=r"1 of 30 images hold NaN"):
        inception_score(np.where(np.arange(30)[:, None] == 2, np.nan, np.full((30, 4), 0.25)))
    with pytest.raises(DataError, match="5 images, but this metric needs at least 20"):
        inception_score(np.full((5, 4), 0.25))
