"""Readiness by asking: --ready-command is run for a coming worker until it says yes
(policies/ready_command.py decides when).
"""

from __future__ import annotations

from sidecar.policies.ready_command import ReadyCommandPolicy
from sidecar.system import accept_probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.core.model import Worker
    from sidecar.core.worker_table import WorkerTable
    from sidecar.host.job import Job, Tools
    from sidecar.system.processes import Ended


class ReadyCommands:
    """The job that runs them. `worker_table` has the workers; `run` starts a worker's command for the
    job, and raises OSError; `inodes` are the listeners that a worker was started with; `ready` is
    told of one that is ready, `done` of one that is not asked for any more.
    """

    def __init__(
        self,
        tools: Tools,
        *,
        worker_table: Callable[[], WorkerTable],
        run: Callable[[Worker, Job], int],
        inodes: Callable[[int], frozenset[int]],
        ready: Callable[[int, float], None],
        done: Callable[[int], None],
    ) -> None:
        self._tools = tools
        self._worker_table = worker_table
        self._run = run
        self._inodes = inodes
        self._ready = ready
        self._done = done
        self._policy = ReadyCommandPolicy()
        #: The command of each worker for which one runs, by the worker's pid.
        self._commands: dict[int, int] = {}

    def add(self, pid: int, now: float) -> None:
        """A worker has been started."""
        self._policy.worker_started(pid, now)

    def drop(self, pid: int) -> None:
        """Ask for it no more: it is ready, or has gone."""
        self._policy.worker_done(pid)
        self._end_command(pid)

    def interrupt(self, now: float) -> None:
        """End the commands that run now; they are run again later."""
        for pid in list(self._commands):
            self._end_command(pid)
            self._policy.command_said_no(pid, now)

    def deadline(self) -> float:
        """When the next is to be run."""
        return self._policy.deadline()

    def on_deadline(self, now: float) -> None:
        """Run the ready command of every coming worker that is due."""
        for pid in self._policy.decide(now):
            worker = self._worker_table().find(pid)
            if worker is None or not worker.active:
                self._policy.worker_done(pid)
                continue
            try:
                self._commands[pid] = self._run(worker, self)
            except OSError as error:
                self._said_no(pid, now, error.strerror or str(error))
            else:
                self._policy.command_started(pid)

    def on_exit(self, ended: Ended, now: float) -> None:
        """Take its answer."""
        pid = next((each for each, of in self._commands.items() if of == ended.pid), None)
        if pid is None:
            return
        yes = ended.code == 0 and not ended.signal
        believed = yes and not self._another_has_answered(pid)
        if believed:
            self._ready(pid, now)
        elif yes:
            self._policy.command_doubted(pid, now)
        else:
            self._said_no(pid, now, ended.start_error)
        # Not before: should something raise, this is called again.
        self._commands.pop(pid, None)
        if believed:
            self._done(pid)

    def leaves(self, pid: int) -> None:
        """A worker is asked to leave: if its command was not believed, say so."""
        if self._policy.is_doubted(pid):
            remark = (
                f"--ready-command said yes, but worker {pid} takes no connections from the listeners:"
                " another worker has answered. If this program cannot be seen to listen, say --ready notify"
            )
            self._tools.say("notice", {"text": remark})

    def _end_command(self, pid: int) -> None:
        if command := self._commands.pop(pid, 0):
            self._tools.abandon(command)

    def _another_has_answered(self, pid: int) -> bool:
        """Whether a ready command that asked at a port was answered by another worker, as far as
        can be seen: the port is shared, and the worker it was run for takes no connections yet.

        Where other workers' taking connections cannot be seen either, the command is believed.
        """
        inodes = self._inodes(pid)
        others = [each.pid for each in self._worker_table().ready() if each.pid != pid]
        if not inodes or not others:
            return False
        try:
            return not accept_probe.accepts_connections(pid, inodes) and any(
                accept_probe.accepts_connections(each, inodes) for each in others
            )
        except (accept_probe.ProbeForbidden, OSError):
            return False

    def _said_no(self, pid: int, now: float, note: str) -> None:
        """Run it again later; `note` says why it could not be run, if it could not."""
        if note:
            self._tools.say("action_failed", {"what": "run the ready command", "cause": note})
        self._policy.command_said_no(pid, now)
