"""The admin as PID 1 knows it: what it is given. It answers HTTP from the network, so it becomes the
workers' user, and all that PID 1 takes from it are notices.

admin/__main__.py is the process itself.
"""

from __future__ import annotations

import os
import socket

from sidecar.host import helpers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from sidecar.host.job import Tools
    from sidecar.settings.address import Address
    from sidecar.system.users import Credentials

# The numbers at which it finds its listener and its two connections to PID 1 (one for commands, one
# for events), and the commands that it may send there.
LISTENER_FD, CONNECTION_FDS = 3, (4, 5)
ALLOWED_COMMANDS = ("status", "health", "events")

# The events that it may write.
ALLOWED_EVENTS: dict[str, helpers.Shape] = {"notice": helpers.NOTICE}


def make_admin(
    tools: Tools,
    listener: int,
    now: float,
    *,
    user: Credentials | None,
    hosts: Sequence[str],
    environment: Mapping[str, str],
    connect: Callable[[socket.socket, tuple[str, ...]], None],
) -> helpers.Helper:
    """The helper that answers at the descriptor `listener`, as `user` (None: as sidecar), requests
    for these `hosts`. `connect` takes our end of a connection, and what may be asked there.
    """
    who = f"{user.uid}:{user.gid}:{','.join(map(str, user.groups))}" if user is not None else "-"
    # Kept for all its lives. Listeners has put it above what workers get, which may be too low
    # here.
    fd = helpers.move_fd_above(os.dup(listener))

    def make_fds() -> helpers.Handoff:
        handed = [(fd, LISTENER_FD)]
        for number in CONNECTION_FDS:
            ours, theirs = socket.socketpair()
            handed.append((admin.own_until_started(theirs.detach()), number))
            connect(ours, ALLOWED_COMMANDS)
        return handed

    def on_event(event: dict[str, Any], _now: float) -> None:
        tools.say("notice", {"text": event["text"]})

    admin = helpers.Helper(
        "the admin",
        helpers.module("sidecar.admin", who, *hosts),
        now,
        environment={
            name: value
            for name, value in helpers.environment(environment).items()
            if name in helpers.PLAIN_VARIABLES
        },
        make_fds=make_fds,
        allowed_events=ALLOWED_EVENTS,
        on_event=on_event,
        runs_during_stop=True,
        stop_signal="TERM",
    )
    return admin


def open_to_all(admin: Address | None, environ: Mapping[str, str]) -> bool:
    """Whether the admin listens on every interface of a machine without having been told so.

    In a container that is as it has to be: a kubelet asks from outside, and others reach only what
    is published.
    """
    contained = os.getpid() == 1 or bool(environ.get("KUBERNETES_SERVICE_HOST"))
    return admin is not None and admin.text.isdigit() and not contained
