"""Whose messages count, in which order, and that nobody can make PID 1 wait or work for long."""

import array
import os
import signal
import socket
import subprocess
import sys

import pytest

from sidecar.system.notify_socket import NotifySocket
from tests.support import until


@pytest.fixture
def notify():
    sock = NotifySocket()
    yield sock
    sock.close()


def send(notify, message, *fds):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sender.sendmsg([message], ancillary, 0, "\0" + notify.address[1:])


def a_sender(notify, how="send()"):
    """A Python program that sends READY=1 in a way and then stays; says `sent`."""
    code = f"""
import os, signal, socket
def send():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(b"READY=1\\nSTATUS=here", "\\0" + {notify.address[1:]!r})
    print("sent", flush=True)
{how}
signal.pause()
"""
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, process_group=0)


@pytest.mark.parametrize(
    "how",
    [
        "send()",
        "os.fork() or send()",
        "os.fork() or os.fork() or send()",
        # its parent gone: told by its group
        "(os.fork() or (os.fork() and os._exit(0)) or send()) and os.wait()",
    ],
)
def test_a_message_counts_for_the_leader_from_whose_tree_or_group_it_came(notify, how):
    program = a_sender(notify, how)
    try:
        program.stdout.readline()
        assert notify.receive([program.pid]) == [(program.pid, {"READY": "1", "STATUS": "here"})]
    finally:
        os.killpg(program.pid, signal.SIGKILL)
        program.communicate()


def test_the_message_of_a_sender_that_has_ended_is_nobodys_and_its_users_only(notify):
    ours = subprocess.Popen(["sleep", "60"])
    code = f"import socket; socket.socket(1, 2).sendto(b'READY=1', '\\0' + {notify.address[1:]!r})"
    try:
        for uids, expected in (({os.getuid()}, [(0, {"READY": "1"})]), ({os.getuid() + 1}, [])):
            subprocess.run([sys.executable, "-c", code], check=True)
            assert notify.receive([ours.pid], uids) == expected
        assert notify.ignored_messages == 1
    finally:
        ours.kill()
        ours.wait()


def test_a_strangers_message_is_ignored_and_counted(notify):
    ours, stranger = subprocess.Popen(["sleep", "60"]), a_sender(notify)
    try:
        stranger.stdout.readline()
        send(notify, b"READY=1")  # and we ourselves belong to no worker
        assert notify.receive([ours.pid]) == []
        assert notify.ignored_messages == 2
    finally:
        for program in (ours, stranger):
            program.kill()
            program.communicate()


def test_messages_arrive_in_order_and_only_once(notify):
    send(notify, b"STATUS=a=b\nX")
    send(notify, b"READY=1\n")
    assert notify.receive([os.getpid()]) == [
        (os.getpid(), {"STATUS": "a=b"}),
        (os.getpid(), {"READY": "1"}),
    ]
    assert notify.receive([os.getpid()]) == []


@pytest.mark.parametrize(
    "message",
    [b"", b"READY", b"=1", b"\xff\xfe=1", b"READY=1\nSTATUS=\xff", b"\0" * 4096, b"A" * 9000],
)
def test_what_makes_no_sense_is_dropped(notify, message):
    send(notify, message)
    send(notify, b"READY=1")
    assert notify.receive([os.getpid()]) == [(os.getpid(), {"READY": "1"})]
    assert notify.ignored_messages == 1


def test_a_long_message_is_cut_after_a_whole_line(notify):
    send(notify, b"READY=1\nSTATUS=" + b"x" * 3000 + b"\nMORE=" + b"y" * 3000)
    assert notify.receive([os.getpid()]) == [(os.getpid(), {"READY": "1", "STATUS": "x" * 3000})]


def test_a_flood_is_taken_in_portions(notify):
    notify.MAX_MESSAGES_PER_TURN = 3  # the kernel queues but ten or so (net.unix.max_dgram_qlen)
    for _ in range(8):
        send(notify, b"STATUS=flood")
    assert [len(notify.receive([os.getpid()])) for _ in range(4)] == [3, 3, 2, 0]


def test_who_writes_without_end_is_read_at_a_measured_pace(notify):
    """A second's turns of a flood against a year's of a worker that says something now and then."""
    now, turns = 1000.0, 0
    while now < 1010.0:
        now, turns = max(now, notify.next_turn_at(now)), turns + 1
    assert turns <= (10.0 + notify.TURN_BURST_S) / notify.TURN_INTERVAL_S + 1
    for _ in range(1000):
        now += 60.0
        assert notify.next_turn_at(now) == now


@pytest.mark.parametrize("count", [1, 253])
def test_descriptors_that_come_along_are_closed(notify, count):
    reading, writing = os.pipe()
    before = len(os.listdir("/proc/self/fd"))
    for leaders in ([os.getpid()], []):  # a worker's, a stranger's
        send(notify, b"FDSTORE=1", *[writing] * count)
        notify.receive(leaders)
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(writing)
    assert os.read(reading, 1) == b""  # nobody holds the other end any more
    os.close(reading)


def test_a_sender_that_lives_until_its_descriptor_is_closed_is_known_before_that(notify):
    how = f"""
if os.fork() == 0:
    reading, writing = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect("\\0" + {notify.address[1:]!r})
        socket.send_fds(s, [b"READY=1"], [writing])
    os.close(writing)
    print("sent", flush=True)
    os.read(reading, 1)
    os._exit(0)
os.wait()
"""
    program = a_sender(notify, how)
    try:
        assert program.stdout.readline() == b"sent\n"
        assert notify.receive([program.pid]) == [(program.pid, {"READY": "1"})]
    finally:
        os.killpg(program.pid, signal.SIGKILL)
        program.communicate()


def test_systemd_notify_gets_its_answer(notify):
    """It sends a descriptor after its message and lives until that is closed, so that its ancestry
    can be seen.
    """
    try:
        program = subprocess.Popen(
            ["systemd-notify", "--ready"], env={**os.environ, "NOTIFY_SOCKET": notify.address}
        )
    except FileNotFoundError:
        pytest.skip("systemd-notify is not installed")
    heard = []
    until(
        lambda: (
            heard.extend(notify.receive([program.pid, os.getpid()])) or program.poll() is not None
        ),
        "systemd-notify has ended",
    )
    assert program.returncode == 0
    assert [fields for _, fields in heard] == [{"READY": "1"}, {"BARRIER": "1"}]


def test_the_socket_is_not_inherited_and_needs_no_file(notify):
    assert notify.address.startswith("@sidecar-")
    assert not os.get_inheritable(notify.fileno())
    another = NotifySocket()
    assert another.address != notify.address
    another.close()
