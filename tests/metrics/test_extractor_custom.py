import numpy as np
import pytest
import torch

from ganvas.errors import ConfigError, DataError
from ganvas.metrics.extractor_custom import CustomExtractor, from_file
from ganvas.metrics.features import extract

IMAGES = np.random.Generator(np.random.Philox(0)).integers(0, 256, (6, 3, 4, 4), dtype=np.uint8)


def means(images):
    assert images.dtype == torch.uint8
    return images.float().mean(dim=(2, 3))


def test_a_function_of_the_users_is_an_extractor():
    extractor = CustomExtractor(means, IMAGES)
    found = extract(extractor, IMAGES)
    assert (extractor.name, extractor.dim, extractor.relative_only) == ("means", 3, True)
    assert np.allclose(found.vectors, IMAGES.mean(axis=(2, 3)), atol=1e-4) and found.probabilities is None


def test_a_pair_is_features_and_probabilities_and_arrays_are_as_good_as_tensors():
    extractor = CustomExtractor(lambda images: (means(images).numpy().astype(np.float64), means(images).softmax(1)), IMAGES)
    found = extractor(IMAGES)
    assert found.vectors.dtype == np.float32
    assert np.allclose(found.probabilities.sum(axis=1), 1)


@pytest.mark.parametrize(("function", "what"), [
    (lambda images: None, r"gave nothing \(None\), but features must be \(2, d\)"),
    (lambda images: means(images)[0], r"features of shape \(3,\)"),
    (lambda images: means(images)[:1], r"features of shape \(1, 3\), but features must be \(2, d\)"),
    (lambda images: means(images) / 0, r"features of 2 of 2 images hold NaN"),
    (lambda images: (means(images), means(images)[:, 0]), r"probabilities of shape \(2,\)"),
    (lambda images: [1, 2], "gave a list of 2"),
    (lambda images: np.array([["a"], ["b"]]), "of type <U1"),
    (lambda images: images.float() @ torch.zeros(7, 7), r"failed on images of shape \(2, 3, 4, 4\).*RuntimeError: "),
])
def test_what_a_function_does_wrong_is_said_at_the_first_try(function, what):
    with pytest.raises(DataError, match=rf"(?s)^lambda-like: .*{what}"):
        CustomExtractor(function, IMAGES, name="lambda-like")


def test_a_later_answer_of_another_width_is_refused():
    extractor = CustomExtractor(lambda images: images.float().flatten(1), IMAGES)
    with pytest.raises(DataError, match=r"\(6, 12\), but features must be \(6, 48\)"):
        extractor(IMAGES[:, :, :2, :2])


def test_functions_that_answer_differently_have_different_keys():
    assert CustomExtractor(means, IMAGES).key == CustomExtractor(means, IMAGES).key
    assert CustomExtractor(means, IMAGES).key != CustomExtractor(lambda x: means(x) * 2, IMAGES, name="means").key


FILE = """
import neighbour
def own(images):
    return images.flatten(1).float() * neighbour.FACTOR
number = 3
"""


def test_a_function_in_a_file_is_found_with_its_neighbours_and_its_key_follows_the_file(tmp_path):
    (tmp_path / "neighbour.py").write_text("FACTOR = 2\n")
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    extractor = from_file(f"{path}:own", IMAGES)
    assert (extractor.name, extractor.dim) == ("mine.py:own", 48)
    assert np.array_equal(extractor(IMAGES).vectors, IMAGES.reshape(6, -1) * 2.0)
    before = extractor.key
    path.write_text(FILE + "# changed\n")
    assert from_file(f"{path}:own", IMAGES).key != before


def test_weights_that_a_function_loads_from_elsewhere_change_its_key(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("import numpy, pathlib\nW = float(numpy.load(pathlib.Path(__file__).with_name('w.npy')))\n"
                    "def own(images):\n    return (images[:, 0].float().mean((1, 2)) > W).float()[:, None]\n")
    keys = []
    for weight in (126, 128, 126):
        np.save(tmp_path / "w.npy", weight)
        keys.append(from_file(f"{path}:own", IMAGES).key)
    assert keys[0] == keys[2] != keys[1]


def test_the_key_hangs_on_the_size_of_the_images_and_not_on_which_they_are():
    assert CustomExtractor(means, IMAGES[:3]).key == CustomExtractor(means, IMAGES[3:]).key
    assert CustomExtractor(means, IMAGES[..., :3, :]).key != CustomExtractor(means, IMAGES).key


def test_a_function_that_makes_nothing_of_noise_still_has_a_key():
    def picky(images):
        assert len(images) == 2, "no faces found"
        return means(images)

    assert CustomExtractor(picky, IMAGES).key != CustomExtractor(lambda x: picky(x) * 2, IMAGES, name="picky").key


def test_a_file_or_function_that_cannot_be_had_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no file .*none\.py"):
        from_file(f"{tmp_path}/none.py:own", IMAGES)
    path = tmp_path / "mine.py"
    path.write_text("def own(images): pass\nnumber = 3\n")
    for name in ("other", "number"):
        with pytest.raises(ConfigError, match=rf"mine\.py: there is no function '{name}' in it\. It has: own\."):
            from_file(f"{path}:{name}", IMAGES)
    with pytest.raises(DataError, match=r"mine\.py:own: gave nothing"):
        from_file(f"{path}:own", IMAGES)
    path.write_text("import no_such_package\n")
    with pytest.raises(ConfigError, match=r"mine\.py: cannot be run \(ModuleNotFoundError: .*no_such_package"):
        from_file(f"{path}:own", IMAGES)
