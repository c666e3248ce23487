"""The content of a file: a value is what daemontools makes of it."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.system import envdir
from tests.unit.children import in_child
from tests.unit.envdir.directories import fill, refusal, variables

ENVDIR = shutil.which("envdir")


def daemontools(directory: str, environ: dict[str, str]) -> dict[str, str]:
    """The environment that the real envdir makes."""
    if ENVDIR is None:
        pytest.skip("daemontools' envdir is not installed (apt-get install daemontools)")
    done = subprocess.run(
        [ENVDIR, directory, "/usr/bin/env", "-0"], env=environ, capture_output=True, check=True
    )
    return dict(os.fsdecode(line).split("=", 1) for line in done.stdout.split(b"\0")[:-1])


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


# How much a variable can hold.
@pytest.mark.parametrize("name", ["N", "A_LONGER_NAME", "caf\udce9"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_value_is_refused_exactly_where_exec_would_fail(
    tmp_path: Path, name: str, whole: bool
) -> None:
    """The kernel says where that is; the text names the file, which E2BIG does not."""
    longest = envdir.MAX_VARIABLE_BYTES - len(os.fsencode(name)) - 2
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
