"""`sidecar run --watch`: what is saved is served, once; what is ignored does nothing."""

from __future__ import annotations

import json
import os
import shlex

import pytest

from tests import saves
from tests.saves import AtomicWriter
from tests.support import PATIENCE, SERVER, until
from tests.system.watch.watched import SETTLE, begun, replaced, served, there


@pytest.mark.parametrize("save", saves.SAVES)
def test_a_save_is_one_swap_and_is_served(watched, tree, save):
    """However the program saves."""
    if save is saves.checkout:
        saves.prepare_checkout(tree)
    run = watched(*SETTLE)
    paths = save(tree)
    told = run.wait("serving", generation=2)
    assert told["trigger"] == "watch"
    assert {os.path.basename(each) for each in told["changed"]} <= {
        os.path.basename(each) for each in paths
    }
    assert run.wait("files_changed")["count"] == len(paths)
    run.alone(2)
    assert served(run) == there(tree)
    (tree / "end").write_text("the next save, and nothing in between")
    ended = run.wait("serving", count=3)
    assert (ended["generation"], [os.path.basename(each) for each in ended["changed"]]) == (
        3,
        ["end"],
    )
    assert run.stop() == 0


@pytest.mark.parametrize("old", [False, True], ids=["new order", "old order"])
def test_a_volume_of_kubernetes_is_one_swap_also_as_code(sidecar, tmp_path, old):
    """A ConfigMap that holds code: its names lead through `..data`, which is moved at once."""
    volume = tmp_path / "volume"
    volume.mkdir()
    writer = AtomicWriter(volume, old)
    writer.write({"app.py": "one = 1\n", "gone.py": "g = 1\n"})
    run = begun(sidecar("--watch", str(volume), *SETTLE, env={"TREE": str(volume)}))
    writer.write({"app.py": "two = 2\n", "more.py": "m = 2\n"})
    run.wait("serving", generation=2)
    run.alone(2)
    assert {name: text for name, text in served(run).items() if not name.startswith("..")} == {
        "app.py": "two = 2\n",
        "more.py": "m = 2\n",
    }
    writer.write({"app.py": "three = 3\n", "more.py": "m = 2\n"})
    assert [os.path.basename(each) for each in run.wait("serving", count=3)["changed"]] == [
        "app.py"
    ]
    run.alone(3)
    assert len(run.seen("swap_started")) == 3


def test_what_leaves_the_content_alone_does_nothing(watched, tree):
    run = watched(*SETTLE)
    os.utime(tree / "app.py")
    (tree / "pkg" / "mod.py").write_text("old = 2\n")
    (tree / ".app.py.swp").write_text("an editor's")
    (tree / "__pycache__").mkdir()
    (tree / "__pycache__" / "app.pyc").write_text("a compiler's")
    run.get()
    (tree / "end").write_text("x")
    told = run.wait("serving", count=2)
    assert [os.path.basename(each) for each in told["changed"]] == ["end"]
    assert len(run.seen("swap_started")) == 2


def test_the_trigger_and_the_paths_reach_the_worker_and_the_check(watched, tree, tmp_path):
    out = tmp_path / "out"
    run = watched(
        "--check", f"sh -c 'echo \"$SIDECAR_TRIGGER:$SIDECAR_CHANGED\" >> {out}'", *SETTLE
    )
    (tree / "app.py").write_text("new = 1\n")
    (tree / "pkg" / "mod.py").write_text("new = 2\n")
    changed = run.wait("serving", count=2)["changed"]
    run.alone(2)
    environment = run.get("/env")
    assert "SIDECAR_TRIGGER='watch'" in environment
    assert "SIDECAR_CHANGED=" + repr("\n".join(changed)) in environment
    assert [os.path.relpath(each, tree) for each in changed] == ["app.py", "pkg/mod.py"]
    assert out.read_text() == "start:\nwatch:" + "\n".join(changed) + "\n"


def test_a_thousand_paths_are_bounded(watched, tree):
    """The environment of a process has room for some of them only; how many there were is said."""
    run = watched(*SETTLE)
    for number in range(1000):
        (tree / f"a_rather_long_name_of_a_module_{number}.py").write_text("x = 1\n")
    run.wait("serving", count=2)
    assert run.wait("files_changed")["count"] == 1000
    assert len("\n".join(run.seen("serving")[1]["changed"])) < 4096
    assert len(run.seen("swap_started")) == 2


def test_ignored_paths_do_nothing(watched, tree):
    (tree / ".gitignore").write_text("*.log\n/var/\n")
    (tree / "var").mkdir()
    run = watched("--watch-ignore", "*.md", "--watch-ignore", "/pkg/deep/", *SETTLE)
    for name in ("program.log", "var/data", "README.md", "pkg/deep/leaf.py"):
        (tree / name).write_text("changed\n")
    (tree / "end.py").write_text("x = 1\n")
    assert [os.path.basename(each) for each in run.wait("serving", count=2)["changed"]] == [
        "end.py"
    ]
    assert len(run.seen("swap_started")) == 2


def test_a_file_that_the_program_writes_itself_is_named(watched, tree):
    """A log in the watched tree makes a loop: it is said which path, and how to ignore it."""
    (tree / "app.py").write_text(f"open({str(tree / 'program.out')!r}, 'a').write('started\\n')\n")
    run = watched("--watch-settle", "0")
    remark = run.wait("notice")["text"]
    assert "program.out" in remark
    assert "--watch-ignore" in remark
    assert run.stop() == 0


def test_what_sidecar_writes_itself_starts_nothing(sidecar, tree):
    """Status file, pid file and control socket in the watched tree, and a file that its output goes
    to.
    """
    program = ("sh", "-c", f"echo begun; exec {shlex.join(SERVER)}")
    options = ["--status-file", f"{tree}/status", "--pid-file", f"{tree}/run.id"]
    options += ["--control", f"{tree}/control", *SETTLE]
    with (tree / "out.txt").open("wb") as out:
        run = begun(sidecar("--watch", str(tree), *options, program=program, stdout=out))
    run.swap(2)
    assert (tree / "out.txt").read_text() == "begun\n" * 2
    (tree / "end.py").write_text("x = 1\n")
    assert [os.path.basename(each) for each in run.wait("serving", count=3)["changed"]] == [
        "end.py"
    ]
    assert len(run.seen("swap_started")) == 3


def test_a_log_file_in_the_watched_tree_starts_nothing(sidecar, tree):
    """Nor does the one it was rotated to. The log is read from there."""
    run = sidecar(
        "--watch", str(tree), "--log-file", f"{tree}/out.txt", *SETTLE, env={"TREE": str(tree)}, program=("sh", "-c", f"echo begun; exec {shlex.join(SERVER)}")
    )  # fmt: skip

    def said(name: str) -> list[dict]:
        text = "".join(each.read_text() for each in tree.glob("out.txt*"))
        events = [json.loads(each) for each in text.splitlines() if each.startswith("{")]
        return [each for each in events if each["event"] == name]

    until(lambda: said("watching") and said("serving"), "it serves")
    (tree / "out.txt").rename(tree / "out.txt.1")
    run.signal("HUP")
    until(lambda: len(said("serving")) == 2, "the second generation")
    (tree / "end.py").write_text("x = 1\n")
    until(lambda: len(said("serving")) == 3, "the third generation")
    started = sorted(said("swap_started"), key=lambda each: each["generation"])
    assert [each["trigger"] for each in started] == ["start", "signal", "watch"]
    changed = max(said("serving"), key=lambda each: each["generation"])["changed"]
    assert [os.path.basename(each) for each in changed] == ["end.py"]
    run.signal("TERM")
    assert run.process.wait(PATIENCE) == 0


def test_a_settings_file_that_is_saved_is_read(sidecar, tree):
    """With what else was saved; a bad one is refused, and nothing else happens."""
    file = tree / "sidecar.yml"
    file.write_text("workers: 1\n")
    run = sidecar("--watch", str(tree), "--config", str(file), *SETTLE, env={"TREE": str(tree)})
    begun(run)
    replaced(file, "workers: 2\n")
    (tree / "app.py").write_text("new = 1\n")
    told = run.wait("serving", generation=2)
    assert told["trigger"] == "watch"
    assert [os.path.basename(each) for each in told["changed"]] == ["app.py", "sidecar.yml"]
    assert run.wait("settings_read", count=2)["changed"] == ["workers"]
    run.wait("worker_ready", generation=2, count=2)
    replaced(file, "workers: none\n")
    assert "sidecar.yml:1: workers" in run.wait("reload_rejected")["cause"]
    (tree / "end.py").write_text("x = 1\n")
    assert [os.path.basename(each) for each in run.wait("serving", generation=3)["changed"]] == [
        "end.py"
    ]
    assert run.stop() == 0


def test_a_file_may_be_watched(sidecar, tree):
    """A file by itself, and none of its neighbours."""
    run = begun(sidecar("--watch", str(tree / "app.py"), *SETTLE, env={"TREE": str(tree)}))
    (tree / "neighbour.py").write_text("x = 1\n")
    replaced(tree / "app.py", "new = 1\n")
    told = run.wait("serving", generation=2)
    assert [os.path.basename(each) for each in told["changed"]] == ["app.py"]
