"""Every row of the table of profiles by a real run: the program needs no option but --port, serves,
and drains in a swap.
"""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path

import pytest

from sidecar import profiles
from sidecar.handoff import Passed, handed
from tests.support import APPS, ROOT, Load, free_port

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

PHP = next(iter(sorted(str(path) for path in Path("/usr/sbin").glob("php-fpm*"))), "php-fpm")

COMMANDS = {
    "gunicorn": (BIN / "gunicorn", "--no-control-socket", "--chdir", ROOT, "examples.hello.app:app"),
    "uvicorn": (sys.executable, "-m", "uvicorn", "--log-level", "warning", "--app-dir", ROOT, "examples.asgi.app:app"),
    "hypercorn": (BIN / "hypercorn", "-w", "0", "examples.asgi.app:app"),
    "nginx": ("nginx", "-p", "{directory}", "-c", "{directory}/nginx.conf"),
    "haproxy": ("haproxy", "-db", "-f", "{directory}/haproxy.conf"),
    "php-fpm": (PHP, "-F", "-R", "-y", "{directory}/php-fpm.conf"),
    "starman": ("starman", "--workers", "1", PROGRAMS / "app.psgi"),
    "twiggy": ("twiggy", PROGRAMS / "app.psgi"),
    "unicorn": ("unicorn", PROGRAMS / "config.ru"),
    "puma": ("puma", "-t", "1:4", PROGRAMS / "config.ru"),
}  # fmt: skip

# Speaks FastCGI: that it is ready, is swapped and leaves is what is seen of it here.
NO_HTTP = {"php-fpm"}


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_a_known_program_needs_no_option(sidecar, name, tmp_path):
    """It is found by its name, gets what it needs, serves, and two swaps by the signal that drains
    it leave nobody behind.
    """
    port = free_port()
    for file, text in {
        "nginx.conf": NGINX,
        "haproxy.conf": HAPROXY,
        "php-fpm.conf": PHP_FPM,
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
        env={"GUNICORN_CMD_ARGS": "", "PYTHONPATH": str(ROOT)},
    )
    said = run.wait("profile")
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
    assert run.seen("killing") == []
    assert {each["cause"] for each in run.seen("worker_died")} == set()
    assert run.stop() == 0


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
    ],
)
def test_a_program_is_found_by_its_name(words, name):
    row = profiles.find(words)
    assert (row.name if row else "none") == name


def test_arguments_of_ones_own_keep_the_profiles_away():
    listener = [
        Passed("8080", 3, "AF_INET", True),
        Passed("/run/s", 4, "AF_UNIX", True),
        Passed("53", 5, "AF_INET", False),
    ]
    row = profiles.PROFILES["uvicorn"]
    assert profiles.arguments(row, ("uvicorn", "a:b"), listener) == ("--fd", "3")
    assert profiles.arguments(row, ("uvicorn", "--fd=9", "a:b"), listener) == ()
    assert profiles.arguments(row, ("uvicorn", "--uds", "/x", "a:b"), listener) == ()
    assert profiles.arguments(profiles.PROFILES["puma"], ("puma",), listener) == (
        "-b",
        "tcp://0.0.0.0:8080",
        "-b",
        "unix:///run/s",
    )
    assert profiles.arguments(row, ("uvicorn", "a:b"), []) == ()
    assert profiles.protocols(profiles.PROFILES["gunicorn"], ("gunicorn", "-b", "fd://3")) == (
        "no-systemd",
    )
    assert profiles.protocols(profiles.PROFILES["gunicorn"], ("gunicorn", "app:app")) == ()


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
    assert run.wait("profile")["signal"] == "INT"
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
    assert run.seen("profile") == []
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
