"""A WSGI application that says who answers: under sidecar, watch the generation change while you
swap.

/            one line: the greeting (from the envdir), the generation and the worker's pid
/slow?2      the same after two seconds, to see a request outlive a swap
"""

import os
import time

GREETING = os.environ.get("GREETING", "Hello")
GENERATION = os.environ.get("SERVER_STARTER_GENERATION", "none")


def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(min(30.0, float(environ["QUERY_STRING"] or 1)))
    body = f"{GREETING} from generation {GENERATION}, worker {os.getpid()}\n".encode()
    start_response(
        "200 OK",
        [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))],
    )
    return [body]
