"""Writes the log to stderr: a line for each event, as text for people or as JSON for machines. The
phrases are in log/messages.py.

A reader that has stopped reading must not stop PID 1: a line is written only as far as stderr has
room for it now. Lines without room are counted, and the count is logged with the next line that has
room. Stderr itself stays blocking, because it is shared with the workers; a pipe or terminal is
opened once more, without blocking. To ask poll(2) for room is not enough: a terminal takes a part
of a line and then blocks, and a worker may fill the rest of a pipe in between.
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
from sidecar.log.dev import COLOURS, DevStyle
from sidecar.log.messages import (
    ERROR,
    INFO,
    PHRASES,
    START_SERVER_PHRASES,
    format_value,
    phrase_fields,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


# How Server::Starter logs that exec has failed: the child's exit(255).
EXEC_FAILED_WAIT_STATUS = 65280

# A pipe takes a line of this length at once or not at all (pipe(7), PIPE_BUF).
MAX_LINE_BYTES = 4096
# Fields of a JSON line.
NEVER_SHORTENED = ("time", "level", "event", "truncated")


class Log:
    """Writes events to a file descriptor, as `text`, `json`, `dev` or `start_server`; with `colour`
    where that is a terminal.
    """

    def __init__(self, style: str, fd: int = 2, colour: bool = False) -> None:
        #: The descriptor that was opened once more, without blocking, and the file behind it.
        self._reopened, self._reopened_file = -1, (0, 0)
        self.style = style
        self.fd = fd
        self.lost = 0
        #: The rest of the last line, which had no room yet.
        self._unwritten = b""
        self._terminal = os.isatty(fd)
        self._colour = colour and self._terminal
        self._dev = DevStyle()
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def say(self, event: str, fields: Mapping[str, Any]) -> None:
        """Write the event, if there is room. Raises nothing, whatever the reader does."""
        if self.lost:
            note = format_line(
                self.style,
                "notice",
                {"text": f"{self.lost} lines of sidecar's own log were lost: stderr was full"},
                time.time(),
            )
            if self._write(note):
                self.lost = 0
        if self.style == "dev":
            text = self._dev.lines(event, fields, time.strftime("%H:%M:%S "), self._colour)
        else:
            text = format_line(self.style, event, fields, time.time())
            if self._colour and self.style == "text" and PHRASES[event][0] != INFO:
                colour = COLOURS["✗" if PHRASES[event][0] == ERROR else "!"]
                text = f"\033[{colour}m{text[:-1]}\033[m\n"
        if not self._write(text):
            self.lost += 1

    def _write(self, text: str) -> bool:
        """Write a line, or begin to; whether there was room for any of it."""
        if not text:
            return True
        data = text.encode("utf-8", "backslashreplace")
        if len(data) >= MAX_LINE_BYTES:
            data = data[: MAX_LINE_BYTES - 5] + "…".encode() + b"\n"
        if self._unwritten:
            self._unwritten = self._unwritten[self._written(self._unwritten) :]
        if self._unwritten:
            return False
        done = self._written(data)
        self._unwritten = data[done:] if done else b""
        return bool(done)

    def _written(self, data: bytes) -> int:
        """How many bytes were taken, without waiting for room; all of them if there is no reader
        any more.
        """
        # In the background of a terminal with `stty tostop` the write would send TTOU to sidecar,
        # which asks for one worker fewer.
        if self._terminal:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
        try:
            return self._send(data)
        except BlockingIOError:
            return 0
        except OSError:
            # The reader is gone (EPIPE), the terminal hung up (EIO), the disk is full.
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
        if self._reopened < 0 or self._reopened_file != (found.st_dev, found.st_ino):
            self.release()
            try:
                self._reopened = os.open(
                    f"/proc/self/fd/{self.fd}",
                    os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC,
                )
                self._reopened_file = found.st_dev, found.st_ino
            except OSError as error:
                if error.errno in (errno.ENXIO, errno.EIO):
                    raise  # the reader is gone, the terminal hung up
                # It belongs to another user, or no descriptor is left: go by what poll says.
                if not any(state & select.POLLOUT for _, state in self._poll.poll(0)):
                    return 0
                return os.write(self.fd, data)
        return os.write(self._reopened, data)

    def release(self) -> None:
        """Close the descriptor that was opened once more: a reader may wait for the end of the
        pipe. The next line opens it again.
        """
        if self._reopened >= 0:
            os.close(self._reopened)
            self._reopened = -1

    __del__ = release


def format_line(style: str, event: str, fields: Mapping[str, Any], now: float) -> str:
    """One line, with its newline; in the style start_server none, or two. `now` is in seconds since
    the epoch.
    """
    level, phrase = PHRASES[event]
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z"
    shown = phrase_fields(event, fields)
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
            if len(text.encode("utf-8", "backslashreplace")) < MAX_LINE_BYTES or not _shorten(
                record
            ):
                return text
    if style == "start_server":
        return _start_server_line(event, fields, "" if level == INFO else f"{message}\n")
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
        if isinstance(value, (str, list, tuple)) and name not in NEVER_SHORTENED and value
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


def _start_server_line(event: str, fields: Mapping[str, Any], otherwise: str) -> str:
    """Server::Starter's line for the event, `otherwise` if it has none."""
    shown = {
        name: ",".join(map(str, value)) if isinstance(value, list) else format_value(value)
        for name, value in fields.items()
    }
    before = ""
    variant = event
    if event in ("worker_exited", "worker_died"):
        variant = f"worker {fields['role']}"
        what, unrun, why = str(fields["cause"]).partition("cannot run ")
        if unrun and not what:
            before, shown["wait_status"] = f"failed to exec {why}\n", str(EXEC_FAILED_WAIT_STATUS)
    elif fields.get("fixed") is not None:
        variant += " fixed"
    elif fields.get("forced"):
        variant += " forced"
    elif event == "retiring":
        variant += " delayed" if fields["delay"] else ""
        shown["pids"] = shown["pids"] or "none"
    phrase = START_SERVER_PHRASES.get(variant)
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
