"""No text tells a value, whatever is in an envdir; and what reading it costs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.base.errors import EnvdirError
from sidecar.system import envdir
from tests.unit.envdir.directories import SECRET

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
