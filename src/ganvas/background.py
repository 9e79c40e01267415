"""One thing at a time in a thread of its own: in the order in which it was asked for, and no failure of it is lost."""

import sys
import threading
from collections.abc import Callable


class Background:
    """Runs what `start` is given, one after the other, beside the caller. For one caller's thread.

    What a piece of work raises, `check`, `wait` and `start` raise whenever they are called: after it nothing more is done.
    A thread lives as long as its work, so none is left behind by a caller who goes away; an interpreter that ends waits for it.
    """

    def __init__(self, name: str):
        self._name = name
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()                        # the thread's work
        self._failure: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begins `work`, once what was begun before has ended (so that no more than one holds its memory)."""
        self.wait()
        self._ended.clear()
        # Never a daemon, which it would inherit from a caller who is one: the interpreter would end in the middle of a file.
        thread = threading.Thread(target=self._run, args=(work,), name=self._name, daemon=False)
        try:
            if sys.is_finalizing():                            # a generator that is closed by the interpreter's end, say
                raise RuntimeError("no thread can run any more")
            thread.start()
            self._thread = thread
        except RuntimeError:                                   # nor where the system gives no further thread
            self._run(work)
            self.check()

    def check(self) -> None:
        """Raises what has failed so far; waits for nothing."""
        if self._failure is not None:
            raise self._failure

    def wait(self) -> None:
        """Returns when all is done. A KeyboardInterrupt is raised when it is: the caller's next act may be to give away what is
        being written to.

        The event and not `join` says that it is: before Python 3.13 a join that Ctrl-C interrupts takes the thread for
        ended, and the next one returns at once (see bpo-45274 in CPython's threading.py).
        """
        interrupted: KeyboardInterrupt | None = None
        while self._thread is not None:
            try:
                self._ended.wait()
                self._thread.join()
                self._thread = None
            except KeyboardInterrupt as interrupt:
                interrupted = interrupt
        if interrupted is not None:
            raise interrupted
        self.check()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as failure:
            self._failure = failure
        finally:
            self._ended.set()
