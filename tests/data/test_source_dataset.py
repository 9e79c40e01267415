"""Python objects as sources: datasets, lists, tensors."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from ganvas.data.source_base import UnreadableError
from ganvas.data.sources import open_source
from ganvas.errors import DataError

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
PIL = Image.fromarray(PICTURE)


class Given:
    """A map-style dataset of the items given."""

    def __init__(self, *items, **attributes):
        self.items = items
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        item = self.items[index]
        if isinstance(item, Exception):
            raise item
        return item


def first(item, *more):
    return open_source(Given(item, *more)).load(0)


TENSOR = torch.from_numpy(PICTURE).permute(2, 0, 1)


@pytest.mark.parametrize("item", [
    PIL, (PIL,), (PIL, 3), (PIL, "cat", "more"), {"image": PIL, "label": 1}, {"img": PIL}, PICTURE, PICTURE.transpose(2, 0, 1),
    TENSOR, (TENSOR, torch.tensor(1)), TENSOR / 255, (TENSOR / 255).half().float(), TENSOR.double() / 255, PICTURE / 255,
    (TENSOR / 255).requires_grad_(), [PICTURE, 0],
])
def test_an_item_of_each_usual_form_gives_its_pixels(item):
    np.testing.assert_array_equal(first(item), PICTURE)


def test_floats_from_minus_one_are_told_by_the_whole_set_not_by_one_image():
    bright = torch.full((3, 4, 4), 0.5)
    assert first(bright).max() == 128
    source = open_source(Given(bright, TENSOR / 127.5 - 1))
    assert source.load(0).max() == 191                                     # (0.5 + 1) * 127.5
    np.testing.assert_array_equal(source.load(1), PICTURE)


def test_bfloat16_has_no_numpy_type_but_is_read():
    assert first((torch.ones(3, 4, 4) * 0.5).bfloat16()).max() == 128


def test_where_both_ends_may_be_channels_a_tensor_has_them_first_and_an_array_last():
    assert first(torch.zeros(3, 7, 4, dtype=torch.uint8)).shape == (7, 4, 3)
    assert first(np.zeros((3, 7, 4), np.uint8)).shape == (3, 7, 4)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("P", 3), ("LA", 4), ("RGBA", 4), ("CMYK", 3)])
def test_pictures_of_each_mode_are_read(mode, channels):
    image = Image.new(mode, (5, 6))
    assert first(image).shape == (6, 5, channels)


@pytest.mark.parametrize(("item", "words"), [
    (PICTURE.astype(int), r"Given\[0\] is an array of int64 \(6, 5, 3\) from 0 to 248, but"),
    (PICTURE.astype(float), r"float64 \(6, 5, 3\) from 0 to 248, but .*ToTensor"),
    (np.full((4, 4), np.nan), r"from nan to nan"),
    (np.zeros((2, 4, 5), np.uint8), r"uint8 \(2, 4, 5\), but .*1, 3 or 4 channels"),
    (np.zeros((1, 1, 4, 4), np.uint8), r"\(1, 1, 4, 4\)"),
    (np.zeros((0, 4), np.uint8), r"there is no pixel in it"),
    (("a.png", 3), r"is of the type builtins\.tuple, but an item must be an image or \(image, label\)"),
    (None, r"builtins\.NoneType"),
    ({"text": "no image"}, r"builtins\.dict"),
    (7, r"builtins\.int"),
])
def test_an_item_that_is_no_image_is_named_with_its_type_and_range(item, words):
    with pytest.raises(DataError, match=words) as caught:
        open_source(Given(item))
    assert not isinstance(caught.value, UnreadableError)
    assert "[0]" in str(caught.value)


def test_labels_are_taken_if_all_are_whole_numbers_or_words():
    images = [PICTURE] * 4
    numbers = open_source(Given(*zip(images, [7, np.int64(3), torch.tensor(7), 3], strict=True)))
    assert (numbers.labels.tolist(), numbers.class_names) == ([1, 0, 1, 0], ("3", "7"))
    words = open_source(Given(*zip(images, ["dog", "cat", "dog", "a\nb"], strict=True)))
    assert (words.labels.tolist(), words.class_names) == ([2, 1, 2, 0], ("a\\nb", "cat", "dog"))
    named = open_source(Given(*zip(images, [0, 2, 0, 2], strict=True), classes=["cat", "dog", "fox"]))
    assert (named.labels.tolist(), named.class_names) == ([0, 2, 0, 2], ("cat", "dog", "fox"))
    for labels in ([0.5, 1.0, 2.0, 3.0], [1, "cat", 1, 1], [1, None, 1, 1], [True, False, True, True], [torch.ones(2)] * 4):
        source = open_source(Given(*zip(images, labels, strict=True)))
        assert source.labels is None
        assert "not used as labels: they are not all whole numbers or all words" in source.notes[0]
    assert open_source(Given(*images)).notes == []


def test_an_item_that_raises_is_one_unreadable_image():
    source = open_source(Given((PICTURE, 1), OSError("gone"), (PICTURE, 2)))
    with pytest.raises(UnreadableError, match=r"Given\[1\]: .*OSError: gone"):
        source.load(1)
    assert source.labels.tolist()[0::2] == [0, 1]
    with pytest.raises(DataError, match=r"the dataset Given: none of its 2 items can be read\. The first: KeyError: 'x'"):
        open_source(Given(KeyError("x"), KeyError("y")))


def test_the_stamp_is_the_content():
    before = open_source(Given(PICTURE, PICTURE)).stamp
    assert open_source([PICTURE.copy(), PIL]).stamp == before
    assert open_source(Given(PICTURE, PICTURE[::-1])).stamp != before
    assert open_source(Given(PICTURE.reshape(5, 6, 3), PICTURE)).stamp != before


def test_a_dataset_is_asked_by_one_thread_at_a_time():
    busy = threading.Lock()

    class Alone(Given):
        def __getitem__(self, index):
            assert busy.acquire(blocking=False)
            time.sleep(0.001)
            busy.release()
            return super().__getitem__(index)

    source = open_source(Alone(*[PICTURE] * 8))
    with ThreadPoolExecutor(4) as threads:
        assert len(list(threads.map(source.load, [*range(8)] * 4))) == 32


def test_random_transforms_are_noticed():
    class Random(Given):
        def __getitem__(self, index):
            return np.random.default_rng().integers(0, 256, (4, 4), dtype=np.uint8)

    note = open_source(Random(1, 2, 3)).notes[0]
    assert "the dataset Random gives other pixels each time" in note
    assert "remove its random transforms" in note


def test_a_list_holds_images_of_any_sizes_and_kinds():
    source = open_source([PICTURE, PIL, np.zeros((9, 4), np.uint8)])
    assert [source.load(index).shape for index in range(3)] == [(6, 5, 3), (6, 5, 3), (9, 4, 1)]
    assert (source.where, source.name, source.item_name(2)) == ("the list", "list", "list[2]")
    assert open_source([(PIL, 1), (PIL, 2)]).labels.tolist() == [0, 1]
    with pytest.raises(DataError, match="the list: there is no image in it"):
        open_source([])
    with pytest.raises(DataError, match=r"list\[1\] is of the type builtins\.str"):
        open_source([PIL, "a.png"])


def test_torchs_own_sets_and_tensors_are_sources():
    images = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)
    pairs = open_source(TensorDataset(images, torch.tensor([5, 4])))
    assert (pairs.where, pairs.name, pairs.labels.tolist()) == ("the dataset TensorDataset", "tensordataset", [1, 0])
    for source in (pairs, open_source(images), open_source(images / 255)):
        np.testing.assert_array_equal(source.load(1), images[1].permute(1, 2, 0))


class Endless(IterableDataset):
    def __iter__(self):
        yield PICTURE

    def __len__(self):
        return 1


@pytest.mark.parametrize(("source", "words"), [
    (Endless(), r"Endless can only be walked through.*list\(\.\.\.\)"),
    ((PICTURE for _ in range(3)), r"generator can only be walked through.*list\(\.\.\.\)"),
    (iter([PICTURE]), r"list_iterator"),
    (DataLoader([PICTURE]), r"DataLoader can only be walked through.*or its \.dataset"),
    (PIL, "a single image. Pass a list"),
    ({"a": PICTURE}, "dict is no source"),
    (3, "int is no source"),
    (None, "NoneType is no source"),
    (b"images", "bytes is no source"),
    (Given(), "the dataset Given: there is no image in it"),
])
def test_objects_that_are_no_sources_say_what_to_pass(source, words):
    with pytest.raises(DataError, match=words):
        open_source(source)


def test_labels_from_folders_cannot_be_asked_of_a_dataset_without_labels():
    with pytest.raises(DataError, match=r"the dataset Given: --labels folder needs sub-folders"):
        open_source(Given(PICTURE), labels="folder")
    assert open_source(Given((PICTURE, 1)), labels="folder").labels.tolist() == [0]


def test_a_dataset_without_a_length_says_so():
    class Lengthless(Dataset):
        def __getitem__(self, index):
            return PICTURE

    with pytest.raises(DataError, match=r"Lengthless is no source.*__len__ and __getitem__"):
        open_source(Lengthless())
