"""What a rollout is asked for, and what goes into its archives: real files, no engine."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tarfile

import pytest

from sidecar.base.errors import SettingsError
from sidecar.rollout.archive import Archive
from sidecar.rollout.plan import Copy, filled, resolve
from tests.support import ROOT

FULL = """\
targets:
  labels: {app: web, tier: "1"}
  project: shop
  service: web
copy:
  - from: build
    to: /srv/app
    exclude: ["*.pyc", .git/]
envdir: {from: env, to: /run/env}
parallel: 3
max-failures: 2
timeout: 5m
rollback: yes
confirm: no
before: [make, build]
before-each: [[./out, "{name}"], [./log, "{id} {old}"]]
after-each: [[./in, "{name}", "{new}", "{outcome}"]]
after: [[./notify, '{"text": "{outcome}: {done} of {containers}"}']]
"""


def problems(words=(), text: str = "") -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        resolve(words, "deploy.yml" if text else "", text)
    return caught.value.problems


def test_a_whole_plan():
    plan = resolve([], "deploy.yml", FULL)
    assert plan.label == ("app=web", "tier=1")
    assert (plan.project, plan.service, plan.parallel, plan.max_failures, plan.timeout) == (
        "shop",
        "web",
        3,
        2,
        300.0,
    )
    assert plan.copy == (Copy("build", "/srv/app", ("*.pyc", ".git/")),)
    assert plan.envdir == Copy("env", "/run/env")
    assert (plan.rollback, plan.confirm) == (True, False)
    assert plan.before == (("make", "build"),)
    assert plan.before_each == (("./out", "{name}"), ("./log", "{id} {old}"))


def test_a_word_wins_over_the_file_and_labels_add_up():
    plan = resolve(
        ["--parallel", "7", "--label=zone=a", "--exclude", "*.log", "--yes"],
        "deploy.yml",
        FULL.replace("confirm: no\n", ""),
    )
    assert (plan.parallel, plan.confirm) == (7, False)
    assert plan.label == ("app=web", "tier=1", "zone=a")
    assert plan.copy[0].exclude == ("*.pyc", ".git/", "*.log")


def test_every_mistake_is_named_at_once_with_its_line():
    text = """\
targets: {labels: [" x"], servce: web}
copy:
  - from: build
    too: /srv
  - {from: a, to: srv}
parallel: none
parallel: 2
timeout: [1]
confirm: perhaps
before: make build
after: [[notify, "{name}"], []]
hooks: 1
"""
    found = problems(["--max-failures", "-1", "--nope", "--label"], text)
    assert found == (
        "deploy.yml:1: targets: servce: there is no such name; say one of labels, project, service, selector, namespace, context, control",
        "deploy.yml:1: labels: ' x' is no label; say NAME=VALUE or NAME",
        "deploy.yml:3: copy: to: is missing",
        "deploy.yml:4: copy: too: there is no such name; say one of from, to, exclude",
        "deploy.yml:5: copy: to: 'srv' is no absolute path of the container",
        "deploy.yml:6: parallel: 'none' is not a whole number of 1 or more",
        "deploy.yml:7: parallel: it is there twice",
        "deploy.yml:8: timeout: say one value",
        "deploy.yml:9: confirm: 'perhaps' is neither yes nor no",
        "deploy.yml:10: before: say a list of commands, each a list of words: [[make, build], [./notify, started]]",
        "deploy.yml:11: after: {name} is not known there; say {containers}, {done}, {failed}, {untouched}, {outcome}",
        "deploy.yml:11: after: a command is a list of words; no shell reads it",
        "deploy.yml:12: hooks: there is no such name; say one of targets, copy, envdir, parallel, max-failures, timeout, rollback, "
        "confirm, before, before-each, after-each, after",
        "--max-failures: '-1' is not a whole number of 0 or more",
        "--nope: there is no such option; see sidecar rollout --help",
        "--label: its value is missing",
    )


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "say which containers"),
        (["--label", "a=b", "--selector", "c=d"], "say one or the other"),
        (["--label", "a", "--namespace", "x"], "mean pods"),
        (["--selector", "a=b", "--copy", "x:/y"], "not with --selector"),
        (["--label", "a", "--exclude", "x"], "no --copy to leave anything out of"),
        (["--label", "a", "--rollback"], "no --copy to take back"),
        (["--label", "a", "--timeout", "0"], "more than nothing"),
        (["--label", "a", "--copy", "x"], "SRC:DEST"),
        (["--label", "a", "--copy", "x:y"], "no absolute path"),
        (["--label", "a", "deploy.yml"], "comes first"),
    ],
)
def test_what_makes_no_sense_is_refused(words, part):
    assert any(part in each for each in problems(words))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [", "deploy.yml:1: it is no YAML"),
        ("- a", "say `NAME: VALUE`"),
        ("a: \x00", "deploy.yml:1: there is a character that YAML does not allow"),
    ],
)
def test_what_is_no_plan_is_refused(text, part):
    assert any(part in each for each in problems((), text))


@pytest.mark.parametrize(
    "command",
    [
        "[sh, -c, 'echo {name}']",
        "[/bin/bash, -ec, 'echo {name}']",
        "[env, A=1, dash, -x, -c, 'echo {name}']",
        "[[true], [sudo, sh, -c, 'echo {name}', x, y]]",
    ],
)
def test_nothing_is_put_into_a_word_that_a_shell_reads(command):
    assert problems((), f"targets: {{service: web}}\nbefore-each: {command}\n") == (
        "deploy.yml:2: before-each: a shell reads this word, so nothing is put into it; say "
        "echo $ROLLOUT_NAME",
    )


def test_other_words_of_a_shell_are_filled_in():
    text = "targets: {service: web}\nbefore-each: [sh, -c, 'echo $1', sh, '{name}']\n"
    (command,) = resolve((), "deploy.yml", text).before_each
    assert filled(command, {"name": "web-1"})[-1] == "web-1"


def test_a_hooks_other_braces_stay_as_they_are():
    assert filled(['{"text": "{outcome}"}', "{}", "{other}"], {"outcome": "done"}) == [
        '{"text": "done"}',
        "{}",
        "{other}",
    ]


PAGE = (ROOT / "docs" / "rollout.md").read_text()


@pytest.mark.parametrize("line", re.findall(r"^    sidecar (rollout .*)", PAGE, re.MULTILINE))
def test_the_commands_of_the_page_are_right(line):
    words = shlex.split(line)[1:]
    if words[0] == "deploy.yml":
        text = PAGE.partition("```yaml\n")[2].partition("```")[0]
        plan = resolve(words[1:], words.pop(0), text)
        assert len(plan.before + plan.before_each + plan.after_each + plan.after) == 4
    else:
        resolve(words, "", "")


# --- archives


def names(packed: Archive, owner: int = 0) -> dict[str, tarfile.TarInfo]:
    with packed.open_for(owner) as file, tarfile.open(fileobj=io.BytesIO(file.read())) as archive:
        return {each.name: each for each in archive}


def test_a_copy_is_what_gitignore_leaves_and_belongs_to_root(tmp_path):
    for name in (
        "app.py",
        "app.pyc",
        "deep/er/x.py",
        "deep/er/x.pyc",
        ".git/config",
        "cache/keep",
        "cache/drop",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "app.py").chmod(0o750)
    (tmp_path / "link").symlink_to("app.py")
    os.link(tmp_path / "app.py", tmp_path / "twin.py")
    os.mkfifo(tmp_path / "pipe")
    packed = Archive(Copy(str(tmp_path), "/srv", ("*.pyc", ".git/", "cache/*", "!cache/keep")), "")
    found = names(packed)
    assert sorted(found) == [
        "app.py",
        "cache",
        "cache/keep",
        "deep",
        "deep/er",
        "deep/er/x.py",
        "link",
        "twin.py",
    ]
    assert {(each.uid, each.gid, each.uname) for each in found.values()} == {(0, 0, "")}
    assert (found["app.py"].mode, found["link"].linkname) == (0o750, "app.py")
    assert (found["twin.py"].isreg(), found["twin.py"].size) == (True, 6)
    assert (packed.count, packed.skipped) == (5, ["pipe"])


def test_it_is_what_was_there_at_first_and_each_reader_has_its_own_place(tmp_path):
    (tmp_path / "a").write_text("first")
    packed = Archive(Copy(str(tmp_path), "/srv"), "")
    (tmp_path / "a").write_text("second")
    one, other = packed.open_for(0), packed.open_for(0)
    with one, other:
        assert one.read() == other.read()
    with packed.open_for(0) as file, tarfile.open(fileobj=io.BytesIO(file.read())) as archive:
        assert archive.extractfile("a").read() == b"first"


def test_an_envdirs_files_are_for_its_user_only_whatever_they_are_links_to(tmp_path):
    data = tmp_path / "..data"
    data.mkdir()
    (data / "TOKEN").write_text("x")
    (tmp_path / "TOKEN").symlink_to("..data/TOKEN")
    (tmp_path / "PLAIN").write_text("y")
    (tmp_path / ".hidden").write_text("z")
    (tmp_path / "directory").mkdir()
    found = names(Archive(Copy(str(tmp_path), "/env"), "", secret=True), owner=1000)
    assert {name: (each.isreg(), each.mode, each.uid) for name, each in found.items()} == {
        "PLAIN": (True, 0o400, 1000), "TOKEN": (True, 0o400, 1000),
    }  # fmt: skip


# --- the door


def refused(*words: str, **environ: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "rollout", *words],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


def test_a_source_that_is_not_there_is_named_with_all_others(tmp_path):
    status, said = refused(
        "--label", "a", "--copy", f"{tmp_path}/x:/x", "--envdir", f"{tmp_path}/y:/y"
    )
    assert (status, said.splitlines()) == (
        2, [f"sidecar rollout: copy: {tmp_path}/x is no directory", f"sidecar rollout: envdir: {tmp_path}/y is no directory"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("option", "module", "extra"),
    [("--label", "docker", "docker"), ("--selector", "kubernetes", "kubernetes")],
)
def test_a_missing_extra_is_said_with_the_command_that_installs_it(tmp_path, option, module, extra):
    (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError(name={module!r})\n")
    status, said = refused(option, "a=b", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert status == 2
    assert f"pip install 'sidecar-starter[{extra}]'" in said


def test_a_plan_that_cannot_be_read_is_said():
    assert refused("nowhere.yml") == (
        2,
        "sidecar rollout: nowhere.yml: the plan cannot be read: no such file or directory\n",
    )


def test_the_help_fits_a_small_terminal():
    for words in ((), ("rollout",)):
        text = subprocess.run(
            [sys.executable, "-m", "sidecar", *words, "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert len(text.splitlines()) <= 40
        assert max(map(len, text.splitlines())) <= 80
