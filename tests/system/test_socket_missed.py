"""A program that does not take its socket: within seconds one line says what it does instead, and
what to do.
"""

from __future__ import annotations

import sys

import pytest

from tests.support import SERVER, free_port

# Takes fd 3 as it should, and a second port by itself, as a debugger or an exporter of metrics does.
TWO_PORTS = """
import http.server, os, socket, sys
own = socket.socket()
own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
own.bind(("127.0.0.1", int(sys.argv[1])))
own.listen()
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler, False)
server.socket = socket.socket(fileno=3)
server.serve_forever()
"""
# Listens by itself only once it has been told to: on its standard input, which is a file.
IGNORES = "import http.server, sys; http.server.test(port=int(sys.argv[1]), bind='127.0.0.1')"


@pytest.mark.parametrize(
    "launcher", [(), ("timeout", "600"), ("sh", "-c", '"$@"; :', "sh")], ids=lambda words: " ".join(words[:1])
)  # fmt: skip
def test_a_program_that_listens_elsewhere_is_told_about_while_it_is_waited_for(sidecar, launcher):
    port = free_port()
    run = sidecar(program=(*launcher, sys.executable, "-c", IGNORES, str(port)))
    said = run.wait("socket_unused")
    assert (said["generation"], said["slot"]) == (1, 0)
    assert f"listens on 127.0.0.1:{port} by itself" in said["what"]
    assert f"does not accept on 127.0.0.1:{run.port}" in said["what"]
    assert "take fd 3" in said["advice"]
    assert run.seen("worker_overdue") == []
    run.stop()
    assert len(run.seen("socket_unused")) == 1


def test_a_programs_own_option_that_keeps_its_profile_away_is_named(sidecar):
    """gunicorn behind a parent that stays gets its socket by --bind, unless it has one of its own."""
    pytest.importorskip("gunicorn")
    port = free_port()
    words = ("timeout", "600", sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}")
    run = sidecar(program=(*words, "examples.hello.app:app"))
    assert "leave --bind out" in run.wait("socket_unused")["advice"]
    run.stop()


def test_a_program_without_any_listener_of_sidecars_is_told_about(sidecar):
    port = free_port()
    run = sidecar(program=(sys.executable, "-c", IGNORES, str(port)), port=False)
    said = run.wait("socket_unused")
    assert "there is no --port" in said["what"]
    assert f"say --port {port}" in said["advice"]
    assert run.stop() == 0


def test_with_overlap_never_a_program_may_listen_by_itself(sidecar):
    port = free_port()
    run = sidecar(
        "--overlap", "never", program=(sys.executable, "-c", IGNORES, str(port)), port=False
    )
    run.wait("serving")
    run.swap(2)
    run.swap(3)
    assert run.stop() == 0
    assert run.seen("socket_unused") == []


@pytest.mark.parametrize("by", ["command line", "variable PORT"])
def test_a_program_that_binds_sidecars_own_port_is_told_what_that_ends_in(sidecar, by):
    port = free_port()
    code = IGNORES if by == "command line" else IGNORES.replace("sys.argv[1]", "__import__('os').environ['PORT']")  # fmt: skip
    program = (sys.executable, "-c", code, *([str(port)] if by == "command line" else []))
    run = sidecar(
        "--port", f"127.0.0.1:{port}", "--max-failures", "3", program=program, port=False,
        env={"PORT": str(port)} if by != "command line" else None,
    )  # fmt: skip
    assert run.exit() == 1
    (said,) = run.seen("socket_unused")  # three times would be no news
    assert f"its {by} names port {port}" in said["what"]
    assert "address already in use" in said["what"]
    assert "take fd 3" in said["advice"]


def test_a_second_port_that_the_old_generation_holds_is_named(sidecar):
    port = free_port()
    run = sidecar(program=(sys.executable, "-c", TWO_PORTS, str(port)))
    run.wait("serving")
    run.signal("HUP")
    said = run.wait("socket_unused")
    assert f"listens on 127.0.0.1:{port} by itself" in said["what"]
    assert "--overlap never" in said["advice"]
    run.stop()


def test_a_program_of_which_nothing_is_known_gets_the_guess_once(sidecar):
    run = sidecar("--max-failures", "2", program=("sh", "-c", "exit 1"))
    assert run.exit() == 1
    (said,) = run.seen("socket_unused")
    assert 'If it said "address already in use"' in said["what"]


def test_nothing_is_said_of_a_program_that_takes_its_socket(sidecar, tmp_path):
    """Nor of one that fails by a signal, cannot be run, or is only slow."""
    run = sidecar(program=SERVER, env={"BOOT": "3"})
    run.wait("serving")
    run.swap(2)
    assert run.stop() == 0
    assert run.seen("socket_unused") == []
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    run = sidecar("--max-failures", "1", program=(f"{tmp_path}/script", "8080"))
    assert run.exit() == 127
    assert run.seen("socket_unused") == []
