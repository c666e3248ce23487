"""The command line of `start_server`: options, variables and the envdir."""

from __future__ import annotations

from sidecar.settings import address
from sidecar.start_server.options import parse
from tests.system.start_server.starter import settings, shows


@shows("--port", "--path")
def test_ports_in_all_forms():
    got = settings(
        "--port=80",
        "--port",
        "127.0.0.1:u81=9",
        "-port=[::1]:82,::1:83",
        "--po= 84 ",
        "--path=a.sock,/b.sock",
    ).port
    assert [(each.kind, each.text, each.fd) for each in got] == [
        (address.TCP, "80", None), (address.UDP, "127.0.0.1:81", 9), (address.TCP, "[::1]:82", None), (address.TCP, "[::1]:83", None),
        (address.TCP, "84", None), (address.UNIX, "a.sock", None), (address.UNIX, "/b.sock", None),
    ]  # fmt: skip
    assert [each.ipv6only for each in got] == [False, False, True, True, False, False, False]


def test_the_command_starts_at_the_first_word_that_is_no_option():
    assert parse(["--port=80", "prog", "--port=81", "--", "x"])[:2] == (
        {"port": ["80"]},
        ["prog", "--port=81", "--", "x"],
    )
    assert parse(["--port=80", "--", "--prog"])[:2] == ({"port": ["80"]}, ["--prog"])


@shows("--kill-old-delay", "--enable-auto-restart, --auto-restart-interval")
def test_the_defaults_are_server_starters():
    got = settings()
    assert (got.workers, got.ready, got.interval, got.kill_old_delay, got.max_failures) == (
        1,
        "interval",
        1.0,
        0.0,
        0,
    )
    assert (got.signal_on_hup, got.signal_on_term, got.as_server_starter, got.profile) == (
        "TERM",
        "TERM",
        True,
        "none",
    )
    timer = settings("--enable-auto-restart")
    assert (timer.enable_auto_restart, timer.auto_restart_interval, timer.kill_old_delay) == (
        True,
        360.0,
        5.0,
    )


@shows("ENVDIR, ENABLE_AUTO_RESTART, AUTO_RESTART_INTERVAL, KILL_OLD_DELAY")
def test_an_envdir_wins_over_an_option_and_an_option_over_the_environment(tmp_path):
    own = {
        "KILL_OLD_DELAY": "7",
        "AUTO_RESTART_INTERVAL": "9",
        "ENABLE_AUTO_RESTART": "1",
        "ENVDIR": str(tmp_path),
    }
    got = settings("--kill-old-delay=8", environ=own)
    assert (got.kill_old_delay, got.auto_restart_interval, got.enable_auto_restart) == (
        8.0,
        9.0,
        True,
    )
    (tmp_path / "KILL_OLD_DELAY").write_text("6\n")
    (tmp_path / "ENABLE_AUTO_RESTART").write_text("0\n")
    got = settings("--kill-old-delay=8", "--enable-auto-restart", environ=own)
    assert (got.kill_old_delay, got.enable_auto_restart) == (6.0, False)
