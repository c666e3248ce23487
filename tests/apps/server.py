"""A small HTTP server on inherited sockets, as good or as bad as its environment wants it.

BOOT=0.5         seconds until it takes connections        NEVER=1        it never takes any
DIE=0            exit with this status while booting       CRASH=0.2      exit with status 9 that long after it is ready
DEAF=1           ignore TERM                               LINGER=1       leave a process behind that goes on accepting
DAEMON=1         start a daemon of its own session         FORK=1         a forked child accepts
SHUT=1           shutdown() the shared sockets on TERM     NOTIFY=1       say READY=1 once it takes connections
TREE=DIR         read all below DIR while booting, and run DIR/app.py

/           greeting, generation, slot, pid          /env      its environment, one a line
/slow?N     the same after N seconds                 /about    pid, group, session, fds, signals, umask, directory … as JSON
/stream     its pid, again and again, without end    /tree     what it read below TREE, as JSON
"""

import json
import os
import signal
import socket
import sys
import threading
import time

env = os.environ
draining = threading.Event()
busy = 0
lock = threading.Lock()


def listeners():
    found = []
    for pair in filter(None, env["SERVER_STARTER_PORT"].split(";")):
        fd = int(pair.rpartition("=")[2])
        sock = socket.socket(fileno=fd)
        if sock.type == socket.SOCK_STREAM:
            found.append(sock)
    return found


def about():
    status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines())
    mask = os.umask(0)
    os.umask(mask)
    return {
        "pid": os.getpid(), "group": os.getpgrp(), "session": os.getsid(0), "parent": os.getppid(),
        "fds": STARTED_WITH, "now": open_files(), "blocked": status["SigBlk"].strip(),
        "ignored": IGNORED, "umask": mask, "directory": os.getcwd(),
        "uids": os.getresuid(), "gids": os.getresgid(), "groups": sorted(os.getgroups()), "argv": sys.argv,
        "inheritable": int(status["CapInh"], 16), "no_new_privs": int(status["NoNewPrivs"]),
    }  # fmt: skip


def grown():
    """What is below TREE now; its app.py is run, and may fail."""
    found = {}
    for place, _, names in os.walk(env["TREE"]):
        for name in names:
            path = os.path.join(place, name)
            if "/." not in path[len(env["TREE"]) :] and "__pycache__" not in path:
                found[os.path.relpath(path, env["TREE"])] = open(path).read()
    if "app.py" in found:
        exec(compile(found["app.py"], "app.py", "exec"), {})
    return found


def stream(sock):
    """What a page with server-sent events keeps open; it ends with the connection, or with us."""
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    try:
        while True:
            sock.sendall(b"data: %d\n\n" % os.getpid())
            time.sleep(0.02)
    except OSError:
        pass


def answer(path):
    if path.startswith("/slow"):
        time.sleep(float(path.partition("?")[2] or 1))
    if path == "/env":
        return "".join(f"{name}={value!r}\n" for name, value in sorted(env.items()))
    if path == "/tree":
        return json.dumps(TREE)
    if path == "/about":
        return json.dumps(about())
    return f"{env.get('GREETING', 'hello')} {env.get('SERVER_STARTER_GENERATION')} {env.get('SIDECAR_WORKER')} {os.getpid()}\n"


def talk(sock):
    """One connection: keep-alive; while draining, one more request is answered, with `Connection:
    close`.
    """
    data = b""
    with sock:
        while True:
            sock.settimeout(0.05)
            last = draining.is_set()
            patience = 40
            while b"\r\n\r\n" not in data:
                try:
                    more = sock.recv(65536)
                except TimeoutError:
                    if last:
                        patience -= 1
                        if not patience:
                            return
                    last = last or draining.is_set()
                    continue
                except OSError:
                    return
                if not more:
                    return
                data += more
            head, _, data = data.partition(b"\r\n\r\n")
            sock.settimeout(None)
            if b" /stream " in head:
                stream(sock)
                return
            body = answer(head.split()[1].decode()).encode()
            close = b"connection: close" in head.lower() or draining.is_set()
            sock.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n"
                % (len(body), b"close" if close else b"keep-alive")
                + body
            )
            if close:
                return


def serve_connection(sock):
    global busy
    with lock:
        busy += 1
    try:
        talk(sock)
    finally:
        with lock:
            busy -= 1


def serve(sockets):
    """Accept in this process until TERM, then finish what is in flight."""
    import select

    wake, end = socket.socketpair()

    def stop(*_):
        # A second one, as after a defect in sidecar, may come when the loop below is over.
        if not env.get("DEAF") and not draining.is_set():
            draining.set()
            end.send(b"x")

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGUSR1, lambda *_: os.write(2, f"USR1 {os.getpid()}\n".encode()))
    for sock in sockets:
        sock.setblocking(False)
    poll = select.epoll()
    for sock in sockets:
        poll.register(sock, select.EPOLLIN)
    poll.register(wake, select.EPOLLIN)
    if env.get("NOTIFY"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", env["NOTIFY_SOCKET"].replace("@", "\0", 1))
    if env.get("CRASH"):
        threading.Timer(float(env["CRASH"]), os._exit, (9,)).start()
    by_fd = {sock.fileno(): sock for sock in sockets}
    while not draining.is_set():
        for fd, _ in poll.poll():
            if fd in by_fd:
                try:
                    sock, _ = by_fd[fd].accept()
                except OSError:
                    continue
                sock.setblocking(True)
                threading.Thread(target=serve_connection, args=(sock,), daemon=True).start()
    if env.get("SHUT"):
        for sock in sockets:
            sock.shutdown(socket.SHUT_RDWR)
    for sock in sockets:
        sock.close()
    while busy:
        time.sleep(0.005)


def daemonize(mark):
    """A process of a session of its own, adopted by whoever reaps."""
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open(mark, "w").write(str(os.getpid()))
        while True:
            time.sleep(1)
    os.wait()


def ignored():
    status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines())
    return status["SigIgn"].strip()


def open_files():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass
    return found


if __name__ == "__main__":
    IGNORED, STARTED_WITH = ignored(), open_files()
    if env.get("DAEMON"):
        daemonize(env["DAEMON"])
    time.sleep(float(env.get("BOOT", 0)))
    TREE = grown() if env.get("TREE") else {}
    if "DIE" in env:
        sys.exit(int(env["DIE"]))
    while env.get("NEVER"):
        time.sleep(1)
    sockets = listeners()
    if env.get("LINGER"):
        # No TERM comes before it is deaf.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                time.sleep(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    if env.get("FORK"):
        child = os.fork()
        if child == 0:
            serve(sockets)
            os._exit(0)
        signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
        os.waitpid(child, 0)
        sys.exit(0)
    serve(sockets)
