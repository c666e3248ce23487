"""How a program is told which descriptors are its listeners: the protocols, and what each puts into
the environment.

Every worker gets `server-starter` (SERVER_STARTER_PORT) and `systemd` (LISTEN_FDS …), unless they
are left out: `no-systemd` for programs that would take a descriptor twice (`gunicorn -b fd://3`).
The others are for servers that know neither:

    unicorn     UNICORN_FD=3,4
    puma        PUMA_INHERIT_0=3:tcp://127.0.0.1:8080 (before Puma 5; later ones know systemd's)
    nginx       NGINX=3;4;
    php-fpm     FPM_SOCKETS=127.0.0.1:9000=3,/run/fpm.sock=4
    einhorn     EINHORN_FD_COUNT=1 EINHORN_FD_0=3 EINHORN_FD_FAMILY_0=AF_INET EINHORN_MASTER_PID
                (without a control socket)
"""

from __future__ import annotations

from sidecar.base.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EXTRA = ("unicorn", "puma", "nginx", "einhorn", "php-fpm")
WITHOUT = {
    "no-server-starter": ("SERVER_STARTER_PORT",),
    "no-systemd": ("LISTEN_FDS", "LISTEN_FDNAMES"),
}
PROTOCOLS = (*EXTRA, *WITHOUT)


class Passed(Record):
    """One listener as a worker gets it: its name in SERVER_STARTER_PORT, its descriptor there, and
    its kind of address.
    """

    key: str
    fd: int
    family: str
    stream: bool

    @property
    def url(self) -> str:
        """What servers that take URLs call it: tcp://0.0.0.0:8080, tcp://[::1]:80,
        unix:///run/app.sock.
        """
        if self.family == "AF_UNIX":
            return f"unix://{self.key}"
        return f"tcp://{self.key if ':' in self.key else '0.0.0.0:' + self.key}"


def handed(
    general: dict[str, str], protocols: Iterable[str], passed: Sequence[Passed], sidecar: int
) -> dict[str, str]:
    """The variables by which a worker finds its listeners: the `general` ones, and those that
    `protocols` add or leave out.

    `sidecar` is sidecar's pid.
    """
    found = dict(general)
    streams = [each for each in passed if each.stream]
    for protocol in protocols:
        if protocol in WITHOUT:
            for name in WITHOUT[protocol]:
                found.pop(name, None)
        elif protocol == "unicorn":
            found["UNICORN_FD"] = ",".join(str(each.fd) for each in streams)
        elif protocol == "puma":
            found.update(
                {
                    f"PUMA_INHERIT_{index}": f"{each.fd}:{each.url}"
                    for index, each in enumerate(streams)
                }
            )
        elif protocol == "nginx":
            found["NGINX"] = "".join(f"{each.fd};" for each in passed)
        elif protocol == "php-fpm":
            found["FPM_SOCKETS"] = ",".join(f"{each.key}={each.fd}" for each in streams)
        elif protocol == "einhorn":
            found["EINHORN_FD_COUNT"] = str(len(passed))
            found["EINHORN_MASTER_PID"] = str(sidecar)
            for index, each in enumerate(passed):
                found[f"EINHORN_FD_{index}"] = str(each.fd)
                found[f"EINHORN_FD_FAMILY_{index}"] = each.family
    return found
