"""An upgrade of a sidecar that has its settings from a file."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.support import SERVER, Sidecar, free_port, get
from tests.system.upgrade.installed import status


class Configured:
    """A sidecar that takes its settings from a file."""

    def __init__(self, start, tmp_path: Path, text: str, *options: str, **keywords: object) -> None:
        self.file = tmp_path / "sidecar.yml"
        self.write(text)
        self.run = start("--config", str(self.file), *options, program=(), port=False, **keywords)

    def write(self, text: str) -> None:
        self.file.with_suffix(".new").write_text(f"command: {json.dumps(list(SERVER))}\n{text}")
        self.file.with_suffix(".new").rename(self.file)

    def reload(self, text: str, number: int) -> None:
        self.write(text)
        self.run.signal("HUP")
        self.run.wait("serving", generation=number)

    def upgrade(self) -> None:
        self.run.signal("USR2")
        self.run.wait("upgraded", 1 + len(self.run.seen("upgraded")))


@pytest.fixture
def configured(start, tmp_path):
    return lambda text, *options, **keywords: Configured(
        start, tmp_path, text, *options, **keywords
    )


def refused(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


def sockets(run: Sidecar) -> list[str]:
    links = [f"/proc/{run.pid}/fd/{fd}" for fd in os.listdir(f"/proc/{run.pid}/fd")]
    return [
        each
        for each in (os.readlink(link) for link in links if os.path.lexists(link))
        if each.startswith("socket:")
    ]


def test_each_generation_keeps_its_listeners_and_what_two_share_stays_one_socket(
    configured, tmp_path
):
    """The first generation ignores TERM: it drains with a listener that the reload has removed, the
    second one has another.
    """
    gone, both, new = free_port(), free_port(), free_port()
    path = tmp_path / "gone.sock"
    it = configured(
        f"port: [127.0.0.1:{gone}, 127.0.0.1:{both}, 'unix:{path}']\ndrain-timeout: 1h\nworkers: 2\n",
        env={"DEAF": "1"},
    )
    it.run.wait("worker_ready", 2)
    old = it.run.workers()
    it.reload(
        f"port: [127.0.0.1:{both}, '127.0.0.1:{new},name=fresh']\ndrain-timeout: 1h\nmin-uptime: 0\nworkers: 2\n",
        2,
    )
    before = len(sockets(it.run))
    for _ in range(2):
        it.upgrade()
        assert len(sockets(it.run)) == before
        assert get(gone).startswith("hello 1")
        assert get(new).startswith("hello 2")
    # One that is started again gets the listeners that its generation began with.
    os.kill(it.run.seen("worker_ready", generation=2)[-1]["pid"], signal.SIGKILL)
    it.run.wait("worker_ready", 3, generation=2)
    os.kill(it.run.seen("worker_ready", generation=2)[0]["pid"], signal.SIGKILL)
    it.run.wait("worker_ready", 4, generation=2)
    environment = get(new, "/env")
    assert f"'127.0.0.1:{both}=3;127.0.0.1:{new}=4'" in environment
    assert "fresh" in environment
    assert it.run.seen("listener_closed") == []
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    it.run.wait("listener_closed", 2)
    assert {each["address"] for each in it.run.seen("listener_closed")} == {
        f"127.0.0.1:{gone}",
        str(path),
    }
    assert refused(gone)
    assert not path.exists()
    assert get(both).startswith("hello 2")
    it.run.signal("TERM")
    it.run.wait("stopping")
    for pid in it.run.workers():
        os.kill(pid, signal.SIGKILL)
    assert it.run.exit() == 0


def test_the_settings_in_force_stay_in_force_whatever_the_file_says_by_now(configured, tmp_path):
    port = free_port()
    it = configured(f"port: 127.0.0.1:{port}\nmin-uptime: 3s\n")
    it.write(f"port: 127.0.0.1:{port}\nworkers: none\n")
    it.run.signal("HUP")
    it.run.wait("reload_rejected")
    before = status(tmp_path)
    assert before["problems"]
    it.upgrade()
    after = status(tmp_path)
    assert [after[name] for name in ("settings", "problems", "workers")] == [
        before[name] for name in ("settings", "problems", "workers")
    ]
    it.file.unlink()
    it.upgrade()
    it.run.signal("HUP")
    it.run.wait("reload_rejected", 2)
    it.write(f"port: 127.0.0.1:{port}\nworkers: 2\n")
    it.upgrade()
    assert status(tmp_path)["workers"] == 1
    it.run.signal("HUP")
    it.run.wait("serving", generation=2)
    assert status(tmp_path)["workers"] == 2
    assert it.run.seen("upgrade_failed") == []
    assert it.run.stop() == 0


def test_an_upgrade_waits_for_the_settings_that_are_being_read(configured):
    port = free_port()
    it = configured(f"port: 127.0.0.1:{port}\n")
    it.write(f"port: 127.0.0.1:{port}\nworkers: 2\n")
    it.run.signal("HUP")
    it.run.wait("signal_received")
    it.upgrade()
    names = [each["event"] for each in it.run.events]
    assert (
        names.index("upgrading")
        > len(names) - 1 - names[::-1].index("serving")
        > names.index("scaled")
    )
    assert it.run.stop() == 0


def test_what_is_hidden_stays_hidden(configured, tmp_path):
    """A value that was filled in from the environment, by the settings of a generation that has
    failed, too.
    """
    port = free_port()
    secret = "s3cr3t-of-the-file"
    it = configured(f"port: 127.0.0.1:{port}\n", env={"TOKEN": secret})
    it.write(f"port: 127.0.0.1:{port}\ncheck: [sh, -c, 'exit 3', '${{TOKEN}}']\nmax-backoff: 1h\n")
    it.run.signal("HUP")
    it.run.wait("swap_failed")
    it.upgrade()
    it.run.signal("HUP")
    it.run.wait("swap_failed", 2)
    assert secret not in str(it.run)
    assert secret not in json.dumps(status(tmp_path))
    assert it.run.stop() == 0
