"""One attempt of a run, from a start to its end, and which of them trains a network now.

Comes in: a run that starts, and ends. Goes out: what those wait for who began to wait during that attempt, whatever starts later; and the
one answer to who trains a network. Two runs over one network would undo each other's steps: the second is refused, and changes nothing.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import suppress
from typing import Any, Protocol


class Watcher(Protocol):
    """Who wants to know when a run over its network starts and ends."""

    geta: Any

    def run_changed(self, run: Any) -> None:
        """A run over this network has started, or ended; called in that run's thread, or where it was started."""


class Attempt:
    """From one start to its end.

    Attributes:
        run: a weak reference to the run.
        thread: its thread, None before there is one.
        ended: whether no step follows; those who watch may still be hearing of it.
        done: set once they have heard and the thread has nothing left to do.
        error: what a step raised, or None.
    """

    def __init__(self, run: Any) -> None:
        self.run: weakref.ref[Any] = weakref.ref(run)
        self.geta_id = id(run.geta)
        self.thread: threading.Thread | None = None
        self.ended, self.done = False, threading.Event()
        self.error: BaseException | None = None

    @property
    def alive(self) -> bool:
        """Whether there is something that may still act: neither its run is gone nor, as in a forked process, its thread."""
        thread = self.thread
        return self.run() is not None and (thread is None or thread.ident is None or thread.is_alive())

    @property
    def own(self) -> bool:
        """Whether this is called in the thread of this attempt, which cannot wait for itself."""
        return self.thread is threading.current_thread()

    def take(self) -> Attempt | None:
        """Take the network for this attempt; return the one that trains it now, if there is one, and then take nothing.

        One that has ended, and only tells those who watch, is waited for.
        """
        while True:
            with _LOCK:
                other = _NOW.get(self.geta_id)
                if other is None or not other.alive or (other.ended and other.own):
                    _NOW[self.geta_id] = self
                    return None
            if not other.ended:
                return other
            other.done.wait()

    def leave(self) -> None:
        """Give the network free, and let those who wait go on."""
        with _LOCK:
            if _NOW.get(self.geta_id) is self:
                del _NOW[self.geta_id]
        self.ended = True
        self.done.set()


_LOCK = threading.Lock()
_NOW: dict[int, Attempt] = {}  # by the identity of the network, which a run that is alive keeps alive
_WATCHERS: weakref.WeakSet[Any] = weakref.WeakSet()


def run_over(geta: object) -> Any:
    """Return the run that trains this network now, paused or not, or None."""
    with _LOCK:
        found = _NOW.get(id(geta))
    return found.run() if found is not None and found.alive and not found.ended else None


def watch(watcher: Watcher) -> None:
    """Call ``watcher.run_changed(run)`` from here on, as long as the watcher lives."""
    with _LOCK:
        _WATCHERS.add(watcher)


def tell_watchers(run: Any) -> None:
    """Tell those who watch the network of ``run`` that it has started or ended."""
    with _LOCK:
        found = [watcher for watcher in _WATCHERS if watcher.geta is run.geta]
    for watcher in found:
        with suppress(Exception):  # a page that went away must not hold a run up
            watcher.run_changed(run)
