"""How the processes of a generation are started: its workers, its check and its ready commands."""

from __future__ import annotations

from sidecar.system import child, worker_environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sidecar.host.generations import Plan
    from sidecar.host.job import Job
    from sidecar.settings.table import Settings


class Launches:
    """`place` is the directory that sidecar was started in; `start` starts a process whose end a
    job is told of.
    """

    def __init__(
        self, place: child.StartDirectory, start: Callable[[child.Launch, Job], int]
    ) -> None:
        self._place = place
        self._start = start

    def worker(self, plan: Plan, environment: dict[str, str]) -> child.Launch:
        """A worker of a generation with this plan: its program, with the listeners."""
        handoff = plan.listeners.handoff()
        launch = self._launch(plan.settings, plan.command, environment, handoff)
        return launch.replace(is_worker=True)

    def check(self, settings: Settings, environment: dict[str, str], output: int, job: Job) -> int:
        """Run a generation's check, what it writes going to the descriptor `output`; its pid.
        Raises OSError.
        """
        handoff = [(output, 1), (output, 2)]
        return self._start_command(settings, settings.check, environment, handoff, job)

    def ready_command(self, settings: Settings, environment: dict[str, str], job: Job) -> int:
        """Run a worker's ready command; its pid. Raises OSError."""
        return self._start_command(settings, settings.ready_command, environment, [], job)

    def _start_command(
        self,
        settings: Settings,
        argv: tuple[str, ...],
        environment: dict[str, str],
        handoff: Iterable[tuple[int, int]],
        job: Job,
    ) -> int:
        """Start what gets the generation's environment, but none of its sockets."""
        public = worker_environment.without_sockets(environment)
        return self._start(self._launch(settings, argv, public, handoff), job)

    def _launch(
        self,
        settings: Settings,
        argv: tuple[str, ...],
        environment: dict[str, str],
        handoff: Iterable[tuple[int, int]],
    ) -> child.Launch:
        return child.Launch(
            argv=argv,
            environment=environment,
            handoff=tuple(handoff),
            directory=settings.dir,
            umask=settings.umask,
            start_directory=self._place,
        )
