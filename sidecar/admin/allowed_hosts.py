"""Which names a request may be for.

A page in somebody's browser may ask any address that the browser reaches, and a name whose DNS is
the page's author's may point to one of ours a moment later (DNS rebinding): the browser then lets
the page read the answer. What gives it away is the name. An address is no name, and one without a
dot is nobody's in the Internet's DNS: a service of compose or Kubernetes is called so.
"""

from __future__ import annotations

import ipaddress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Hosts:
    """`own` are this host's names, `more` what --admin-host says: a name, .SUFFIX, or * for all."""

    def __init__(self, own: Sequence[str], more: Sequence[str]) -> None:
        self._names = {each.lower().rstrip(".") for each in (*own, *more)}
        self._suffixes = (".localhost", *(each.lower() for each in more if each.startswith(".")))
        self._all = "*" in more

    def ours(self, host: str) -> bool:
        """Whether a request with this Host header is answered. None at all was sent by no browser."""
        name = host.strip().lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
            return self._all or _address(name)
        name = name.partition(":")[0].rstrip(".")
        return (
            self._all
            or "." not in name
            or name in self._names
            or name.endswith(self._suffixes)
            or _address(name)
        )


def _address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
