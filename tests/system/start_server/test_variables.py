"""The rows of docs/start_server.md on variables: where ours is meant to differ from
Perl's, both are run and each is seen to do what the table says.
"""

from __future__ import annotations

import signal
from pathlib import Path

from tests.support import Notified, until
from tests.system.start_server.side_by_side import environ, sh
from tests.system.start_server.starter import shows


@shows("SERVER_STARTER_PORT")
def test_port_0_is_told_as_what_it_became(pair):
    perl, ours = pair("--port=127.0.0.1:0")
    for run in (perl, ours):
        run.wait_generations(1)
    ((key, _, where),) = perl.lives()[0]["listeners"]
    assert key == "127.0.0.1:0"
    assert where != "('127.0.0.1', 0)"
    ((key, _, where),) = ours.lives()[0]["listeners"]
    assert f"('127.0.0.1', {key.partition(':')[2]})" == where
    assert f"SERVER_STARTER_PORT={key}=3" in environ(ours.worker(1))


PACE = "ENVDIR, ENABLE_AUTO_RESTART, AUTO_RESTART_INTERVAL, KILL_OLD_DELAY"


def env(**variables: str):
    """A directory with an envdir `env`."""

    def before(where: Path) -> None:
        (where / "env").mkdir()
        for name, value in variables.items():
            (where / "env" / name).write_text(f"{value}\n")

    return before


@shows(PACE)
def test_the_pace_follows_the_envdir(pair):
    perl, ours = pair("--envdir=env", "--kill-old-delay=3600", before=env(KILL_OLD_DELAY="0"))
    for run in (perl, ours):
        run.wait_generations(1)
        run.signal("HUP")
        run.wait(r"^old worker \d+ died")
        (run.where / "env" / "KILL_OLD_DELAY").write_text("1\n")
        run.signal("HUP")
        run.wait("^sleeping 1 secs before killing old workers$")
        run.wait(r"^old worker \d+ died", 2)
        assert "3600" not in run.text()
    # Perl goes by what was there at its start until it is started again; ours by the option.
    for run in (perl, ours):
        (run.where / "env" / "KILL_OLD_DELAY").unlink()
        run.signal("HUP")
    perl.wait("^killing old workers$", 3)
    ours.wait("^sleeping 3600 secs before killing old workers$")
    assert ours.stop() == 0


@shows(PACE)
def test_an_automatic_restart_may_be_turned_on_and_off_by_the_envdir(starter, tmp_path):
    run = starter("--envdir=env", "--interval=0.1")
    run.wait_generations(1)
    env(ENABLE_AUTO_RESTART="1", AUTO_RESTART_INTERVAL="1", KILL_OLD_DELAY="0")(run.where)
    run.signal("HUP")
    run.wait(r"^autorestart triggered \(interval=1\)$", 2)
    (run.where / "env" / "ENABLE_AUTO_RESTART").write_text("0\n")
    # The next restart reads it, and is the last one (tests/histories has how long).
    until(
        lambda: run.lives()[-1]["environ"]["ENABLE_AUTO_RESTART"] == "0",
        "a restart that turns it off",
    )
    run.wait_generations(len(run.lives()))
    assert run.text().count("starting new worker") == len(run.lives())


@shows(PACE)
def test_a_wrong_pace_in_a_changed_envdir_changes_nothing_and_is_said(starter):
    run = starter("--envdir=env", "--kill-old-delay=1", "--interval=0.1")
    run.wait_generations(1)
    env(KILL_OLD_DELAY="tomorrow")(run.where)
    run.signal("HUP")
    run.wait("^sleeping 1 secs before killing old workers$")
    assert "KILL_OLD_DELAY is no duration" in run.text()
    assert "tomorrow" not in run.text()
    refused = run.run("--envdir=env", "--", "true")
    assert refused.returncode == 255
    assert "KILL_OLD_DELAY is no duration" in refused.stderr
    assert "tomorrow" not in refused.stderr


@shows("from the envdir")
def test_a_nul_in_the_envdir_stands_for_a_newline(starter, tmp_path):
    (tmp_path / "ours").mkdir()
    env(FOO="a\0b")(tmp_path / "ours")
    run = starter("--envdir=env")
    run.wait_generations(1)
    assert run.lives()[0]["environ"]["FOO"] == "a\nb"


@shows("deleted from the envdir")
def test_what_is_deleted_from_the_envdir(pair):
    perl, ours = pair("--envdir=env", before=env(FOO="at the start"))
    for run in (perl, ours):
        run.wait_generations(1)
        (run.where / "env" / "FOO").write_text("later\n")
        run.signal("HUP")
        run.wait_generations(2)
        (run.where / "env" / "FOO").unlink()
        run.signal("HUP")
        run.wait_generations(3)
    assert [life["environ"].get("FOO") for life in perl.lives()] == [
        "at the start",
        "later",
        "at the start",
    ]
    assert [life["environ"].get("FOO") for life in ours.lives()] == ["at the start", "later", None]


@shows("an envdir that cannot be read (permissions)")
def test_an_envdir_that_cannot_be_read(pair):
    perl, ours = pair("--envdir=env", before=env(FOO="one"))
    for run in (perl, ours):
        run.wait_generations(1)
        (run.where / "env" / "BAR").symlink_to("/proc/self/mem")  # even root cannot read that
        run.signal("HUP")
    perl.wait_generations(2)
    ours.wait("^generation 2 failed.*env/BAR cannot be read|env/BAR cannot be read")
    assert ours.generations() == [1]
    (ours.where / "env" / "BAR").unlink()
    until(lambda: ours.generations() not in ([], [1]), "the next attempt")


@shows("others")
def test_no_other_variable_comes_in(pair):
    names = []
    for run in pair("--port={0}"):
        run.wait_generations(1)
        names.append({entry.partition("=")[0] for entry in environ(run.worker(1))})
        assert "SERVER_STARTER_PORT" in names[-1]
    assert names[1] - names[0] == {
        "SIDECAR_TRIGGER",
        "SIDECAR_WORKER",
        "SIDECAR_WORKERS",
        "SIDECAR_WORKER_PID",
    }
    assert names[0] <= names[1]


@shows("NOTIFY_SOCKET")
def test_the_service_manager_is_told_by_start_server_itself(pair, tmp_path):
    with Notified(f"{tmp_path}/notify") as manager:
        perl, ours = pair(env={"NOTIFY_SOCKET": manager.address})
        for run in (perl, ours):
            run.wait_generations(1)
        manager.next(READY="1")
        assert manager.senders == {ours.process.pid}
        assert f"NOTIFY_SOCKET={manager.address}" in environ(perl.worker(1))
        assert not any(entry.startswith("NOTIFY_SOCKET") for entry in environ(ours.worker(1)))


@shows("SIGPIPE")
def test_sigpipe(pair):
    perl, ours = pair(program=sh("grep SigIgn /proc/self/status > ignored"))
    for run in (perl, ours):
        run.wait_generations(1)
    pipe = 1 << (signal.SIGPIPE - 1)
    assert int(perl.text("ignored").split()[1], 16) & pipe
    assert not int(ours.text("ignored").split()[1], 16) & pipe
