"""Notice a program that does not take its sockets. A program that does not know where its sockets
are, or cannot take them, binds for itself: it then listens elsewhere and never gets ready, or ends
with "address already in use". Both are said within seconds, with what to do.

Looked for is only what a coming worker does, a few times in its first seconds and ever less often
then; at rest nothing is looked for. What a program writes is never read, so that it died of "address
already in use" is a guess, and said as one: it ended before it accepted, and its command or its
variable PORT names the port that sidecar holds.
"""

from __future__ import annotations

from sidecar.base.record import Record
from sidecar.settings import profiles
from sidecar.system import open_sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sidecar.settings.launchers import Program
    from sidecar.settings.protocols import Passed

# The first look at a worker comes after this time, and each pause before the next grows with its
# age; a socket counts that is seen by two looks (seconds).
FIRST_LOOK_S, MIN_PAUSE_S, PAUSE_GROWTH = 0.5, 0.8, 0.2
# A worker that is ready by time alone may still be about to listen: it is looked at for so long.
LONGEST_BY_TIME_S = 5.0

TAKE_SOCKET = "take fd {fd} (LISTEN_FDS, SERVER_STARTER_PORT), by its code or an option, as in `uvicorn --fd 3`"
GENERAL_ADVICE = f"the program has to {TAKE_SOCKET}; one that cannot runs without --port, and with --overlap never"


class WorkerStart(Record):
    """What a worker was started with, as far as it matters here. `ours` are the inodes of its
    sockets.
    """

    command: Sequence[str]
    profile: str
    overlap: str
    passed: Sequence[Passed]
    ours: Collection[int]
    environment: Mapping[str, str]


class SocketUse:
    """When to look at which coming worker, and what was seen of it. Times are seconds of one clock,
    which the caller reads.
    """

    def __init__(self) -> None:
        # Worker: when it was started, when to look next, what the look before saw.
        self._coming: dict[int, tuple[float, float, frozenset[int]]] = {}
        self._said: set[str] = set()

    def add(self, pid: int, now: float) -> None:
        """A worker has been started."""
        self._coming[pid] = (now, now + FIRST_LOOK_S, frozenset())

    def drop(self, pid: int) -> None:
        """It takes connections, or has gone."""
        self._coming.pop(pid, None)

    def deadline(self) -> float:
        """The time of the next look."""
        return min((at for _, at, _ in self._coming.values()), default=float("inf"))

    def due(self, now: float) -> list[int]:
        """Whom to look at now; each gets its next time."""
        pids = [pid for pid, (_, at, _) in self._coming.items() if at <= now]
        for pid in pids:
            began, _, seen = self._coming[pid]
            self._coming[pid] = (began, now + max(MIN_PAUSE_S, (now - began) * PAUSE_GROWTH), seen)
        return pids

    def age(self, pid: int, now: float) -> float:
        """For how long it has been looked at (seconds)."""
        return now - self._coming[pid][0]

    def look(self, pid: int, start: WorkerStart) -> tuple[str, str] | None:
        """Where the worker listens instead and what to do about it, once; None if that is not known
        yet. Raises OSError if sidecar itself is in need.
        """
        found = open_sockets.own_listeners(pid, start.ours)
        began, at, before = self._coming[pid]
        self._coming[pid] = (began, at, frozenset(each.inode for each in found))
        lasting = [each for each in found if each.inode in before]
        if not lasting:
            return None
        self.drop(pid)
        streams = [each for each in start.passed if each.stream]
        places = ", ".join(sorted({each.address for each in lasting}))
        who = f"{lasting[0].program} (pid {lasting[0].pid}) listens on {places}"
        if streams:
            listeners = ", ".join(each.key for each in streams)
            return self._once(
                f"does not accept on {listeners}, where sidecar listens: {who} by itself",
                advice(start, streams[0].fd),
            )
        if start.overlap == "never":
            return None
        port = lasting[0].address.rpartition(":")[2]
        return self._once(
            f"is not given a socket (there is no --port): {who} by itself, so that the next generation beside it cannot,"
            ' unless by SO_REUSEPORT ("address already in use")',
            f"say --port {port} and have the program {TAKE_SOCKET.format(fd=3)}; or say --overlap never",
        )

    def ended(
        self, start: WorkerStart, serving: Sequence[int], code: int
    ) -> tuple[str, str] | None:
        """What may be the cause of a worker's end with status `code` before it took connections:
        that an address was in use. `serving` are the leaders of the workers that serve.
        """
        end = f"exited with status {code} before it took connections"
        streams = [each for each in start.passed if each.stream]
        row, program = profiles.find(start.command, start.profile)
        for each in streams:
            port = each.key.rpartition(":")[2]
            named = _what_names(port, program.words, start.environment)
            if each.family != "AF_UNIX" and named and not _is_given_socket(row, program):
                return self._once(
                    f'{end}, and its {named} names port {port}, which sidecar holds: to bind it ends in "address already in use"',
                    advice(start, each.fd),
                )
        if start.overlap != "never":
            for leader in serving:
                for other in open_sockets.own_listeners(leader, start.ours):
                    return self._once(
                        f"{end}. The generation that serves listens on {other.address} by itself ({other.program}, pid {other.pid}):"
                        ' if this one could not ("address already in use")',
                        "give each generation an address of its own, or say --overlap never",
                    )
        if streams and row is None and not serving:
            return self._once(
                f'{end}. If it said "address already in use": sidecar listens on {streams[0].key} for it',
                advice(start, streams[0].fd),
            )
        return None

    def served(self) -> None:
        """A generation serves: what is said of the next one is news again."""
        self._said.clear()

    def _once(self, what: str, todo: str) -> tuple[str, str] | None:
        known = "".join(char for char in what if not char.isdigit())
        if known in self._said:
            return None
        self._said.add(known)
        return what, todo


def advice(start: WorkerStart, fd: int) -> str:
    """What to do so that the program takes the socket."""
    row, program = profiles.find(start.command, start.profile)
    if row is not None and start.profile != "none":
        own = profiles.own_listener(row, program)
        if own:
            return f"leave {own} out, and the profile {row.name} gives it the socket"
        if row.listen:
            return row.listen.format(fd=fd)
    return GENERAL_ADVICE.format(fd=fd)


def _is_given_socket(row: profiles.Profile | None, program: Program) -> bool:
    """Whether the program is given the socket by its profile, whatever its command names."""
    return row is not None and not profiles.own_listener(row, program) and not row.listen


def _what_names(port: str, words: Sequence[str], environment: Mapping[str, str]) -> str:
    """What names the port: the command line, or a variable; "" if nothing does."""
    for word in words[1:]:
        digits = "".join(char if char.isdigit() else " " for char in word).split()
        if port in digits:
            return "command line"
    for name, value in environment.items():
        ours = name.startswith(("SIDECAR_", "SERVER_STARTER_"))
        if value == port and not ours and (name == "PORT" or name.endswith("_PORT")):
            return f"variable {name}"
    return ""
