"""Every row of the table of profiles by a real run: the program needs no option but --port, serves,
and drains in a swap.
"""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path

import pytest

from sidecar.settings import profiles
from sidecar.settings.protocols import Passed, handed
from tests.servers.test_queues import QUEUES
from tests.support import APPS, ROOT, Load, free_port, until

pytestmark = pytest.mark.servers

BIN = Path(sys.executable).parent
PROGRAMS = APPS / "programs"

NGINX = """
pid {directory}/nginx.pid; error_log stderr; worker_processes 1; daemon on;
events {{}}
http {{ access_log off; client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
  uwsgi_temp_path {directory}; scgi_temp_path {directory};
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 "nginx\\n"; }} }} }}
"""
HAPROXY = """
defaults
  mode http
  timeout client 5s
  timeout server 5s
  timeout connect 5s
frontend web
  bind fd@3
  http-request return status 200 content-type text/plain string "haproxy"
"""
PHP_FPM = """
[global]
error_log = /dev/stderr
[www]
listen = 127.0.0.1:{port}
user = nobody
group = nogroup
pm = static
pm.max_children = 1
"""

LIGHTTPD = """
server.document-root = "{directory}"
server.bind = "127.0.0.1"
server.port = {port}
server.systemd-socket-activation = "enable"
index-file.names = ("index.html")
"""
UWSGI_APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "6")])
    return [b"uwsgi\\n"]
"""
LITESTAR_APP = """
from litestar import Litestar, get

@get("/")
async def hello() -> str:
    return "litestar"

app = Litestar([hello])
"""

PHP = next(iter(sorted(str(path) for path in Path("/usr/sbin").glob("php-fpm*"))), "php-fpm")

COMMANDS = {
    "gunicorn": (BIN / "gunicorn", "--no-control-socket", "--chdir", ROOT, "examples.hello.app:app"),
    "uvicorn": (sys.executable, "-m", "uvicorn", "--log-level", "warning", "--app-dir", ROOT, "examples.asgi.app:app"),
    "hypercorn": (BIN / "hypercorn", "-w", "0", "examples.asgi.app:app"),
    "daphne": (BIN / "daphne", "-v", "0", "examples.asgi.app:app"),
    "litestar": (BIN / "litestar", "--app", "litestar_app:app", "run"),
    "uwsgi": ("uwsgi", "--plugin", "python3", "--wsgi-file", "{directory}/uwsgi_app.py", "-L"),
    "lighttpd": ("lighttpd", "-D", "-f", "{directory}/lighttpd.conf"),
    "nginx": ("nginx", "-p", "{directory}", "-c", "{directory}/nginx.conf"),
    "haproxy": ("haproxy", "-db", "-f", "{directory}/haproxy.conf"),
    "php-fpm": (PHP, "-F", "-R", "-y", "{directory}/php-fpm.conf"),
    "starman": ("starman", "--disable-keepalive", "--workers", "1", PROGRAMS / "app.psgi"),
    "twiggy": ("twiggy", PROGRAMS / "app.psgi"),
    "unicorn": ("unicorn", PROGRAMS / "config.ru"),
    "puma": ("puma", "-t", "1:4", PROGRAMS / "config.ru"),
}  # fmt: skip

LISTENERS = [
    Passed("8080", 3, "AF_INET", True),
    Passed("/run/s", 4, "AF_UNIX", True),
    Passed("53", 5, "AF_INET", False),
]

# Speaks FastCGI: that it is ready, is swapped and leaves is what is seen of it here.
NO_HTTP = {"php-fpm"}


# Programs without a port cannot be asked for an answer; test_queues.py runs them.
@pytest.mark.parametrize("name", [name for name in profiles.PROFILES if name not in QUEUES])
def test_a_known_program_needs_no_option(sidecar, name, tmp_path):
    """It is found by its name, gets what it needs, serves, and two swaps by the signal that drains
    it leave nobody behind.
    """
    port = free_port()
    for file, text in {
        "nginx.conf": NGINX,
        "haproxy.conf": HAPROXY,
        "php-fpm.conf": PHP_FPM,
        "lighttpd.conf": LIGHTTPD,
        "index.html": "lighttpd",
        "uwsgi_app.py": UWSGI_APP,
        "litestar_app.py": LITESTAR_APP,
    }.items():
        (tmp_path / file).write_text(text.format(port=port, directory=tmp_path))
    program = tuple(str(word).replace("{directory}", str(tmp_path)) for word in COMMANDS[name])
    if shutil.which(program[0]) is None:
        pytest.skip(f"{program[0]} is not installed")
    run = sidecar(
        "--port",
        f"127.0.0.1:{port}",
        program=program,
        port=False,
        env={"GUNICORN_CMD_ARGS": "", "PYTHONPATH": f"{ROOT}:{tmp_path}"},
    )
    said = run.wait("profile_applied")
    assert said["profile"] == name
    assert said["signal"] == profiles.PROFILES[name].signal
    assert run.wait("worker_ready")["by"] == "accept"
    if name in NO_HTTP:
        for number in (2, 3):
            run.swap(number)
    else:
        with Load(port, one_shot=1, kept=1) as load:
            for number in (2, 3):
                run.swap(number)
        assert not [
            failure for failure in load.failures if "Refused" in failure or "Timeout" in failure
        ]
        assert len(load.failures) * 10 < load.answered
    assert run.seen("worker_killed") == []
    assert {each["cause"] for each in run.seen("worker_died")} == set()
    assert run.stop() == 0


#: How those that reopen their logs on USR1 are told to write one to LOG, in {directory}.
LOGGING = {
    "gunicorn": ("--error-logfile", "{directory}/LOG"),
    "nginx": ("-g", "error_log {directory}/LOG;"),
    "php-fpm": (),
    "unicorn": ("-c", "{directory}/unicorn.rb"),
}


@pytest.mark.parametrize("name", [row.name for row in profiles.PROFILES.values() if row.reopens])
def test_usr1_has_a_program_reopen_its_logs(sidecar, name, tmp_path):
    """And nothing else comes of it."""
    port, log = free_port(), tmp_path / "LOG"
    for file, text in {
        "nginx.conf": NGINX.replace("error_log stderr;", ""),
        "php-fpm.conf": PHP_FPM.replace("/dev/stderr", "{directory}/LOG"),
        "unicorn.rb": 'stderr_path "{directory}/LOG"\n',
    }.items():
        (tmp_path / file).write_text(text.format(port=port, directory=tmp_path))
    words = (*COMMANDS[name], *LOGGING[name])
    program = tuple(str(word).replace("{directory}", str(tmp_path)) for word in words)
    if shutil.which(program[0]) is None:
        pytest.skip(f"{program[0]} is not installed")
    run = sidecar(
        "--port",
        f"127.0.0.1:{port}",
        program=program,
        port=False,
        env={"GUNICORN_CMD_ARGS": "", "PYTHONPATH": str(ROOT)},
    )
    run.wait("serving")
    until(log.exists, "a log")
    log.rename(tmp_path / "LOG.1")
    run.signal("USR1")
    until(log.exists, "another log")
    run.swap(2)
    assert run.stop() == 0
    assert run.seen("worker_died") == []


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("gunicorn", "app:app"), "gunicorn"),
        (("/usr/local/bin/uvicorn", "app:app"), "uvicorn"),
        (("python3.11", "-m", "uvicorn", "app:app"), "uvicorn"),
        (("python3", "-m", "http.server"), "none"),
        (("bundle", "exec", "puma"), "puma"),
        (("env", "RAILS_ENV=production", "unicorn_rails", "-c", "x"), "unicorn"),
        (("php-fpm8.2", "-F"), "php-fpm"),
        (("./gunicorn-of-mine",), "none"),
        (("env",), "none"),
        (("env", "-u", "HOME", "A=1", "gunicorn", "a:b"), "gunicorn"),
        (("uv", "run", "--with", "uvicorn", "gunicorn", "a:b"), "gunicorn"),
        (("uvx", "--from", "x", "uvicorn"), "uvicorn"),
        (("poetry", "run", "uvicorn", "a:b"), "uvicorn"),
        (("pipenv", "run", "python", "-m", "daphne"), "daphne"),
        (("poetry", "install"), "none"),
        (("timeout", "-k", "5", "100", "hypercorn"), "hypercorn"),
        (("tini", "-g", "--", "puma"), "puma"),
        (("dumb-init", "nice", "-n", "5", "stdbuf", "-oL", "unicorn"), "unicorn"),
        (("python", "-X", "utf8", "-u", "-m", "uvicorn", "a:b"), "uvicorn"),
        (("/venv/bin/python3.12", "-m", "gunicorn", "a:b"), "gunicorn"),
        (("python3", "/usr/local/bin/gunicorn", "a:b"), "gunicorn"),
        (("python3", "-c", "import gunicorn"), "none"),
        (("sh", "-c", "gunicorn a:b; :"), "gunicorn"),
        (
            ("/bin/bash", "-eo", "pipefail", "-c", 'cd "/a b" && exec gunicorn a:b | cat'),
            "gunicorn",
        ),
        (("sh", "-c", "echo 'gunicorn' > uvicorn; # nginx\n true"), "none"),
        (("sh", "-c", "nginx -t && A=1 exec nginx"), "nginx"),
        (("sh", "-c", 'exec "$@"', "sh", "uvicorn", "a:b"), "uvicorn"),
        (("sh", "./gunicorn.sh"), "none"),
        (("sh", "-c", ""), "none"),
        (("docker-entrypoint.sh", "gunicorn", "a:b"), "gunicorn"),
    ],
)
def test_a_program_is_found_by_its_name(words, name):
    row, _ = profiles.find(words)
    assert (row.name if row else "none") == name


@pytest.mark.parametrize(
    ("words", "started"),
    [
        (("uvicorn", "a:b"), ("uvicorn", "--fd", "3", "a:b")),
        (("uvicorn", "--fd=9", "a:b"), ("uvicorn", "--fd=9", "a:b")),
        (("uvicorn", "--uds", "/x", "a:b"), ("uvicorn", "--uds", "/x", "a:b")),
        (("puma",), ("puma", "-b", "tcp://0.0.0.0:8080", "-b", "unix:///run/s")),
        (("gunicorn", "a:b"), ("gunicorn", "a:b")),
        # Behind a parent that stays, LISTEN_PID is not gunicorn's.
        (
            ("uv", "run", "gunicorn", "a:b"),
            ("uv", "run", "gunicorn", "--bind", "fd://3", "--bind", "fd://4", "a:b"),
        ),
        (("env", "A=1", "gunicorn", "a:b"), ("env", "A=1", "gunicorn", "a:b")),
        (("timeout", "9", "uvicorn", "a:b"), ("timeout", "9", "uvicorn", "--fd", "3", "a:b")),
        (("sh", "-c", "cd /x && uvicorn a:b; :"), ("sh", "-c", "cd /x && uvicorn --fd 3 a:b; :")),
        (("sh", "-c", "uvicorn a:b --fd 9; :"), ("sh", "-c", "uvicorn a:b --fd 9; :")),
        (("sh", "-c", 'exec "$@"', "x", "uvicorn"), ("sh", "-c", 'exec "$@"', "x", "uvicorn", "--fd", "3")),
        (("litestar", "--app", "a", "run", "-d"), ("litestar", "--app", "a", "run", "--fd", "3", "-d")),
        (("litestar", "routes"), ("litestar", "routes")),
        (("uwsgi", "my.ini"), ("uwsgi", "--master", "--hook-master-start", "unix_signal:15 gracefully_kill_them_all", "my.ini")),
    ],
)  # fmt: skip
def test_what_a_profile_adds_stands_behind_the_programs_name(words, started):
    row, program = profiles.find(words)
    assert profiles.with_arguments(row, words, program, LISTENERS)[0] == started


def test_a_named_profile_is_for_a_program_that_does_not_show():
    row, program = profiles.find(("./serve",), "uvicorn")
    assert profiles.with_arguments(row, ("./serve", "x"), program, LISTENERS)[0] == (
        "./serve",
        "x",
        "--fd",
        "3",
    )
    assert profiles.with_arguments(row, ("./serve",), program, [])[0] == ("./serve",)


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("gunicorn", "app:app"), ()),
        (("gunicorn", "-b", "fd://3"), ("no-systemd",)),
        (("timeout", "9", "gunicorn", "app:app"), ("no-systemd",)),
        (("sh", "-c", "exec gunicorn app:app"), ()),
        (("sh", "-c", "gunicorn app:app"), ("no-systemd",)),
        (("tini", "--", "puma"), ("puma", "no-systemd")),
        (("timeout", "9", "lighttpd", "-D"), ("no-systemd",)),
        (("sh", "-c", "lighttpd -D"), ()),
    ],
)
def test_systemds_variables_are_left_out_where_they_would_name_another_process(words, asked):
    row, program = profiles.find(words)
    assert profiles.protocols(row, program) == asked


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gunicorn", "--pid", "x", "a:b"), "gunicorn --pid: two generations cannot share"),
        (("uv", "run", "gunicorn", "--daemon"), "gunicorn --daemon: it goes to the background"),
        (("uvicorn", "--reload", "a:b"), "uvicorn --reload: it starts its own workers anew"),
        (("lighttpd", "-f", "x"), "lighttpd without -D goes to the background"),
        (("timeout", "9", "lighttpd", "-D"), "timeout stays as the parent of lighttpd"),
    ],
)
def test_what_does_not_go_with_being_supervised_is_said(words, said):
    row, program = profiles.find(words)
    assert [each for each in profiles.remarks(row, program) if each.startswith(said)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gunicorn", "-b", "0.0.0.0:9000", "a:b"), "gunicorn -b 0.0.0.0:9000 counts for nothing"),
        (("uvicorn", "--port=9000", "a:b"), "leave --port out, or say --port 9000 to sidecar"),
        (("uvicorn", "--port", "8080", "a:b"), ""),
        (("uvicorn", "--port", "$PORT", "a:b"), ""),
        (("timeout", "9", "gunicorn", "-b", ":9000"), ""),  # there it does count, and is told about
        (("hypercorn", "-b", ":9000"), ""),
    ],
)
def test_an_address_of_the_programs_own_that_counts_for_nothing_is_said(words, said):
    row, program = profiles.find(words)
    remarks = profiles.overruled(row, program, [8080])
    assert (said in remarks[0]) if said else remarks == []


LAUNCHED = {
    "gunicorn": ("timeout", "600"),
    "uvicorn": ("env", "A=1", "nice", "-n", "1"),
    "hypercorn": ("stdbuf", "-oL", "timeout", "--foreground", "-k", "1", "600"),
    "unicorn": ("timeout", "600"),
    "puma": ("timeout", "600"),
    "nginx": ("sh", "-c", 'exec "$@"', "sh"),
}


@pytest.mark.parametrize("name", LAUNCHED)
def test_a_known_program_behind_a_launcher_needs_no_option(sidecar, name, tmp_path):
    """It serves on sidecar's socket, whatever its parent's pid is, and a swap leaves nobody."""
    port = free_port()
    (tmp_path / "nginx.conf").write_text(NGINX.format(port=port, directory=tmp_path))
    program = tuple(str(word).replace("{directory}", str(tmp_path)) for word in COMMANDS[name])
    if shutil.which(program[0]) is None:
        pytest.skip(f"{program[0]} is not installed")
    run = sidecar(
        "--port", f"127.0.0.1:{port}", program=(*LAUNCHED[name], *program), port=False,
        env={"GUNICORN_CMD_ARGS": "", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.wait("profile_applied")["profile"] == name
    assert run.wait("worker_ready")["by"] == "accept"
    run.port = port
    assert run.get()
    run.swap(2)
    assert run.get()
    assert run.stop() == 0


def test_gunicorn_in_a_shells_text_with_something_behind_it(sidecar):
    """The shell has to stay, so gunicorn is its child: what it is given names no process."""
    line = f"{BIN / 'gunicorn'} --chdir {ROOT} examples.hello.app:app; echo gone >/dev/null"
    run = sidecar("--drain-timeout", "5s", program=("sh", "-c", line))
    assert "--bind fd://" in run.wait("profile_applied")["arguments"]
    run.wait("serving")
    assert "generation 1" in run.get()
    run.stop()


def test_gunicorn_that_is_told_its_fd_works_too(sidecar):
    """It would take fd 3 twice if it saw LISTEN_FDS as well."""
    run = sidecar(
        program=(
            str(BIN / "gunicorn"),
            "--no-control-socket",
            "--chdir",
            str(ROOT),
            "-b",
            "fd://3",
            "examples.hello.app:app",
        )
    )
    run.wait("serving")
    assert "generation 1" in run.get()
    assert run.stop() == 0


def test_an_explicit_setting_wins_and_none_turns_it_off(sidecar):
    run = sidecar("--signal-on-hup", "INT", program=command("uvicorn"))
    assert run.wait("profile_applied")["signal"] == "INT"
    run.wait("serving")
    assert run.stop() == 0
    run = sidecar(
        "--profile",
        "none",
        "--start-timeout",
        "5s",
        "--max-failures",
        "1",
        program=(*command("uvicorn"), "--fd", "3"),
    )
    run.wait("serving")
    assert run.seen("profile_applied") == []
    assert run.stop() == 0


def command(name: str) -> tuple[str, ...]:
    return tuple(str(word) for word in COMMANDS[name])


def test_every_protocol_puts_its_variables_where_its_readers_look():
    """The forms are the readers' own: Unicorn, Puma 4, nginx, php-fpm and einhorn's workers."""
    listeners = [
        Passed("8080", 3, "AF_INET", True),
        Passed("[::1]:81", 4, "AF_INET6", True),
        Passed("/run/s", 5, "AF_UNIX", True),
        Passed("53", 6, "AF_INET", False),
    ]
    general = {"SERVER_STARTER_PORT": "8080=3", "LISTEN_FDS": "4", "LISTEN_FDNAMES": "a:b:c:d"}
    assert handed(general, (), listeners, 1) == general
    assert handed(general, ("no-systemd", "no-server-starter"), listeners, 1) == {}
    assert handed({}, ("unicorn",), listeners, 1) == {"UNICORN_FD": "3,4,5"}
    assert handed({}, ("nginx",), listeners, 1) == {"NGINX": "3;4;5;6;"}
    assert handed({}, ("php-fpm",), listeners, 1) == {"FPM_SOCKETS": "8080=3,[::1]:81=4,/run/s=5"}
    assert handed({}, ("puma",), listeners, 1) == {
        "PUMA_INHERIT_0": "3:tcp://0.0.0.0:8080",
        "PUMA_INHERIT_1": "4:tcp://[::1]:81",
        "PUMA_INHERIT_2": "5:unix:///run/s",
    }
    einhorn = handed({}, ("einhorn",), listeners, 7)
    assert einhorn["EINHORN_FD_COUNT"] == "4"
    assert einhorn["EINHORN_FD_1"] == "4"
    assert einhorn["EINHORN_FD_FAMILY_2"] == "AF_UNIX"
    assert einhorn["EINHORN_MASTER_PID"] == "7"
    assert hasattr(socket, einhorn["EINHORN_FD_FAMILY_1"])
