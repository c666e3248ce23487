"""The kinds of values that a setting has: a text becomes a value, or a ValueError says what would
be right.
"""

from __future__ import annotations

from sidecar.settings import address, launchers

# Linux's signals by name (signal(7)), less KILL and STOP, which no program can answer.
SIGNALS = (
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
)  # fmt: skip

MAX_DURATION_S = 36500 * 86400.0

# It has to fit into what systems count in.
MAX_SIZE_BYTES = 1 << 62

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}


def duration(text: str) -> float:
    """Seconds, from `500ms`, `30s`, `5m`, `2h`, `1d` or a bare number of seconds."""
    digits = text.rstrip("hmsd")
    unit = _UNITS.get(text[len(digits) :])
    if (
        unit is None
        or not digits
        or set(digits) - set("0123456789.")
        or digits.count(".") > 1
        or digits == "."
    ):
        raise ValueError(f"{text!r} is no duration; say 500ms, 30s, 5m, 2h or a number of seconds")
    if float(digits) * unit > MAX_DURATION_S:
        raise ValueError(f"{text[:20]!r} is too long; say {MAX_DURATION_S / 86400:.0f}d at most")
    return float(digits) * unit


class count:  # noqa: N801  (a kind, as the functions around it are)
    """A whole number, `minimum` or more."""

    def __init__(self, minimum: int) -> None:
        self.minimum = minimum

    def __call__(self, text: str) -> int:
        """The number."""
        if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) < self.minimum:
            raise ValueError(f"{text!r} is not a whole number of {self.minimum} or more")
        return int(text)


class one_of:  # noqa: N801
    """One of the allowed words."""

    def __init__(self, *allowed: str) -> None:
        self.allowed = allowed

    def __call__(self, text: str) -> str:
        """The word."""
        if text not in self.allowed:
            raise ValueError(f"{text!r} is none of {', '.join(self.allowed)}")
        return text


def switch(text: str) -> bool:
    """On or off."""
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off", ""):
        return False
    raise ValueError(f"{text!r} is neither yes nor no")


def signal_name(text: str) -> str:
    """A signal's name as Linux spells it, without SIG; case does not matter."""
    name = text.upper().removeprefix("SIG")
    if name not in SIGNALS:
        raise ValueError(
            f"{text!r} is no signal a program can answer;"
            " say TERM, QUIT, INT, HUP, USR1, USR2, WINCH …"
        )
    return name


def admin_address(text: str) -> address.Address:
    """An address for sidecar itself, without the options that are about workers."""
    found = address.parse(text)
    if not found.stream:
        raise ValueError("it is a UDP port; say HOST:PORT or unix:/PATH")
    if found.fd is not None or found.name or found.defer or found.nonblock:
        raise ValueError(
            "=FD, name=, defer and nonblock are for what workers get; say HOST:PORT or unix:/PATH"
        )
    return found


def octal(text: str) -> int:
    """A file mode or mask, written in octal."""
    if not text or len(text) > 4 or set(text) - set("01234567"):
        raise ValueError(f"{text!r} is no octal mask; say 022 or 0077")
    return int(text, 8)


def size(text: str) -> int:
    """Bytes, from `512M`, `1.5G`, `800K` or a bare number of bytes; Kubernetes' `512Mi` is the
    same.
    """
    digits = text.upper().removesuffix("B").removesuffix("I").rstrip("KMGT")
    power = " KMGT".find(text[len(digits) : len(digits) + 1].upper() or " ")
    rest = text[len(digits) :].upper().removesuffix("B").removesuffix("I")
    if (
        not digits
        or set(digits) - set("0123456789.")
        or digits.count(".") > 1
        or digits == "."
        or len(rest) > 1
        or power < 0
    ):
        raise ValueError(f"{text!r} is no size; say 512M, 1.5G, 800K or a number of bytes")
    if float(digits) * 1024**power >= MAX_SIZE_BYTES:
        raise ValueError(f"{text[:20]!r} is more than any machine has; say 512M, 1.5G or 800K")
    return int(float(digits) * 1024**power)


def command_words(text: str) -> tuple[str, ...]:
    """A command, split into words as a shell would; no shell runs it."""
    import shlex  # noqa: PLC0415  (only who sets a command pays for it)

    if meant := launchers.shell_syntax(text):
        raise ValueError(
            f"{meant} is for a shell, and no shell runs this command; say sh -c {shlex.quote(text)}"
        )
    try:
        parts = tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"{text!r} cannot be split into words: {error}") from None
    if not parts:
        raise ValueError("the command is empty")
    return parts


def host_name(text: str) -> str:
    """A name as browsers say it, .SUFFIX for all below it, or * for any."""
    labels = text.removeprefix(".").replace("-", "x").replace("_", "x").split(".")
    if text != "*" and not (text.isascii() and all(each.isalnum() for each in labels)):
        raise ValueError(f"{text!r} is no host name; say NAME without a port, .SUFFIX, or *")
    return text


def non_empty(text: str) -> str:
    """Any text that is not empty."""
    if not text:
        raise ValueError("it is empty")
    return text


def envdir(text: str) -> str:
    """A directory of variables, `DIR[,upper][,prefix=NAME]`. The value is the text itself, which
    `envdir_parts` takes apart.
    """
    envdir_parts(text)
    return text


def envdir_parts(text: str) -> tuple[str, bool, str]:
    """The directory, whether names become upper-case, and the prefix of the names. Raises
    ValueError.
    """
    directory, *options = text.split(",")
    upper, prefix = False, ""
    for option in options:
        name, _, value = option.partition("=")
        if name == "prefix" and value and "\0" not in value and "=" not in value:
            prefix = value
        elif option == "upper":
            upper = True
        else:
            raise ValueError(f"{option!r} is no option of an envdir; say upper, or prefix=NAME")
    return non_empty(directory), upper, prefix
