"""Ctrl-C in a run: once lets it finish if that takes seconds, twice stops it now."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

SECONDS = 5.0  # that a run has to finish after the first Ctrl-C


@contextlib.contextmanager
def finish_or_stop() -> Iterator[None]:
    """Within it the first Ctrl-C raises KeyboardInterrupt after `SECONDS`, or at the end if that is earlier,
    and the second one at once."""
    before = signal.getsignal(signal.SIGINT)
    # Only the main thread may set handlers; whoever ignores Ctrl-C, as nohup does, goes on doing so.
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield
        return
    asked = False

    def first(*_: object) -> None:
        nonlocal asked
        asked = True
        print(f"\nstopping within {SECONDS:g} s; Ctrl-C again stops now", file=sys.stderr, flush=True)
        signal.signal(signal.SIGINT, now)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)

    def now(*_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise KeyboardInterrupt

    alarm = signal.signal(signal.SIGALRM, now)
    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt
