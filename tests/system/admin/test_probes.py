"""The probes: they follow a life, and are answered whatever else goes on."""

from __future__ import annotations

import os
import signal

from tests.support import Load, alive, until
from tests.system.admin.asking import PATHS, sample


def test_every_path_answers_and_says_what_may_be_done_with_it(start):
    """Types, lengths, HEAD; nothing may be framed, sniffed, cached or read from elsewhere; what is
    no path or no GET is refused.
    """
    run, admin = start()
    run.wait("serving")
    for path in PATHS:
        if path == "/events":
            status, headers, body = admin.get(path, "HEAD")
        else:
            status, headers, body = admin.get(path)
            head = admin.get(path, "HEAD")
            assert (head[0], head[2]) == (200, "")
            assert head[1].keys() == headers.keys()
            assert int(headers["content-length"]) == len(body.encode())
        assert status == 200, path
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert not [name for name in headers if name.startswith("access-control")]
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
            refused = admin.get(path, method)
            assert (refused[0], refused[1]["allow"]) == (405, "GET, HEAD")
    assert admin.get("/nothing")[0] == 404
    assert admin.get("/../../etc/passwd")[0] == 404
    assert admin.get("/readyz?verbose=1")[0] == 200
    run.stop()


def test_the_probes_follow_a_life_from_start_to_stop(start, tmp_path):
    """Starting: alive, not ready. Ready. A failed swap changes nothing. Lame duck: serving on, not
    ready. Stopping: answered to the end.
    """
    (tmp_path / "env").mkdir()
    run, admin = start(
        "--envdir",
        str(tmp_path / "env"),
        "--ready",
        "command",
        "--ready-command",
        f"test -e {tmp_path}/go",
        "--lame-duck",
        "60s",
    )
    run.wait("worker_started")
    assert admin.json("/livez") == (200, {"live": True, "reasons": []})
    assert admin.json("/readyz") == (
        503,
        {"ready": False, "reasons": ["starting: no worker has been ready yet"]},
    )
    assert admin.json("/status")[1]["state"] == "starting"
    (tmp_path / "go").write_text("")
    run.wait("serving")
    assert admin.json("/readyz") == (200, {"ready": True, "reasons": []})
    (tmp_path / "env" / "DIE").write_text("3")
    (tmp_path / "go").unlink()
    run.signal("HUP")
    run.wait("swap_failed")
    assert admin.json("/readyz")[0] == 200
    told = admin.json("/status")[1]
    assert told["last_failure"]["cause"] == "exited with status 3 before it was ready"
    assert told["generation"] == 1
    run.signal("TERM")
    run.wait("stopping")
    assert admin.json("/readyz") == (503, {"ready": False, "reasons": ["stopping: lame duck"]})
    assert admin.json("/livez")[0] == 200
    assert run.get().startswith("hello 1")
    # Even now it comes back.
    before = admin.pid()
    os.kill(before, signal.SIGKILL)
    run.wait("helper_exited")
    assert admin.json("/readyz")[0] == 503
    helper = admin.pid()
    assert run.stop() == 0
    until(lambda: not alive(helper), "the helper's end")


def test_while_workers_drain_it_is_not_ready_but_alive(start):
    """The second half of a stop: nobody takes new connections, the workers have not left."""
    run, admin = start("--drain-timeout", "60s", env={"DEAF": "1"})
    run.wait("serving")
    run.signal("TERM")
    run.wait("stopping")
    status, told = admin.json("/readyz")
    assert (status, told["reasons"]) == (503, ["stopping", "no worker is ready"])
    assert admin.json("/livez")[0] == 200
    assert sample(admin.metrics(), "sidecar_workers", state="draining") == 1
    assert run.stop("INT") == 0


def test_a_helper_killed_again_and_again_costs_no_probe_and_no_request(start):
    """What connects while there is none waits for the next; the counts are PID 1's, so they are the
    same.
    """
    run, admin = start()
    run.wait("serving")
    admin.json("/status")
    before = admin.metrics()
    with Load(run.port) as load:
        for count in range(1, 5):
            os.kill(admin.pid(), signal.SIGKILL if count % 2 else signal.SIGSTOP)
            answers = [admin.json(path)[0] for path in ("/livez", "/readyz", "/livez")]
            assert answers == [200, 200, 200]
            run.wait("helper_exited", count=count, helper="the admin")
    assert load.failures == []
    after = admin.metrics()
    assert sample(after, "sidecar_helper_restarts_total", helper="admin") == 4
    same = {
        key: value
        for key, value in before.items()
        if key[0].startswith(("sidecar_swap", "sidecar_last", "sidecar_worker_starts"))
    }
    assert same == {key: after[key] for key in same}
    assert run.stop() == 0


def test_livez_says_so_when_pid_1_does_not_answer(start):
    run, admin = start()
    run.wait("serving")
    assert admin.json("/livez")[0] == 200
    os.kill(run.pid, signal.SIGSTOP)
    try:
        status, told = admin.json("/livez")
        assert (status, told["live"]) == (503, False)
        assert (
            admin.json("/readyz")[0] == admin.json("/status")[0] == admin.get("/metrics")[0] == 503
        )
        assert admin.get("/")[0] == 200
    finally:
        os.kill(run.pid, signal.SIGCONT)
    assert admin.json("/livez")[0] == 200
    run.stop()
