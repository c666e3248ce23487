"""`sidecar health` for a probe: the common answer, yes, in as little time as Python takes to start.

Exec probes run every few seconds for as long as a pod lives, and each is a new interpreter: what
this module imports is what they cost. So it takes the socket from the C module and reads the answer
without a parser; whatever is not a plain yes it leaves to control/client.py.
"""

from __future__ import annotations

import os

from sidecar.control.paths import NAME, places
from sidecar.control.trust import is_trusted, peer_uid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# After this time control/client.py finds out what is wrong.
ANSWER_TIMEOUT_S = 2.0


def healthy(words: Sequence[str], environ: Mapping[str, str]) -> str:
    """What this container's sidecar answers at once: "ready", or with --live at least "alive"; ""
    if that is not known yet.
    """
    if words not in ([], ["--ready"], ["--live"]):
        return ""
    import _socket  # noqa: PLC0415  (socket.py alone takes longer than all of this)

    named = environ.get("SIDECAR_CONTROL")
    usual = [f"{place}/{NAME.format(pid=1)}" for place in places(environ)]
    for path in [named] if named else usual:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            sock.settimeout(ANSWER_TIMEOUT_S)
            sock.connect(path)
            if not is_trusted(peer_uid(sock), path, bool(named)):
                continue
            live = b"true" if "--live" in words else b"false"
            sock.send(b'{"command": "health", "live": ' + live + b"}\n")
            answer = sock.recv(4096)
        except OSError:
            continue
        finally:
            sock.close()
        if b'"done": 0' in answer and answer.endswith(b"\n"):
            return "ready" if b'"ready": true' in answer else "alive"
        break
    return ""


def main(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """The command `sidecar health`; its exit status."""
    if answer := healthy(words, environ):
        os.write(1, answer.encode() + b"\n")
        return 0
    from sidecar.control import client  # noqa: PLC0415

    return client.run("health", words, environ)
