"""sidecar.yml: what is in it, what is wrong with it, what wins over it."""

from __future__ import annotations

import os

import pytest

from sidecar.settings import file, reader, resolve, table
from sidecar.settings.table import TABLE
from tests.unit.settings_file.choosing import choose

PROGRAM = "command: server --fast\n"


def right(
    text: str, *flags: tuple[str, str], environ: dict[str, str] | None = None
) -> table.Settings:
    choice = choose(text, *flags, environ=environ)
    assert choice.problems == ()
    return choice.settings


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
