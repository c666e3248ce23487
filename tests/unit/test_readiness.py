"""Readiness against real processes: what is seen of each way to wait for a connection, and what
must not be taken for one.
"""

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sidecar.core.probe_schedule import ProbeSchedule
from sidecar.system import accept_probe, procfs
from sidecar.system.accept_probe import ProbeForbidden, accepting_pids, accepts_connections
from sidecar.system.procfs import handles_signals, owning_leader
from tests.support import open_to_others

ROOT = Path(__file__).parents[2]
APPS = ROOT / "tests" / "apps"
NOBODY = 65534

RIGHTS = int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16)
CHOWN, SETGID, SETUID = 1 << 0, 1 << 6, 1 << 7  # capabilities(7)

as_root = pytest.mark.skipif(
    ~RIGHTS & (CHOWN | SETGID | SETUID) != 0, reason="needs the rights to become other users"
)


def eventually(question, seconds=30):
    """The first true answer; fails if there is none in a generous time."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)
    return answer


def inode(sock):
    return os.fstat(sock.fileno()).st_ino


@contextmanager
def listening(family=socket.AF_INET):
    with socket.socket(family) as sock, tempfile.TemporaryDirectory() as folder:
        try:
            sock.bind(
                f"{folder}/s"
                if family == socket.AF_UNIX
                else ("::1" if family == socket.AF_INET6 else "127.0.0.1", 0)
            )
        except OSError as error:
            pytest.skip(f"no such address here: {error}")
        sock.listen()
        yield sock


@pytest.fixture
def listener():
    with listening() as sock:
        yield sock


@pytest.fixture
def decoy():
    with listening() as sock:
        yield sock


@pytest.fixture
def start():
    """Starts `ready_ways.py WAY sockets…`; each in its own process group, killed at the end."""
    started = []

    def start(way, *sockets):
        fds = [sock.fileno() for sock in sockets]
        command = [sys.executable, APPS / "ready_ways.py", way, *map(str, fds)]
        program = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=fds, process_group=0
        )
        started.append(program)
        assert program.stdout.readline() == b"held\n"
        return program

    yield start
    for program in started:
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.communicate()


def release(program):
    os.write(program.stdin.fileno(), b"\n")


@contextmanager
def looking_as(rights, program, *sockets, user=None):
    """A looker with these rights (arguments of setpriv) and its program; yields a function that
    looks once.
    """
    fds = [sock.fileno() for sock in sockets]
    options = [str(inode(sockets[0])), *(["--user", str(user)] if user else [])]
    command = [
        needed("setpriv"),
        *rights,
        sys.executable,
        APPS / "ready_looker.py",
        *options,
        "--",
        *program,
        *map(str, fds),
    ]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=fds,
        text=True,
        env=environ,
    ) as looker:
        pid = looker.stdout.readline().strip()
        if not pid:
            pytest.skip(
                f"the looker cannot run with these rights here: {looker.stderr.read().splitlines()[-1:]}"
            )

        def look():
            looker.stdin.write("look\n")
            looker.stdin.flush()
            return looker.stdout.readline().strip()

        look.pid = int(pid)
        look.heard = looker.stderr
        yield look
        looker.stdin.close()


def needed(program):
    return shutil.which(program) or pytest.skip(f"{program} is not installed")


def a_way(name):
    return [sys.executable, str(APPS / "ready_ways.py"), name]


UNPRIVILEGED = [
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--bounding-set=-all",
    "--inh-caps=-all",
]
ROOT_IN_DOCKER = ["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]


# ── what is seen


@pytest.mark.parametrize(
    "way",
    [
        "accept",
        "accept-with-timeout",
        "select-",
        "select-high",
        "poll",
        "epoll",
        "epoll-exclusive-in-forgotten-descriptor",
        "selector-in-thread",
        "accept-in-thread",
        "children",
        "grandchild-of-thread",
        "dup",
    ],
)
def test_a_worker_is_ready_when_it_waits_for_connections_and_not_before(start, listener, way):
    program = start(way, listener)
    assert not accepts_connections(program.pid, {inode(listener)})
    release(program)
    eventually(lambda: accepts_connections(program.pid, {inode(listener)}))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_a_worker_too_busy_ever_to_wait_is_known_by_the_connection_that_it_holds(start, family):
    with listening(family) as listener, socket.socket(family) as client:
        program = start("busy", listener)
        client.connect(listener.getsockname())  # the queue takes it, which proves nothing
        assert not accepts_connections(program.pid, {inode(listener)})
        release(program)
        assert client.recv(5) == b"taken"
        assert accepts_connections(program.pid, {inode(listener)})


def test_a_busy_worker_with_listeners_of_several_kinds_is_known_by_a_connection_from_one(
    start, listener
):
    with listening(socket.AF_UNIX) as other, socket.socket() as client:
        program = start("busy", listener, other)
        client.connect(listener.getsockname())
        release(program)
        assert client.recv(5) == b"taken"
        assert accepts_connections(program.pid, {inode(other), inode(listener)})
        assert not accepts_connections(program.pid, {inode(other)})


def test_one_of_several_listeners_is_enough(start, listener, decoy):
    program = start("accept", listener, decoy)
    release(program)
    eventually(lambda: accepts_connections(program.pid, {inode(decoy), inode(listener)}))


@pytest.mark.parametrize(
    "way", ["accept-decoy", "select-decoy", "poll-decoy", "epoll-decoy", "epoll-other-decoy"]
)
def test_waiting_for_something_else_is_not_waiting_for_the_listener(start, listener, decoy, way):
    program = start(way, listener, decoy)
    release(program)
    eventually(lambda: accepts_connections(program.pid, {inode(decoy)}))
    assert not accepts_connections(program.pid, {inode(listener)})


def test_a_connection_to_another_listener_is_none_from_ours_though_both_are_held(
    start, listener, decoy
):
    program = start("busy-with-decoy", listener, decoy)
    with socket.create_connection(decoy.getsockname()) as client:
        release(program)
        assert client.recv(5) == b"taken"
        assert accepts_connections(program.pid, {inode(decoy)})
        assert not accepts_connections(program.pid, {inode(listener)})


def test_another_worker_that_takes_connections_does_not_make_this_one_ready(start, listener):
    ours, stranger = start("accept", listener), start("accept", listener)
    release(stranger)
    eventually(lambda: accepts_connections(stranger.pid, {inode(listener)}))
    assert not accepts_connections(ours.pid, {inode(listener)})


def test_the_tree_is_found_where_the_kernel_does_not_list_children(start, listener, monkeypatch):
    monkeypatch.setattr(procfs, "_children_shown", lambda: False)
    program = start("grandchild-of-thread", listener)
    assert not accepts_connections(program.pid, {inode(listener)})
    release(program)
    eventually(lambda: accepts_connections(program.pid, {inode(listener)}))


def test_an_orphan_in_the_workers_group_counts_as_the_worker(listener):
    with looking_as([], a_way("orphan"), listener) as look:
        assert eventually(lambda: look() == "True")


# ── what comes and goes


def test_a_worker_that_has_gone_is_not_ready(start, listener):
    program = start("accept", listener)
    os.kill(program.pid, signal.SIGKILL)
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    assert not accepts_connections(program.pid, {inode(listener)})  # a zombie
    program.wait()
    assert not accepts_connections(program.pid, {inode(listener)})  # nothing at all


def test_looking_at_processes_that_come_and_go_raises_nothing(start, listener):
    program = start("churn", listener)
    release(program)
    before = os.listdir("/proc/self/fd")
    for _ in range(1000):
        assert not accepts_connections(program.pid, {inode(listener)})
    assert program.poll() is None
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_of_a_tree_those_are_counted_that_take_connections_and_no_master(start, listener):
    program = start("children", listener)
    assert accepting_pids(program.pid, {inode(listener)}, ()) == set()
    release(program)
    eventually(lambda: len(accepting_pids(program.pid, {inode(listener)}, ())) == 4)
    assert program.pid not in accepting_pids(program.pid, {inode(listener)}, ())
    alone = start("epoll", listener)
    release(alone)
    eventually(lambda: accepting_pids(alone.pid, {inode(listener)}, ()) == {alone.pid})


def test_a_known_taker_counts_while_it_lives_in_the_tree(start, listener, decoy):
    """Between two connections a worker shows nothing; who looks again believes what was seen."""
    program = start("children", decoy)
    release(program)
    found = eventually(
        lambda: len(all_ := accepting_pids(program.pid, {inode(decoy)}, ())) == 4 and all_
    )
    assert accepting_pids(program.pid, {inode(listener)}, ()) == set()
    assert accepting_pids(program.pid, {inode(listener)}, {*found, os.getpid()}) == found
    os.kill(min(found), signal.SIGKILL)  # its parent never reaps it
    eventually(
        lambda: accepting_pids(program.pid, {inode(listener)}, found) == found - {min(found)}
    )


def test_a_handler_is_seen_and_its_absence(start, listener):
    program = start("accept", listener)
    assert not handles_signals(program.pid, signal.SIGTTOU)
    assert not handles_signals(2**22 + 1, signal.SIGTTOU)  # nobody
    before = signal.signal(signal.SIGTTOU, lambda *_: None)
    try:
        assert handles_signals(os.getpid(), signal.SIGTTOU)
        assert not handles_signals(os.getpid(), signal.SIGTTOU, signal.SIGTTIN)
    finally:
        signal.signal(signal.SIGTTOU, before)


# ── what is forbidden


@as_root
@open_to_others
def test_looking_at_another_users_processes_is_refused_with_the_reason(start, listener):
    program = start("accept", listener)
    code = f"from sidecar.system.accept_probe import accepts_connections as t; t({program.pid}, [{inode(listener)}])"
    command = [needed("setpriv"), *UNPRIVILEGED, sys.executable, "-c", code]
    looker = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert f"ProbeForbidden: uid {NOBODY} may not read /proc/{program.pid}/fd" in looker.stderr


EACH_WAY = ["accept", "select-", "poll", "epoll", "children"]


@as_root
@pytest.mark.parametrize("way", EACH_WAY)
def test_an_unprivileged_looker_sees_its_own_programs(way, listener):
    with looking_as(UNPRIVILEGED, a_way(way), listener) as look:
        eventually(lambda: look() == "True")


@as_root
def test_threads_and_descriptors_that_come_and_go_do_not_hide_the_one_that_waits(listener):
    with looking_as(UNPRIVILEGED, a_way("accept-and-churn"), listener) as look:
        eventually(lambda: look() == "True")
        assert {look() for _ in range(3000)} == {"True"}


@as_root
@pytest.mark.parametrize("way", ["churn", "zombie"])
def test_a_zombie_hides_its_files_from_an_unprivileged_looker_yet_forbids_nothing(way, listener):
    with looking_as(UNPRIVILEGED, a_way(way), listener) as look:
        if way == "zombie":
            assert look.heard.readline() == "held\n"
            assert look.heard.readline() == "gone\n"
        assert {look() for _ in range(1000)} == {"False"}


@as_root
@pytest.mark.parametrize("way", EACH_WAY)
def test_root_without_ptrace_rights_looks_as_the_worker_whose_user_differs(way, listener):
    with looking_as(ROOT_IN_DOCKER, a_way(way), listener, user=NOBODY) as look:
        eventually(lambda: look() == "True")


@as_root
@pytest.mark.parametrize(("rights", "user"), [(UNPRIVILEGED, None), (ROOT_IN_DOCKER, NOBODY)])
def test_a_busy_worker_is_seen_with_few_rights_too(rights, user, listener):
    with (
        looking_as(rights, a_way("busy"), listener, user=user) as look,
        socket.create_connection(listener.getsockname()) as client,
    ):
        assert client.recv(5) == b"taken"
        assert look() == "True"


@as_root
def test_a_process_that_changed_its_user_without_exec_cannot_be_looked_at(listener):
    with looking_as(ROOT_IN_DOCKER, a_way("own-uid"), listener) as look:
        assert look.heard.readline() == "held\n"
        assert look.heard.readline() == "changed\n"
        assert "uid 0 may not read" in look()


@as_root
def test_looking_as_another_gives_back_our_own_rights(listener):
    def rights():
        return [
            line
            for line in Path("/proc/self/status").read_text().splitlines()
            if line[:3] in {"Uid", "Gid", "Cap"}
        ]

    before = rights()
    seen = []

    def refuse_once(pid, listeners):
        seen.append((os.geteuid(), os.getegid()))
        if len(seen) == 1:
            raise PermissionError(errno.EACCES, "Permission denied", "/proc/PID/fd")
        raise ProcessLookupError

    child = subprocess.Popen(["sleep", "60"], user=NOBODY, group=NOBODY, extra_groups=[])
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(accept_probe, "_process_accepts", refuse_once)
            assert not accepts_connections(child.pid, {inode(listener)})
    finally:
        child.kill()
        child.wait()
    assert seen == [(0, 0), (NOBODY, NOBODY)]
    assert rights() == before


@as_root
def test_a_proc_that_hides_processes_is_said_so(listener):
    code = f"""
import subprocess
from sidecar.system.accept_probe import ProbeForbidden, accepts_connections
child = subprocess.Popen(["sleep", "60"], user={NOBODY}, group={NOBODY}, extra_groups=[])
try:
    accepts_connections(child.pid, [{inode(listener)}])
except ProbeForbidden as error:
    print(error)
finally:
    child.kill()
"""
    mounted = "mount -t proc -o hidepid=4 proc /proc || exit 77; exec setpriv "
    command = [
        needed("unshare"),
        "--mount",
        "sh",
        "-c",
        mounted + ' "$@"',
        "sh",
        *ROOT_IN_DOCKER,
        sys.executable,
        "-c",
        code,
    ]
    looker = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if looker.returncode == 77 or "unshare" in looker.stderr:
        pytest.skip("mounting a /proc of one's own is not allowed here")
    assert "hidepid" in looker.stdout, looker.stderr


@as_root
def test_without_proc_nothing_can_be_seen(listener):
    code = f"from sidecar.system.accept_probe import accepts_connections as t; t(1, [{inode(listener)}])"
    command = [
        needed("unshare"),
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs none /proc || exit 77; exec "$@"',
        "sh",
        sys.executable,
        "-c",
        code,
    ]
    looker = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if looker.returncode == 77 or "unshare" in looker.stderr:
        pytest.skip("mounting over /proc is not allowed here")
    assert "ProbeForbidden: /proc does not show" in looker.stderr


def test_on_a_machine_whose_system_calls_we_do_not_know_only_epoll_is_seen(
    start, listener, monkeypatch
):
    monkeypatch.setattr(accept_probe, "_CALLS", None)
    sleeper, watcher = start("accept", listener), start("epoll", listener)
    release(watcher)
    eventually(lambda: forbidden_or(watcher.pid, listener) is True)
    with pytest.raises(ProbeForbidden, match="system calls"):
        accepts_connections(sleeper.pid, {inode(listener)})


def forbidden_or(pid, listener):
    try:
        return accepts_connections(pid, {inode(listener)})
    except ProbeForbidden:
        return None


def test_a_wait_by_io_uring_is_said_to_be_invisible_but_an_idle_ring_is_no_hindrance(
    start, listener
):
    for way in ("uring-idle", "uring-accept"):
        program = start(way, listener)
        release(program)
        if program.stdout.readline() != b"submitted\n":
            pytest.skip("io_uring is not allowed here")
        if way == "uring-idle":
            assert not accepts_connections(program.pid, {inode(listener)})
        else:
            with pytest.raises(ProbeForbidden, match="io_uring"):
                accepts_connections(program.pid, {inode(listener)})


# ── when to look


def test_looks_come_quickly_at_first_and_then_more_and_more_seldom():
    schedule = ProbeSchedule()
    assert schedule.deadline() is None
    schedule.add(7, 100.0)
    times = []
    for _ in range(30):
        times.append(schedule.deadline())
        assert schedule.due(times[-1] - 0.0001) == []
        assert schedule.due(times[-1]) == [7]
    gaps = [later - earlier for earlier, later in zip([100.0, *times], times, strict=False)]
    assert gaps[0] == pytest.approx(0.002)
    assert gaps[-1] == pytest.approx(0.050)
    assert gaps == sorted(gaps, key=lambda gap: round(gap, 9))
    assert len([time for time in times if time < 100.1]) > 10


def test_who_is_dropped_is_not_looked_at_any_more():
    schedule = ProbeSchedule()
    schedule.add(7, 0.0)
    schedule.add(8, 0.001)
    assert schedule.due(1.0) == [7, 8]
    schedule.drop(7)
    schedule.drop(7)
    assert schedule.due(2.0) == [8]
    schedule.drop(8)
    assert schedule.deadline() is None
    assert schedule.due(3.0) == []


def test_a_refusal_is_believed_when_it_lasts():
    schedule = ProbeSchedule()
    schedule.add(7, 0.0)
    looks = 0
    while schedule.deadline() < 10.0:
        now = schedule.deadline()
        assert schedule.due(now) == [7]
        looks += 1
        if schedule.refused(7):
            break
    assert looks > 1
    assert 0.2 < now < 1.0
    schedule.drop(7)
    schedule.add(7, now)
    assert not schedule.refused(7)  # another worker by the same number


def test_many_coming_workers_do_not_make_looking_a_busy_loop():
    schedule = ProbeSchedule()
    for pid in range(100):
        schedule.add(pid, 0.0)
    looks = 0
    while schedule.deadline() < 10.0:
        looks += len(schedule.due(schedule.deadline()))
    assert looks <= 10.0 / 0.002 * 1.2 + 100


def test_whose_process_it_is(start, listener):
    program = start("accept", listener)
    assert owning_leader(program.pid, [program.pid]) == program.pid
    assert owning_leader(program.pid, [os.getpid()]) == os.getpid()  # an ancestor
    assert owning_leader(os.getpid(), [program.pid]) is None
    assert owning_leader(1 << 22, [program.pid]) is None  # no such process
    assert owning_leader(program.pid, [program.pid, os.getpid()]) == program.pid  # the nearest


def test_a_name_with_spaces_and_parentheses_confuses_nobody():
    code = "import os; open('/proc/self/comm', 'w').write('a) R 1 (b'); os.fork() or print(os.getpid(), flush=True); os.read(0, 1)"
    leader = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
    )
    try:
        child = int(leader.stdout.readline())
        assert "(a) R 1 (b)" in Path(f"/proc/{child}/stat").read_text()
        assert owning_leader(child, [leader.pid]) == leader.pid
    finally:
        leader.communicate(b"..")
