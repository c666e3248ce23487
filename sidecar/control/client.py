"""The other end of the control socket: find the running sidecar, ask it, show what it says.

It needs nothing but this package, so that a container without `kill` and `ps` can be looked after.
Probes, which come every few seconds, have control/health.py first.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
import sys
import time

from sidecar.base.command_line import CommandLine
from sidecar.base.printable import printable
from sidecar.control.commands import COMMANDS, DONE, TIMED_OUT, UNREACHABLE, USAGE_ERROR
from sidecar.control.paths import NAME, places
from sidecar.control.trust import is_trusted, peer_uid
from sidecar.log import writer
from sidecar.settings.types import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from sidecar.control.commands import Command

# A sidecar that has sent nothing for this time does not answer. Waiting for an outcome takes as
# long as it takes.
ANSWER_TIMEOUT_S = 10.0
# How often `status --watch` asks.
REFRESH_INTERVAL_S = 1.0
# At most this much of a log file's end is shown.
MAX_TAIL_LINES, MAX_TAIL_BYTES = 20, 8192
OPTIONS = {
    "--control": "PATH", "--json": "", "--timeout": "TIME", "--watch": "", "--help": "", "-h": "",
}  # fmt: skip
NO_LOG_FILE = (
    "there is no --log-file: what the new workers wrote is where sidecar's own output goes (its"
    " terminal, docker logs, kubectl logs, the journal)"
)


class Unreachable(Exception):
    """There is no sidecar to ask, or more than one."""


class ConnectionLost(Unreachable):
    """The connection ended before the answer did."""


def connect(path: str, environ: Mapping[str, str]) -> socket.socket:
    """A connection to the sidecar at `path`, or to the only one there is. Raises Unreachable."""
    path = path or environ.get("SIDECAR_CONTROL", "")
    if path == "none":
        raise Unreachable("its control socket is turned off (SIDECAR_CONTROL=none)")
    if not path:
        return _connect_to_found(environ)
    try:
        sock = _connected(path)
    except OSError as error:
        raise Unreachable(f"no sidecar answers at {path}: {error.strerror or error}") from None
    if not is_trusted(uid := peer_uid(sock), path, named=True):
        sock.close()
        raise Unreachable(f"who listens at {path} is not to be trusted: it is uid {uid}")
    return sock


class Found:
    """A sidecar that was found: its path, a connection to it, and its user."""

    def __init__(self, path: str, sock: socket.socket, uid: int) -> None:
        self.path, self.sock, self.uid = path, sock, uid


def _connect_to_found(environ: Mapping[str, str]) -> socket.socket:
    """A connection to the only sidecar that is found. Raises Unreachable."""
    found: list[Found] = []
    refused = ""
    for path in _socket_paths(environ):
        try:
            sock = _connected(path)
        except PermissionError:
            refused = f"the sidecar at {path} belongs to another user"
            continue
        except OSError:
            continue  # nobody listens there any more
        uid = peer_uid(sock)
        if is_trusted(uid, path, named=False):
            found.append(Found(path, sock, uid))
        else:
            sock.close()
            refused = f"who listens at {path} is not to be trusted: it is uid {uid}"
    if not found:
        raise Unreachable(refused or "no sidecar runs here; say --control PATH")
    candidates = _preferred(found)
    for each in found:
        if len(candidates) > 1 or each is not candidates[0]:
            each.sock.close()
    if len(candidates) > 1:
        several = ", ".join(each.path for each in candidates)
        raise Unreachable(f"several run here; say --control with one of {several}")
    return candidates[0].sock


def _socket_paths(environ: Mapping[str, str]) -> Iterator[str]:
    """The paths with the name of a control socket, best first."""
    for place in dict.fromkeys(places(environ)):
        try:
            names = sorted(os.listdir(place))
        except OSError:
            continue
        for name in names:
            if name.startswith("sidecar-") and name.endswith(".sock"):
                yield os.path.join(place, name)


def _preferred(found: Sequence[Found]) -> Sequence[Found]:
    """The container's own sidecar; else those of this user, before those of others."""
    name = NAME.format(pid=1)
    of_container = [each for each in found if os.path.basename(each.path) == name]
    return of_container[:1] or [each for each in found if each.uid == os.geteuid()] or found


def _connected(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A blocking connect, with an end: a non-blocking one would not wait for room in a full
        # queue, but fail.
        sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(ANSWER_TIMEOUT_S), 0)
        )
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def ask(sock: socket.socket, request: Mapping[str, Any], until: float) -> Iterator[dict[str, Any]]:
    """Send a request; the objects of its answer as they come, up to the last.

    Raises TimeoutError at `until` (monotonic seconds), Gone if the answer ends early, Unreachable
    if it is none.
    """
    try:
        sock.sendall(json.dumps(request).encode() + b"\n")
        data = b""
        while True:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(None if left == float("inf") else left)
            part = sock.recv(1 << 16)
            if not part:
                raise ConnectionLost(
                    "the answer has no end: sidecar has left, or what it said was not read in time"
                )
            *lines, data = (data + part).split(b"\n")
            for line in lines:
                reply = json.loads(line)
                if not isinstance(reply, dict):
                    raise ValueError("what it said is no object")
                yield reply
                if "done" in reply:
                    return
    except (ConnectionResetError, BrokenPipeError):
        raise ConnectionLost("sidecar has left without an answer") from None
    except TimeoutError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise Unreachable(f"sidecar does not answer: {error}") from None


class ClientCommandLine(CommandLine):
    """What all commands understand; every other word is left for the command."""

    mixed = True

    def __init__(self) -> None:
        super().__init__(OPTIONS)

    def read_value(self, flag: str, name: str, text: str, attached: bool) -> Any:
        """A timeout is a duration."""
        return duration(text) if name == "--timeout" else text

    def is_option(self, word: str) -> bool:
        """Only what is known is an option here: `-1` is a number of workers."""
        flag, equals, _ = word.partition("=")
        return flag in self.options and (not equals or bool(self.options[flag]))


class Options:
    """The options of all commands, and in `words` what the command itself was given. Raises
    ValueError.
    """

    def __init__(self, words: Sequence[str]) -> None:
        parsed = ClientCommandLine().parse(words)
        if parsed.problems:
            raise ValueError(parsed.problems[0])
        given = dict(parsed.options)
        self.words = parsed.words
        self.help = "--help" in given or "-h" in given
        self.json = "--json" in given
        self.watch = "--watch" in given
        self.control: str = given.get("--control", "")
        self.timeout: float | None = given.get("--timeout")


def run(name: str, words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the command `name` with its words; its exit status (docs/control.md)."""
    command = COMMANDS[name]
    # A file's name may be any bytes.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        options = Options(words)
        if options.help:
            print(usage(command), end="")
            return DONE
        request = {"command": name, **command.request(options.words)}
        if options.watch and name != "status":
            raise ValueError("--watch is for status")
    except ValueError as error:
        print(f"sidecar {name}: {error}", file=sys.stderr)
        print(f"usage: sidecar {name} {command.usage}".rstrip(), file=sys.stderr)
        return USAGE_ERROR
    return _run(command, request, options, environ)


def _run(
    command: Command, request: Mapping[str, Any], options: Options, environ: Mapping[str, str]
) -> int:
    """Send the request and show the answer; the exit status."""
    try:
        return (_refresh if options.watch else _once)(command, request, options, environ)
    except KeyboardInterrupt:
        return 130
    except TimeoutError:
        status, problem = TIMED_OUT, "no answer in time"
    except Unreachable as error:
        if isinstance(error, ConnectionLost) and command.name == "stop" and request["wait"]:
            return DONE  # the end that was waited for
        status, problem = UNREACHABLE, printable(str(error))
    print(f"sidecar {command.name}: {problem}", file=sys.stderr)
    return status


def usage(command: Command) -> str:
    """What `sidecar COMMAND --help` prints."""
    return f"""\
usage: sidecar {command.name} {command.usage}

{command.help_text}

    --control PATH   ask the sidecar that listens there; otherwise, the one at
                     SIDECAR_CONTROL, or the one that runs here
    --json           print what it answers as it is, an object a line
    --timeout TIME   wait no longer for the answer
"""


def _once(
    command: Command, request: Mapping[str, Any], options: Options, environ: Mapping[str, str]
) -> int:
    waits = bool(request.get("wait") or request.get("follow"))
    timeout = options.timeout
    if timeout is None:
        timeout = float("inf") if waits else ANSWER_TIMEOUT_S
    until = time.monotonic() + timeout
    status = UNREACHABLE
    with connect(options.control, environ) as sock:
        for reply in ask(sock, request, until):
            _show(command, reply, options)
            status = int(reply.get("done", status))
        if command.name == "stop" and request["wait"] and status == DONE:
            # That was its last word; it has exited when the connection ends.
            sock.settimeout(None if until == float("inf") else max(0.001, until - time.monotonic()))
            try:
                sock.recv(1)
            except ConnectionResetError:
                pass
    return status


def _show(command: Command, reply: dict[str, Any], options: Options) -> None:
    if options.json:
        print(json.dumps(reply), flush=True)
        return
    if reply.get("cause") and reply.get("done"):
        print(f"sidecar {command.name}: {printable(str(reply['cause']))}", file=sys.stderr)
    if reply.get("done", DONE) == DONE:
        for line in command.lines(reply, format_event):
            print(printable(line), flush=True)
    if command.name == "reload" and reply.get("event") == "swap_failed":
        lines = log_tail(reply)
        if lines:
            what = f"the end of {printable(reply['log_file'])} since then, by all who write there"
            print(f"sidecar reload: {what}:", *lines, sep="\n  ", file=sys.stderr)
        elif not reply.get("log_file"):
            print(f"sidecar reload: {NO_LOG_FILE}", file=sys.stderr)


def log_tail(record: Mapping[str, Any]) -> list[str]:
    """The last lines of the log file since the generation of this event was started, from all who
    write there; none without --log-file, or where it cannot be read.
    """
    try:
        fd = os.open(record["log_file"], os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            status, begin = os.fstat(fd), record["log_from"]
            if not stat.S_ISREG(status.st_mode) or status.st_ino != record["log_inode"]:
                return []  # rotated
            start = max(begin, status.st_size - MAX_TAIL_BYTES)
            lines = os.pread(fd, MAX_TAIL_BYTES, start).decode("utf-8", "replace").splitlines()
        finally:
            os.close(fd)
    except (KeyError, OSError):
        return []
    # The first one may have lost its beginning.
    return [printable(line) for line in lines[start > begin :] if line.strip()][-MAX_TAIL_LINES:]


def format_event(record: Mapping[str, Any]) -> str:
    """An event as the log has it."""
    fields = {
        name: value
        for name, value in record.items()
        if name not in ("number", "time", "event", "id")
    }
    try:
        # What a check wrote is in the log alone.
        return writer.format_line(
            "text",
            record["event"],
            {"output": "" if record["event"] == "swap_failed" else "…", **fields},
            record["time"],
        ).rstrip()
    except KeyError:
        return json.dumps(record)  # an event of another version


def _refresh(
    command: Command, request: Mapping[str, Any], options: Options, environ: Mapping[str, str]
) -> int:
    """Again and again, in place, until it is interrupted or sidecar leaves."""
    with connect(options.control, environ) as sock:
        while True:
            for reply in ask(sock, request, time.monotonic() + ANSWER_TIMEOUT_S):
                if sys.stdout.isatty() and not options.json:
                    print("\033[H\033[J", end="")
                _show(command, reply, options)
            time.sleep(REFRESH_INTERVAL_S)
