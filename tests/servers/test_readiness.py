"""Readiness of real servers: not ready while their application boots, ready when they take
connections, by a look alone.
"""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sidecar.system.accept_probe import accepts_connections
from tests.support import open_to_others

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]
APPS = ROOT / "tests" / "apps"
NOBODY = 65534
UNPRIVILEGED = [
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--bounding-set=-all",
    "--inh-caps=-all",
]
ROOT_IN_DOCKER = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]
NGINX = "/usr/sbin/nginx"

RIGHTS = int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16)
CHOWN, SETGID, SETUID = 1 << 0, 1 << 6, 1 << 7  # capabilities(7)

as_root = pytest.mark.skipif(
    ~RIGHTS & (CHOWN | SETGID | SETUID) != 0, reason="needs the rights to become other users"
)


def python(module, *arguments):
    def command(fd, folder):
        pytest.importorskip(module)
        return [
            sys.executable,
            "-m",
            module,
            *(argument.replace("FD", str(fd)) for argument in arguments),
        ]

    return command


def ourselves(way, module="os"):
    def command(fd, folder):
        pytest.importorskip(module)
        return [sys.executable, str(APPS / "ready_app.py"), way, str(fd)]

    return command


def node(fd, folder):
    program = """
        const fs = require("fs"), gate = process.env.READY_GATE
        fs.closeSync(fs.openSync(gate + ".reached", "w"))
        fs.closeSync(fs.openSync(gate, "r"))
        require("http").createServer((_, response) => response.end("hello")).listen({fd: Number(process.argv[1])})
    """
    return [needed("node"), "-e", program, str(fd)]


def nginx(fd, folder, user=""):
    port = socket.socket(fileno=os.dup(fd)).getsockname()[1]
    places = "".join(
        f"{name}_temp_path {folder}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    Path(folder, "nginx.conf").write_text(f"""
        daemon off; pid {folder}/nginx.pid; error_log stderr; worker_processes 2; {user}
        events {{ }}
        http {{ access_log off; {places} server {{ listen 127.0.0.1:{port}; location / {{ return 200 hello; }} }} }}
    """)
    serve = (
        f'export NGINX="{fd};"; exec {needed(NGINX)} -p {folder} -e stderr -c {folder}/nginx.conf'
    )
    return [
        "sh",
        "-c",
        f': >"$READY_GATE.reached"; : <"$READY_GATE"; {serve}',
    ]  # nginx has no application to wait for


def needed(program):
    return shutil.which(program) or pytest.skip(f"{program} is not installed")


GUNICORN = ("-b", "fd://FD", "--no-control-socket")
SERVERS = {
    "gunicorn-sync": python("gunicorn", *GUNICORN, "-w", "2", "ready_app:wsgi"),
    "gunicorn-gthread": python(
        "gunicorn", *GUNICORN, "-k", "gthread", "--threads", "2", "ready_app:wsgi"
    ),
    "uvicorn": python("uvicorn", "--fd", "FD", "ready_app:asgi"),
    "uvicorn-workers": python("uvicorn", "--fd", "FD", "--workers", "2", "ready_app:asgi"),
    "hypercorn": python("hypercorn", "--bind", "fd://FD", "ready_app:asgi"),
    "granian": ourselves("granian", "granian"),
    "waitress": ourselves("waitress", "waitress"),
    "nginx": nginx,
    "node": node,
    "accept": ourselves("accept"),
}


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def folder():
    """A place that other users can use as well."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        os.mkfifo(f"{name}/gate")
        os.chmod(f"{name}/gate", 0o666)
        yield name


@contextmanager
def looking_at(command, listener, folder, rights=None, user=None):
    """Start a server; yields a function that looks at it once: True, False, or why that is
    forbidden.
    """
    fd = listener.fileno()
    inode = os.fstat(fd).st_ino
    environ = {
        **os.environ,
        "READY_GATE": f"{folder}/gate",
        "PYTHONPATH": f"{APPS}{os.pathsep}{ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": folder,
    }
    if rights is None:
        program = subprocess.Popen(command, env=environ, cwd=folder, pass_fds=[fd], process_group=0)

        def look():
            assert program.poll() is None, "the server has gone"
            return accepts_connections(program.pid, {inode})

        try:
            yield look
        finally:
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.wait()
        return
    options = [str(inode), *(["--user", str(user)] if user else [])]
    looker = [
        needed(rights[0]),
        *rights[1:],
        sys.executable,
        str(APPS / "ready_looker.py"),
        *options,
        "--",
        *command,
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        looker, env=environ, cwd=folder, pass_fds=[fd], stdin=pipe, stdout=pipe, text=True
    ) as program:
        if not program.stdout.readline():
            pytest.skip("a looker with these rights cannot run here")

        def look():
            program.stdin.write("look\n")
            program.stdin.flush()
            answer = program.stdout.readline().strip()
            return {"True": True, "False": False}.get(answer, answer)

        yield look
        program.stdin.close()  # the looker then kills the server


def eventually(question, seconds=60):
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)
    return answer


@contextmanager
def gate_open(folder):
    """Let every process pass that waits, or will, at the gate."""
    fd = os.open(f"{folder}/gate", os.O_RDWR)
    yield
    os.close(fd)


def fetch(listener):
    connection = http.client.HTTPConnection(*listener.getsockname(), timeout=30)
    connection.request("GET", "/")
    answer = connection.getresponse().read()
    connection.close()
    return answer


def boots_then_serves(look, listener, folder, refusals=False):
    """The whole story: not ready while it boots, ready after (never, or at last not, refused), and
    a request is answered.
    """

    def at_the_gate():
        assert look() is False
        return os.path.exists(f"{folder}/gate.reached")

    eventually(at_the_gate)
    assert look() is False
    with gate_open(folder):

        def ready():
            answer = look()
            assert refusals or answer in {True, False}
            return answer is True

        eventually(ready)
        assert fetch(listener) == b"hello"


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_is_ready_when_it_takes_connections_and_not_before(server, listener, folder):
    with looking_at(SERVERS[server](listener.fileno(), folder), listener, folder) as look:
        boots_then_serves(look, listener, folder)


@as_root
@pytest.mark.parametrize("server", SERVERS)
def test_it_is_seen_without_any_privilege(server, listener, folder):
    with looking_at(
        SERVERS[server](listener.fileno(), folder), listener, folder, UNPRIVILEGED
    ) as look:
        boots_then_serves(look, listener, folder)


@as_root
@pytest.mark.parametrize("server", SERVERS)
def test_it_is_seen_by_root_without_ptrace_rights_when_it_runs_as_another_user(
    server, listener, folder
):
    with looking_at(
        SERVERS[server](listener.fileno(), folder), listener, folder, ROOT_IN_DOCKER, user=NOBODY
    ) as look:
        boots_then_serves(look, listener, folder)


@as_root
def test_nginx_is_seen_by_root_without_ptrace_rights_though_its_workers_change_their_user(
    listener, folder
):
    command = nginx(listener.fileno(), folder, user="user nobody nogroup;")
    with looking_at(command, listener, folder, ROOT_IN_DOCKER) as look:
        boots_then_serves(look, listener, folder, refusals=True)  # between its setuid and its prctl


@as_root
@open_to_others
def test_gunicorn_that_changes_its_user_itself_is_refused_to_root_without_ptrace_rights_and_not_just_unready(
    listener, folder
):
    """A process that changes its uid without execve is hidden from that uid too; nginx makes itself
    visible again.
    """
    command = python(
        "gunicorn", *GUNICORN, "--user", str(NOBODY), "--group", str(NOBODY), "ready_app:wsgi"
    )
    with (
        looking_at(command(listener.fileno(), folder), listener, folder, ROOT_IN_DOCKER) as look,
        gate_open(folder),
    ):
        assert "uid 0 may not read" in eventually(look)
        assert fetch(listener) == b"hello"
        assert "uid 0 may not read" in look()
