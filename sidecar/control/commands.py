"""The commands of the control socket: what a running sidecar can be asked or told. One class a command, with both
ends in it: how it is asked for on a command line, what PID 1 answers, and how the answer reads.
docs/control.md has the protocol.

A request is one object, {"command": NAME, …}; an answer is one or more, the last of which has
"done" (the exit status of whoever asked) and, unless that is 0, "cause". Pure: PID 1's end sees the
running sidecar as a `Desk`.
"""

from __future__ import annotations

from sidecar.base.columns import columns
from sidecar.core import facts
from sidecar.settings import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Protocol

    Object = dict[str, Any]
    Tell = Callable[[Mapping[str, Any]], str]

    class Desk(Protocol):
        """What a running sidecar lets a command see and do."""

        def status(self) -> Object:
            """Everything there is to know, as plain values."""

        def readiness_reasons(self) -> list[str]:
            """Why it is not ready to be sent requests; nothing, if it is."""

        def past(self) -> list[Object]:
            """The last events, oldest first."""

        def begun(self) -> int:
            """The number of the generation begun last."""

        def observe(self, fact: facts.AnyFact) -> None:
            """Let the supervisor know; what follows from it follows later in this turn."""

        def reload(self, trigger: str) -> bool:
            """What HUP does. Whether the settings are read first: "settings_read" or
            "reload_rejected" will then be said.
            """

        def signal(self, name: str) -> tuple[list[int], list[int]]:
            """Pass a signal to the workers that serve and have a handler for it, and open the log
            anew on USR1: the pids of those, and of those that have none.
            """

        def stopping(self) -> bool:
            """Whether a stop was asked for: nothing new will be begun."""

        def upgrade(self, only_check: bool) -> None:
            """What USR2 does, or only see whether it could be done."""


# Exit statuses, for all commands alike.
DONE, NO, WRONG, UNREACHABLE, TOO_LATE = 0, 1, 2, 3, 4


class Answer:
    """What is said at once, and what follows from events as they happen. `done` once nothing more
    will be said.
    """

    def __init__(self, *replies: Object, done: bool = True) -> None:
        self.replies = list(replies)
        self.done = done

    def heard(self, record: Object) -> list[Object]:
        """An event has happened: what to say of it."""
        return []


def done(status: int = DONE, cause: str = "", **more: Any) -> Object:
    """The last object of an answer."""
    return {**more, "done": status, **({"cause": cause} if cause else {})}


class Command:
    """One command. `usage` is what follows its name on a command line."""

    name = ""
    usage = ""
    text = ""

    def request(self, words: Sequence[str]) -> Object:
        """The request that these words ask for. Raises ValueError."""
        if words:
            raise ValueError(f"{words[0]}: {self.name} takes no such word")
        return {}

    def answer(self, request: Object, desk: Desk) -> Answer:
        """PID 1's end. Raises ValueError if the request makes no sense."""
        raise NotImplementedError

    def lines(self, reply: Object, tell: Tell) -> list[str]:
        """How an object of the answer reads; `tell` makes a line of an event."""
        return [] if "done" in reply else [tell(reply)]


def _flags(words: Sequence[str], *known: str) -> list[str]:
    """The words, all of which have to be flags that are known."""
    for word in words:
        if word not in known:
            raise ValueError(f"{word}: there is no such option; say {' or '.join(known)}")
    return list(words)


def _yes(request: Object, name: str) -> bool:
    """What a request says of a member that is true or false, or missing. Raises ValueError."""
    value = request.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f'"{name}" is true or false')
    return value


# The answer to whoever wants something begun when everything ends.
STOPPING = "sidecar is stopping"


class Status(Command):
    """The state of everything."""

    name = "status"
    usage = "[--json] [--watch]"
    text = "generations, workers, the last swap and the last failure"

    def answer(self, request: Object, desk: Desk) -> Answer:
        """All at once."""
        return Answer(done(**desk.status()))

    def lines(self, reply: Object, tell: Tell) -> list[str]:
        """A page for people."""
        return page(reply)


class Reload(Command):
    """A new generation, with the settings, environment and code of now."""

    name = "reload"
    usage = "[--wait] [--timeout TIME]"
    text = "swap, as on HUP; --wait says how it went"

    def request(self, words: Sequence[str]) -> Object:
        """`--wait`; the timeout is the client's own concern."""
        return {"wait": "--wait" in _flags(words, "--wait")}

    def answer(self, request: Object, desk: Desk) -> Answer:
        """Done at once, or when a generation begun from now on serves or has failed."""
        wait = _yes(request, "wait")
        if desk.stopping():
            return Answer(done(NO, STOPPING))
        begun, reading = desk.begun(), desk.reload("command")
        return Waiting(begun, reading) if wait else Answer(done())


class Waiting(Answer):
    """For the outcome of the next generation but those begun already. `reading`: none counts that
    is begun before the settings are read.

    One that a newer one supersedes has none; then it is the newer one's. Nothing is begun any more
    once sidecar stops.
    """

    def __init__(self, begun: int, reading: bool = False) -> None:
        super().__init__(done=False)
        self.begun = begun
        self.reading = reading

    def heard(self, record: Object) -> list[Object]:
        """Everything about newer generations, and the end of it."""
        event = record["event"]
        if event in ("stopping", "gave_up", "reload_rejected"):
            self.done = True
            return [record, done(NO, record.get("cause", STOPPING))]
        number = record.get("generation", 0)
        if self.reading:
            self.reading = event != "settings_read"
            self.begun = max(self.begun, number)
            return [] if self.reading else [record]
        if number <= self.begun:
            return []
        self.done = event in ("serving", "swap_failed")
        if not self.done:
            return [record]
        return [
            record,
            done(DONE, generation=number)
            if event == "serving"
            else done(NO, record["cause"], generation=number, again=record["again"]),
        ]


class Stop(Command):
    """The end."""

    name = "stop"
    usage = "[--wait]"
    text = "stop, as on TERM; --wait until it has"

    def request(self, words: Sequence[str]) -> Object:
        """`--wait`."""
        return {"wait": "--wait" in _flags(words, "--wait")}

    def answer(self, request: Object, desk: Desk) -> Answer:
        """With wait, what happens until there is nobody to answer."""
        answer = Following() if _yes(request, "wait") else Answer(done())
        desk.observe(facts.StopAsked("TERM"))
        return answer


class Following(Answer):
    """Every event, for as long as there are any."""

    def __init__(self, *replies: Object) -> None:
        super().__init__(*replies, done=False)

    def heard(self, record: Object) -> list[Object]:
        """As it is."""
        if record["event"] == "stopped":
            self.done = True
            return [record, done()]
        return [record]


class Scale(Command):
    """Another number of workers."""

    name = "scale"
    usage = "N|+N|-N"
    text = "so many workers, or so many more or fewer"

    def request(self, words: Sequence[str]) -> Object:
        """One number."""
        sign, digits = (
            (words[0][:1], words[0][1:])
            if words and words[0][:1] in ("+", "-")
            else ("", "".join(words[:1]))
        )
        if len(words) != 1 or not (digits.isascii() and digits.isdigit()) or len(digits) > 6:
            raise ValueError(
                "say how many workers there are to be (3), or how many more (+1) or fewer (-1)"
            )
        if not sign and int(digits) == 0:
            raise ValueError("0: there is one worker at least; `sidecar stop` ends all of them")
        if int(digits) == 0:
            raise ValueError(f"{words[0]}: say how many more (+1) or fewer (-1)")
        return {"by" if sign else "to": int(sign + digits)}

    def answer(self, request: Object, desk: Desk) -> Answer:
        """Never below one."""
        how = [name for name in ("to", "by") if name in request]
        number = request[how[0]] if len(how) == 1 else None
        if type(number) is not int or (how == ["to"] and number < 1) or number == 0:
            raise ValueError(
                'say "to", a number of 1 or more, or "by", how many more or (below zero) fewer'
            )
        if desk.stopping():
            return Answer(done(NO, STOPPING))
        now = desk.status()["workers"]
        by = number - now if how == ["to"] else number
        if now + by < 1:
            workers = "is 1 worker" if now == 1 else f"are {now} workers"
            raise ValueError(
                f"{by}: there {workers}, and one stays at least; `sidecar stop` ends all of them"
            )
        if now + by > max(MOST_WORKERS, now):
            raise ValueError(f"{now + by} workers are more than {MOST_WORKERS}")
        desk.observe(facts.SizeChanged(by))
        return Answer(done(workers=now + by))

    def lines(self, reply: Object, tell: Tell) -> list[str]:
        """How many there are to be."""
        return [f"{reply['workers']} workers from now on"]


# A slip of the finger must not fork the machine to death.
MOST_WORKERS = 10_000


class Events(Command):
    """What happened."""

    name = "events"
    usage = "[--follow] [--json]"
    text = "the last events; --follow goes on"

    def request(self, words: Sequence[str]) -> Object:
        """`--follow`."""
        return {"follow": "--follow" in _flags(words, "--follow", "-f") or "-f" in words}

    def answer(self, request: Object, desk: Desk) -> Answer:
        """Those that are remembered, and those to come."""
        follow = _yes(request, "follow")
        past = desk.past()
        return Following(*past) if follow else Answer(*past, done())


class Signal(Command):
    """A signal to the workers."""

    name = "signal"
    usage = "SIGNAL"
    text = "pass a signal to workers that handle it (USR1: reopen logs)"

    def request(self, words: Sequence[str]) -> Object:
        """Its name."""
        if len(words) != 1:
            raise ValueError("say which signal: USR1")
        return {"signal": types.signal_name(words[0])}

    def answer(self, request: Object, desk: Desk) -> Answer:
        """To those that serve."""
        if not isinstance(request.get("signal"), str):
            raise ValueError('say "signal", a name: "USR1"')
        name = types.signal_name(request["signal"])
        pids, deaf = desk.signal(name)
        if pids:
            return Answer(done(pids=pids, deaf=deaf))
        cause = "no worker is ready to be sent a signal"
        if deaf:
            cause = f"not sent: no handler for SIG{name} in {', '.join(map(str, deaf))}"
        return Answer(done(NO, cause, pids=pids, deaf=deaf))

    def lines(self, reply: Object, tell: Tell) -> list[str]:
        """To whom, and to whom not."""
        deaf = reply.get("deaf")
        but = f"; not to {', '.join(map(str, deaf))}, without a handler for it" if deaf else ""
        return [f"passed to {', '.join(map(str, reply['pids']))}{but}"]


class Health(Command):
    """For a probe."""

    name = "health"
    usage = "[--ready|--live]"
    text = "exit status 0 if it is ready (or alive)"

    def request(self, words: Sequence[str]) -> Object:
        """Ready, unless it is asked otherwise."""
        flags = set(_flags(words, "--ready", "--live"))
        if len(flags) == 2:
            raise ValueError("--ready and --live are two questions; ask one")
        return {"live": "--live" in flags}

    def answer(self, request: Object, desk: Desk) -> Answer:
        """Alive is whoever answers."""
        live = _yes(request, "live")
        reasons = desk.readiness_reasons()
        return Answer(
            done(DONE if live or not reasons else NO, "; ".join(reasons), ready=not reasons)
        )

    def lines(self, reply: Object, tell: Tell) -> list[str]:
        """One line."""
        return ["ready" if reply["ready"] else "alive"]


class Upgrade(Command):
    """Another version of sidecar itself."""

    name = "upgrade"
    usage = "[--check] [--timeout TIME]"
    text = "become the sidecar that is installed now; --check: could it?"

    def request(self, words: Sequence[str]) -> Object:
        """`--check`."""
        return {"check": "--check" in _flags(words, "--check"), "wait": True}

    def answer(self, request: Object, desk: Desk) -> Answer:
        """Done when the other version has taken over, and says so itself."""
        only_check = _yes(request, "check")
        if desk.stopping():
            return Answer(done(NO, STOPPING))
        desk.upgrade(only_check)
        return Upgrading(only_check)


class Upgrading(Answer):
    """For the outcome of an upgrade; it outlives this version."""

    def __init__(self, only_check: bool = False) -> None:
        super().__init__(done=False)
        self.only_check = only_check

    def heard(self, record: Object) -> list[Object]:
        """What concerns upgrades."""
        event = record["event"]
        if event == "upgrade_failed":
            self.done = True
            return [done(NO, record["cause"])]
        self.done = event == "upgraded" or (self.only_check and event == "upgrade_checked")
        told = [record] if event in ("upgrade_waiting", "upgrade_checked", "upgraded") else []
        return [*told, done(version=record["version"])] if self.done else told


COMMANDS: dict[str, Command] = {
    each.name: each
    for each in (Status(), Reload(), Stop(), Scale(), Events(), Signal(), Upgrade(), Health())
}


def answer(request: object, desk: Desk) -> Answer:
    """The answer to any request, also to one that makes no sense."""
    if not isinstance(request, dict) or not isinstance(request.get("command"), str):
        return Answer(done(WRONG, 'a request is one JSON object: {"command": NAME, …}'))
    command = COMMANDS.get(request["command"])
    if command is None:
        return Answer(
            done(
                WRONG,
                f"there is no command {request['command'][:40]!r}; say one of {', '.join(COMMANDS)}",
            )
        )
    try:
        return command.answer(request, desk)
    except ValueError as error:
        return Answer(done(WRONG, str(error)))


# --- the page that `status` shows


def page(status: Mapping[str, Any]) -> list[str]:
    """`status` for people."""
    lines = [
        f"sidecar {status['version']}, pid {status['pid']}, up {span(status['age'])}: {status['state']}"
    ]
    lines += [f"not ready: {reason}" for reason in status["reasons"]]
    lines += ["listening on " + ", ".join(status["listeners"])] if status["listeners"] else []
    rows = [("GENERATION", "STATE", "SLOT", "PID", "WORKER", "AGE", "READY AFTER", "MEMORY", "")]
    for generation in reversed(status["generations"]):
        first = (str(generation["generation"]), generation["state"])
        for worker in generation["workers"] or [None]:
            rows.append((*first, *_worker(worker, generation)))
            first = ("", "")
    lines += [
        "",
        *columns(rows),
        *(
            line
            for each in status["generations"]
            for worker in each["workers"]
            for line in _orphans(worker)
        ),
        "",
    ]
    swap, failure = status["last_swap"], status["last_failure"]
    for what, last in (("last swap   ", swap), ("last failure", failure)):
        if last:
            how = f": {last['cause']}" if "cause" in last else f", after {last['took']:.2f} s"
            lines.append(
                f"{what}  generation {last['generation']}, {span(last['ago'])} ago (trigger: {last['trigger']}){how}"
            )
    current = [each for each in status["generations"] if each["state"] == "serving"]
    lines += [
        f"went back     generation {each['generation']} has the settings and environment of generation {each['like']}, until the next swap"
        for each in current
        if each.get("like")
    ]
    if status["failing"] > 1:
        lines.append(f"failures      {status['failing']} in a row")
    if status["recycled"]:
        lines.append(f"recycled      {status['recycled']} workers that were too big")
    if status["last_upgrade"]:
        last = status["last_upgrade"]
        lines.append(
            f"upgrades      {status['upgrades']}, the last {span(last['ago'])} ago, from version {last['before']}"
        )
    if status["next_swap"]:
        lines.append(
            f"next swap     in {span(status['next_swap']['in'])} (trigger: {status['next_swap']['trigger']})"
        )
    elif status["failed"] and status["state"] in ("serving", "degraded"):
        lines.append("next swap     none: what failed is not tried again by itself")
    if status["next_restart_in"] is not None:
        lines.append(f"next restart  in {span(status['next_restart_in'])}")
    lines += [f"settings      {problem}" for problem in status["problems"]]
    lines += [
        f"stranger      process {pid} has a listener open, and no generation is known to have it"
        for pid in status.get("strangers", ())
    ]
    return lines


def _worker(worker: Mapping[str, Any] | None, generation: Mapping[str, Any]) -> tuple[str, ...]:
    if worker is None:
        return ("-", "", "", span(generation["age"]), "", "", "")
    return (
        f"{worker['slot']}",
        f"{worker['pid']}",
        worker["state"],
        span(worker["age"]),
        "" if worker["ready_after"] is None else f"{worker['ready_after']:.2f} s",
        "" if worker["memory"] is None else f"{worker['memory'] / 2**20:.0f} MiB",
        "" if worker["killed_in"] is None else f"killed in {span(max(0.0, worker['killed_in']))}",
    )


def _orphans(worker: Mapping[str, Any]) -> list[str]:
    """The line about the processes that have outlived what has started them."""
    pids = ", ".join(map(str, worker.get("outlived", ())))
    return (
        [f"worker {worker['slot']} (pid {worker['pid']}) has left processes behind: {pids}"]
        if pids
        else []
    )


def span(seconds: float) -> str:
    """A duration as people say it: 4s, 12m, 3h, 2d."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
