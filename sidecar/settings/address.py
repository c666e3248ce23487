"""Where to listen, as words: the text of a listen spec and what it means. Nothing is bound here.

    SPEC      = WHERE ["=" FD] ("," OPTION)*
    WHERE     = PORT | HOST:PORT | [V6]:PORT | uPORT | HOST:uPORT | [V6]:uPORT | unix:/PATH | /PATH
    OPTION    = name=NAME | defer | nonblock | ipv6only | backlog=N | mode=0660 | owner=USER[:GROUP]

The forms before the comma are Server::Starter's (0.35), plus `unix:`. `HOST` may be empty or `*`
for every IPv4 address; `[::]` is for every address, unless with ipv6only. A path can hold neither
`;` nor `=` (SERVER_STARTER_PORT could not carry it) nor `,` (it starts the options).
"""

from __future__ import annotations

from sidecar.base.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TCP, UDP, UNIX = "tcp", "udp", "unix"

# Every IPv4 address of the machine.
ANY_IPV4 = "0.0.0.0"  # noqa: S104  (bound is what the user says)

# sun_path is 108 bytes with the final NUL (unix(7)).
MAX_UNIX_PATH_BYTES = 107


class Address(Record):
    """One place to listen.

    `text` is what SERVER_STARTER_PORT calls it: the bare port, `host:port` as it was given, or the
    path; the `u` of a UDP port is not part of it (Server::Starter drops it). `host` is "" for every
    IPv4 address; a v6 host has no brackets. `fd` is the number the worker gets it as, None for the
    next free one from 3 up. `name` goes into LISTEN_FDNAMES. `ipv6only` means something for `[::]`
    alone: that it leaves IPv4 out.
    """

    spec: str
    kind: str
    text: str
    host: str = ""
    port: int = 0
    path: str = ""
    v6: bool = False
    fd: int | None = None
    name: str = ""
    defer: bool = False
    nonblock: bool = False
    ipv6only: bool = False
    backlog: int | None = None
    mode: int | None = None
    owner: str = ""

    @property
    def stream(self) -> bool:
        """Whether connections are accepted from it (TCP and unix are; UDP is not)."""
        return self.kind != UDP


def parse(spec: str) -> Address:
    """The address that a listen spec names. Raises ValueError saying what is wrong with it and what
    would be right.
    """
    where, *options = spec.split(",")
    if not where:
        raise ValueError(
            "an address is missing; say PORT, HOST:PORT, [V6]:PORT, uPORT or unix:/PATH"
        )
    fields = _options(options)
    where, fields["fd"] = _fixed_fd(where)
    if where.startswith(("unix:", "/")):
        return _unix(spec, where.removeprefix("unix:"), fields)
    for option in ("mode", "owner"):
        if option in fields:
            raise ValueError(f"{option}= is for unix sockets, {where!r} is none")
    if "://" in where:
        raise ValueError(
            f"{where!r} is a URL; say {where.partition('://')[2].partition('/')[0] or 'HOST:PORT'}"
        )
    host, port = _host_and_port(where)
    kind = UDP if port.startswith("u") else TCP
    digits = port.removeprefix("u")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and int(digits) <= 65535):
        raise ValueError(
            f"{port!r} is no port (0 to 65535); say PORT, HOST:PORT, [V6]:PORT, uPORT or unix:/PATH"
        )
    if kind == UDP and fields.get("defer"):
        raise ValueError("defer is for TCP ports, this is a UDP port")
    is_v6 = ":" in host
    if fields.get("ipv6only") and not is_v6:
        raise ValueError(f"ipv6only is for IPv6 addresses, such as [::]:{port}")
    prefix = where[: len(where) - len(port)]
    return Address(
        spec=spec,
        kind=kind,
        text=prefix + digits,
        host="" if host == "*" else host,
        port=int(digits),
        v6=is_v6,
        **fields,
    )


def _host_and_port(where: str) -> tuple[str, str]:
    """The host, "" for none and without its brackets, and the port as it was given. Raises
    ValueError.
    """
    if ":" not in where:
        return "", where
    host, _, port = where.rpartition(":")
    bracket = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracket else host
    if ":" in host and not bracket:
        raise ValueError(f"an IPv6 address goes in brackets: [{host}]:{port}")
    if bracket and ":" not in host:
        raise ValueError(f"brackets are for IPv6 addresses; say {host}:{port}")
    if host.isascii() and host.isdigit():
        raise ValueError(
            f"{host!r} is no host; in a container sidecar listens on its inner port alone:"
            f" say {port} (which port of the machine leads there is for docker run -p,"
            " or ports: in compose.yml)"
        )
    return host, port


def _unix(spec: str, path: str, fields: dict[str, Any]) -> Address:
    if not path.startswith("/"):
        raise ValueError(f"a unix socket's path is absolute: unix:/{path}")
    length = len(path.encode("utf-8", "surrogateescape"))
    if length > MAX_UNIX_PATH_BYTES:
        raise ValueError(
            f"the path is {length} bytes long, a unix socket's may have {MAX_UNIX_PATH_BYTES}"
        )
    if ";" in path or "\0" in path:
        raise ValueError(
            "a unix socket's path cannot hold ';' or NUL: SERVER_STARTER_PORT could not carry it"
        )
    for option in ("defer", "ipv6only"):
        if fields.get(option):
            raise ValueError(f"{option} is for TCP ports, this is a unix socket")
    return Address(spec=spec, kind=UNIX, text=path, path=path, **fields)


def _fixed_fd(where: str) -> tuple[str, int | None]:
    where, equals, number = where.partition("=")
    if not equals:
        return where, None
    if not (number.isascii() and number.isdigit()):
        raise ValueError(
            f"{number!r} is no file descriptor; say {where}=FD, FD being 0, or 3 and up"
        )
    number = number.lstrip("0")[:9] or "0"
    if int(number) in (1, 2):
        raise ValueError(f"file descriptor {number} is the program's output; take 0, or 3 and up")
    if int(number) > 1023:
        raise ValueError(f"file descriptor {number} is too high; take 0, or 3 to 1023")
    return where, int(number)


def _options(texts: list[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if (key in ("defer", "nonblock", "ipv6only") and not equals) or text == "ipv6only=on":
            fields[key] = True
        elif key == "name" and value and not set(value) & set(":;= \n\t"):
            fields[key] = value
        elif (
            key == "backlog"
            and value.isascii()
            and value.isdigit()
            and 0 < int(value[:11]) < 1 << 31
        ):
            fields[key] = int(value)
        elif key == "mode" and _octal(value):
            fields[key] = int(value, 8)
        elif key == "owner" and value:
            fields[key] = value
        else:
            raise ValueError(
                f"{text!r} is no option of a listener; there are name=NAME, defer, nonblock,"
                " ipv6only, backlog=N, mode=0660 and owner=USER[:GROUP]"
            )
    return fields


def _octal(text: str) -> bool:
    return 3 <= len(text) <= 4 and not set(text) - set("01234567")


def clashes(addresses: tuple[Address, ...]) -> list[str]:
    """What is wrong with these addresses taken together: one named twice, one file descriptor or
    name asked for twice.

    Port 0 may be given any number of times: each gets a port of its own.
    """
    problems = []
    places: dict[tuple[object, ...], str] = {}
    fds: dict[int, str] = {}
    names: dict[str, str] = {}
    for address in addresses:
        host = "" if address.host == ANY_IPV4 else address.host
        place = (address.kind, host, address.port, address.path)
        if place in places and (address.port or address.path):
            problems.append(f"{address.spec!r} listens where {places[place]!r} does; give it once")
        places[place] = address.spec
        if address.fd is not None:
            if address.fd in fds:
                problems.append(
                    f"{address.spec!r} asks for file descriptor {address.fd},"
                    f" and so does {fds[address.fd]!r}"
                )
            fds[address.fd] = address.spec
        if address.name:
            if address.name in names:
                problems.append(
                    f"{address.spec!r} is named {address.name!r}, and so is {names[address.name]!r}"
                )
            names[address.name] = address.spec
    return problems
