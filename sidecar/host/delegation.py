"""Work that may block, done by a copy of this process: a file server or a name server may be
silent, and PID 1 never waits for either.
"""

from __future__ import annotations

import marshal

from sidecar.host.helpers import ANSWER_TIMEOUT_S
from sidecar.host.tail import Tail
from sidecar.system.child import Launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sidecar.host.job import Tools
    from sidecar.system.processes import Ended

    # What came of the work, or None and why there is nothing.
    Done = Callable[[Any, str], None]

# An answer is no larger; no environment is.
MAX_ANSWER_BYTES = 16 << 20


class Delegated:
    """One piece of work while a process does it. It has to be done at `until` (seconds on the loop's
    clock); `generation` is the one it is done for, 0 for none.
    """

    __slots__ = ("done", "generation", "tail", "until")

    def __init__(self, tail: Tail, until: float, generation: int, done: Done) -> None:
        self.tail = tail
        self.until = until
        self.generation = generation
        self.done = done


class Delegation:
    """The job that has work done elsewhere."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._delegated: dict[int, Delegated] = {}

    def start(self, task: Callable[[], Any], done: Done, now: float, generation: int = 0) -> int:
        """Have a task done by another process; its pid. `done` is called with what the task returns
        (a value that `marshal` can write), or with None and why there is nothing. Raises OSError.
        """
        tail = Tail(MAX_ANSWER_BYTES)
        pid = 0
        try:
            launch = Launch(("sidecar",), {}, [(tail.write, 1)], as_sidecar_user=True, task=task)
            pid = self._tools.start(launch, self)
            self._tools.collect(tail)
        except OSError:
            if pid:
                self._tools.abandon(pid)
            tail.close()
            raise
        self._delegated[pid] = Delegated(tail, now + ANSWER_TIMEOUT_S, generation, done)
        return pid

    def deadline(self) -> float:
        """When the first of them has taken too long."""
        return min((each.until for each in self._delegated.values()), default=float("inf"))

    def on_deadline(self, now: float) -> None:
        """Give up what takes too long."""
        for pid, work in list(self._delegated.items()):
            if work.until <= now:
                self.drop(pid)
                work.done(None, f"it took longer than {ANSWER_TIMEOUT_S:g} s")

    def on_exit(self, ended: Ended, _now: float) -> None:
        """It is done, or will never be."""
        work = self._delegated.pop(ended.pid, None)
        if work is None:
            return
        self._tools.stop_listening(work.tail)
        data = work.tail.close_raw()
        if ended.code or ended.signal:
            work.done(None, ended.start_error or "the process that did it failed")
        elif len(data) >= MAX_ANSWER_BYTES:
            work.done(None, f"it is larger than {MAX_ANSWER_BYTES >> 20} MiB")
        else:
            work.done(marshal.loads(data), "")  # noqa: S302 - our own child wrote it

    def drop(self, pid: int) -> None:
        """Nobody waits for it any more, nor for its end: what hangs in a system call cannot be
        killed.
        """
        self._tools.last_words(self._delegated.pop(pid).tail)
        self._tools.abandon(pid)

    def drop_generation(self, generation: int) -> None:
        """Nor for anything that is done for this generation."""
        for pid, work in list(self._delegated.items()):
            if work.generation == generation:
                self.drop(pid)

    def works_for(self, generation: int) -> bool:
        """Whether something is being done for this generation."""
        return any(each.generation == generation for each in self._delegated.values())
