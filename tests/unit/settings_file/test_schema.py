"""The schema of sidecar.yml: what pleases it pleases the reader."""

from __future__ import annotations

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from sidecar.settings import file, reader, resolve, schema
from sidecar.settings.table import TABLE
from tests.support import ROOT
from tests.unit.settings_file.choosing import choose

VALIDATOR = jsonschema.Draft202012Validator(schema.schema())
GOOD = {
    "an example": (ROOT / "docs" / "configuration.md")
    .read_text()
    .partition("```yaml\n")[2]
    .partition("```")[0],
    "numbers": "command: [a, -w, 4]\nworkers: 2\ndrain-timeout: 2.5\nport: 8080\numask: '022'\n",
    "variables": "command: a ${B:-c}\nworkers: ${W:-2}\nport: ['${P:-1}']\nwatch-env: ${E:-no}\nenvdir: env\n",
    "switches": "command: a\nenvdir: x\nwatch-env: true\nenable-auto-restart: yes\n",
    "words": "command: a\nready: command\nready-command: [a, b]\nsignal-on-hup: SIGQUIT\nlog-format: json\nprofile: none\n",
    "envdirs": "command: a\nenvdir: [env, '/run/secrets,upper,prefix=APP_']\noverlap: never\n",
}
BAD = [
    "worker: 1", "workers: 0", "workers: many", "drain-timeout: 5x", "drain-timeout: -1", "port: 70000", "port: []", "signal-on-hup: KILL",
    "envdir: 'env,uper'", "envdir: ['env,prefix=']", "overlap: sometimes",
    "watch-env: maybe", "ready: never", "umask: '9'", "command: []", "workers: [1]", "handoff: [nobody]", "- a", "drain_timeout: 1",
]  # fmt: skip


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(schema.schema())
    assert {*schema.schema()["properties"]} == {
        "command",
        *(each.key for each in TABLE.values() if each.name != "config"),
    }


@pytest.mark.parametrize("name", GOOD)
def test_good_files_please_the_schema_and_the_reader(name):
    VALIDATOR.validate(yaml.safe_load(GOOD[name]))
    assert choose(GOOD[name], environ={"HOME": "/x"}).problems == ()


@pytest.mark.parametrize("text", BAD)
def test_bad_files_please_neither(text):
    assert not VALIDATOR.is_valid(yaml.safe_load(text))
    assert choose(text, command=("x",)).problems


def test_a_blank_variable_is_one_that_is_not_set():
    # Found by Hypothesis.
    blank = {"SIDECAR_PORT": " ", "SIDECAR_WORKERS": "\t"}
    assert resolve.resolve([], blank, ("x",)) == resolve.resolve([], {}, ("x",))


@how(max_examples=300, deadline=None)
@given(
    st.sampled_from(
        [each for each in TABLE.values() if each.name not in ("admin", "config", "port")]
    ),
    st.one_of(
        st.integers(-1, 10**9),
        st.booleans(),
        st.sampled_from(["30s", "TERM", "x", "007", ".5m", "auto", "yes", ""]),
    ),
)
def test_what_pleases_the_schema_pleases_the_reader(each, value):
    """As far as one setting goes; an editor must not call right what sidecar refuses."""
    text = yaml.safe_dump({each.key: value})
    if VALIDATOR.is_valid({each.key: value}):
        problems = file.from_answer(reader.parse(text.encode()), "f", {}).problems
        alone = [
            problem
            for problem in choose(text, command=("x",)).problems
            if f"{each.key} " in problem and " is n" in problem
        ]
        assert not problems
        assert not alone
