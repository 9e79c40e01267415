"""Images are decoded in processes of their own, as they would be in this one."""

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganvas.data import decoder as decoder_module
from ganvas.data import packing
from ganvas.data.chunks import Item, decode
from ganvas.data.decoder import Decoder, Decoders
from ganvas.data.layout import Layout
from ganvas.data.pack import build_pack
from ganvas.data.source_base import UnreadableError
from ganvas.data.sources import open_source
from ganvas.errors import DataError
from makers import image_folder

LAYOUT = Layout(12, 16, 4, "pad", "keep")


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def some_items():
    rng = np.random.default_rng(0)
    return [
        Item("a.png", png(Image.fromarray(rng.integers(0, 256, (20, 30, 4), dtype=np.uint8), "RGBA"))),
        Item("torn.png", b"\x89PNG\r\n\x1a\n"),
        Item("gone.png", UnreadableError("gone.png", "it is gone")),
        Item("array[3]", rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)),
        Item("sheet.png[row 1, column 2]", rng.integers(0, 256, (8, 8, 1), dtype=np.uint8), ("PNG", "P", 1)),
        Item("ü \udce9\n.png", png(Image.new("L", (5, 5), 7))),
    ]


@pytest.fixture
def running():
    decoder = Decoder(LAYOUT)
    yield decoder
    decoder.close()


def test_a_process_gives_what_this_one_would(running):
    assert running.decode(some_items()) == decode(some_items(), LAYOUT)
    assert running.decode([]) == decode([], LAYOUT)
    assert running.decode(some_items()[::-1]) == decode(some_items()[::-1], LAYOUT)


def test_a_large_image_is_left_to_this_process(running):
    large = Item("large.png", png(Image.new("1", (4000, 3000))))
    assert running.decode([some_items()[0], large]) is None
    assert running.decode(some_items()) is not None
    chunk = Decoders(LAYOUT, 1).decode([large])
    assert chunk.kept == [True]


def test_a_pack_is_the_same_with_processes_and_without(tmp_path, monkeypatch):
    source = open_source(image_folder(tmp_path / "images", 60))
    packs = []
    for worth in (1, 10**9):
        monkeypatch.setattr(packing, "_WORTH_PROCESSES", worth)
        packs.append(build_pack(source, Layout(8, 8), cache_dir=tmp_path / f"{worth}", workers=3))
    assert packs[0].fingerprint == packs[1].fingerprint
    assert np.array_equal(packs[0].facts, packs[1].facts) and np.array_equal(packs[0].thumbs, packs[1].thumbs)
    assert list(packs[0].names) == list(packs[1].names)


CRASHING = """
import os
from ganvas.data import chunks
noted = chunks._noted
def crash(opened, layout):
    if opened.image.size == (13, 13):
        os._exit(11)
    return noted(opened, layout)
chunks._noted = crash
"""


def test_an_image_that_crashes_its_process_is_skipped_and_named(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(CRASHING, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    items = [*some_items(), Item("bomb.png", png(Image.new("RGB", (13, 13)))), some_items()[0]]
    decoders = Decoders(LAYOUT, 2)
    assert decoders._idle.get() == "here"                      # only processes are left
    try:
        chunk = decoders.decode(items)
        assert chunk.kept == [True, False, False, True, True, True, False, True]
        assert ("bomb.png", "its content crashed the decoder") in chunk.skipped
        assert decoders.decode(some_items()) == decode(some_items(), LAYOUT)
    finally:
        decoders.close()


def test_without_processes_this_one_decodes(monkeypatch):
    def refuse(*args, **how):
        raise PermissionError("no processes here")
    monkeypatch.setattr(subprocess, "Popen", refuse)
    decoders = Decoders(LAYOUT, 2)
    assert decoders.decode(some_items()) == decode(some_items(), LAYOUT)
    assert decoders.decode(some_items()) == decode(some_items(), LAYOUT)


def test_no_process_outlives_a_pack_or_its_interruption(tmp_path, monkeypatch):
    started = []
    start = subprocess.Popen

    def noted(*args, **how):
        started.append(start(*args, **how))
        return started[-1]
    monkeypatch.setattr(decoder_module.subprocess, "Popen", noted)
    monkeypatch.setattr(packing, "_WORTH_PROCESSES", 1)
    source = open_source(image_folder(tmp_path / "images", 80))
    build_pack(source, Layout(8, 8), cache_dir=tmp_path / "a", workers=2)

    def stop(done, total):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        build_pack(source, Layout(8, 8), cache_dir=tmp_path / "b", workers=2, progress=stop)
    (tmp_path / "images" / "torn.png").write_bytes(b"")
    with pytest.raises(DataError, match="the file is empty"):
        build_pack(open_source(tmp_path / "images"), Layout(8, 8), cache_dir=tmp_path / "c", workers=2)
    assert len(started) >= 3
    assert all(process.poll() is not None for process in started)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.mark.skipif(sys.platform == "win32", reason="looks at /proc")
def test_the_processes_end_with_a_killed_parent(tmp_path):
    script = ("import sys, time\nfrom ganvas.data.decoder import Decoder\nfrom ganvas.data.layout import Layout\n"
              "made = Decoder(Layout(8, 8))\nprint(made._process.pid, flush=True)\ntime.sleep(60)\n")
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    give_up = threading.Event()
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        give_up.wait(0.1)
    else:
        os.kill(child, 9)
        pytest.fail("the decoder lives on")
