"""The commands of the control socket: what a running sidecar can be asked or told. Each is one
class with both ends in it: the request that the words of a command line make, the answer of PID 1,
and how the answer reads. docs/control.md has the protocol.

A request is one object, {"command": NAME, …}; an answer is one or more, the last of which has
"done" (the exit status of whoever asked) and, unless that is 0, "cause". Pure: PID 1's end sees the
running sidecar as a `ControlApi`.
"""

from __future__ import annotations

from sidecar.control.status_page import status_page
from sidecar.core import facts
from sidecar.settings import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Protocol

    Json = dict[str, Any]
    FormatEvent = Callable[[Mapping[str, Any]], str]

    class ControlApi(Protocol):
        """What a running sidecar lets a command see and do."""

        def status(self) -> Json:
            """The whole state, as plain values (core/status.py)."""

        def readiness_reasons(self) -> list[str]:
            """Why it is not ready for requests; nothing, if it is."""

        def recent_events(self) -> list[Json]:
            """The last events, oldest first."""

        def newest_generation(self) -> int:
            """The number of the generation that was started last."""

        def observe(self, fact: facts.AnyFact) -> None:
            """Give a fact to the supervisor, which acts on it later in this turn."""

        def reload(self, trigger: str) -> bool:
            """Do what HUP does. Whether the settings are read first: the event "settings_read" or
            "reload_rejected" follows then.
            """

        def signal(self, name: str) -> tuple[list[int], list[int]]:
            """Pass a signal to the serving workers that have a handler for it, and on USR1 reopen
            the log. The pids of those, and of the workers without a handler.
            """

        def stopping(self) -> bool:
            """Whether a stop was requested: no generation is started any more."""

        def upgrade(self, only_check: bool) -> None:
            """Do what USR2 does, or only check whether it could be done."""


# Exit statuses, for all commands alike.
DONE, FAILED, USAGE_ERROR, UNREACHABLE, TIMED_OUT = 0, 1, 2, 3, 4


class Answer:
    """The objects to send at once, and those that follow from events as they happen. `done`: it is
    complete.
    """

    def __init__(self, *replies: Json, done: bool = True) -> None:
        self.replies = list(replies)
        self.done = done

    def on_event(self, record: Json) -> list[Json]:
        """The objects to send because of an event."""
        return []


def final(status: int = DONE, cause: str = "", **more: Any) -> Json:
    """The last object of an answer."""
    return {**more, "done": status, **({"cause": cause} if cause else {})}


class Command:
    """One command. `usage` is what follows its name on a command line, `help_text` its line in
    `--help`.
    """

    name = ""
    usage = ""
    help_text = ""

    def request(self, words: Sequence[str]) -> Json:
        """The request that these words ask for. Raises ValueError."""
        if words:
            raise ValueError(f"{words[0]}: {self.name} takes no such word")
        return {}

    def answer(self, request: Json, api: ControlApi) -> Answer:
        """The answer of PID 1. Raises ValueError if the request makes no sense."""
        raise NotImplementedError

    def lines(self, reply: Json, format_event: FormatEvent) -> list[str]:
        """The lines for people that an object of the answer is; `format_event` makes one of an
        event.
        """
        return [] if "done" in reply else [format_event(reply)]


def _known_flags(words: Sequence[str], *known: str) -> list[str]:
    """The words. Raises ValueError unless all are known flags."""
    for word in words:
        if word not in known:
            raise ValueError(f"{word}: there is no such option; say {' or '.join(known)}")
    return list(words)


def _boolean(request: Json, name: str) -> bool:
    """A member of a request that is true or false, or missing. Raises ValueError."""
    value = request.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f'"{name}" is true or false')
    return value


# The cause in the answer to a request that starts something.
STOPPING_CAUSE = "sidecar is stopping"


class Status(Command):
    """Show the state."""

    name = "status"
    usage = "[--json] [--watch]"
    help_text = "generations, workers, the last swap and the last failure"

    def answer(self, request: Json, api: ControlApi) -> Answer:
        """The whole state."""
        return Answer(final(**api.status()))

    def lines(self, reply: Json, format_event: FormatEvent) -> list[str]:
        """A page for people."""
        return status_page(reply)


class Reload(Command):
    """Start a new generation, with the settings, environment and code of now."""

    name = "reload"
    usage = "[--wait] [--timeout TIME]"
    help_text = "swap, as on HUP; --wait says how it went"

    def request(self, words: Sequence[str]) -> Json:
        """`--wait`; the timeout is up to the client."""
        return {"wait": "--wait" in _known_flags(words, "--wait")}

    def answer(self, request: Json, api: ControlApi) -> Answer:
        """Complete at once, or when a generation started from now on serves or has failed."""
        wait = _boolean(request, "wait")
        if api.stopping():
            return Answer(final(FAILED, STOPPING_CAUSE))
        newest, reading = api.newest_generation(), api.reload("command")
        return ReloadOutcome(newest, reading) if wait else Answer(final())


class ReloadOutcome(Answer):
    """The outcome of the next generation after `newest`. `reading`: the settings are being read,
    and only a generation that is started after that counts.

    A generation that is superseded by a newer one has no outcome; then it is the newer one's. None
    is started any more once sidecar stops.
    """

    def __init__(self, newest: int, reading: bool = False) -> None:
        super().__init__(done=False)
        self.newest = newest
        self.reading = reading

    def on_event(self, record: Json) -> list[Json]:
        """The events of newer generations, up to the outcome."""
        event = record["event"]
        if event in ("stopping", "gave_up", "reload_rejected"):
            self.done = True
            return [record, final(FAILED, record.get("cause", STOPPING_CAUSE))]
        number = record.get("generation", 0)
        if self.reading:
            self.reading = event != "settings_read"
            self.newest = max(self.newest, number)
            return [] if self.reading else [record]
        if number <= self.newest:
            return []
        self.done = event in ("serving", "swap_failed")
        if not self.done:
            return [record]
        return [
            record,
            final(DONE, generation=number)
            if event == "serving"
            else final(FAILED, record["cause"], generation=number, again=record["again"]),
        ]


class Stop(Command):
    """Stop sidecar."""

    name = "stop"
    usage = "[--wait]"
    help_text = "stop, as on TERM; --wait until it has"

    def request(self, words: Sequence[str]) -> Json:
        """`--wait`."""
        return {"wait": "--wait" in _known_flags(words, "--wait")}

    def answer(self, request: Json, api: ControlApi) -> Answer:
        """With wait, the events up to the end."""
        answer = EventStream() if _boolean(request, "wait") else Answer(final())
        api.observe(facts.StopRequested("TERM"))
        return answer


class EventStream(Answer):
    """Every event, until sidecar has stopped."""

    def __init__(self, *replies: Json) -> None:
        super().__init__(*replies, done=False)

    def on_event(self, record: Json) -> list[Json]:
        """The event."""
        if record["event"] == "stopped":
            self.done = True
            return [record, final()]
        return [record]


class Scale(Command):
    """Change the number of workers."""

    name = "scale"
    usage = "N|+N|-N"
    help_text = "so many workers, or so many more or fewer"

    def request(self, words: Sequence[str]) -> Json:
        """One number."""
        word = words[0] if len(words) == 1 else ""
        sign = word[:1] if word[:1] in ("+", "-") else ""
        digits = word.removeprefix(sign)
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 6:
            raise ValueError(
                "say how many workers there are to be (3), or how many more (+1) or fewer (-1)"
            )
        if not sign and int(digits) == 0:
            raise ValueError("0: there is one worker at least; `sidecar stop` ends all of them")
        if int(digits) == 0:
            raise ValueError(f"{word}: say how many more (+1) or fewer (-1)")
        return {"by" if sign else "to": int(sign + digits)}

    def answer(self, request: Json, api: ControlApi) -> Answer:
        """The new number, which is one at least."""
        how = [name for name in ("to", "by") if name in request]
        number = request[how[0]] if len(how) == 1 else None
        if type(number) is not int or (how == ["to"] and number < 1) or number == 0:
            raise ValueError(
                'say "to", a number of 1 or more, or "by", how many more or (below zero) fewer'
            )
        if api.stopping():
            return Answer(final(FAILED, STOPPING_CAUSE))
        now = api.status()["workers"]
        by = number - now if how == ["to"] else number
        if now + by < 1:
            workers = "is 1 worker" if now == 1 else f"are {now} workers"
            raise ValueError(
                f"{by}: there {workers}, and one stays at least; `sidecar stop` ends all of them"
            )
        if now + by > max(MAX_WORKERS, now):
            raise ValueError(f"{now + by} workers are more than {MAX_WORKERS}")
        api.observe(facts.SizeChanged(by))
        return Answer(final(workers=now + by))

    def lines(self, reply: Json, format_event: FormatEvent) -> list[str]:
        """The new number."""
        return [f"{reply['workers']} workers from now on"]


# A mistyped number must not exhaust the machine.
MAX_WORKERS = 10_000


class Events(Command):
    """Show the events."""

    name = "events"
    usage = "[--follow] [--json]"
    help_text = "the last events; --follow goes on"

    def request(self, words: Sequence[str]) -> Json:
        """`--follow`."""
        return {"follow": "--follow" in _known_flags(words, "--follow", "-f") or "-f" in words}

    def answer(self, request: Json, api: ControlApi) -> Answer:
        """The events that are remembered, and those to come."""
        follow = _boolean(request, "follow")
        recent_events = api.recent_events()
        return EventStream(*recent_events) if follow else Answer(*recent_events, final())


class Signal(Command):
    """Pass a signal to the workers."""

    name = "signal"
    usage = "SIGNAL"
    help_text = "pass a signal to workers that handle it (USR1: reopen logs)"

    def request(self, words: Sequence[str]) -> Json:
        """The signal's name."""
        if len(words) != 1:
            raise ValueError("say which signal: USR1")
        return {"signal": types.signal_name(words[0])}

    def answer(self, request: Json, api: ControlApi) -> Answer:
        """The workers that it was passed to, and those without a handler for it."""
        if not isinstance(request.get("signal"), str):
            raise ValueError('say "signal", a name: "USR1"')
        name = types.signal_name(request["signal"])
        pids, without_handler = api.signal(name)
        if pids:
            return Answer(final(pids=pids, deaf=without_handler))
        cause = "no worker is ready to be sent a signal"
        if without_handler:
            cause = f"not sent: no handler for SIG{name} in {', '.join(map(str, without_handler))}"
        return Answer(final(FAILED, cause, pids=pids, deaf=without_handler))

    def lines(self, reply: Json, format_event: FormatEvent) -> list[str]:
        """One line."""
        without_handler = reply.get("deaf")
        but = ""
        if without_handler:
            but = f"; not to {', '.join(map(str, without_handler))}, without a handler for it"
        return [f"passed to {', '.join(map(str, reply['pids']))}{but}"]


class Health(Command):
    """Answer a probe."""

    name = "health"
    usage = "[--ready|--live]"
    help_text = "exit status 0 if it is ready (or alive)"

    def request(self, words: Sequence[str]) -> Json:
        """Whether it is about being ready or about being alive."""
        flags = set(_known_flags(words, "--ready", "--live"))
        if len(flags) == 2:
            raise ValueError("--ready and --live are two questions; ask one")
        return {"live": "--live" in flags}

    def answer(self, request: Json, api: ControlApi) -> Answer:
        """Whether it is ready; alive it is, as it answers."""
        live = _boolean(request, "live")
        reasons = api.readiness_reasons()
        return Answer(
            final(DONE if live or not reasons else FAILED, "; ".join(reasons), ready=not reasons)
        )

    def lines(self, reply: Json, format_event: FormatEvent) -> list[str]:
        """One line."""
        return ["ready" if reply["ready"] else "alive"]


class Upgrade(Command):
    """Upgrade sidecar itself in place."""

    name = "upgrade"
    usage = "[--check] [--timeout TIME]"
    help_text = "become the sidecar that is installed now; --check: could it?"

    def request(self, words: Sequence[str]) -> Json:
        """`--check`."""
        return {"check": "--check" in _known_flags(words, "--check"), "wait": True}

    def answer(self, request: Json, api: ControlApi) -> Answer:
        """Complete when the new version has taken over: it sends the rest itself."""
        only_check = _boolean(request, "check")
        if api.stopping():
            return Answer(final(FAILED, STOPPING_CAUSE))
        api.upgrade(only_check)
        return UpgradeOutcome(only_check)


class UpgradeOutcome(Answer):
    """The outcome of an upgrade. It outlives this version of sidecar."""

    def __init__(self, only_check: bool = False) -> None:
        super().__init__(done=False)
        self.only_check = only_check

    def on_event(self, record: Json) -> list[Json]:
        """The events of the upgrade."""
        event = record["event"]
        if event == "upgrade_failed":
            self.done = True
            return [final(FAILED, record["cause"])]
        self.done = event == "upgraded" or (self.only_check and event == "upgrade_checked")
        told = [record] if event in ("upgrade_waiting", "upgrade_checked", "upgraded") else []
        return [*told, final(version=record["version"])] if self.done else told


COMMANDS: dict[str, Command] = {
    each.name: each
    for each in (Status(), Reload(), Stop(), Scale(), Events(), Signal(), Upgrade(), Health())
}


def answer(request: object, api: ControlApi) -> Answer:
    """The answer to any request, also to one that makes no sense."""
    if not isinstance(request, dict) or not isinstance(request.get("command"), str):
        return Answer(final(USAGE_ERROR, 'a request is one JSON object: {"command": NAME, …}'))
    command = COMMANDS.get(request["command"])
    if command is None:
        return Answer(
            final(
                USAGE_ERROR,
                f"there is no command {request['command'][:40]!r};"
                f" say one of {', '.join(COMMANDS)}",
            )
        )
    try:
        return command.answer(request, api)
    except ValueError as error:
        return Answer(final(USAGE_ERROR, str(error)))
