"""Which files of an envdir count, under which names, and which directory wins."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sidecar.base.errors import EnvdirError, SettingsError
from sidecar.settings.resolve import resolve
from sidecar.system import envdir
from tests.unit.children import as_nobody
from tests.unit.envdir.directories import fill, refusal, variables


def test_a_name_with_an_equals_sign_is_skipped_and_what_follows_it_not_told(tmp_path: Path) -> None:
    directory = fill(tmp_path / "env", {"PASSWORD=hidden": b"", "=": b"x", "GOOD": b"y"})
    reading = envdir.read([directory])
    assert reading.variables == {"GOOD": "y"}
    assert reading.remarks == [
        f"a file whose name starts with {directory}/= is skipped: the name of a variable holds no '='",
        f"a file whose name starts with {directory}/PASSWORD= is skipped: the name of a variable holds no '='",
    ]


def test_names_that_no_shell_would_take_are_passed_on(tmp_path: Path) -> None:
    directory = fill(
        tmp_path / "env",
        {"tls.crt": b"a", "with-dash": b"b", "1st": b"c", "a b": b"d", "caf\udce9": b"e"},
    )
    assert variables(directory) == {
        "tls.crt": "a",
        "with-dash": "b",
        "1st": "c",
        "a b": "d",
        "caf\udce9": "e",
    }


def test_a_name_that_cannot_be_printed_is_escaped_in_a_text(tmp_path: Path) -> None:
    directory = fill(tmp_path / "env", {"a\nERROR forged \x1b[31m\udce9": b"l1\nl2\n"})
    (remark,) = envdir.read([directory]).remarks
    assert r"a\nERROR forged \x1b[31m\udce9' has 2 lines" in remark
    assert remark.isprintable()


def test_only_regular_files_count_and_nothing_blocks(tmp_path: Path) -> None:
    """Directories and symlinks that lead nowhere are passed over; so are FIFOs without a writer,
    sockets and devices, and that is said.
    """
    directory = tmp_path / "env"
    fill(directory, {"GOOD": b"yes\n", ".hidden": b"no", "..more": b"no"})
    (directory / "sub").mkdir()
    (directory / "to-sub").symlink_to("sub")
    (directory / "to-file").symlink_to("GOOD")
    (directory / "dangling").symlink_to("nothing")
    (directory / "under-a-file").symlink_to("GOOD/nothing")
    (directory / "loop").symlink_to("loop")
    (directory / "device").symlink_to("/dev/zero")
    os.mkfifo(directory / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "socket"))
        reading = envdir.read([str(directory)])
    assert reading.variables == {"GOOD": "yes", "to-file": "yes"}
    assert reading.remarks == [
        f"{directory}/{name} is skipped: it is not a regular file"
        for name in ("device", "fifo", "socket")
    ]
    assert envdir.read([str(directory)], lenient=True).remarks == []


def test_a_file_that_cannot_be_read_is_refused_by_name(shared: Path) -> None:
    directory = fill(shared / "env", {"GOOD": b"x", "SECRET": b"hidden"})
    (shared / "env" / "SECRET").chmod(0o400 if os.getuid() == 0 else 0)
    assert (
        as_nobody(lambda: refusal(directory))
        == f"{directory}/SECRET cannot be read: Permission denied"
    )


def test_a_directory_that_cannot_be_read_is_refused_by_name(shared: Path) -> None:
    directory = shared / "env"
    directory.mkdir(0o700 if os.getuid() == 0 else 0)
    assert (
        as_nobody(lambda: refusal(directory))
        == f"the envdir {directory} cannot be read: Permission denied"
    )


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing", "No such file or directory"),
        ("file", "Not a directory"),
        ("fifo", "Not a directory"),
        ("a\0b", "embedded null byte"),
    ],
)
def test_what_is_no_directory_is_refused_by_name(tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "fifo")
    text = refusal(f"{tmp_path}/{path}")
    assert text.startswith("the envdir ")
    assert text.endswith(f" cannot be read: {reason}")


# Several directories, and what becomes of a removed file.
def test_a_later_directory_wins(tmp_path: Path) -> None:
    first = fill(tmp_path / "first", {"A": b"1", "B": b"1", "C": b"1"})
    second = fill(tmp_path / "second", {"B": b"2", "C": b"", "D": b"2"})
    assert envdir.read([first, second]).variables == {"A": "1", "B": "2", "C": None, "D": "2"}
    assert envdir.read([second, first]).variables == {"A": "1", "B": "1", "C": "1", "D": "2"}
    assert envdir.read([]) == envdir.Reading({}, [])


def test_one_bad_directory_refuses_all(tmp_path: Path) -> None:
    with pytest.raises(EnvdirError, match="missing"):
        envdir.read([fill(tmp_path / "first", {"A": b"1"}), str(tmp_path / "missing")])


def test_a_removed_file_gives_back_the_containers_own_value_and_an_empty_one_takes_it_away(
    tmp_path: Path,
) -> None:
    environ = {"A": "the container's", "B": "untouched"}
    directory = fill(tmp_path / "env", {"A": b"the envdir's", "NEW": b"x"})
    assert envdir.apply(environ, envdir.read([directory])) == {
        "A": "the envdir's",
        "B": "untouched",
        "NEW": "x",
    }
    (tmp_path / "env" / "A").write_bytes(b"")
    (tmp_path / "env" / "NEW").write_bytes(b"")
    assert envdir.apply(environ, envdir.read([directory])) == {"B": "untouched"}
    (tmp_path / "env" / "A").unlink()
    assert envdir.apply(environ, envdir.read([directory])) == environ
    assert environ == {"A": "the container's", "B": "untouched"}


# --- names
def test_names_can_be_made_those_of_variables(tmp_path):
    """Secrets are called db-password and tls.crt; what a program asks for is DB_PASSWORD."""
    for name in ("db-password", "tls.crt", "ALREADY"):
        (tmp_path / name).write_text(f"{name}'s\n")
    assert envdir.read([f"{tmp_path},upper"]).variables == {
        "DB_PASSWORD": "db-password's",
        "TLS_CRT": "tls.crt's",
        "ALREADY": "ALREADY's",
    }
    assert set(envdir.read([f"{tmp_path},prefix=APP_"]).variables) == {
        "APP_db-password",
        "APP_tls.crt",
        "APP_ALREADY",
    }
    assert set(envdir.read([f"{tmp_path},upper,prefix=app_"]).variables) == {
        "app_DB_PASSWORD",
        "app_TLS_CRT",
        "app_ALREADY",
    }


def test_each_directory_has_its_own_names_and_the_later_still_wins(tmp_path):
    for name, file in (("one", "A"), ("two", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(name)
    assert envdir.read([f"{tmp_path}/one", f"{tmp_path}/two,upper"]).variables == {"A": "two"}
    assert envdir.read([f"{tmp_path}/two,upper", f"{tmp_path}/one"]).variables == {"A": "one"}


def test_two_files_of_one_name_are_remarked_upon_without_their_values(tmp_path):
    (tmp_path / "a-b").write_text("secret")
    (tmp_path / "a.b").write_text("hidden")
    reading = envdir.read([f"{tmp_path},upper"])
    assert reading.variables == {"A_B": "hidden"}
    assert reading.remarks == [f"{tmp_path}: a-b and a.b are both A_B; the latter counts"]


@pytest.mark.parametrize(
    "wrong", ["env,lower", "env,prefix", "env,prefix=", "env,prefix=A=B", ",upper", "env,"]
)
def test_an_option_that_is_none_is_refused(wrong):
    with pytest.raises(SettingsError, match="--envdir"):
        resolve([("envdir", wrong)], {}, ["program"]).checked()


def test_server_starters_directory_is_taken_as_it_is_called(tmp_path):
    (tmp_path / "a,upper").mkdir()
    (tmp_path / "a,upper" / "x").write_text("1")
    assert envdir.read([f"{tmp_path}/a,upper"], lenient=True).variables == {"x": "1"}
