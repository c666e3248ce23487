"""Serves an ASGI application by granian. It has no option to be given a listener: this overrides
what would bind (private, as of 2.8).
"""

from granian.net import SocketHolder
from granian.server import Server

from sidecar.worker import listeners


class OnListener(Server):
    """granian on the listener that sidecar holds."""

    def _init_shared_socket(self) -> None:
        fd = listeners()[0].fileno()
        self._ssp, self._sso, self._sfd, self._shd = None, None, fd, SocketHolder(fd, False, 1024)


if __name__ == "__main__":
    OnListener("examples.asgi.app:app", interface="asgi", log_access=False).serve()
