"""An envdir is read as daemontools reads it, at one moment, whole or not at all, and no text tells
a value.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.base.errors import EnvdirError, SettingsError
from sidecar.settings.resolve import resolve
from sidecar.system import envdir
from tests.unit.children import as_nobody, in_child

ENVDIR = shutil.which("envdir")


# What the tests are made with.


def fill(directory: Path, files: Mapping[str, bytes]) -> str:
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return str(directory)


def variables(directory: Path | str, whole: bool = False) -> dict[str, str | None]:
    return envdir.read([str(directory)], whole).variables


def refusal(directory: Path | str, whole: bool = False) -> str:
    with pytest.raises(EnvdirError) as refused:
        envdir.read([str(directory)], whole)
    return str(refused.value)


def daemontools(directory: str, environ: dict[str, str]) -> dict[str, str]:
    """The environment that the real envdir makes."""
    if ENVDIR is None:
        pytest.skip("daemontools' envdir is not installed (apt-get install daemontools)")
    done = subprocess.run(
        [ENVDIR, directory, "/usr/bin/env", "-0"], env=environ, capture_output=True, check=True
    )
    return dict(os.fsdecode(line).split("=", 1) for line in done.stdout.split(b"\0")[:-1])


@contextlib.contextmanager
def busy(work: Callable[[], object]) -> Iterator[None]:
    """Another process does `work` again and again, as long as the block lasts."""
    pid = os.fork()
    if pid == 0:
        try:
            while True:
                work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "the other process failed"


class Volume:
    """A Kubernetes volume, written as pkg/volume/util/atomic_writer.go does it."""

    def __init__(self, directory: Path, old_order: bool = False) -> None:
        self.directory = directory
        self.old_order = old_order
        self.serial = 0

    def write(self, payload: Mapping[str, str]) -> None:
        top = str(self.directory)
        self.serial += 1
        data = os.path.join(top, "..data")
        old = os.readlink(data) if os.path.islink(data) else None
        new = f"..2025_01_01_00_00_00.{self.serial}"
        os.mkdir(os.path.join(top, new), 0o755)
        for key, value in payload.items():
            with open(os.path.join(top, new, key), "w", encoding="utf-8") as file:
                file.write(value)
        os.symlink(new, os.path.join(top, "..data_tmp"))
        if self.old_order:
            self._add(payload)
        os.rename(os.path.join(top, "..data_tmp"), data)
        self._add(payload)
        for name in os.listdir(top):
            if not name.startswith("..") and name not in payload:
                os.unlink(os.path.join(top, name))
        if old is not None:
            shutil.rmtree(os.path.join(top, old))

    def _add(self, payload: Mapping[str, str]) -> None:
        for key in payload:
            with contextlib.suppress(FileExistsError):
                os.symlink(f"..data/{key}", self.directory / key)


# The format: facts, "envdir semantics", the daemontools column.

ROWS: list[tuple[str, bytes, str | None, str | None]] = [
    # what                     content              default      whole
    ("a value", b"value\n", "value", "value"),
    ("no newline", b"value", "value", "value"),
    ("two newlines", b"value\n\n", "value", "value\n"),
    ("blanks at the end", b"value \t \n", "value", "value \t "),
    ("blanks, no newline", b"value \t ", "value", "value \t "),
    ("a carriage return", b"value\r\n", "value\r", "value\r"),
    ("blanks before", b"  v\n", "  v", "  v"),
    ("three lines", b"l1\nl2\nl3\n", "l1", "l1\nl2\nl3"),
    ("an empty first line", b"\nl2\n", "", "\nl2"),
    ("an empty file", b"", None, None),
    ("an empty line", b"\n", "", ""),
    ("only blanks", b"  \n", "", "  "),
    ("not UTF-8", b"caf\xe9\n", "caf\udce9", "caf\udce9"),
    ("UTF-8", "café\n".encode(), "café", "café"),
    ("8 KiB", b"x" * 8192 + b"\n", "x" * 8192, "x" * 8192),
]


@pytest.mark.parametrize(
    ("content", "default", "whole"), [pytest.param(*row[1:], id=row[0]) for row in ROWS]
)
def test_a_value_is_what_the_format_says(
    tmp_path: Path, content: bytes, default: str | None, whole: str | None
) -> None:
    directory = fill(tmp_path / "env", {"NAME": content})
    assert variables(directory) == {"NAME": default}
    assert variables(directory, whole=True) == {"NAME": whole}


@pytest.mark.parametrize(
    "content", [pytest.param(row[1], id=row[0]) for row in ROWS] + [b"a\0b\n", b"a\0 \n", b"\0"]
)
def test_a_value_is_what_daemontools_makes_of_it(tmp_path: Path, content: bytes) -> None:
    directory = fill(
        tmp_path / "env",
        {"NAME": content, "tls.crt": b"x", "a-b": b"y", "1 2": b"z", ".dot": b"no"},
    )
    environ = {"NAME": "the container's", "OTHER": "stays"}
    assert envdir.apply(environ, envdir.read([directory])) == daemontools(directory, environ)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z_.-]{1,8}", fullmatch=True).filter(lambda n: n not in {".", ".."}),
        st.binary() | st.text(" \t\n\0\rx").map(str.encode),
    )
)
def test_any_content_is_read_as_daemontools_reads_it(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        fill(Path(directory), files)
        assert envdir.apply({"a": "1"}, envdir.read([directory])) == daemontools(
            directory, {"a": "1"}
        )


def test_a_nul_is_a_newline_in_the_default_format(tmp_path: Path) -> None:
    assert variables(fill(tmp_path / "env", {"NAME": b"a\0b\n"})) == {"NAME": "a\nb"}


def test_a_nul_is_refused_by_name_where_the_whole_file_counts(tmp_path: Path) -> None:
    directory = fill(tmp_path / "env", {"GOOD": b"x", "NAME": b"hidden\0hidden"})
    assert (
        refusal(directory, whole=True)
        == f"{directory}/NAME holds a NUL byte, which no environment variable can"
    )


def test_more_lines_than_count_are_remarked_by_name(tmp_path: Path) -> None:
    directory = fill(
        tmp_path / "env",
        {"ONE": b"a\n", "TRAIL": b"a\n \n\t\n\n", "PEM": b"l1\nl2\nl3", "GAP": b"l1\n\nl3\n\n"},
    )
    assert envdir.read([directory]).remarks == [
        f"{directory}/GAP has 3 lines, only the first counts; --envdir-format whole takes all",
        f"{directory}/PEM has 3 lines, only the first counts; --envdir-format whole takes all",
    ]
    assert envdir.read([directory], whole=True).remarks == []


def test_line_ends_of_windows_and_a_byte_order_mark_are_remarked_by_name(tmp_path: Path) -> None:
    """They stay in the value, as daemontools has it."""
    files = {"BOM": b"\xef\xbb\xbfx\n", "CRLF": b"secret\r\n", "GOOD": b"a\rb\n"}
    directory = fill(tmp_path / "env", files)
    wanted = [
        f"{directory}/BOM begins with a byte order mark (BOM), which its value has, too",
        f"{directory}/CRLF has Windows line ends (CRLF): its value ends with a carriage return",
    ]
    reading = envdir.read([directory])
    assert (reading.variables["CRLF"], reading.remarks) == ("secret\r", wanted)
    assert envdir.read([directory], whole=True).remarks == wanted
    assert envdir.read([directory], lenient=True).remarks == []


# Which files count.


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


# How much a variable can hold.


@pytest.mark.parametrize("name", ["N", "A_LONGER_NAME", "caf\udce9"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_value_is_refused_exactly_where_exec_would_fail(
    tmp_path: Path, name: str, whole: bool
) -> None:
    """The kernel says where that is; the text names the file, which E2BIG does not."""
    longest = envdir.LONGEST - len(os.fsencode(name)) - 2
    fits = fill(tmp_path / "fits", {name: b"x" * longest + b"\n"})
    over = fill(tmp_path / "over", {name: b"x" * (longest + 1) + b"\n"})
    environ = envdir.apply({}, envdir.read([fits], whole))
    subprocess.run(["/bin/true"], env=environ, check=True)
    with pytest.raises(OSError, match="Argument list too long"):
        subprocess.run(["/bin/true"], env={name: environ[name] + "x"}, check=True)
    assert f"is too long: an environment variable of that name can have {longest} bytes" in refusal(
        over, whole
    )
    (tmp_path / "over" / name).write_bytes(b"x" * (longest + 1))
    assert "is too long" in refusal(over, whole)


def test_a_giant_file_is_not_read_into_memory(tmp_path: Path) -> None:
    """With 128 MiB to spare, a file of 8 GiB (of holes) is still told by its first line."""
    directory = fill(tmp_path / "env", {"BIG": b"first\nsecond\n"})
    os.truncate(tmp_path / "env" / "BIG", 8 << 30)

    def with_little_memory() -> str:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (128 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        reading = envdir.read([directory])
        return f"{reading.variables['BIG']}: {reading.remarks[0]}"

    said = f"first: {directory}/BIG has more than one line, only the first counts; --envdir-format whole takes all"
    assert in_child(with_little_memory) == said
    (tmp_path / "env" / "BIG").write_bytes(b"")
    os.truncate(tmp_path / "env" / "BIG", 8 << 30)
    assert "is too long" in in_child(lambda: refusal(directory))


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


# One moment.


@pytest.mark.parametrize("old_order", [True, False], ids=["old order", "new order"])
def test_a_kubernetes_volume_is_read_entirely_old_or_entirely_new(
    tmp_path: Path, old_order: bool
) -> None:
    """2,000 readings or more while another process replaces the volume without a pause; a key comes
    and goes each time.
    """

    def payload(serial: int) -> dict[str, str]:
        return {f"KEY{i}": str(serial) for i in range(12)} | {
            ("ODD" if serial % 2 else "EVEN"): str(serial)
        }

    volume = Volume(tmp_path, old_order)
    volume.write(payload(1))
    seen: set[int] = set()
    with busy(lambda: volume.write(payload(volume.serial + 1))):
        readings = 0
        while (
            readings < 2000 or len(seen) < 100
        ):  # the second for a machine where the other process seldom runs
            found = variables(tmp_path)
            serial = int(found["KEY0"] or 0)
            assert found == payload(serial)
            seen.add(serial)
            readings += 1


def test_a_kubernetes_volume_that_appears_is_read_empty_or_entirely(tmp_path: Path) -> None:
    """An optional ConfigMap: the directory is there, and empty, until somebody creates it."""
    payload = {f"KEY{i}": str(i) for i in range(30)}
    reader, writer = os.pipe()
    volumes = [tmp_path / str(i) for i in range(200)]
    for volume in volumes:
        volume.mkdir()

    def appear() -> None:
        Volume(volumes[int(os.read(reader, 3))]).write(payload)

    with busy(appear):
        for number, volume in enumerate(volumes):
            os.write(writer, b"%03d" % number)
            while (found := variables(volume)) != payload:
                assert found == {}
    os.close(reader)
    os.close(writer)


def test_a_kubernetes_volume_is_read_by_its_data_not_by_the_names_beside_it(tmp_path: Path) -> None:
    """A key that is new has no name there yet, a removed one still has; a sub-directory of a key
    path is passed over.
    """
    (tmp_path / "..2025").mkdir()
    fill(tmp_path / "..2025", {"NEW": b"1\n", ".one-dot": b"no"})
    (tmp_path / "..2025" / "sub").mkdir()
    (tmp_path / "..data").symlink_to("..2025")
    (tmp_path / "GONE").symlink_to("..data/GONE")
    (tmp_path / "sub").symlink_to("..data/sub")
    (tmp_path / "BESIDE").write_text("x")
    assert variables(tmp_path) == {"NEW": "1"}


@pytest.mark.parametrize(
    ("target", "reason"), [("..nothing", "No such file or directory"), ("file", "Not a directory")]
)
def test_data_that_leads_to_no_directory_is_refused(
    tmp_path: Path, target: str, reason: str
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "..data").symlink_to(target)
    assert refusal(tmp_path) == f"the envdir {tmp_path} cannot be read: {reason}"


def test_a_directory_behind_a_switched_symlink_is_read_entirely_old_or_entirely_new(
    tmp_path: Path,
) -> None:
    """Capistrano's way: `current` is renamed onto, what it named before is deleted."""
    current = tmp_path / "current"
    serial = 0

    def switch() -> None:
        nonlocal serial
        serial += 1
        fill(tmp_path / str(serial), {f"KEY{i}": str(serial).encode() for i in range(10)})
        (tmp_path / "new").symlink_to(str(serial))
        (tmp_path / "new").rename(current)
        shutil.rmtree(tmp_path / str(serial - 1), ignore_errors=True)

    switch()
    with busy(switch):
        for _ in range(1000):
            found = variables(current)
            assert found == {f"KEY{i}": found["KEY0"] for i in range(10)}


def test_files_that_come_and_go_are_there_or_not_and_the_others_always(tmp_path: Path) -> None:
    fill(tmp_path, {"A": b"1", "Z": b"1"})

    def come_and_go() -> None:
        for name in "KLMN":
            with open(tmp_path / name, "wb", buffering=0) as file:
                file.write(b"x")
            os.unlink(tmp_path / name)

    with busy(come_and_go):
        for _ in range(2000):
            found = variables(tmp_path)
            assert found.pop("A") == found.pop("Z") == "1"
            assert set(found) <= set("KLMN")
            assert set(found.values()) <= {"x", None}


def test_a_file_that_gets_another_name_is_found_under_one_of_them(tmp_path: Path) -> None:
    """The list of names says the old one, which has gone when it is opened: the directory is read
    again.
    """
    fill(tmp_path, {"ONE": b"x"})
    names = [str(tmp_path / "ONE"), str(tmp_path / "TWO")]

    def rename() -> None:
        os.rename(*names)
        names.reverse()
        for _ in range(300):
            os.getppid()

    seen: list[str] = []
    with busy(rename):
        while len(seen) < 2000 or len(set(seen)) < 2:
            (name,) = variables(tmp_path)
            seen.append(name)


def test_a_descriptor_is_never_left_open(tmp_path: Path) -> None:
    directory = fill(tmp_path / "env", {"A": b"1", "B": b"l1\nl2", "C": b"\0"})
    before = os.listdir("/proc/self/fd")
    envdir.read([directory])
    refusal(directory, whole=True)
    refusal(tmp_path / "missing")
    assert os.listdir("/proc/self/fd") == before


# Promise 7.

SECRET = b"hunter2"
NAMES = st.binary(min_size=1, max_size=30).filter(
    lambda name: not {b"/", b"\0"} & {bytes([c]) for c in name} and name not in {b".", b".."}
)
CONTENTS = st.lists(
    st.binary(max_size=6) | st.just(SECRET) | st.sampled_from([b"\n", b" ", b"\t", b"\0", b"\r"]),
    max_size=12,
).map(b"".join)
SIZES = st.sampled_from([0, 0, 0, 1, 1 << 17, (1 << 17) - 40])


@settings(deadline=None, max_examples=300)
@given(
    st.dictionaries(
        NAMES | NAMES.map(lambda n: n[:20] + b"=" + SECRET), st.tuples(CONTENTS, SIZES), max_size=6
    ),
    st.booleans(),
)
def test_no_content_and_no_name_raises_anything_else_or_puts_a_value_into_a_text(
    files: dict[bytes, tuple[bytes, int]], whole: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        for name, (content, size) in files.items():
            with open(os.path.join(os.fsencode(directory), name), "wb") as file:
                file.write(content + SECRET * (size // len(SECRET)))
        try:
            reading = envdir.read([directory], whole)
        except EnvdirError as error:
            texts = [str(error), repr(error), "".join(traceback.format_exception(error))]
        else:
            texts = [repr(reading), *reading.remarks]
            subprocess.run(["/bin/true"], env=envdir.apply({}, reading), check=True)
        for text in texts:
            assert os.fsdecode(SECRET) not in text
            text.encode()


def test_pid_1_pays_for_nothing_it_does_not_need() -> None:
    heavy = "{'re', 'typing', 'dataclasses', 'pathlib', 'tempfile', 'inspect', 'contextlib', 'functools'}"
    source = f"import sys, sidecar; before = set(sys.modules); import sidecar.system.envdir; print((set(sys.modules) - before) & {heavy})"
    done = subprocess.run(
        [sys.executable, "-S", "-c", source],
        env={"PYTHONPATH": str(Path(envdir.__file__).parents[1])},
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"set()\n"


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
