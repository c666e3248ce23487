"""What a generation finds where it is started: whose environment, which output, which directory."""

from __future__ import annotations

import json
import os

import pytest

from tests.support import readable_by_all, until


def environment(run) -> dict[str, str]:
    """The worker's environment, from the worker itself."""
    lines = (line.partition("=") for line in run.get("/env").splitlines())
    return {name: value[1:-1] for name, _, value in lines}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start workers as another user")
@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("www-data", {"HOME": "/var/www", "USER": "www-data", "LOGNAME": "www-data"}),
        ("12345", {"HOME": "/"}),
    ],
)
def test_the_environment_of_another_user_says_who_that_is(sidecar, tmp_path, user, expected):
    """Not root's HOME and name, unless the envdir says so; /usr/sbin/nologin is no SHELL."""
    names = {"HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/bash"}
    (tmp_path / "env").mkdir()
    ready = ("--ready", "interval", "--interval", "0", "--envdir", str(tmp_path / "env"))
    program = ("/usr/bin/python3", "-S", readable_by_all(tmp_path))
    run = sidecar("--user", user, *ready, program=program, env=names)
    run.wait("serving")
    env = environment(run)
    assert {name: env[name] for name in names if name in env} == expected
    (tmp_path / "env" / "HOME").write_text("/srv")
    run.swap(2)
    assert environment(run)["HOME"] == "/srv"
    assert run.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start workers as another user")
def test_another_user_may_open_dev_stdout_and_stderr_if_they_are_pipes(sidecar, tmp_path):
    """As log files' names in the settings of nginx and others. A file stays whose it is."""
    opens = "for name in stdout stderr; do echo spoken > /dev/$name; done; sleep 3600"
    output = tmp_path / "output"
    with output.open("w") as file:
        run = sidecar(
            "--user", "nobody", "--ready", "interval",
            program=("sh", "-c", f"exec sh -c '{opens}'"), port=False, stdout=file,
        )  # fmt: skip
        run.wait("serving")
        until(lambda: "spoken" in run.output, "what was written to /dev/stderr")
        assert "/dev/stdout: Permission denied" in str(run)
        assert output.stat().st_uid == 0
        assert run.stop() == 0


def test_generations_are_started_where_the_link_leads_now_that_sidecar_was_started_in(
    sidecar, tmp_path
):
    """`cd current && sidecar run …`: the link moves with each release, and the program, its
    envdir and sidecar.yml are the new release's.
    """
    for number in (1, 2):
        (tmp_path / f"release{number}" / "env").mkdir(parents=True)
        (tmp_path / f"release{number}" / "env" / "RELEASE").write_text(str(number))
    current = tmp_path / "current"
    current.symlink_to("release1")
    run = sidecar("--envdir", "env", cwd=current, env={"PWD": str(current)})
    run.wait("serving")
    assert json.loads(run.get("/about"))["directory"] == str(tmp_path / "release1")
    run.signal("USR2")
    run.wait("upgraded")
    current.unlink()
    current.symlink_to("release2")
    run.swap(2)
    assert json.loads(run.get("/about"))["directory"] == str(tmp_path / "release2")
    assert environment(run)["RELEASE"] == "2"
    current.unlink()
    run.signal("HUP")
    failed = run.wait("swap_failed", generation=3)
    assert str(current) in failed["cause"]
    assert run.stop() == 0


def test_what_is_watched_is_where_the_link_leads_now(sidecar, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    current = tmp_path / "current"
    current.symlink_to("one")
    run = sidecar("--watch", ".", cwd=current, env={"PWD": str(current)})
    run.wait("watching")
    run.wait("serving")
    current.unlink()
    current.symlink_to("two")
    run.swap(2)
    run.wait("watching", 2)
    (tmp_path / "two" / "code.py").write_text("")
    run.wait("serving", generation=3, trigger="watch")
    assert run.stop() == 0


def test_a_directory_without_a_link_is_entered_by_its_path_while_it_is_there(sidecar, tmp_path):
    """One that another has taken the place of is left behind; one that was removed is not missed."""
    place = tmp_path / "place"
    place.mkdir()
    run = sidecar(cwd=place, env={"PWD": "/"})
    run.wait("serving")
    place.rename(tmp_path / "before")
    run.swap(2)
    assert json.loads(run.get("/about"))["directory"] == str(tmp_path / "before")
    place.mkdir()
    run.swap(3)
    assert json.loads(run.get("/about"))["directory"] == str(place)
    assert run.stop() == 0


def test_a_relative_dir_is_one_of_where_sidecar_was_started(sidecar, tmp_path):
    (tmp_path / "one" / "app").mkdir(parents=True)
    (tmp_path / "link").symlink_to("one")
    run = sidecar("--dir", "app", cwd=tmp_path / "link", env={"PWD": str(tmp_path / "link")})
    run.wait("serving")
    assert json.loads(run.get("/about"))["directory"] == str(tmp_path / "one" / "app")
    (tmp_path / "two" / "app").mkdir(parents=True)
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("two")
    run.swap(2)
    assert json.loads(run.get("/about"))["directory"] == str(tmp_path / "two" / "app")
    assert run.stop() == 0
