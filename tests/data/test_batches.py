import gc
import itertools
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from ganvas import rng
from ganvas.data import batches as batches_module
from ganvas.data.batches import Batch, Batches, Schedule
from ganvas.errors import DataError
from ganvas.rng import Purpose


class NumberedImages:
    """Images of 2x2 pixels; the four bytes of image i spell i. Keeps what was read."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.reads: list[np.ndarray] = []

    def __len__(self) -> int:
        return self.count

    def read(self, indices: np.ndarray) -> np.ndarray:
        self.reads.append(indices)
        return indices.astype("<u4").view(np.uint8).reshape(-1, 1, 2, 2)


def numbers(batch: Batch) -> list[int]:
    """The images of a batch of NumberedImages."""
    return batch.images_u8.numpy().reshape(-1, 4).copy().view("<u4")[:, 0].tolist()


def make_batches(num_images, batch, tail="ragged", min_batch=1, seed=0):
    return Batches(NumberedImages(num_images), Schedule(num_images, batch, tail, min_batch), seed)


def take(batches, nimg, steps):
    """The next `steps` batches from `nimg` on, by .start()."""
    iterator = batches.start(nimg)
    taken = list(itertools.islice(iterator, steps))
    iterator.close()
    return taken


def worker_threads():
    return [thread for thread in threading.enumerate() if thread.name == "ganvas-batches"]


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


@st.composite
def schedules(draw):
    num_images, batch, min_batch = draw(st.integers(1, 300)), draw(st.integers(1, 80)), draw(st.integers(1, 4))
    tail = draw(st.sampled_from(["ragged", "drop", "replacement"]))
    assume(num_images >= min_batch and batch >= min_batch)
    return Schedule(num_images, batch, tail, min_batch)


# --- Schedule -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "epoch_images", "steps_per_epoch", "sizes"),
    [
        (Schedule(10, 4, "ragged"), 10, 3, [4, 4, 2]),
        (Schedule(8, 4, "ragged"), 8, 2, [4, 4]),
        (Schedule(9, 4, "ragged"), 9, 3, [4, 4, 1]),
        (Schedule(9, 4, "ragged", min_batch=2), 8, 2, [4, 4]),
        (Schedule(10, 4, "ragged", min_batch=2), 10, 3, [4, 4, 2]),
        (Schedule(3, 64, "ragged", min_batch=2), 3, 1, [3]),
        (Schedule(10, 4, "drop"), 8, 2, [4, 4]),
        (Schedule(4, 4, "drop"), 4, 1, [4]),
        (Schedule(3, 64, "drop"), 3, 1, [3]),
        (Schedule(10, 4, "replacement"), 12, 3, [4, 4, 4]),
        (Schedule(3, 4, "replacement"), 4, 1, [4]),
    ],
)
def test_an_epoch_is_cut_as_its_tail_says(schedule, epoch_images, steps_per_epoch, sizes):
    assert schedule.epoch_images == epoch_images
    assert schedule.steps_per_epoch == steps_per_epoch
    starts = [schedule.nimg_at(step) for step in range(2 * steps_per_epoch)]
    assert [schedule.batch_size_at(nimg) for nimg in starts] == 2 * sizes


@given(schedule=schedules(), step=st.integers(0, 10**9))
def test_step_at_undoes_nimg_at(schedule, step):
    assert schedule.step_at(schedule.nimg_at(step)) == step


@given(schedule=schedules(), step=st.integers(0, 10**6))
def test_each_batch_ends_where_the_next_begins_and_none_is_too_small(schedule, step):
    nimg = schedule.nimg_at(step)
    size = schedule.batch_size_at(nimg)
    assert nimg + size == schedule.nimg_at(step + 1)
    assert schedule.min_batch <= size <= schedule.batch


@given(schedule=schedules(), nimg=st.integers(0, 1000))
def test_step_at_refuses_what_nimg_at_never_gives(schedule, nimg):
    if nimg in [schedule.nimg_at(step) for step in range(nimg + 1)]:
        assert schedule.nimg_at(schedule.step_at(nimg)) == nimg
    else:
        for question in (schedule.step_at, schedule.batch_size_at):
            with pytest.raises(ValueError, match=f"no batch starts at nimg {nimg}"):
                question(nimg)


def test_epoch_at_counts_with_fractions():
    schedule = Schedule(10, 4, "ragged")
    assert [schedule.epoch_at(nimg) for nimg in (0, 4, 10, 28)] == [0, 0.4, 1, 2.8]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1, 64, "ragged", 2), ["1 image found", "at least 2", "1 more"]),
        ((0, 64, "replacement"), ["0 images found"]),
        ((100, 1, "ragged", 2), ["--batch 1:", "2 images", "--batch 2 or larger"]),
        ((100, 0, "drop"), ["--batch 0:", "--batch 1 or larger"]),
    ],
)
def test_a_schedule_without_a_single_batch_is_refused_with_a_remedy(arguments, words):
    with pytest.raises(DataError) as error:
        Schedule(*arguments)
    for word in words:
        assert word in str(error.value)


# --- Which image comes when -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_images", "batch"), [(10, 4), (64, 8), (5, 64), (1, 1), (101, 7)])
def test_each_epoch_visits_each_image_exactly_once(num_images, batch):
    batches = make_batches(num_images, batch)
    for epoch in range(3):
        steps = take(batches, epoch * num_images, batches.schedule.steps_per_epoch)
        assert sorted(number for step in steps for number in numbers(step)) == list(range(num_images))


@pytest.mark.parametrize(("tail", "min_batch"), [("drop", 1), ("ragged", 2)])
def test_left_out_images_change_from_epoch_to_epoch(tail, min_batch):
    batches = make_batches(9, 4, tail, min_batch)
    left_out = set()
    for epoch in range(40):
        seen = [number for step in take(batches, 8 * epoch, 2) for number in numbers(step)]
        assert len(set(seen)) == 8
        left_out |= set(range(9)) - set(seen)
    assert left_out == set(range(9))


def test_the_order_is_shuffled_anew_in_each_epoch_and_for_each_seed():
    orders = [numbers(make_batches(50, 50, seed=seed).at(50 * epoch)) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert list(range(50)) not in orders
    assert len({tuple(order) for order in orders}) == 6


def test_the_image_at_a_running_number_is_the_documented_one():
    batch = make_batches(10, 4, seed=3).at(14)  # positions 4 to 7 of epoch 1
    assert_array_equal(batch.indices, np.arange(14, 18))
    assert numbers(batch) == rng.permute(np.arange(4, 8), 10, 3, Purpose.ORDER, 1).tolist()
    drawn = make_batches(10, 4, "replacement", seed=3).at(16)
    assert numbers(drawn) == rng.integers(3, Purpose.REPLACEMENT, np.arange(16, 20), 10).tolist()


def test_a_batch_is_uint8_and_numbered_in_int64():
    batch = make_batches(10, 4).at(0)
    assert batch.images_u8.dtype == torch.uint8 and batch.images_u8.shape == (4, 1, 2, 2)
    assert batch.indices.dtype == np.int64


def test_drawing_with_replacement_covers_all_images_evenly_and_repeats_some():
    batches = make_batches(10, 4, "replacement")
    counts = np.zeros(10, dtype=int)
    for step in range(1000):
        counts += np.bincount(numbers(batches.at(4 * step)), minlength=10)
    assert counts.sum() == 4000 and abs(counts - 400).max() < 5 * 400**0.5
    assert any(len(set(numbers(batches.at(4 * step)))) < 4 for step in range(20))


@pytest.mark.parametrize("tail", ["ragged", "drop", "replacement"])
def test_a_run_resumed_at_any_batch_goes_on_as_if_unbroken(tail):
    unbroken = take(make_batches(10, 4, tail), 0, 9)
    for done in range(9):
        nimg = make_batches(10, 4, tail).schedule.nimg_at(done)
        resumed = take(make_batches(10, 4, tail), nimg, 9 - done)
        for ours, expected in zip(resumed, unbroken[done:], strict=True):
            assert_array_equal(ours.indices, expected.indices)
            assert torch.equal(ours.images_u8, expected.images_u8)


def test_batches_do_not_depend_on_the_order_in_which_they_are_asked_for():
    schedule = Schedule(30, 4, "ragged")
    straight = take(make_batches(30, 4), 0, 24)
    batches = make_batches(30, 4)
    for step in np.random.default_rng(0).permutation(24).tolist():
        assert numbers(batches.at(schedule.nimg_at(step))) == numbers(straight[step])


def test_the_order_does_not_depend_on_the_blocks_it_is_shuffled_in(monkeypatch):
    expected = [numbers(batch) for batch in take(make_batches(100, 7), 0, 30)]
    for block in (1, 3, 7, 10, 99, 100):
        monkeypatch.setattr(batches_module, "_ORDER_BLOCK", block)
        assert [numbers(batch) for batch in take(make_batches(100, 7), 0, 30)] == expected


def test_the_order_is_shuffled_once_for_many_batches(monkeypatch):
    calls = []
    permute = rng.permute
    monkeypatch.setattr(rng, "permute", lambda positions, *rest: calls.append(len(positions)) or permute(positions, *rest))
    take(make_batches(100_000, 10), 0, 50)
    assert calls == [65536]


def test_images_that_are_read_only_or_not_contiguous_are_served_all_the_same():
    class Awkward(NumberedImages):
        def read(self, indices):
            images = super().read(indices).transpose(0, 1, 3, 2)
            images.flags.writeable = False
            return images

    batch = Batches(Awkward(10), Schedule(10, 4, "ragged"), 0).at(0)
    assert torch.equal(batch.images_u8, make_batches(10, 4).at(0).images_u8.transpose(2, 3))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="10 images cannot serve 11"):
        Batches(NumberedImages(11), Schedule(10, 4, "ragged"), 0)
    for ask in (make_batches(10, 4).at, make_batches(10, 4).start):
        for nimg in (3, -4):
            with pytest.raises(ValueError, match=f"nimg {nimg}"):
                ask(nimg)


# --- The background thread ------------------------------------------------------------------------------------------


def test_two_batches_are_prepared_ahead_and_no_more():
    batches = make_batches(100, 10)
    iterator = batches.start(0)
    for taken in (1, 2, 3):
        next(iterator)
        wait_until(lambda taken=taken: len(batches.images.reads) == taken + 2)
    time.sleep(0.05)
    assert len(batches.images.reads) == 5
    iterator.close()


def test_no_thread_is_left_when_the_iterator_is_closed():
    iterator = make_batches(100, 10).start(0)
    next(iterator)
    assert len(worker_threads()) == 1
    iterator.close()
    assert worker_threads() == []


def test_no_thread_is_left_when_the_iterator_is_dropped():
    iterator = make_batches(100, 10).start(0)
    next(iterator)
    del iterator
    gc.collect()
    assert worker_threads() == []


def test_no_thread_is_left_when_the_iterator_was_never_used():
    make_batches(100, 10).start(0).close()
    assert worker_threads() == []


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_an_iterator_collected_in_its_own_thread_ends_it():
    class CollectingImages(NumberedImages):
        def read(self, indices):
            if len(self.reads) == 2:
                dropped.wait(10)
                gc.collect()
            return super().read(indices)

    dropped, images = threading.Event(), CollectingImages(100)
    holder = [Batches(images, Schedule(100, 10, "ragged"), 0).start(0)]
    next(holder[0])
    holder.append(holder)  # a cycle: only the collector frees it
    alive = weakref.ref(holder[0])
    del holder
    dropped.set()
    wait_until(lambda: alive() is None and worker_threads() == [])
    gc.collect()


def test_an_error_of_the_thread_is_raised_at_its_batch():
    class TornImages(NumberedImages):
        def read(self, indices):
            if len(self.reads) == 3:
                raise DataError("pack.npy: torn")
            return super().read(indices)

    iterator = Batches(TornImages(100), Schedule(100, 10, "ragged"), 0).start(0)
    for _ in range(3):
        next(iterator)
    with pytest.raises(DataError, match=r"pack\.npy: torn"):
        next(iterator)
    assert worker_threads() == []


def test_a_program_that_ends_with_an_open_iterator_ends():
    program = """
import numpy as np
from ganvas.data.batches import Batches, Schedule
class Images:
    def __len__(self): return 100
    def read(self, indices): return np.zeros((len(indices), 1, 2, 2), dtype=np.uint8)
iterator = Batches(Images(), Schedule(100, 10, "ragged"), 0).start(0)
next(iterator)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], timeout=60, capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert result.stderr == ""
