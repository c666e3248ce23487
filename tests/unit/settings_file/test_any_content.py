"""Whatever is in sidecar.yml, it is read or refused in plain words."""

from __future__ import annotations

import yaml
from hypothesis import HealthCheck, example, given
from hypothesis import settings as how
from hypothesis import strategies as st

from sidecar.base.errors import SettingsError
from sidecar.settings import file, reader, resolve
from sidecar.settings.table import TABLE
from tests.unit.settings_file.choosing import choose

KEYS = [each.key for each in TABLE.values()] + [
    "command",
    "worker",
    "a b",
    "${X}",
    "<<",
    "!x",
    "? y",
    "drain_timeout",
]
SCALARS = st.one_of(
    st.sampled_from(
        [
            "1",
            "30s",
            "yes",
            "~",
            "TERM",
            "${X}",
            "${Y:-z}",
            "$$",
            "${",
            "*a",
            "&a x",
            "!!int 3",
            "|\n  x",
            "''",
            "[",
            "{a: b}",
            "- x",
        ]
    ),
    st.text(max_size=12),
)
FILES = st.lists(
    st.tuples(
        st.sampled_from(KEYS),
        st.one_of(
            SCALARS, st.lists(SCALARS, max_size=4).map(lambda items: f"[{', '.join(items)}]")
        ),
    ),
    max_size=8,
).map(lambda pairs: "".join(f"{key}: {value}\n" for key, value in pairs))


@how(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(
        FILES.map(str.encode),
        st.binary(max_size=200),
        st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")),
    )
)
@example(b"? a\n? b\n")
@example(b"a: &a [*a]\nport: *a\n")
def test_whatever_is_in_the_file_it_is_read_or_refused_in_plain_words(data):
    """The helper's answer is JSON, each problem is one line that names the file, and every pair
    found is heeded or told of.
    """
    choice = choose(data, environ={"X": "xyzzy-1234"}, command=("x",))
    for problem in choice.problems:
        assert "Traceback" not in problem
        assert "xyzzy" not in problem or b"xyzzy" in data
    if not choice.problems:
        assert isinstance(
            yaml.compose(data.decode("utf-8-sig"), yaml.SafeLoader),
            (yaml.MappingNode, yaml.ScalarNode, type(None)),
        )
        answer = reader.parse(data)
        for key, _, value in answer["pairs"]:
            name = file.NAMES[key]
            assert "nothing" in value or name in choice.origins


@how(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(list(TABLE)), st.text(max_size=10)), max_size=6),
    st.dictionaries(
        st.sampled_from([each.variable for each in TABLE.values()]),
        st.text(max_size=10),
        max_size=6,
    ),
)
def test_whatever_is_said_resolve_has_settings_or_a_refusal(flags, environ):
    try:
        found = resolve.resolve(flags, environ, ["x"]).checked()
    except SettingsError as error:
        told = error.problems
        assert all(told)
        assert told
    else:
        for name, text in flags[-1:]:
            value = TABLE[name].kind(text)
            assert (
                value in getattr(found, name)
                if TABLE[name].repeat
                else getattr(found, name) in (value, "none", found.profile)
            )


@how(max_examples=400, deadline=None)
@given(st.text(alphabet="$-{}:A ab\n", max_size=20))
def test_fill_never_loses_what_is_no_variable(text):
    try:
        filled, secret = file.fill_variables(text, {"A": "<v>"})
    except ValueError as error:
        assert "${" in str(error)  # noqa: PT017
    else:
        assert secret == ("<v>" in filled)
        if "$" not in text:
            assert filled == text
