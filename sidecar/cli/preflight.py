"""Whether the settings fit this machine: its users and groups, its directories, its programs.

`sidecar run` and `sidecar dev` look before anything is bound or started, `sidecar check` looks the
same way: everything that does not fit is named at once, each with where it was said. Nothing is
made, opened for writing or locked here, so what only an attempt can show (an address in use, a pid
file that is held) is refused by the start itself. What is not certain from here is let pass: a
start that was refused wrongly would be worse than a generation that fails.
"""

from __future__ import annotations

import os
import stat

from sidecar.base.errors import EnvdirError, MachineError, SettingsError, StartError
from sidecar.settings.resolve import redact
from sidecar.settings.table import FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.settings.resolve import Resolution
    from sidecar.settings.table import Settings

# The exit statuses of a shell and of Docker where the program is not found, or may not be run.
NOT_FOUND, NOT_RUNNABLE = 127, 126


def checked(resolution: Resolution, environ: Mapping[str, str]) -> Settings:
    """The settings, if they are right and fit this machine. Raises SettingsError or MachineError
    with every problem.
    """
    found = problems(resolution, environ)
    if resolution.problems:
        raise SettingsError((*resolution.problems, *found))
    if not found:
        return resolution.settings
    program = program_problem(resolution, environ)
    raise MachineError(found, 1 if program is None or len(found) > 1 else program[1])


def problems(resolution: Resolution, environ: Mapping[str, str]) -> list[str]:
    """What does not fit this machine, each with where it was said.

    With a wrong option among the words it is not certain which of them is the program, and where
    no number of failures ends sidecar, the program may also come later: neither is refused.
    """
    settings = resolution.settings
    found = [*_credentials(resolution)]
    looks: list[tuple[str, Callable[[str], str]]] = [
        ("dir", _missing_directory if _another_user(settings) else _no_directory),
        ("log_file", _no_log),
        ("pid_file", _no_file),
        ("status_file", _not_replaceable),
        ("control", _no_socket),
    ]
    for name, look in looks:
        value = getattr(settings, name)
        if value and (why := look(value)):
            found.append(f"{resolution.origins[name]} {value}: {why}")
    found += _envdirs(resolution)
    if not resolution.problems and settings.max_failures:
        program = program_problem(resolution, environ)
        found += [program[0]] if program is not None else []
    return [redact(each, resolution.redactions) for each in found]


def with_origin(problem: str, resolution: Resolution) -> str:
    """A problem that begins with a flag, with the flag's origin in its stead: a variable, or a
    line of sidecar.yml.
    """
    flag = problem.partition(" ")[0].removesuffix(":")
    name = FLAGS[flag].name if flag in FLAGS else ""
    origins = resolution.text_origins.get(name, ())
    if not origins:
        return problem
    rest = problem.removeprefix(flag)
    origin = origins[0]
    if name == "port":
        for address, each in zip(resolution.settings.port, origins, strict=False):
            if rest.startswith(f" {address.spec}: "):
                origin = each
    return origin + rest


def _another_user(settings: Settings) -> bool:
    """Whether workers run as another user, who may see what this process does not."""
    return bool(settings.user or settings.group)


def _credentials(resolution: Resolution) -> list[str]:
    user, group = resolution.settings.user, resolution.settings.group
    if not user and not group:
        return []
    from sidecar.system import users  # noqa: PLC0415  (only who asks for another user)

    def why(user: str, group: str) -> str:
        try:
            users.credentials(user, group)
        except StartError as error:
            return str(error)
        return ""

    found = [why(user, group)]
    alone = why("", group) if group else ""
    if alone.startswith("--group") and alone not in found:
        found.append(alone)
    return [
        # Of USER:GROUP.
        f"{resolution.origins['user']} {user}: {each}"
        if each.startswith("--group ") and not group
        else with_origin(each, resolution)
        for each in found
        if each
    ]


def _missing_directory(path: str) -> str:
    """Why no process can have this as its directory, as far as this one sees; "" if one may."""
    try:
        return "" if stat.S_ISDIR(os.stat(path).st_mode) else "it is not a directory"
    except PermissionError:
        return ""
    except FileNotFoundError:
        return "there is no such directory"
    except OSError as error:
        return (error.strerror or str(error)).lower()


def _no_directory(path: str) -> str:
    """Why processes of this user cannot have this as their directory; "" if they can."""
    if problem := _missing_directory(path):
        return problem
    return "" if os.access(path, os.X_OK) else f"uid {os.geteuid()} may not enter it"


def _nothing_made_in(directory: str) -> str:
    """Why no file can be made in a directory, "" if one can."""
    if why := _missing_directory(directory):
        return f"the directory {directory}: {why}"
    if os.access(directory, os.W_OK | os.X_OK):
        return ""
    try:
        if os.statvfs(directory).f_flag & os.ST_RDONLY:
            return (
                f"the directory {directory} is on a read-only file system;"
                " mount a writable one there, such as a tmpfs"
            )
    except OSError:
        pass
    return f"uid {os.geteuid()} may not write to the directory {directory}"


def _no_file(path: str, special: bool = False) -> str:
    """Why a file cannot be written to at `path`, made if it is missing; "" if it can. `special`: a
    device or pipe will do.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        # A link to a file that is still to be made is followed.
        return _nothing_made_in(os.path.dirname(os.path.realpath(path)))
    if stat.S_ISDIR(mode) or not (special or stat.S_ISREG(mode)):
        return "it is a directory" if stat.S_ISDIR(mode) else "it is not a regular file"
    return "" if os.access(path, os.W_OK) else f"uid {os.geteuid()} may not write to it"


def _no_log(target: str) -> str:
    # `| COMMAND`
    return "" if target.lstrip().startswith("|") else _no_file(target, special=True)


def _not_replaceable(path: str) -> str:
    """Why a file cannot be put in the place of what is at `path`."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return "it is not a regular file"
    except OSError:
        pass
    return _nothing_made_in(os.path.dirname(path) or ".")


def _no_socket(path: str) -> str:
    return "" if path == "none" else _nothing_made_in(os.path.dirname(path) or ".")


def _envdirs(resolution: Resolution) -> list[str]:
    settings = resolution.settings
    if not settings.envdir:
        return []
    from sidecar.system import envdir  # noqa: PLC0415  (only who has one)

    found = []
    for origin, each in zip(resolution.text_origins["envdir"], settings.envdir, strict=True):
        try:
            envdir.read([each], settings.envdir_format == "whole")
        except EnvdirError as error:
            found.append(f"{origin} {each}: {error}")
    return found


def program_problem(resolution: Resolution, environ: Mapping[str, str]) -> tuple[str, int] | None:
    """Why the program cannot be run, and the exit status that says so; None if it can, or if that
    is not certain from here.
    """
    settings = resolution.settings
    candidates = _candidates(settings, environ)
    if candidates is None:
        return None
    program = settings.command[0]
    seen = False
    for path in candidates:
        try:
            mode = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return None
        if stat.S_ISREG(mode) and (_another_user(settings) or os.access(path, os.X_OK)):
            return None
        seen = True
    where = f"{resolution.origins['command']}: {program}:"
    if seen:
        return f"{where} it is no file that may be executed (chmod +x)", NOT_RUNNABLE
    missing = "there is no such program" if "/" in program else "not found in any directory of PATH"
    return f"{where} {missing}", NOT_FOUND


def _candidates(settings: Settings, environ: Mapping[str, str]) -> list[str] | None:
    """The files that the program may be, None if that is not certain from here or there is none."""
    if not settings.command or not settings.command[0]:
        return None
    program = settings.command[0]
    if "/" in program:
        if settings.dir and not os.path.isabs(program) and _missing_directory(settings.dir):
            return None
        return [os.path.join(settings.dir, program)]
    try:
        path = _path(settings, environ)
    except EnvdirError:
        return None
    return [os.path.join(settings.dir, each, program) for each in path.split(os.pathsep)]


def _path(settings: Settings, environ: Mapping[str, str]) -> str:
    """Where the workers' programs are looked for. Raises EnvdirError."""
    if settings.envdir:
        from sidecar.system import envdir  # noqa: PLC0415

        whole = settings.envdir_format == "whole"
        environ = envdir.apply(environ, envdir.read(settings.envdir, whole))
    return environ.get("PATH", os.defpath)
