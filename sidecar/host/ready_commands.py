"""Readiness by asking: --ready-command is run for a coming worker until it says yes."""

from __future__ import annotations

from sidecar.system import accept_probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.core.model import Worker
    from sidecar.core.roster import Roster
    from sidecar.host.job import Job, Tools
    from sidecar.system.processes import Ended

# A ready command that says no is asked again after this long, then ever less often up to the
# longest pause (seconds).
ASK_AGAIN, ASK_SELDOM = 0.1, 1.0


class Asking:
    """A worker's ready command: the process that runs it now, and when it is to be run again."""

    __slots__ = ("at", "doubted", "pause", "pid")

    def __init__(self, at: float) -> None:
        self.pid = 0
        #: It has said yes, and another worker has answered.
        self.doubted = False
        self.at = at
        self.pause = ASK_AGAIN


class ReadyCommands:
    """The job that runs them. `roster` has the workers; `run` starts a worker's command for the
    job, and raises OSError; `inodes` are the listeners that a worker was started with; `ready` is
    told of one that is ready, `done` of one that is not asked for any more.
    """

    def __init__(
        self,
        tools: Tools,
        *,
        roster: Callable[[], Roster],
        run: Callable[[Worker, Job], int],
        inodes: Callable[[int], frozenset[int]],
        ready: Callable[[int, float], None],
        done: Callable[[int], None],
    ) -> None:
        self._tools = tools
        self._roster = roster
        self._run = run
        self._inodes = inodes
        self._ready = ready
        self._done = done
        self._asking: dict[int, Asking] = {}

    def add(self, pid: int, now: float) -> None:
        """A worker has been started."""
        self._asking[pid] = Asking(now)

    def drop(self, pid: int) -> None:
        """Ask for it no more: it is ready, or has gone."""
        asking = self._asking.pop(pid, None)
        if asking is not None and asking.pid:
            self._tools.abandon(asking.pid)

    def interrupt(self, now: float) -> None:
        """End the commands that run now; they are run again later."""
        for asking in self._asking.values():
            if asking.pid:
                self._tools.abandon(asking.pid)
                asking.pid = 0
                self._put_off(asking, now, "")

    def deadline(self) -> float:
        """When the next is to be run."""
        moments = (asking.at for asking in self._asking.values() if not asking.pid)
        return min(moments, default=float("inf"))

    def on_deadline(self, now: float) -> None:
        """Run the ready command of every coming worker that is due."""
        for pid, asking in list(self._asking.items()):
            if asking.pid or asking.at > now:
                continue
            worker = self._roster().find(pid)
            if worker is None or not worker.serving:
                del self._asking[pid]
                continue
            try:
                asking.pid = self._run(worker, self)
            except OSError as error:
                self._put_off(asking, now, error.strerror or str(error))

    def on_exit(self, ended: Ended, now: float) -> None:
        """Take its answer."""
        for pid, asking in self._asking.items():
            if asking.pid != ended.pid:
                continue
            yes = ended.code == 0 and not ended.signal
            if yes:
                asking.doubted = self._another_has_answered(pid)
            if yes and not asking.doubted:
                self._ready(pid, now)
                asking.pid = 0
                self._done(pid)
            else:
                asking.pid = 0
                self._put_off(asking, now, ended.note)
            return

    def leaves(self, pid: int) -> None:
        """A worker is asked to leave: if its command was not believed, say so."""
        asking = self._asking.get(pid)
        if asking is not None and asking.doubted:
            remark = (
                f"--ready-command said yes, but worker {pid} takes no connections from the listeners:"
                " another worker has answered. If this program cannot be seen to listen, say --ready notify"
            )
            self._tools.say("notice", {"text": remark})

    def _another_has_answered(self, pid: int) -> bool:
        """Whether a ready command that asked at a port was answered by another worker, as far as
        can be seen: the port is shared, and the worker it was run for takes no connections yet.

        Where other workers' taking connections cannot be seen either, the command is believed.
        """
        inodes = self._inodes(pid)
        others = [each.pid for each in self._roster().ready() if each.pid != pid]
        if not inodes or not others:
            return False
        try:
            return not accept_probe.takes_connections(pid, inodes) and any(
                accept_probe.takes_connections(each, inodes) for each in others
            )
        except (accept_probe.LookForbidden, OSError):
            return False

    def _put_off(self, asking: Asking, now: float, note: str) -> None:
        if note:
            self._tools.say("action_failed", {"what": "run the ready command", "cause": note})
        asking.at = now + asking.pause
        asking.pause = min(asking.pause * 1.5, ASK_SELDOM)
