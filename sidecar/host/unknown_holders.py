"""Processes that have a listener open and belong to no generation that is known: they may answer
with old code for as long as they live.
"""

from __future__ import annotations

from sidecar.system import open_sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from typing import Any

    from sidecar.system.processes import ChildProcesses


class UnknownHolders:
    """Looks for them when a generation has gone. `inodes` are the sockets of all listeners."""

    def __init__(
        self,
        say: Callable[[str, Mapping[str, Any]], None],
        processes: ChildProcesses,
        inodes: Callable[[], Collection[int]],
    ) -> None:
        self._say = say
        self._processes = processes
        self._inodes = inodes
        self._found: set[int] = set()

    def look(self) -> None:
        """Say which there are, each once."""
        inodes = self._inodes()
        for pid in self._processes.unowned_orphans():
            if pid not in self._found and open_sockets.holds_socket(pid, inodes):
                self._found.add(pid)
                remark = (
                    f"process {pid} has a listener open, and no generation is known to have it:"
                    " it may answer with old code until it ends. Sidecar ends it when it stops itself"
                )
                self._say("notice", {"text": remark})

    def living(self) -> list[int]:
        """Those that were found and have not ended."""
        if not self._found:
            return []
        return [pid for pid in self._processes.unowned_orphans() if pid in self._found]
