"""Which names a request may be for.

A page in somebody's browser may send requests to any address that the browser reaches. The page's
author can let a name of his own point to our address a moment later (DNS rebinding), and then the
browser lets the page read the answer. The Host header shows it, since it has that name. An address
is no name; and a name without a dot is nobody's in the Internet's DNS: services of compose and
Kubernetes have such names.
"""

from __future__ import annotations

import ipaddress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class AllowedHosts:
    """`own` are this host's names, `more` what --admin-host says: a name, .SUFFIX, or * for all."""

    def __init__(self, own: Sequence[str], more: Sequence[str]) -> None:
        self._names = {each.lower().rstrip(".") for each in (*own, *more)}
        self._suffixes = (".localhost", *(each.lower() for each in more if each.startswith(".")))
        self._all = "*" in more

    def allows(self, host: str) -> bool:
        """Whether a request with this Host header is answered. A browser always sends one."""
        name = host.strip().lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
            return self._all or _is_address(name)
        name = name.partition(":")[0].rstrip(".")
        return (
            self._all
            or "." not in name
            or name in self._names
            or name.endswith(self._suffixes)
            or _is_address(name)
        )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
