"""The sets of listeners that are open: one for generations to come, and those of the generations
that are still there.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from sidecar.system.listener import Listener
    from sidecar.system.listeners import Listeners

    Say = Callable[[str, Mapping[str, Any]], None]


class ListenerSets:
    """All of them, of which `current` is the one for generations to come."""

    def __init__(self, say: Say, sets: list[Listeners], current: Listeners) -> None:
        self._say = say
        self.sets = sets
        self.current = current

    def inodes(self) -> set[int]:
        """The sockets of all of them."""
        return {inode for each in self.sets for inode in each.inodes()}

    def announce(self) -> None:
        """Say where sidecar listens."""
        for each in self.current:
            self._say_listening(each)

    def replace(self, listeners: Listeners) -> None:
        """These are for generations to come; say which of them are new."""
        known = {id(each.shared) for group in self.sets for each in group}
        for each in listeners:
            if id(each.shared) not in known:
                self._say_listening(each)
        if listeners is not self.current:
            self.current = listeners
            self.sets.append(listeners)

    def close(self) -> None:
        """Close all of them: sidecar ends."""
        for each in self.sets:
            each.close()

    def close_unused(self, used: Iterable[Listeners]) -> None:
        """Close the listeners that no generation has any more, nor any will have; `used` are those
        of the generations that are there.
        """
        needed = [self.current, *used]
        for each in [each for each in self.sets if each not in needed]:
            self.sets.remove(each)
            for address in each.close_unused(self.sets):
                self._say("listener_closed", {"address": address})

    def _say_listening(self, each: Listener) -> None:
        fields = {
            "address": each.key,
            "kind": each.address.kind,
            "fd": each.worker_fd,
            "name": each.name,
            "fixed": each.address.fd,
            "families": each.families,
        }
        self._say("listening", fields)
