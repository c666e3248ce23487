"""`sidecar run --watch --watch-env`: what is saved is served, once; what is broken changes nothing.
The watcher alone: test_watcher.py.

That something did nothing is seen by what comes next: another save, whose generation has the next
number and says that only it has changed.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import saves
from tests.saves import AtomicWriter
from tests.support import PATIENCE, SERVER, Load, Sidecar, alive, until

# Longer than any of the sequences takes, so that a slow machine does not make two of one.
SETTLE = ("--watch-settle", "800ms")


@pytest.fixture
def tree(tmp_path) -> Path:
    return saves.plant(tmp_path / "tree")


@pytest.fixture
def watched(sidecar, tree) -> Callable[..., Sidecar]:
    """A sidecar that watches the tree and serves what it has read of it; it is returned once both
    are so.
    """

    def start(*options: str, **keywords: object) -> Sidecar:
        keywords["env"] = {"TREE": str(tree), **keywords.get("env", {})}
        return begun(sidecar("--watch", str(tree), *options, **keywords))

    return start


@pytest.fixture
def env(tmp_path) -> Path:
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "GREETING").write_text("first\n")
    return tmp_path / "env"


def there(tree: Path) -> dict[str, str]:
    """What a program that starts now would read."""
    files = [
        each
        for each in tree.rglob("*")
        if each.is_file()
        and "/." not in str(each.relative_to(tree.parent))
        and "__pycache__" not in each.parts
    ]
    return {str(each.relative_to(tree)): each.read_text() for each in files}


def served(run: Sidecar) -> dict[str, str]:
    return json.loads(run.get("/tree"))


def watcher(run: Sidecar) -> int:
    """The pid of the watcher, as soon as it is there."""
    found: list[int] = []

    def look() -> bool:
        for word in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split():
            try:
                if b"sidecar.watch" in Path(f"/proc/{word}/cmdline").read_bytes() and alive(
                    int(word)
                ):
                    found.append(int(word))
            except OSError:
                continue
        return bool(found)

    until(look, "the watcher's process")
    return found[0]


def switches(pid: int) -> int:
    """How often the process has gone to sleep of its own accord."""
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return int(status["voluntary_ctxt_switches"])


def begun(run: Sidecar) -> Sidecar:
    """Wait until it serves and watches, and its watcher has nothing to do any more."""
    run.wait("watching")
    run.wait("serving")
    pid = watcher(run)
    before = switches(pid)
    until(lambda: switches(pid) > before, "a watcher that waits")
    return run


def replaced(path: Path, text: str) -> None:
    """A save that no reader sees half."""
    path.with_name(f".{path.name}.swp").write_text(text)
    os.replace(path.with_name(f".{path.name}.swp"), path)


# --- saves


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


# --- broken saves


@pytest.mark.parametrize("check", [False, True], ids=["the program dies", "the check fails"])
def test_a_broken_save_changes_nothing_and_the_next_good_one_is_served(watched, tree, check):
    """It is said once, with its cause, the check's output and what has changed, and not tried again
    meanwhile.
    """
    run = watched(
        *(("--check", f"python3 -m py_compile {tree / 'app.py'}") if check else ()), *SETTLE
    )
    before = served(run)
    with Load(run.port) as load:
        (tree / "app.py").write_text("x = = 1\n")
        failed = run.wait("swap_failed")
        assert (failed["generation"], failed["trigger"], failed["still"]) == (2, "watch", [1])
        assert [os.path.basename(each) for each in failed["changed"]] == ["app.py"]
        assert failed["lasted"] > 0
        assert ("exited with status 1" in failed["cause"]) is True
        assert ("SyntaxError" in failed["output"]) is check
        assert served(run) == before
        # A second broken save: one more failure, and all that has changed since is named.
        (tree / "pkg" / "mod.py").write_text("new = 2\n")
        again = run.wait("swap_failed", count=2)
        assert [os.path.relpath(each, tree) for each in again["changed"]] == [
            "app.py",
            "pkg/mod.py",
        ]
        (tree / "app.py").write_text("x = 1\n")
        run.wait("serving", generation=4)
    assert load.failures == []
    run.alone(4)
    assert served(run) == there(tree)
    assert len(run.seen("swap_failed")) == 2
    assert run.seen("retry_scheduled") == []


def test_the_output_of_a_check_is_the_end_of_it(watched, tree):
    """However much it writes."""
    run = watched(
        "--check", "sh -c 'test \"$SIDECAR_TRIGGER\" = start || { seq 1 200000; exit 1; }'"
    )
    (tree / "app.py").write_text("new = 1\n")
    output = run.wait("swap_failed")["output"].split("\n")
    assert output[-1] == "200000"
    assert len("\n".join(output)) <= 2000
    assert output == [str(number) for number in range(200001 - len(output), 200001)]


def test_a_save_during_a_slow_start_gives_the_half_started_generation_up(watched, tree, env):
    """It goes before the next one begins: never three at a time."""
    run = watched("--envdir", str(env))
    (env / "BOOT").write_text("3600")
    (tree / "app.py").write_text("new = 1\n")
    run.wait("worker_started", generation=2)
    (env / "BOOT").write_text("0")
    (tree / "app.py").write_text("newer = 1\n")
    run.wait("serving", generation=3)
    assert run.seen("swap_superseded", generation=2)
    names = [(each["event"], each.get("generation")) for each in run.events]
    gone = min(
        names.index((name, 2)) for name in ("worker_exited", "worker_died") if (name, 2) in names
    )
    assert gone < names.index(("worker_started", 3))
    run.alone(3)
    assert served(run) == there(tree)


def test_fifty_saves_ten_of_them_broken_lose_no_request(watched, tree):
    """50 new connections a second all the while: the old version answers while the new one is
    broken, and the fix is served.
    """
    run = watched()
    good, number = 0, 1
    with Load(run.port, one_shot=2, kept=0, path="/tree", pause=0.04) as load:
        for save in range(50):
            number += 1
            if save % 5 == 2:
                replaced(tree / "app.py", saves.BROKEN.format(save))
                run.wait("swap_failed", generation=number)
                assert served(run)["app.py"] == saves.GOOD.format(good)
            else:
                good = save
                replaced(tree / "app.py", saves.GOOD.format(save))
                run.wait("serving", generation=number)
                run.alone(number)
                assert served(run)["app.py"] == saves.GOOD.format(good)
    assert load.failures == []
    assert load.answered >= 50
    assert len(run.seen("swap_started")) == 51
    assert run.stop() == 0


def test_a_stream_does_not_hold_a_swap_up_and_ends_at_the_deadline(watched, tree):
    """Server-sent events, a WebSocket: the old generation goes on with it beside the new one."""
    run = watched("--drain-timeout", "2s")
    with socket.create_connection(("127.0.0.1", run.port), PATIENCE) as sock:
        sock.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        old = run.workers()[0]
        said = b""
        while b"data: %d" % old not in said:
            said += sock.recv(4096)
        (tree / "app.py").write_text("new = 1\n")
        run.wait("serving", generation=2)
        (tree / "app.py").write_text("newer = 1\n")
        run.wait("serving", generation=3)
        # It may still answer for a moment.
        second = run.seen("worker_started", generation=2)[0]["pid"]
        until(lambda: second not in run.workers(), "the end of the second generation's worker")
        assert served(run) == there(tree)
        assert sock.recv(4096), "the old stream goes on"
        run.wait("worker_killed", generation=1)
        try:
            while sock.recv(4096):
                pass
        except ConnectionResetError:
            pass
    run.wait("worker_exited", generation=1)


# --- the envdir


def test_a_changed_value_swaps_and_the_same_value_does_nothing(sidecar, env):
    run = begun(sidecar("--envdir", str(env), "--watch-env"))
    (env / "GREETING").write_text("first   \nwritten anew, with what is not read\n")
    replaced(env / "GREETING", "first")
    (env / "COLOUR").write_text("blue\n")
    told = run.wait("serving", count=2)
    assert (told["generation"], told["trigger"], told["changed"]) == (2, "envdir", ["COLOUR"])
    run.alone(2)
    assert "COLOUR='blue'" in run.get("/env")
    (env / "GREETING").write_text("second\n")
    (env / "COLOUR").unlink()
    run.wait("serving", count=3)
    run.alone(3)
    until(
        lambda: run.get().startswith("second") and "COLOUR=" not in run.get("/env"), "both changes"
    )


@pytest.mark.parametrize("old", [False, True], ids=["new order", "old order"])
def test_a_volume_of_kubernetes_is_one_swap(sidecar, tmp_path, old):
    """A write with the same values, as at a token's rotation of another volume or a label that
    changed, does nothing.
    """
    volume = tmp_path / "volume"
    volume.mkdir()
    writer = AtomicWriter(volume, old)
    writer.write({"GREETING": "one", "COLOUR": "red"})
    run = begun(sidecar("--envdir", str(volume), "--watch-env"))
    writer.write({"GREETING": "two", "COLOUR": "blue"})
    assert run.wait("serving", count=2)["changed"] == ["COLOUR", "GREETING"]
    writer.write({"GREETING": "two", "COLOUR": "blue"})
    writer.write({"GREETING": "two", "SHAPE": "round"})
    assert run.wait("serving", count=3)["changed"] == ["COLOUR", "SHAPE"]
    assert len(run.seen("swap_started")) == 3
    run.alone(3)
    assert run.get().startswith("two")


def test_a_changed_file_is_told_by_the_name_of_its_variable(sidecar, env):
    run = sidecar("--envdir", f"{env},upper,prefix=APP_", "--watch-env")
    run.wait("serving")
    assert run.wait("watching")["roots"] == [str(env)]
    (env / "db-password").write_text("secret\n")
    assert run.wait("serving", count=2)["changed"] == ["APP_DB_PASSWORD"]
    assert "APP_DB_PASSWORD='secret'" in run.get("/env")


def test_an_envdir_that_cannot_be_read_keeps_the_old_and_going_back_counts(sidecar, env):
    """The same values as before are a change then: what has failed in between is made up for."""
    run = begun(sidecar("--envdir", str(env), "--watch-env"))
    replaced(env / "GREETING", "x" * 200_000)
    assert "GREETING" in run.wait("environment_unreadable")["cause"]
    assert run.get().startswith("first 1 ")
    replaced(env / "GREETING", "first\n")
    run.wait("serving", count=2)
    run.alone(2)
    assert run.get().startswith("first 2 ")
    shutil.move(env, env.parent / "away")
    run.wait("environment_unreadable", count=2)
    shutil.move(env.parent / "away", env)
    run.wait("serving", count=3)
    assert len(run.seen("swap_started")) == 3
    assert run.seen("swap_failed") == []


def test_a_value_that_makes_the_program_die_is_not_tried_again_until_it_changes(sidecar, env):
    """And going back to the value that served is a swap, too."""
    run = begun(sidecar("--envdir", str(env), "--watch-env"))
    (env / "DIE").write_text("4")
    failed = run.wait("swap_failed")
    assert (failed["trigger"], failed["changed"], failed["still"]) == ("envdir", ["DIE"], [1])
    (env / "DIE").unlink()
    run.wait("serving", generation=3)
    assert run.seen("retry_scheduled") == []


def test_a_splay_puts_an_envdirs_change_off_but_no_other(sidecar, env):
    """So long a splay that it ends in no test: the swap that somebody asks for meanwhile takes the
    change along.
    """
    run = begun(sidecar("--envdir", str(env), "--watch-env", "--env-splay", "9999h"))
    (env / "GREETING").write_text("second\n")
    run.wait("environment_changed")
    run.signal("HUP")
    told = run.wait("serving", generation=2)
    assert (told["trigger"], told["changed"]) == ("signal", ["GREETING"])
    run.alone(2)
    assert run.get().startswith("second 2 ")
    assert len(run.seen("swap_started")) == 2


def test_after_its_splay_the_change_is_served(sidecar, env):
    run = begun(sidecar("--envdir", str(env), "--watch-env", "--env-splay", "1s"))
    (env / "GREETING").write_text("second\n")
    assert run.wait("serving", generation=2)["trigger"] == "envdir"


def test_no_value_of_an_envdir_is_said(sidecar, env):
    """Neither in the log nor where any process could read it: names only."""
    secret = "s3cr3t-not-to-be-said"
    (env / "TOKEN").write_text(secret + "1")
    run = begun(sidecar("--envdir", str(env), "--watch-env", "--watch", str(env.parent)))
    (env / "TOKEN").write_text(secret + "2")
    run.wait("environment_changed")
    number = run.wait("serving", count=2)["generation"]
    run.alone(number)
    assert f"TOKEN='{secret}2'" in run.get("/env")
    replaced(env / "TOKEN", secret * 20_000)
    run.wait("environment_unreadable")
    os.kill(watcher(run), signal.SIGKILL)
    run.wait("helper_exited")
    pid = watcher(run)
    assert secret not in Path(f"/proc/{pid}/cmdline").read_text()
    assert secret not in Path(f"/proc/{pid}/environ").read_text()
    (env / "TOKEN").unlink()
    run.wait("environment_changed", count=2)
    assert run.stop() == 0
    assert secret not in json.dumps(run.events)
    assert not [line for line in run.output if secret in line]


# --- the watcher's process


def test_a_watcher_killed_ten_times_misses_nothing_and_serving_never_notices(watched, tree):
    """What changes while there is none is found by the next one; it is started again after pauses
    that grow.
    """
    run = watched("--watch-settle", "0")
    with Load(run.port, one_shot=1, kept=1, pause=0.02) as load:
        for count in range(1, 11):
            pid = watcher(run)
            os.kill(pid, signal.SIGKILL)
            replaced(tree / "pkg" / "mod.py", f"version = {count}\n")
            run.wait("helper_exited", count=count)
            if count % 3 == 0:
                (tree / f"new{count}").mkdir()
                (tree / f"new{count}" / "file.py").write_text("x = 1\n")
    until(lambda: served(run) == there(tree), "the last save served")
    assert load.failures == []
    assert run.seen("worker_died") == []
    assert [each["cause"] for each in run.seen("helper_exited")] == ["killed by SIGKILL"] * 10
    assert run.stop() == 0


def test_a_watcher_that_is_stopped_is_replaced(watched, tree):
    """SIGSTOP makes it deaf, which nobody would notice."""
    run = watched()
    pid = watcher(run)
    os.kill(pid, signal.SIGSTOP)
    (tree / "app.py").write_text("new = 1\n")
    assert run.wait("helper_exited")["pid"] == pid
    run.wait("serving", generation=2)
    run.alone(2)
    assert served(run) == there(tree)


def test_the_watcher_dies_with_sidecar(watched):
    run = watched()
    pid = watcher(run)
    run.process.kill()
    until(lambda: not alive(pid), "the watcher's end")


def test_the_watcher_dies_with_a_sidecar_that_it_does_not_see_die(watched):
    """It is stopped when sidecar is killed: the kernel sees to it."""
    run = watched()
    pid = watcher(run)
    os.kill(run.pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGSTOP)
    run.process.kill()
    until(lambda: not alive(pid), "the watcher's end")


def test_at_rest_pid_1_does_not_wake_and_the_watcher_hardly(watched, env):
    """The watcher's own ticks are the clock."""
    run = watched("--watch-env", "--envdir", str(env))
    pid = watcher(run)

    def tick() -> float:
        before = switches(pid)
        until(lambda: switches(pid) > before, "the watcher's tick")
        return time.monotonic()

    for _ in range(2):
        tick()
    first, woken, ticks = tick(), switches(run.pid), switches(pid)
    while switches(pid) < ticks + 4:
        last = tick()
    assert switches(run.pid) == woken
    assert (switches(pid) - ticks) / (last - first) <= 1.0
    run.signal("CHLD")
    until(lambda: switches(run.pid) > woken, "that a wake-up is counted")


def test_a_watch_on_a_directory_that_is_not_there_yet(sidecar, tmp_path):
    """It is said, and watched once it is there."""
    run = sidecar("--watch", str(tmp_path / "later"))
    run.wait("serving")
    assert "later" in run.wait("notice")["text"]
    run.wait("watching")
    saves.plant(tmp_path / "later")
    assert run.wait("serving", count=2)["trigger"] == "watch"


def test_both_sources_at_once_are_one_answer(watched, tree, env):
    """A deploy that changes code and environment: the last generation has both, and at most one was
    given up on the way.
    """
    run = watched("--watch-env", "--envdir", str(env))
    (env / "GREETING").write_text("second\n")
    (tree / "app.py").write_text("new = 1\n")
    until(lambda: run.get().startswith("second") and served(run) == there(tree), "both")
    assert int(run.get().split()[1]) <= 3
    assert len(run.seen("swap_started")) <= 3


def test_an_envdir_in_the_watched_tree_is_no_code(sidecar, tree):
    """Its files count by what would be read, and are one swap."""
    (tree / "env").mkdir()
    (tree / "env" / "GREETING").write_text("first\n")
    run = begun(
        sidecar("--watch", str(tree), "--watch-env", "--envdir", str(tree / "env"), *SETTLE)
    )
    replaced(tree / "env" / "GREETING", "second\n")
    assert run.wait("serving", generation=2)["trigger"] == "envdir"
    (tree / "end").write_text("x")
    told = run.wait("serving", count=3)
    assert [os.path.basename(each) for each in told["changed"]] == ["end"]
