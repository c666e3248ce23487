"""The load within the cluster: runs in a pod of its own, as `python3 -c`, so it is one file and
needs the standard library alone.

    client.py HOST[:PORT] [CONNECTIONS [PAUSE]]

Asks for / on a new connection each time, CONNECTIONS at once, until TERM. Says on one line of JSON,
twice a second: how many answers of each kind so far (`answers`: what stands before " from
generation"), and the failures (`failed`: how many; `causes`: the first of them).
"""

import collections
import http.client
import json
import signal
import sys
import threading

TIMEOUT = 30
CAUSES = 20

ended = threading.Event()
lock = threading.Lock()
answers: collections.Counter = collections.Counter()
causes: list = []
failed = 0


def ask(host: str) -> str:
    """The first words of the answer. Raises OSError, http.client.HTTPException."""
    connection = http.client.HTTPConnection(host, timeout=TIMEOUT)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        body = answer.read().decode()
        if answer.status != 200:
            raise http.client.HTTPException(f"status {answer.status}")
        return body.partition(" from generation")[0]
    finally:
        connection.close()


def asking(host: str, pause: float) -> None:
    global failed
    while not ended.wait(pause):
        try:
            answer = ask(host)
            with lock:
                answers[answer] += 1
        except (OSError, http.client.HTTPException) as error:
            with lock:
                failed += 1
                if len(causes) < CAUSES:
                    causes.append(repr(error))


def main(host: str, connections: str = "4", pause: str = "0.02") -> None:
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    threads = [
        threading.Thread(target=asking, args=(host, float(pause))) for _ in range(int(connections))
    ]
    for thread in threads:
        thread.start()
    while not ended.wait(0.5):
        tell()
    for thread in threads:
        thread.join()
    tell()


def tell() -> None:
    with lock:
        print(json.dumps({"answers": answers, "failed": failed, "causes": causes}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
