"""Ways to wait for a connection, and ways only to seem to: `ready_ways.py WAY LISTENER [DECOY]`
(inherited descriptors).

Says `held` as soon as it runs, waits for a line on standard input, then goes its way for good. A
way that ends in `-decoy` takes connections from the decoy; that this is seen tells a test that the
program has got there, and then it can say what is not seen of the listener.
"""

import ctypes
import fcntl
import mmap
import os
import select
import selectors
import signal
import socket
import struct
import sys
import threading

WAYS = {}


def way(function):
    WAYS[function.__name__.replace("_", "-")] = function
    return function


def forever():
    while True:
        signal.pause()


def poll_for(*asked):
    poll = select.poll()
    for sock, events in asked:
        poll.register(sock, events)
    poll.poll()


def epoll_for(*asked):
    epoll = select.epoll()
    for sock, events in asked:
        epoll.register(sock, events)
    epoll.poll()


def in_child(function, *args):
    if os.fork() == 0:
        function(*args)
        os._exit(0)


def die_with_parent():  # where the test's signal to our process group does not come
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


@way
def accept(listener, decoy):
    listener.accept()


@way
def accept_with_timeout(listener, decoy):
    listener.settimeout(3600)
    listener.accept()


@way
def select_(listener, decoy):
    select.select([listener], [], [])


@way
def select_high(listener, decoy):  # beyond the first word of the fd_set
    select.select([0, fcntl.fcntl(listener, fcntl.F_DUPFD, 777)], [], [])


@way
def poll(listener, decoy):
    poll_for((0, select.POLLIN), (listener, select.POLLIN))


@way
def epoll(listener, decoy):
    epoll_for((0, select.EPOLLIN), (listener, select.EPOLLIN | select.EPOLLET))


@way
def epoll_exclusive_in_forgotten_descriptor(listener, decoy):
    watch = select.epoll()
    copy = os.dup(listener.fileno())
    watch.register(copy, select.EPOLLIN | select.EPOLLEXCLUSIVE)
    os.close(copy)
    forever()


@way
def selector_in_thread(listener, decoy):
    def serve():
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.select()

    threading.Thread(target=serve).start()


@way
def accept_in_thread(listener, decoy):
    threading.Thread(target=listener.accept).start()
    forever()


@way
def children(listener, decoy):
    for _ in range(4):
        in_child(listener.accept)
    listener.close()
    forever()


@way
def grandchild_of_thread(listener, decoy):
    def child():  # in a session, so in a process group, of its own
        os.setsid()
        die_with_parent()
        in_child(lambda: (die_with_parent(), listener.accept()))
        os.wait()

    thread = threading.Thread(target=lambda: (in_child(child), os.wait()))
    thread.start()
    thread.join()


@way
def orphan(
    listener, decoy
):  # the child of a child that has gone: in our process group, but no descendant of ours
    if os.fork() == 0:
        in_child(listener.accept)
        os._exit(0)
    os.wait()
    forever()


@way
def dup(listener, decoy):
    copy = socket.socket(fileno=fcntl.fcntl(listener, fcntl.F_DUPFD, 300))
    listener.close()
    copy.accept()


@way
def busy(listener, decoy):  # holds a connection and never waits for another
    connection, _ = listener.accept()
    connection.sendall(b"taken")
    while True:
        pass


@way
def busy_with_decoy(listener, decoy):  # a connection from elsewhere is none from the listener
    busy(decoy, decoy)


@way
def accept_decoy(listener, decoy):
    decoy.accept()


@way
def select_decoy(listener, decoy):
    select.select([decoy], [listener], [listener])


@way
def poll_decoy(listener, decoy):
    poll_for((listener, select.POLLOUT), (decoy, select.POLLIN))


@way
def epoll_decoy(listener, decoy):
    epoll_for((listener, select.EPOLLOUT), (decoy, select.EPOLLIN))


@way
def epoll_other_decoy(listener, decoy):
    epoll_for((0, select.EPOLLIN), (decoy, select.EPOLLIN))


def again_and_again(function):
    while True:
        function()


def pass_through_descriptors():
    for copy in [os.dup(0) for _ in range(100)]:
        os.close(copy)


def pass_through_threads():
    some = [threading.Thread(target=int) for _ in range(10)]
    for thread in some:
        thread.start()
    for thread in some:
        thread.join()


@way
def churn(listener, decoy):  # processes, threads and descriptors that come and go
    in_child(again_and_again, pass_through_threads)
    in_child(again_and_again, pass_through_descriptors)
    again_and_again(lambda: (in_child(int), os.waitpid(-1, 0)))


@way
def accept_and_churn(listener, decoy):
    threading.Thread(target=listener.accept).start()
    again_and_again(lambda: (pass_through_threads(), pass_through_descriptors()))


@way
def zombie(listener, decoy):
    in_child(os.write, 1, b"gone\n")
    forever()


@way
def own_uid(
    listener, decoy
):  # setuid without execve: the kernel hides such a process from its own uid
    os.setgid(65534)
    os.setuid(65534)
    print("changed", flush=True)
    select.select([listener], [], [])


def ring(operation, fd):
    """One request in an io_uring, which has no Python module: io_uring_setup(2), io_uring_enter(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    params = (ctypes.c_uint32 * 30)()
    uring = libc.syscall(425, 8, params)
    if uring < 0:
        print("no io_uring", flush=True)
        forever()
    tail, array = params[11], params[16]
    queue = mmap.mmap(uring, array + params[0] * 4, mmap.MAP_SHARED, offset=0)
    requests = mmap.mmap(uring, params[0] * 64, mmap.MAP_SHARED, offset=0x10000000)
    requests[:64] = struct.pack("<BBHiQQII", operation, 0, 0, fd, 0, 0, 0, 0).ljust(64, b"\0")
    queue[array : array + 4] = struct.pack("<I", 0)
    queue[tail : tail + 4] = struct.pack("<I", 1)
    libc.syscall(426, uring, 1, 0, 0, None, 0)
    print("submitted", flush=True)
    forever()


@way
def uring_accept(listener, decoy):
    ring(13, listener.fileno())


@way
def uring_idle(listener, decoy):
    ring(0, -1)


if __name__ == "__main__":
    sockets = [socket.socket(fileno=int(fd)) for fd in sys.argv[2:]]
    print("held", flush=True)
    os.read(0, 1)
    WAYS[sys.argv[1]](sockets[0], sockets[-1])
