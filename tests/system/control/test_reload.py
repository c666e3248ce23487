"""`sidecar reload`: what happens is told, and whoever waits hears of the end."""

from __future__ import annotations

import json

from tests.support import Load
from tests.system.control.asking import ask


def test_a_reload_that_is_waited_for_tells_what_happens_and_loses_no_request(run):
    with Load(run.port) as load:
        for number in range(2, 7):
            done = ask(run, "reload", "--wait")
            assert (done.returncode, done.stderr) == (0, "")
            lines = done.stdout.splitlines()
            assert f"generation {number} begins (trigger: command)" in lines[0]
            assert f"generation {number} serves" in lines[-1]
    assert load.failures == []
    assert run.wait("swap_started", generation=2)["trigger"] == "command"


def test_a_reload_that_is_not_waited_for_ends_at_once(run):
    done = ask(run, "reload")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    run.wait("serving", generation=2)


def test_a_reload_whose_generation_never_gets_ready_is_not_waited_for_longer_than_asked(
    start, tmp_path
):
    (tmp_path / "env").mkdir()
    run = start("--envdir", str(tmp_path / "env"))
    run.wait("serving")
    (tmp_path / "env" / "NEVER").write_text("1")
    done = ask(run, "reload", "--wait", "--timeout", "500ms")
    assert done.returncode == 4
    assert "no answer in time" in done.stderr
    assert run.get().startswith("hello 1 ")


def test_reloads_during_a_swap_are_one_more_swap_and_all_hear_of_it(start, tmp_path, asking):
    (tmp_path / "env").mkdir()
    run = start("--envdir", str(tmp_path / "env"))
    run.wait("serving")
    (tmp_path / "env" / "BOOT").write_text("2")
    ask(run, "reload")
    run.wait("worker_started", generation=2)
    several = [asking(run, "reload", "--wait", "--json") for _ in range(4)]
    for each in several:
        returned, out, _ = each.end()
        assert returned == 0
        assert json.loads(out.splitlines()[-1]) == {"generation": 3, "done": 0}
    assert len(run.seen("swap_started")) == 3


def test_a_reload_that_a_saved_file_supersedes_ends_with_the_newer_generation(
    start, tmp_path, asking
):
    code, env = tmp_path / "code", tmp_path / "env"
    code.mkdir()
    env.mkdir()
    run = start("--watch", str(code), "--envdir", str(env))
    run.wait("serving")
    run.wait("watching")
    (env / "NEVER").write_text("1")
    waiting = asking(run, "reload", "--wait")
    waiting.line("generation 2: worker 0 started")
    (env / "NEVER").unlink()
    (code / "app.py").write_text("saved")
    waiting.line("generation 2 is given up")
    returned, out, _ = waiting.end()
    assert returned == 0
    assert "generation 3 serves" in out


def test_a_stop_ends_a_reload_that_waits_and_refuses_the_next(start, tmp_path, asking):
    (tmp_path / "env").mkdir()
    run = start("--lame-duck", "1h", "--envdir", str(tmp_path / "env"))
    run.wait("serving")
    (tmp_path / "env" / "NEVER").write_text("1")
    waiting = asking(run, "reload", "--wait")
    waiting.line("generation 2: worker 0 started")
    assert ask(run, "stop").returncode == 0
    returned, _, err = waiting.end()
    assert (returned, err) == (1, "sidecar reload: sidecar is stopping\n")
    for words in (("reload",), ("reload", "--wait"), ("scale", "+1")):
        done = ask(run, *words)
        assert (done.returncode, done.stderr) == (1, f"sidecar {words[0]}: sidecar is stopping\n")
    assert run.get().startswith("hello 1 ")
    assert run.stop("INT") == 0


def test_a_reload_ends_when_sidecar_gives_up(start, asking):
    run = start("--max-failures", "2", env={"BOOT": "0.5", "DIE": "3"})
    run.wait("worker_started")
    waiting = asking(run, "reload", "--wait")
    returned, _, err = waiting.end()
    assert returned == 1
    assert "exited with status 3" in err
    assert run.exit() == 3
