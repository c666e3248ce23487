"""Every page of docs/recipes by a real run: its command as it stands there, ten swaps under load,
and the figure that it claims.

A page is a recipe for every ```sh block that has a `sidecar run`; other lines of the block run
beside it. The table after the block says what was sent and lost. A row that says 0 lost must lose
nothing here either; another, as "0 (3 in 100 swaps)", may lose a small part. `pytest -s` prints the
figures.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.servers.test_queues import QUEUES
from tests.support import ROOT, Load, Sidecar, free_port, get, until

pytestmark = pytest.mark.servers

PAGES = ROOT / "docs" / "recipes"
SWAPS = int(os.environ.get("SIDECAR_SWAPS", "10"))
# A server that loses some by itself may lose this part of what is sent in a test that does nothing
# but swap.
SMALL = 0.05

# Pages about what starts sidecar, not about programs: see test_init.py.
INIT = {"systemd", "sysv", "daemontools", "supervisord"}

PATH = os.pathsep.join(
    [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin"]
)
ROW = re.compile(r"^\| (one-shot|kept|datagrams) \| [\d,]+ \| (.+?) \|", re.MULTILINE)


def recipes() -> Iterator[tuple[str, str, dict[str, str], str]]:
    """Of every page its blocks: a name, the commands, and what its table says is lost; and the page
    itself.
    """
    for page in sorted(PAGES.glob("*.md")):
        if page.stem in {"README", *INIT, *QUEUES}:
            continue
        blocks = re.split(r"^```sh\n", page.read_text(), flags=re.MULTILINE)[1:]
        found = [block for block in blocks if "sidecar run" in block.partition("```")[0]]
        for number, block in enumerate(found, 1):
            commands, _, text = block.partition("```")
            yield (
                page.stem + (f"-{number}" if len(found) > 1 else ""),
                commands.replace("\\\n", " "),
                dict(ROW.findall(text)),
                page.read_text(),
            )


RECIPES = {name: rest for name, *rest in recipes()}


class Datagrams:
    """A load of datagrams, each of which has to be answered; as `Load`."""

    def __init__(self, port: int) -> None:
        self.port, self.answered, self.reopened = port, 0, 0
        self.failures: list[str] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def __enter__(self) -> Datagrams:
        self._thread.start()
        until(lambda: self.answered, "the first answer")
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _send(self) -> None:
        number = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5.0)
            while not self._end.wait(0.01):
                # several at once, so that several workers have something to do
                open_ = {b"%d" % each for each in range(number, number + 10)}
                number += 10
                for each in sorted(open_):
                    sock.sendto(each, ("127.0.0.1", self.port))
                try:
                    while open_:
                        open_.remove(sock.recv(65536).rpartition(b" ")[2])
                        self.answered += 1
                except (TimeoutError, KeyError) as error:
                    self.failures += [
                        f"datagrams: {each!r} was not answered ({error!r})" for each in open_
                    ]


@pytest.fixture
def folder() -> Iterator[Path]:
    """What takes the place of /tmp: its path is short enough for a unix socket, and nginx's own
    user may enter it.
    """
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name)


@pytest.fixture
def beside() -> Iterator[list[subprocess.Popen]]:
    """The programs that run beside sidecar; they are ended when the test is over."""
    started: list[subprocess.Popen] = []
    yield started
    for program in started:
        program.terminate()
        program.wait(20)


def rewritten(commands: str, port: int, folder: Path) -> list[list[str]]:
    """The commands in words, with a port and a folder of their own in place of 8080 and /tmp; also
    in the files that they name.
    """

    def own(text: str) -> str:
        return re.sub(r"(?<!\d)8080(?!\d)", str(port), text).replace("/tmp/", f"{folder}/")

    found = []
    for line in commands.strip().splitlines():
        words = []
        for word in shlex.split(line, comments=True):
            file = ROOT / word
            if (
                not Path(word).is_absolute()
                and file.is_file()
                and own(file.read_text()) != file.read_text()
            ):
                (folder / file.name).write_text(own(file.read_text()))
                words.append(str(folder / file.name))
            else:
                words.append(own(word))
        if words:
            found.append(words)
    return found


def missing(words: list[str]) -> str:
    """The program that these words need and the system has not; modules that an example imports
    included.
    """
    if shutil.which(words[0], path=PATH) is None:
        return words[0]
    if words[0] == "plackup":
        handler = words[words.index("-s") + 1]
        return (
            handler
            if subprocess.call(
                ["perl", f"-MPlack::Handler::{handler}", "-e1"], stderr=subprocess.DEVNULL
            )
            else ""
        )
    for word in words:
        file = ROOT / (word.partition(":")[0].replace(".", "/") + ".py")
        for module in re.findall(
            r"^(?:import|from) (\w+)", file.read_text() if file.is_file() else "", re.MULTILINE
        ):
            if importlib.util.find_spec(module) is None:
                return module
    return ""


def test_every_page_has_its_table_and_its_line_in_the_index():
    index = (PAGES / "README.md").read_text()
    pages = {page.stem for page in PAGES.glob("*.md")} - {"README"}
    assert set(re.findall(r"\]\((\S+)\.md\)", index)) & pages == pages
    assert {
        name.rpartition("-")[0] if name[-1:].isdigit() else name for name in RECIPES
    } == pages - INIT - {*QUEUES}
    for name, (_, lost, _) in RECIPES.items():
        assert lost, f"{name} has no figures"


def test_every_link_leads_somewhere():
    for page in PAGES.glob("*.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def start(
    commands: str, sidecar: Callable, folder: Path, beside: list[subprocess.Popen]
) -> tuple[Sidecar, list[str], int]:
    """Start what the commands say, and wait until it serves: sidecar, its options, and the port."""
    port = free_port()
    lines = rewritten(commands, port, folder)
    (ours,) = [words for words in lines if words[:2] == ["sidecar", "run"]]
    cut = ours.index("--")
    options, program = ours[2:cut], ours[cut + 1 :]
    for words in (program, *(words for words in lines if words is not ours)):
        if lacks := missing(words):
            pytest.skip(f"{lacks} is not installed")

    environ = {"PATH": PATH, "PYTHONPATH": str(ROOT), "GUNICORN_CMD_ARGS": ""}
    run = sidecar(*options, program=tuple(program), port=False, env=environ, cwd=ROOT)
    run.wait("serving")
    for words in lines:
        if words is not ours:
            beside.append(
                subprocess.Popen(
                    words, env={**os.environ, **environ}, cwd=ROOT, stdin=subprocess.DEVNULL
                )
            )
            until(lambda: answers(port), f"{words[0]} answers")
    return run, options, port


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_loses_what_its_page_says(sidecar, name, folder, beside):
    commands, claimed, page = RECIPES[name]
    run, options, port = start(commands, sidecar, folder, beside)
    loads = (
        {"datagrams": Datagrams(port)}
        if any(f":u{port}" in word for word in options)
        else web_loads(port)
    )
    for load in loads.values():
        load.__enter__()
    started = time.monotonic()
    for number in range(2, SWAPS + 2):
        run.swap(number)
        enough(loads.values())
    took = time.monotonic() - started
    for load in loads.values():
        load.__exit__()
    by = {each["by"] for each in run.seen("worker_ready")}
    ends = {
        (each["event"], each.get("cause"))
        for each in run.events
        if each["event"] in ("worker_exited", "worker_died")
    }
    print(f"\n{name}: {took:.1f}s, ready by {by}, {ends}")
    for kind, load in loads.items():
        print(
            f"| {kind} | {load.answered + len(load.failures):,} | {len(load.failures)} | {load.reopened or ''} |  {set(load.failures)}"
        )

    for kind, load in loads.items():
        assert [
            failure
            for failure in load.failures
            if "Refused" in failure or "timed out" in failure or "Timeout" in failure
        ] == []
        if claimed.get(kind, "0") == "0":
            assert load.failures == []
        assert len(load.failures) < SMALL * load.answered
    assert by == set(re.search(r"^- \*\*Ready\*\* by `(\w+)`", page, re.MULTILINE).groups())
    drains = re.search(r"^- \*\*Drains on\*\* .*?\b([A-Z]+1?)\b", page, re.MULTILINE)[1]
    assert drains == next((each["signal"] for each in run.seen("profile_applied")), "TERM")
    assert run.seen("swap_failed") == []
    assert run.seen("worker_died") == []
    assert run.stop() == 0
    assert run.seen("worker_killed") == []


def enough(loads: Iterable[Load | Datagrams], more: int = 40) -> None:
    """Wait until so many more requests of every kind are over: a swap of a fast program takes a few
    milliseconds.
    """
    for load in loads:
        before = load.answered + len(load.failures)
        until(
            lambda load=load, before=before: load.answered + len(load.failures) >= before + more,
            "more requests",
        )


@pytest.mark.parametrize(
    "name", ["gunicorn-1", "waitress", "aiohttp", "tornado", "node", "nginx-in-front"]
)
def test_a_request_in_flight_outlives_the_swap(sidecar, name, folder, beside):
    """What our own examples do on TERM must not cut it off; their path /slow?SECONDS takes so long."""
    run, _, port = start(RECIPES[name][0], sidecar, folder, beside)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(get, port, "/slow?1.5")
        time.sleep(
            0.3
        )  # it has been read by then, or is in the queue; either way it has to be answered
        run.swap(2)
        assert "from generation" in answer.result()
    assert run.stop() == 0
    assert run.seen("worker_killed") == []


def web_loads(port: int) -> dict[str, Load]:
    return {"one-shot": Load(port, one_shot=2, kept=0), "kept": Load(port, one_shot=0, kept=2)}


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5.0).close()
    except OSError:
        return False
    return True
