"""sidecar.yml: what is in it, what is wrong with it, what wins over it; `check` and `schema`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, example, given
from hypothesis import settings as how
from hypothesis import strategies as st

from sidecar.base.errors import SettingsError
from sidecar.cli import check
from sidecar.settings import file, reader, resolve, schema, table
from sidecar.settings.table import TABLE
from tests.support import ROOT

PROGRAM = "command: server --fast\n"


def choose(
    text: str | bytes,
    *flags: tuple[str, str],
    environ: dict[str, str] | None = None,
    command: tuple[str, ...] = (),
):
    """The choice that comes of a file of this text."""
    try:
        answer = reader.parse(text if isinstance(text, bytes) else text.encode())
    except reader.Unreadable as error:
        answer = {"pairs": [], "problems": [list(error.args)]}
    answer = json.loads(json.dumps(answer))
    return resolve.resolve(
        flags,
        environ or {},
        command,
        from_file=file.from_answer(answer, "sidecar.yml", environ or {}),
    )


def right(
    text: str, *flags: tuple[str, str], environ: dict[str, str] | None = None
) -> table.Settings:
    choice = choose(text, *flags, environ=environ)
    assert choice.problems == ()
    return choice.settings


# --- what is in it


def test_every_setting_is_a_key_and_reads_as_its_flag_does():
    """One definition: whatever text a flag takes, the key takes."""
    samples = {
        "port": "127.0.0.1:8080", "umask": "022", "signal_on_hup": "SIGQUIT", "signal_on_term": "int", "ready": "command",
        "ready_command": "curl -f 'http://x/ y'", "check": "true", "handoff": "nginx", "profile": "nginx", "log_format": "json",
        "envdir_format": "whole", "watch_mode": "poll", "overlap": "never",
    }  # fmt: skip
    for each in TABLE.values():
        if each.name == "config":
            continue
        texts = [samples.get(each.name, "")] if each.name in samples else ["7", "x", "yes"]
        for text in texts:
            try:
                value = each.kind(text)
            except ValueError:
                continue
            found = getattr(choose(f"{PROGRAM}{each.key}: {text}\n").settings, each.name)
            assert found == ((value,) if each.repeat else value), each.name
            break
        else:
            pytest.fail(f"no sample for {each.name}")


def test_texts_are_taken_as_written_and_not_as_yaml_understands_them():
    """For YAML 022 is 18, 1:30 is 90, `no` is false and 1_000 a thousand."""
    found = right(
        PROGRAM
        + "umask: 022\nuser: 0o17\nprofile: none\nwatch-env: off\nport: [8080, '127.0.0.1:81']\n"
    )
    assert (found.umask, found.user, found.profile, found.watch_env) == (
        0o22,
        "0o17",
        "none",
        False,
    )
    assert [each.port for each in found.port] == [8080, 81]
    assert choose(PROGRAM + "drain-timeout: 1:30\nworkers: 1_000\n").problems == (
        "sidecar.yml:2: drain-timeout 1:30: '1:30' is no duration; say 500ms, 30s, 5m, 2h or a number of seconds",
        "sidecar.yml:3: workers 1_000: '1_000' is not a whole number of 1 or more",
    )


@pytest.mark.parametrize(
    "text", ["command: a 'b c' d", "command: [a, b c, d]", "command:\n  - a\n  - b c\n  - d\n"]
)
def test_a_command_is_a_line_or_a_list(text):
    assert right(text).command == ("a", "b c", "d")


def test_a_flag_wins_over_a_variable_a_variable_over_the_file_and_the_file_over_a_profile():
    text = "command: nginx\nworkers: 2\ndrain-timeout: 2s\nlame-duck: 2s\nsignal-on-hup: TERM\nport: [1, 2]\n"
    choice = choose(
        text,
        ("workers", "4"),
        environ={"SIDECAR_WORKERS": "3", "SIDECAR_DRAIN_TIMEOUT": "3s", "SIDECAR_PORT": "3"},
    )
    found = choice.settings
    assert (found.workers, found.drain_timeout, found.lame_duck, found.start_timeout) == (
        4,
        3.0,
        2.0,
        60.0,
    )
    assert (found.signal_on_hup, found.signal_on_term) == ("TERM", "QUIT")
    assert [each.port for each in found.port] == [3]
    assert choice.origins["workers"] == "--workers"
    assert choice.origins["drain_timeout"] == "SIDECAR_DRAIN_TIMEOUT"
    assert choice.origins["lame_duck"] == "sidecar.yml:4: lame-duck"
    assert choice.origins["signal_on_term"] == "profile nginx"
    assert "start_timeout" not in choice.origins


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "~\n", "workers:\n", "workers: ~\n", "\ufeff"]
)
def test_what_says_nothing_says_nothing(text):
    said = file.from_answer(reader.parse(text.encode()), "f", {})
    assert (dict(said.texts), said.problems) == ({}, ())


# --- what is wrong with it


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("worker: 3", "sidecar.yml:2: worker: there is no such setting; did you mean workers?"),
        ("drain_timeout: 3", "sidecar.yml:2: drain_timeout: there is no such setting; say drain-timeout"),
        ("--workers: 3", "sidecar.yml:2: --workers: there is no such setting; say workers"),
        ("config: x", "sidecar.yml:2: config: which file is read cannot be said in it; say --config FILE or SIDECAR_CONFIG"),
        ("zzz: 3", "sidecar.yml:2: zzz: there is no such setting; `sidecar run --help` has them all"),
        ("workers: 1\n\nworkers: 1", "sidecar.yml:4: workers: it is there already, in line 2; say it once"),
        ("workers: [1]", "sidecar.yml:2: workers: it is a list; say one N"),
        ("workers: {a: 1}", "sidecar.yml:2: workers: a mapping is no value; say one N"),
        ("watch-env: [yes]", "sidecar.yml:2: watch-env: it is a list; say yes or no"),
        ("port: []", "sidecar.yml:2: port: the list is empty; leave it out, or say SPEC, or a list of them"),
        ("port:\n- 1\n- [2]", "sidecar.yml:4: port: a list is no item of a list; say SPEC, or a list of them"),
        ("port:\n- 1\n- ", "sidecar.yml:4: port: nothing is no item of a list; say SPEC, or a list of them"),
        ("port:\n- 1\n- http", "sidecar.yml:4: port http: 'http' is no port (0 to 65535)"),
        ("port: [1, 1]", "sidecar.yml:2: port: '1' listens where '1' does; give it once"),
        ("check: 'a \"b'", "sidecar.yml:2: check: 'a \"b' cannot be split into words: No closing quotation"),
        ("workers: !!python/object/apply:os.system [x]", "sidecar.yml:2: workers: the tag !!python/object/apply:os.system is no value"),
        ("user: !secret x", "sidecar.yml:2: user: the tag !secret is no value; say one USER"),
        ("[a]: 1", "sidecar.yml:2: a key is the name of a setting"),
        ("<<: {workers: 1}", "sidecar.yml:2: <<: there is no such setting"),
        ("ready: command", "sidecar.yml:2: ready command: needs --ready-command COMMAND"),
        ("workers: ${NOPE}", "sidecar.yml:2: workers: the variable NOPE is not set; set it, or say ${NOPE:-DEFAULT}"),
        ("user: ${USER:-${NOPE}}", "sidecar.yml:2: user: ${USER:-${…}}: a default cannot hold another variable"),
        ("check: a ${NOPE:-b} && c", "sidecar.yml:2: check: && is for a shell, and no shell runs this command; say sh -c"),
        ("user: ${no pe}", "sidecar.yml:2: user: ${no pe} is no variable; say ${NAME} or ${NAME:-DEFAULT}, and $$ for a dollar"),
        ("user: ${NOPE", "sidecar.yml:2: user: ${NOPE is no variable"),
        ("${HOME}: 1", "sidecar.yml:2: ${HOME}: there is no such setting"),
    ],
)  # fmt: skip
def test_each_mistake_is_told_with_its_line_and_what_would_be_right(text, problem):
    problems = choose(PROGRAM + text + "\n", environ={"HOME": "/root"}).problems
    assert len(problems) == 1
    assert problems[0].startswith(problem)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"a: 1\nb: [1\n", "sidecar.yml:3: it is no YAML"),
        (b"a: 1\n\tb: 1\n", "sidecar.yml:2: it is no YAML"),
        (b"a: *nobody\n", "sidecar.yml:1: it is no YAML: found undefined alias 'nobody'"),
        (b"a: 1\n---\nb: 1\n", "sidecar.yml:2: it is no YAML"),
        (b"- a\n", "sidecar.yml:1: it is no mapping"),
        (b"text\n", "sidecar.yml:1: it is no mapping"),
        (b"a: 1\nb: \xff\n", "sidecar.yml:2: it is not UTF-8"),
        (b"a: 1\nb: \x01\n", "sidecar.yml:2: there is a character that YAML does not allow"),
        (b"a: " + b"[" * 1000, "sidecar.yml:1: it is nested too deep"),
        (
            b"a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nport: *c\n",
            "sidecar.yml:4: port: a list is no item of a list",
        ),
        (
            b"port: &a [" + b"1," * 9000 + b"]\nwatch: *a\nenvdir: *a\n",
            "sidecar.yml: it says too much",
        ),
    ],
)
def test_what_is_no_settings_file_is_told_by_line_and_never_a_traceback(data, problem):
    assert any(each.startswith(problem) for each in choose(data, command=("x",)).problems), choose(
        data, command=("x",)
    ).problems


def test_files_that_are_none_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"#" * (1 << 17))
    for name, part in (
        ("fifo", "no regular file"),
        ("large", "larger than 64 KiB"),
        ("none", "no such file"),
        (".", "no regular file"),
    ):
        assert part in reader.read(str(tmp_path / name))["problems"][0][1]


def test_everything_wrong_is_told_at_once_with_flags_and_variables_too():
    choice = choose(
        "worker: 3\nlame-duck: x\nport: [a, b]\n",
        ("max_surge", "-1"),
        environ={"SIDECAR_INTERVAL": "y"},
    )
    assert len(choice.problems) == 6
    assert "the program to run is missing" not in "".join(
        choice.problems
    )  # it may be what `worker` was meant to be


# --- the environment


def test_a_variable_is_one_word_whatever_is_in_it_and_never_yaml():
    environ = {"ARGUMENT": "a 'b; c\nworkers: 9", "HOST": "127.0.0.1", "EMPTY": ""}
    found = right(
        "command: server --x ${ARGUMENT} '${EMPTY}' $HOME $$${EMPTY:-d}\nport: ['${HOST}:${PORT:-8080}']\ncheck: test ${ARGUMENT}\n",
        environ=environ,
    )
    assert found.command == ("server", "--x", environ["ARGUMENT"], "", "$HOME", "$d")
    assert found.port[0].spec == "127.0.0.1:8080"
    assert found.check == ("test", environ["ARGUMENT"])
    assert found.workers == 1


def test_what_was_filled_in_is_secret_and_its_mistakes_are_told_by_name():
    environ = {"SECRET": "hunter2"}
    choice = choose(
        PROGRAM + "workers: ${SECRET}\nport: ['${SECRET}', '${SECRET}']\nuser: ${SECRET}\n",
        environ=environ,
    )
    assert len(choice.problems) == 3
    assert "hunter2" not in "".join(choice.problems)
    assert (
        choice.problems[0]
        == "sidecar.yml:2: workers: with what was filled in from the environment it is no N"
    )
    assert {*choice.secret_names} == {"workers", "port", "user"}
    assert resolve.redact(["x hunter2", 7], choice.redactions) == ["x …", 7]
    # A flag that wins over it is nobody's secret.
    assert (
        "user"
        not in choose(PROGRAM + "user: ${SECRET}", ("user", "x"), environ=environ).secret_names
    )


# --- fuzz: a clear error, nothing lost, never a traceback

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


# --- schema

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


# --- check, from a shell


def sidecar(*words: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *words],
        cwd=cwd, env={**own, "PYTHONPATH": str(ROOT), **environ}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_check_shows_each_setting_with_where_it_came_from(tmp_path):
    (tmp_path / "gunicorn").write_text("#!/bin/sh\n")
    (tmp_path / "gunicorn").chmod(0o755)
    (tmp_path / "sidecar.yml").write_text(
        "command: ./gunicorn ${WHAT}\nworkers: 2\npid-file: ${WHO}\n"
    )
    done = sidecar(
        "check",
        "--lame-duck",
        "1s",
        cwd=tmp_path,
        WHAT="app:app",
        WHO="hunter2",
        SIDECAR_MAX_SURGE="1",
    )
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert len(rows) >= len(TABLE)
    assert rows["workers"].split()[1:] == ["2", "sidecar.yml:2"]
    assert rows["lame-duck"].split()[1:] == ["1s", "--lame-duck"]
    assert rows["max-surge"].split()[1:] == ["1", "SIDECAR_MAX_SURGE"]
    assert rows["signal-on-hup"].endswith("profile gunicorn")
    assert rows["drain-timeout"].split()[1:] == ["25s", "default"]
    assert "hunter2" not in done.stdout + done.stderr
    assert "app:app" not in done.stdout + done.stderr
    shown = json.loads(
        sidecar("check", "--json", cwd=tmp_path, WHAT="app:app", WHO="hunter2").stdout
    )
    assert shown["settings"]["pid-file"] == {
        "value": "(filled in from the environment)",
        "from": "sidecar.yml:3",
        "secret": True,
    }
    assert shown["problems"] == []


def test_check_in_a_container_has_the_options_and_the_program_of_pid_1(
    sidecar, tmp_path, monkeypatch, capsys
):
    """As `kubectl exec POD -- sidecar check --grace 40s`."""
    running = sidecar("--drain-timeout", "20s", "--lame-duck", "10s")
    running.wait("serving")
    monkeypatch.setattr(check, "PID_1", f"/proc/{running.pid}")
    monkeypatch.chdir(tmp_path)
    assert check.main(["--grace", "40s"], {}) == 0
    told = capsys.readouterr()
    assert "drain-timeout" in told.out
    assert "the program are those PID 1 was started with" in told.out
    assert check.main(["--grace", "34s"], {}) == 2
    assert "a stop may take 35 s" in capsys.readouterr().err
    assert check.main(["--grace", "34s", "--lame-duck", "1s"], {}) == 0  # said now, so it wins
    assert check.main(["--grace", "34s", "--", "true"], {}) == 0  # a program of one's own: nothing
    capsys.readouterr()
    monkeypatch.setattr(check, "PID_1", "/proc/self")
    assert check.main(["--grace", "40s"], {}) == 2
    assert "the program to run is missing" in capsys.readouterr().err


def test_check_shows_an_address(tmp_path):
    done = sidecar(
        "check", "--json", "--admin", "127.0.0.1:9100", "--port", "8080", "true", cwd=tmp_path
    )
    shown = json.loads(done.stdout)["settings"]
    assert (shown["admin"]["value"], shown["port"]["value"]) == ("127.0.0.1:9100", ["8080"])


def test_check_says_what_is_wrong_and_ends_with_2(tmp_path):
    (tmp_path / "sidecar.yml").write_text("workerz: 2\n")
    done = sidecar("check", "--drain-timeout", "x", "--envdir", "none", "--", "true", cwd=tmp_path)
    assert done.returncode == 2
    assert [line.partition(" ")[2].partition(":")[0] for line in done.stderr.splitlines()] == [
        "sidecar.yml",
        "--drain-timeout x",
        "--envdir none",
    ]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("--grace", "30s"), 0),
        (("--grace", "30s", "--lame-duck", "1s"), 2),
        (("--grace", "30s", "--pre-stop", "1s"), 2),
        (("--grace", "40s", "--pre-stop", "5s", "--lame-duck", "5s"), 0),
        (("--grace", "soon"), 2),
    ],
)  # fmt: skip
def test_check_holds_the_stop_against_a_grace_period(words, status, tmp_path):
    done = sidecar("check", *words, "--", "true", cwd=tmp_path)
    assert done.returncode == status, done.stderr


def test_check_remarks_on_what_may_be_meant_otherwise(tmp_path):
    words = ("--port", "8080", "--drain-timeout", "60", "--env-splay", "3", "--watch", "nowhere")
    words += ("--max-failures", "0")  # a program may come later
    done = sidecar("check", *words, "--", "no-such-program", cwd=tmp_path, SIDECAR_WORKER_S="2")
    assert done.returncode == 0, done.stderr
    remarks = [
        line.removeprefix("remark: ")
        for line in done.stdout.splitlines()
        if line.startswith("remark: ")
    ]
    starts = [
        "a stop may take 65 s",
        "watch: there is no directory nowhere",
        "env-splay:",
        "the command line: no-such-program",
        "SIDECAR_WORKER_S: no setting",
    ]
    assert [remark.startswith(start) for remark, start in zip(remarks, starts, strict=True)] == [
        True
    ] * 5


def test_the_usual_file_can_be_turned_off_and_another_named(tmp_path):
    (tmp_path / "sidecar.yml").write_text("workers: 2\n")
    (tmp_path / "other.yml").write_text("workers: 3\n")

    def workers(*words: str, **environ: str) -> list:
        row = json.loads(
            sidecar("check", "--json", *words, "--", "true", cwd=tmp_path, **environ).stdout
        )["settings"]["workers"]
        return [row["value"], row["from"]]

    assert workers() == [2, "sidecar.yml:1"]
    assert workers("--config", "none") == [1, "default"]
    assert workers("--config", "other.yml") == [3, "other.yml:1"]
    assert workers(SIDECAR_CONFIG="other.yml") == [3, "other.yml:1"]
    assert workers("--config=none", SIDECAR_CONFIG="other.yml") == [1, "default"]
    assert sidecar("check", "--config", "gone.yml", "--", "true", cwd=tmp_path).returncode == 2


def test_help_and_schema(tmp_path):
    done = sidecar("--help", cwd=tmp_path)
    assert len(done.stdout.splitlines()) <= 40
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert json.loads(sidecar("schema", cwd=tmp_path).stdout) == schema.schema()


def test_pid_1_has_no_yaml_and_starts_without_a_file_as_it_did(tmp_path):
    """Neither the reader nor PyYAML is imported, with a file or without; without one nothing is
    started for it.
    """
    (tmp_path / "sidecar.yml").write_text("command: 'true'\n")
    code = "import sys, os; from sidecar.cli.invocation import Invocation; chosen = Invocation(sys.argv[1:], os.environ);"
    code += "chosen.settings(chosen.read());"
    code += "import sidecar.host.loop; print([name for name in sys.modules if 'yaml' in name or name == 'subprocess'])"
    for words in ([], ["--config", "none", "true"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("words", "interval", "from_", "only_time"),
    [
        (("--", "true"), "1s", "default", True),
        (("--", "celery", "-A", "app", "worker"), "10s", "profile celery", True),
        (("--", "python3", "-m", "rq", "worker"), "10s", "profile rq", True),
        (("--interval", "2s", "--", "rq", "worker"), "2s", "--interval", True),
        (("--port", "u8080", "--", "true"), "1s", "default", True),
        (("--port", "8080", "--", "true"), "1s", "default", False),
        (("--ready", "notify", "--", "true"), "1s", "default", False),
        (("--ready", "interval", "--", "true"), "1s", "default", False),
    ],
)
def test_check_says_where_nothing_but_time_makes_ready(tmp_path, words, interval, from_, only_time):
    done = sidecar("check", "--json", *words, cwd=tmp_path)
    told = json.loads(done.stdout)
    assert told["settings"]["interval"]["value"] == float(interval.removesuffix("s"))
    assert told["settings"]["interval"]["from"] == from_
    assert any("whether it works or not" in each for each in told["remarks"]) == only_time
