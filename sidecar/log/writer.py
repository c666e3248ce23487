"""How a line looks: one line an event, as text for people or as JSON for machines, on stderr.

`PHRASES` is the list of everything sidecar ever says: the event's name is stable and so are its
fields (docs/logging.md). Values of variables never reach this module.

A reader that has stopped reading must not stop PID 1: a line is written only as far as stderr has
room for it now. Lines that had no room are counted, and the count is said with the next one that
has. Stderr itself stays blocking, because it is shared with the workers; a pipe or terminal is
opened once more, and that open file does not block. (That poll(2) says there is room
is not enough: a terminal takes a part of a line and then blocks, and a worker that fills the last of
a pipe comes in between.)
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import stat
import time

from sidecar.base.printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

INFO, WARNING, ERROR = "info", "warning", "error"

PHRASES: dict[str, tuple[str, str]] = {
    # sidecar itself
    "controlled": (INFO, "control socket at {path}"),
    "admin": (INFO, "health, metrics and a page at {address}"),
    "starting": (INFO, "sidecar {version} starts, pid {pid}"),
    "settings_read": (INFO, "settings read from {file}, changed: {changed}"),
    "reload_refused": (ERROR, "the settings are wrong, everything stays as it is: {cause}"),
    "listening": (INFO, "listening on {address}{families} (fd {fd} in the workers)"),
    "socket_removed": (INFO, "removed the stale socket {path}"),
    "listener_closed": (
        INFO,
        "no longer listening on {address}: the last generation that had it is gone",
    ),
    "profile": (
        INFO,
        "profile {profile}: adds {arguments}, drains on SIG{signal}, protocols {handoff} (--profile none: off)",
    ),
    "mended": (WARNING, "{remark}"),
    "remark": (WARNING, "{remark}"),
    "cannot": (ERROR, "cannot {what}: {cause}"),
    "defect": (ERROR, "a defect in sidecar: {error} at {where}; it goes on. Please report this"),
    "upgrade_waits": (INFO, "the upgrade waits until generation {generation} serves or has failed"),
    "upgrade_checked": (INFO, "sidecar {version} has proved that it can take over"),
    "upgrading": (INFO, "sidecar {before} becomes sidecar {version}"),
    "upgraded": (INFO, "sidecar {version} has taken over from {before} after {took} s, pid {pid}"),
    "upgrade_failed": (ERROR, "the upgrade failed: {cause}; sidecar {version} goes on"),
    "asked": (INFO, "SIG{signal} received"),
    "orphan_reaped": (INFO, "reaped process {pid}, which was no worker ({cause})"),
    # what is watched
    "watching": (INFO, "watching {roots} by {mode} (directories of code: {directories})"),
    "files_changed": (INFO, "changed: {paths} ({count} in all)"),
    "environment_changed": (INFO, "changed in the envdir: {names}"),
    "environment_unreadable": (
        ERROR,
        "cannot read the envdir: {cause}; the environment stays what it is until that changes",
    ),
    "helper_ended": (
        WARNING,
        "{helper} (pid {pid}) ended ({cause}); it is started again in {pause} s",
    ),
    "check_output": (INFO, "the check of generation {generation} said: {output}"),
    "key": (INFO, "{key} was pressed"),
    "terminal_gone": (INFO, "the terminal was closed"),
    "log_command_ended": (
        WARNING,
        "the log command (pid {pid}) ended ({cause}); it is started again in {pause} s",
    ),
    # the swap
    "swap_started": (INFO, "generation {generation} begins (trigger: {trigger})"),
    "swap_failed": (
        ERROR,
        "generation {generation} failed after {lasted} s (trigger: {trigger}): {cause}; {still_serving}; {next_attempt}",
    ),
    "swap_superseded": (
        INFO,
        "generation {generation} is given up after {lasted} s for a newer one (trigger: {trigger})",
    ),
    "went_back": (
        WARNING,
        "generation {failed} died soon after time alone had made it ready: until the next swap"
        " generation {generation} has the settings and environment of generation {like}, the last"
        " that held out (settings that differ: {settings}; variables: {variables})",
    ),
    "kept_on": (
        WARNING,
        "generation {failed} was refused: until the next swap that is asked for, generation"
        " {generation} has the settings and environment of generation {like}, which served",
    ),
    "no_way_back": (
        WARNING,
        "generation {generation} died soon after time alone had made it ready; there is no way"
        " back to generation {like}, the last that held out: its --port was another",
    ),
    "retry": (INFO, "trying again in {pause} s (trigger: {trigger})"),
    "gave_up": (
        ERROR,
        "nothing serves after {failures} failures in a row (--max-failures); leaving with status {status}: {cause}",
    ),
    "interval_due": (INFO, "the interval of {interval} s for automatic restarts is over"),
    "shifted": (
        INFO,
        "generation {generation}: worker {slot} (pid {pid}) is sent SIG{signal}: {left} of its {had} processes stay beside {new} new",
    ),
    "delaying": (
        INFO,
        "generation {generation} is ready: in {delay} s the old workers {pids} are sent SIG{signal}",
    ),
    "making_room": (
        WARNING,
        "generation {generation} starts when the old workers {pids} have left (SIG{signal}), and until it is ready nothing serves: {why}",
    ),
    "rolling": (
        INFO,
        "generation {generation} takes over with at most {surge} workers more at a time: {why}",
    ),
    "generation_gone": (INFO, "generation {generation} is gone"),
    "retiring": (
        INFO,
        "generation {generation} is ready: sending SIG{signal} to old workers: {pids}",
    ),
    "serving": (
        INFO,
        "generation {generation} serves after {took} s (trigger: {trigger}), workers {pids}",
    ),
    # the workers
    "worker_started": (INFO, "generation {generation}: worker {slot} started, pid {pid}"),
    "worker_ready": (
        INFO,
        "generation {generation}: worker {slot} (pid {pid}) is ready after {after} s (by {by})",
    ),
    "worker_overdue": (ERROR, "generation {generation}: worker {slot} (pid {pid}) {cause}"),
    "worker_left": (
        INFO,
        "generation {generation}: worker {slot} (pid {pid}) left after {lived} s ({cause})",
    ),
    "worker_died": (
        ERROR,
        "generation {generation}: worker {slot} (pid {pid}) died after {lived} s: {cause}",
    ),
    "spawn_failed": (ERROR, "generation {generation}: worker {slot} could not be started: {cause}"),
    "outlived": (
        WARNING,
        "generation {generation}: worker {slot} (pid {pid}) has gone, but its {who} on{then}{hint}",
    ),
    "killing": (
        WARNING,
        "generation {generation}: {who} has not left {after} s after it was asked to: SIGKILL",
    ),
    "recycling": (
        WARNING,
        "generation {generation}: worker {slot} (pid {pid}) holds {held}, more than {most}: another takes its place",
    ),
    "recycled": (
        INFO,
        "generation {generation}: worker {slot} (pid {pid}) has been replaced by {by} after {lived} s{hint}",
    ),
    "socket_missed": (
        WARNING,
        "generation {generation}: worker {slot} (pid {pid}) {what}; {advice}",
    ),
    "look_forbidden": (
        WARNING,
        "cannot see whether workers take connections ({cause}); going by --interval {interval} s",
    ),
    "enough_workers": (
        WARNING,
        "SIG{signal} asks for more than {workers} workers: there will be no more (--max-workers)",
    ),
    "growth_paced": (
        WARNING,
        "SIGTTIN comes so often that workers are started one by one, every {pause} s; {waiting} wait",
    ),
    "resized": (INFO, "{workers} workers from now on, {before} before"),
    # the stop
    "stopping": (
        INFO,
        "stopping on SIG{signal}: lame duck {lame_duck} s, then at most {drain_timeout} s for the workers",
    ),
    "stopped": (INFO, "stopped, status {status}"),
}

# Server::Starter's lines, to the letter, for who comes through the door `start_server`: by event,
# and the variant of it that _as_start_server tells. Of what has no counterpart there, warnings and
# errors get a line of their own, and the rest is left out.
START_SERVER = {
    "listening fixed": "socket is duplicated to file descriptor {fd}",
    "socket_removed": "removing existing socket file:{path}",
    "worker_started": "starting new worker {pid}",
    "worker new": "new worker {pid} seems to have failed to start, exit status:{wait_status}",
    "worker current": "worker {pid} died unexpectedly with status:{wait_status}, restarting",
    "worker old": "old worker {pid} died, status:{wait_status}",
    "worker stopping": "worker {pid} died, status:{wait_status}",
    "asked": "received {signal}, spawning a new worker",
    "interval_due": "autorestart triggered (interval={interval})",
    "interval_due forced": "autorestart triggered (forced, interval={interval})",
    "delaying": (
        "new worker is now running, sending {signal} to old workers:{pids}\nsleeping {delay} secs before killing old workers"
    ),
    "retiring": "new worker is now running, sending {signal} to old workers:{pids}\nkilling old workers",
    "retiring delayed": "killing old workers",
    "retry": "trying again in {pause} secs",
    "stopping": "received {signal}, sending {sending} to all workers:{pids}",
    "stopped": "exiting",
}

# The style `dev`, for who is at a terminal and has just saved a file: what matters of it, by event
# and with a mark; warnings and errors that have no line here are shown as they are, all else is
# left out. A failure has more to say: _failure.
DEV = {
    "settings_read": "· settings from {file}",
    "listening": "· listening on {address}",
    "watching": "· watching {roots}",
    "files_changed": "~ {paths}",
    "environment_changed": "~ environment: {names}",
    "key": "~ {key}",
    "terminal_gone": "~ the terminal was closed",
    "asked": "~ SIG{signal}",
    "check_output": "· {output}",
    "serving": "● generation {generation} serves after {took} s",
    "stopping": "· stopping",
    "stopped": "· stopped",
}
COLOURS = {"·": 2, "~": 36, "●": 32, "!": 33, "✗": 31}

# What exec's failure is there: the child's exit(255).
UNRUN = 65280

# A pipe takes this much at once or not at all, when poll says it has room (pipe(7), PIPE_BUF).
LONGEST = 4096
# Of a JSON line these are never shortened.
FIXED = ("time", "level", "event", "truncated")


class Log:
    """Writes events to a file descriptor, as `text`, `json`, `dev` or `start_server`; with `colour`
    where that is a terminal.
    """

    def __init__(self, style: str, fd: int = 2, colour: bool = False) -> None:
        #: The end opened once more, without blocking, and the file that it is of.
        self._own, self._own_of = -1, (0, 0)
        self.style = style
        self.fd = fd
        self.lost = 0
        #: What was not taken yet of the line written last.
        self._rest = b""
        self._terminal = os.isatty(fd)
        self._colour = colour and self._terminal
        self._failed: object = None
        self._failures = 0
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def say(self, event: str, fields: Mapping[str, Any]) -> None:
        """Write the event, if there is room. Never raises for what the reader does."""
        if self.lost:
            note = line(
                self.style,
                "remark",
                {"remark": f"{self.lost} lines of sidecar's own log were lost: stderr was full"},
                time.time(),
            )
            if self._write(note):
                self.lost = 0
        if self.style == "dev":
            text = self._dev(event, fields)
        else:
            text = line(self.style, event, fields, time.time())
            if self._colour and self.style == "text" and PHRASES[event][0] != INFO:
                text = f"\033[{COLOURS['✗' if PHRASES[event][0] == ERROR else '!']}m{text[:-1]}\033[m\n"
        if not self._write(text):
            self.lost += 1

    def _dev(self, event: str, fields: Mapping[str, Any]) -> str:
        """The lines of the style `dev`, none for most events."""
        shown = _shown(event, fields)
        level, phrase = PHRASES[event]
        more: list[str] = []
        if event == "swap_failed":
            about = (fields["cause"], fields["output"])
            self._failures = self._failures + 1 if about == self._failed else 1
            self._failed = about
            text, more = _failure(fields, self._failures)
        elif event == "worker_died" and fields["role"] == "new":
            return ""  # the failure that follows says it
        elif event in DEV:
            text = DEV[event].format_map(shown)
        elif level == INFO:
            return ""
        else:
            text = f"{'!' if level == WARNING else '✗'} {phrase.format_map(shown)}"
        if event == "serving":
            text += ", mended" * (self._failed is not None)
            self._failed = None
        lines = [time.strftime("%H:%M:%S ") + printable(text.replace("\n", " "), "\t"), *more]
        if self._colour:
            lines[0] = f"\033[{COLOURS[text[0]]}m{lines[0]}\033[m"
        return "\n".join(lines) + "\n"

    def _write(self, text: str) -> bool:
        """Write a line, or begin to; whether there was room for any of it."""
        if not text:
            return True
        data = text.encode("utf-8", "backslashreplace")
        if len(data) >= LONGEST:
            data = data[: LONGEST - 5] + "…".encode() + b"\n"
        if self._rest:
            self._rest = self._rest[self._written(self._rest) :]
        if self._rest:
            return False
        done = self._written(data)
        self._rest = data[done:] if done else b""
        return bool(done)

    def _written(self, data: bytes) -> int:
        """How many bytes were taken, without waiting for room; all of them where nobody is left to
        tell.
        """
        # In the background of a terminal with `stty tostop` the write would send us TTOU, which
        # asks for one worker fewer.
        if self._terminal:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
        try:
            return self._send(data)
        except BlockingIOError:
            return 0
        except OSError:
            # The reader is gone (EPIPE), the terminal hung up (EIO), the disk is full: nobody to
            # tell.
            return len(data)
        finally:
            if self._terminal:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _send(self, data: bytes) -> int:
        found = os.fstat(self.fd)
        if stat.S_ISSOCK(found.st_mode):
            with socket.socket(fileno=os.dup(self.fd)) as sock:
                return sock.send(data, socket.MSG_DONTWAIT)
        if not stat.S_ISFIFO(found.st_mode) and not self._terminal:
            return os.write(self.fd, data)
        if self._own < 0 or self._own_of != (found.st_dev, found.st_ino):
            self.let_go()
            try:
                self._own = os.open(
                    f"/proc/self/fd/{self.fd}",
                    os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC,
                )
                self._own_of = found.st_dev, found.st_ino
            except OSError as error:
                if error.errno in (errno.ENXIO, errno.EIO):
                    raise  # the reader is gone, the terminal hung up
                # It is not ours to open, or no descriptor is left: go by what poll says.
                if not any(state & select.POLLOUT for _, state in self._poll.poll(0)):
                    return 0
                return os.write(self.fd, data)
        return os.write(self._own, data)

    def let_go(self) -> None:
        """Close what it has opened itself: somebody may wait for the end of what is written there.
        The next line opens it again.
        """
        if self._own >= 0:
            os.close(self._own)
            self._own = -1

    __del__ = let_go


def line(style: str, event: str, fields: Mapping[str, Any], now: float) -> str:
    """One line, with its newline; in the style start_server none, or two. `now` is in seconds since
    the epoch.
    """
    level, phrase = PHRASES[event]
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z"
    shown = _shown(event, fields)
    message = printable(phrase.format_map(shown).replace("\n", " "), "\t")
    if style == "json":
        import json  # noqa: PLC0415  (only who asks for JSON pays for it)

        rounded = {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in fields.items()
        }
        record: dict[str, Any] = {
            "time": stamp,
            "level": level,
            "event": event,
            "message": message,
            **rounded,
        }
        while True:
            text = _escaped(json.dumps(record, ensure_ascii=False, default=str)) + "\n"
            if len(text.encode("utf-8", "backslashreplace")) < LONGEST or not _shorten(record):
                return text
    if style == "start_server":
        return _as_start_server(event, fields, "" if level == INFO else f"{message}\n")
    mark = "" if level == INFO else f"{level}: "
    output = fields.get("output", "") if event in ("swap_failed", "upgrade_failed") else ""
    more = "".join(f"    | {each}\n" for each in output.split("\n")) if output else ""
    return f"{stamp} sidecar: {mark}{message}\n{more}"


def _shorten(record: dict[str, Any]) -> bool:
    """Halve the longest value of a record that is too long for one write, and name it in
    `truncated`; whether there was one. A line that is cut in the middle is no JSON.
    """
    sizes = {
        name: len(str(value))
        for name, value in record.items()
        if isinstance(value, (str, list, tuple)) and name not in FIXED and value
    }
    longest = max(sizes, key=sizes.__getitem__, default="")
    if not longest:
        return False
    value = record[longest]
    half = len(value) // 2
    if half == 0:
        text = str(value[0])
        record[longest] = "" if isinstance(value, str) else [text[: len(text) // 2]][: len(text)]
    else:
        # The end of an output says most, the beginning of everything else.
        record[longest] = value[-half:] if longest == "output" else value[:half]
    record["truncated"] = sorted({*record.get("truncated", ()), longest})
    return True


def _next_attempt(again: float | None) -> str:
    return (
        "it is not tried again by itself"
        if again is None
        else f"the next attempt is in {_show(again)} s"
    )


def _failure(fields: Mapping[str, Any], times: int) -> tuple[str, list[str]]:
    """A failed swap for who has just saved a file: once in full, then only that it is the same
    again.
    """
    serving = (
        f"generation {', '.join(map(str, fields['still']))} serves on"
        if fields["still"]
        else "nothing serves"
    )
    if times > 1:
        return (
            f"✗ generation {fields['generation']} failed in the same way ({times} times now); {serving}",
            [],
        )
    output = fields["output"].split("\n") if fields["output"] else []
    told = [f"changed: {_show(fields['changed'])}"] if fields["changed"] else []
    told.append(
        f"{serving}; save to try again"
        if fields["still"]
        else f"{serving}; save, or wait, to try again"
    )
    first = f"✗ generation {fields['generation']} failed after {_show(fields['lasted'])} s: {fields['cause']}"
    return first, [
        *(f"         │ {each}" for each in output),
        *(f"         {printable(each)}" for each in told),
    ]


def _as_start_server(event: str, fields: Mapping[str, Any], otherwise: str) -> str:
    """Server::Starter's line for the event, `otherwise` if it has none."""
    shown = {
        name: ",".join(map(str, value)) if isinstance(value, list) else _show(value)
        for name, value in fields.items()
    }
    before = ""
    variant = event
    if event in ("worker_left", "worker_died"):
        variant = f"worker {fields['role']}"
        what, unrun, why = str(fields["cause"]).partition("cannot run ")
        if unrun and not what:
            before, shown["wait_status"] = f"failed to exec {why}\n", str(UNRUN)
    elif fields.get("fixed") is not None:
        variant += " fixed"
    elif fields.get("forced"):
        variant += " forced"
    elif event == "retiring":
        variant += " delayed" if fields["delay"] else ""
        shown["pids"] = shown["pids"] or "none"
    phrase = START_SERVER.get(variant)
    if phrase is None:
        return otherwise
    return before + printable(phrase.format_map(shown), "\n\t") + "\n"


def _escaped(text: str) -> str:
    """A line of JSON whose control characters beyond ASCII's, which JSON leaves, are escapes too:
    the same value, and nothing that a terminal obeys.
    """
    if text.isprintable():
        return text
    import json  # noqa: PLC0415

    return "".join(
        # What is no UTF-8 is written as an escape later.
        char if char.isprintable() or "\ud800" <= char <= "\udfff" else json.dumps(char)[1:-1]
        for char in text
    )


def _shown(event: str, fields: Mapping[str, Any]) -> dict[str, str]:
    """What the phrase of an event is filled with: its fields, and what is said of them in words."""
    shown = {name: _show(value) for name, value in fields.items()}
    if event == "swap_failed":
        serving = fields["still"]
        shown["still_serving"] = (
            f"generation {', '.join(map(str, serving))} serves on" if serving else "nothing serves"
        )
        if fields["degraded"]:
            shown["still_serving"] += ", degraded: workers that had taken over stay"
        shown["next_attempt"] = _next_attempt(fields["again"])
    if event == "listening":
        shown["families"] = f", {fields['families']}" if fields["families"] else ""
    if event == "recycling":
        shown["held"], shown["most"] = (
            f"{fields[name] / 2**20:.1f} MiB" for name in ("memory", "limit")
        )
    if event == "recycled":
        seldom = f"; so big so soon: not again in this slot for {_show(fields['pause'])} s (is --max-memory too low for this program?)"
        shown["hint"] = seldom if fields["pause"] else ""
    if event == "killing":
        worker = f"worker {fields['slot']} (pid {fields['pid']})"
        shown["who"] = worker if fields["leader"] else f"what has outlived {worker}"
    if event == "outlived":
        several = len(fields["pids"]) > 1
        pids = f" {shown['pids']}" if fields["pids"] else ""
        if several:
            own = f" ({shown['strays']} in sessions of their own)" if fields["strays"] else ""
            shown["who"] = f"processes{pids}{own} live"
        else:
            own = ", in a session of its own," if fields["strays"] else ""
            shown["who"] = f"process{pids}{own} lives"
        shown["then"] = ": they are" if several else ": it is"
        shown["then"] += f" sent SIG{fields['signal']} and" if fields["signal"] else ""
        shown["then"] += f" killed in {shown['kill_in']} s at the latest"
        hint = "; have the shell start the program with `exec`, so that it gets the signals itself"
        shown["hint"] = hint if fields["shell"] else ""
    return shown


def _show(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".") if value < 100 else f"{value:.0f}"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(each) for each in value) or "none"
    return str(value)
