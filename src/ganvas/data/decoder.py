"""Decodes chunks of images in a process of its own: threads share one interpreter, and decoding small images is mostly Python.

The process is another Python that runs this file, fed through pipes; no module of the caller's is imported, so that scripts need
no `__main__` guard. A message is the length of a JSON header (8 bytes, little-endian), the header, and the blobs it announces.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Literal

import numpy as np

from ganvas.data.chunks import PARTS, Chunk, Item, LargeImageError, decode, joined
from ganvas.data.layout import Layout
from ganvas.data.source_base import UnreadableError

_PIPE_BYTES = 2**20                    # asked for where the system has a call for it: fewer changes between the processes


class Decoder:
    """Another process that decodes. To be used by one thread at a time."""

    def __init__(self, layout: Layout):
        """Starts the process. Raises OSError where that cannot be done."""
        # One image needs no threads of its own, and starting those of BLAS takes as long as all the rest.
        alone = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        paths = [str(Path(__file__).parents[2]), *filter(None, sys.path)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, json.dumps(asdict(layout))], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=os.environ | alone | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"})
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        _widen(self._to)
        _widen(self._from)

    def decode(self, items: Sequence[Item]) -> Chunk | None:
        """What `chunks.decode` gives; None where an image is so large that it is to be decoded here.

        Raises OSError where the process is gone: an image may have crashed it.
        """
        header: list[Any] = []
        blobs: list[bytes] = []
        for name, content, stored in items:
            if isinstance(content, UnreadableError):
                header.append([name, "unreadable", content.reason, stored])
                continue
            shape = None if isinstance(content, bytes) else content.shape
            header.append([name, "image", shape, stored])
            blobs.append(content if isinstance(content, bytes) else np.ascontiguousarray(content).tobytes())
        _send(self._to, header, blobs)
        message = _receive(self._from)
        if message is None:
            raise OSError(f"the decoding process has ended ({self._process.poll()})")
        reply, parts = message
        return None if reply is None else Chunk(reply["kept"], [(name, reason) for name, reason in reply["skipped"]],
                                                dict(zip(PARTS, parts, strict=True)))

    def close(self) -> None:
        """Ends the process; what it is decoding is lost."""
        for stream in (self._to, self._from):
            with contextlib.suppress(OSError):
                stream.close()
        self._process.kill()
        self._process.wait()


class Decoders:
    """One place to decode for each thread that asks for chunks: this process has one of them, the others are processes.

    So there is no waiting for a process to start, and small sets need none.
    """

    def __init__(self, layout: Layout, processes: int):
        """processes: how many besides this one; without any, all threads decode here."""
        self._layout = layout
        self._idle: SimpleQueue[Decoder | Literal["here"] | None] = SimpleQueue()      # None = not started yet
        self._lock = threading.Lock()
        self._started: set[Decoder] = set()
        self._broken = processes == 0
        self._idle.put("here")
        for _ in range(processes):
            self._idle.put(None)

    def decode(self, items: Sequence[Item]) -> Chunk:
        """What `chunks.decode` gives. An image that crashes its process is skipped, and the reason says so."""
        if self._broken:
            return decode(items, self._layout)
        place = self._idle.get()
        try:
            if place == "here":
                return decode(items, self._layout)
            place = place or self._start()
            return place.decode(items) or decode(items, self._layout)
        except OSError:
            if place != "here":
                self._end(place)
                place = None
            return self._one_by_one(items)
        finally:
            self._idle.put(place)

    def close(self) -> None:
        """Ends all processes."""
        for decoder in list(self._started):
            self._end(decoder)

    def _one_by_one(self, items: Sequence[Item]) -> Chunk:
        """The items, of which one or more may have crashed a process; each with a process of its own from there on."""
        done = []
        decoder: Decoder | None = None
        for item in items:
            try:
                decoder = decoder or self._start()
                done.append(decoder.decode([item]) or decode([item], self._layout))
            except OSError:
                self._end(decoder)
                decoder = None
                try:
                    decoder = self._start()
                    decoder.decode([])
                except OSError:                            # it is not the image: processes cannot be had
                    self._end(decoder)
                    self._broken = True
                    return decode(items, self._layout)
                crashed = UnreadableError(item.name, "its content crashed the decoder")
                done.append(decode([Item(item.name, crashed)], self._layout))
        self._end(decoder)
        return joined(done)

    def _start(self) -> Decoder:
        decoder = Decoder(self._layout)
        with self._lock:
            self._started.add(decoder)
        return decoder

    def _end(self, decoder: Decoder | None) -> None:
        if decoder is not None:
            decoder.close()
            with self._lock:
                self._started.discard(decoder)


def _serve(layout: Layout, requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answers requests until there are no more."""
    while (message := _receive(requests)) is not None:
        header, blobs = message
        left = iter(blobs)
        items = []
        for name, kind, about, stored in header:
            if kind == "unreadable":
                items.append(Item(name, UnreadableError(name, about), tuple(stored)))
                continue
            blob = next(left)
            content = blob if about is None else np.frombuffer(blob, np.uint8).reshape(about)
            items.append(Item(name, content, tuple(stored)))
        try:
            chunk = decode(items, layout, large=False)
        except LargeImageError:
            _send(replies, None, [])
            continue
        _send(replies, {"kept": chunk.kept, "skipped": chunk.skipped}, [chunk.parts[name] for name in PARTS])


def _send(stream: IO[bytes], header: Any, blobs: list[bytes]) -> None:
    text = json.dumps([header, [len(blob) for blob in blobs]]).encode()
    stream.write(len(text).to_bytes(8, "little") + text)
    for blob in blobs:
        stream.write(blob)
    stream.flush()


def _receive(stream: IO[bytes]) -> tuple[Any, list[bytes]] | None:
    """(header, blobs); None at the end of the stream, also in the middle of a message."""
    length = stream.read(8)
    text = stream.read(int.from_bytes(length, "little")) if len(length) == 8 else b""
    if not text:
        return None
    try:
        header, sizes = json.loads(text)
    except ValueError:
        return None
    blobs = [stream.read(size) for size in sizes]
    return (header, blobs) if [len(blob) for blob in blobs] == sizes else None


def _widen(stream: IO[bytes]) -> None:
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)           # Ctrl-C goes to all of a terminal's processes; the parent decides
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())      # what a library prints must not end up among the replies
    with contextlib.suppress(BrokenPipeError):
        _serve(Layout(**json.loads(sys.argv[1])), sys.stdin.buffer, output)
