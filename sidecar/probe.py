"""`sidecar health` for a probe: the common answer, yes, in as little time as Python takes to start.

Exec probes run every few seconds for as long as a pod lives, and each is a new interpreter: what this imports is what they cost. So it
takes the socket from the C module, reads the answer without a parser, and whatever is not a plain yes it leaves to client.py.
"""

from __future__ import annotations

import os

from sidecar.places import places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# No longer than this (seconds): then client.py finds out what is wrong.
PATIENCE = 2.0


def healthy(words: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether the sidecar of this container says that it is ready (or, with --live, says anything). False is no answer yet."""
    if any(word not in ("--ready", "--live") for word in words):
        return False
    import _socket  # noqa: PLC0415  (socket.py alone takes longer than all of this)

    # As client.py goes about it: PID 1 of the container, in whichever place it could write to.
    path = environ.get("SIDECAR_CONTROL")
    for each in [path] if path else [f"{place}/sidecar-1.sock" for place in places(environ)]:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        sock.settimeout(PATIENCE)
        try:
            sock.connect(each)
            break
        except OSError:
            sock.close()
    else:
        return False
    try:
        live = b"true" if "--live" in words else b"false"
        sock.send(b'{"command": "health", "live": ' + live + b"}\n")
        answer = sock.recv(4096)
        sock.close()
    except OSError:
        return False
    return b'"done": 0' in answer and answer.endswith(b"\n")


def main(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """The command `sidecar health`; its exit status."""
    if healthy(words, environ):
        os.write(1, b"alive\n" if "--live" in words else b"ready\n")
        return 0
    from sidecar import client  # noqa: PLC0415

    return client.run("health", words, environ)
