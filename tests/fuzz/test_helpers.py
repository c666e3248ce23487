"""A helper may write anything: PID 1 takes what makes sense, says what does not, and goes on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.supervisor import Supervisor
from sidecar.host import helpers
from sidecar.host.admin import ALLOWED_EVENTS as ADMIN_EVENTS
from sidecar.host.children import Children
from sidecar.host.events import Events
from sidecar.host.helper_processes import HelperProcesses
from sidecar.host.job import Tools
from sidecar.host.loop import Loop
from sidecar.host.sources import Sources
from sidecar.host.watcher import ALLOWED_EVENTS as WATCHER_EVENTS
from sidecar.host.watcher import Watcher
from sidecar.settings.table import Settings
from sidecar.system.child import StartDirectory
from sidecar.system.jitter import random_fraction
from sidecar.system.processes import ChildProcesses
from tests.fuzz.test_fuzz import ANYTHING, fuzz
from tests.support import SERVER

NOBODY = 1 << 22  # no process has this number (proc(5), pid_max): signals to it reach nobody
NAMES = sorted({name for shape in WATCHER_EVENTS.values() for name in shape})
#: Texts such as no file's name can be, too.
TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
MEMBER = ANYTHING | TEXT | st.lists(TEXT, max_size=3) | st.integers(-5, 5)
EVENTS = st.fixed_dictionaries(
    {"event": st.sampled_from([*WATCHER_EVENTS, "other"]) | ANYTHING},
    optional=dict.fromkeys(NAMES, MEMBER),
)
RIGHT = st.one_of(
    st.builds(lambda text: {"event": "notice", "text": text}, st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)),
    st.builds(
        lambda paths: {"event": "changed", "paths": paths, "count": 3},
        st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=3),
    ),
)  # fmt: skip
LINES = (
    st.builds(lambda value: json.dumps(value).encode(), EVENTS | RIGHT | ANYTHING)
    | st.binary(max_size=50)
    | st.just(b"[" * 100_000)
    | st.just(b'{"event": "changed", "paths": [], "count": ' + b"9" * 5000 + b"}")
)


class Host:
    """What takes what helpers say; it runs no loop."""

    def __init__(self, settings: Settings, fd: int) -> None:
        self.events = events = Events(settings, {})
        events.log.fd = fd
        self.supervisor = Supervisor(settings, time.monotonic(), random_fraction)
        processes, sources = ChildProcesses(set(), {}), Sources()
        loop = Loop(events.turn, sources, self.supervisor, events.redaction)
        children = Children(
            events.turn, events.say, loop.observe, processes, self.supervisor.worker_table
        )
        tools = Tools(
            say=events.say,
            observe=loop.observe,
            start=children.start,
            abandon=children.abandon,
            listen_to=sources.listen_to,
            stop_listening=sources.stop_listening,
            attempt=events.turn.attempt,
            note_defect=events.turn.note_defect,
            stopping=loop.stopping,
        )
        self.helpers = HelperProcesses(
            tools,
            place=StartDirectory,
            listens_to=sources.listens_to,
            stopped=processes.was_stopped,
            send=processes.signal,
            adopt=children.adopt,
        )
        self.watcher = Watcher(tools, lambda: settings, {}, str, lambda _paths, _now: None)


@pytest.fixture(scope="module")
def heard() -> Iterator[tuple[Host, helpers.Helper]]:
    """A host that runs no loop, its watcher, which writes what the test does."""
    null = os.open(os.devnull, os.O_WRONLY)
    made = Host(Settings(command=SERVER, log_format="json"), null)
    allowed = {**WATCHER_EVENTS, **ADMIN_EVENTS}
    watcher = helpers.Helper(
        "the watcher",
        (),
        0.0,
        environment={},
        make_fds=list,
        allowed_events=allowed,
        on_event=made.watcher.on_event,
    )
    yield made, watcher
    os.close(null)


def write(watcher: helpers.Helper, data: bytes) -> None:
    """Have the watcher live, and have written this."""
    stdout = watcher.open()[1][0]
    os.set_blocking(stdout, False)
    os.write(stdout, data)
    watcher.started(NOBODY, time.monotonic())


@fuzz
@given(lines=st.lists(LINES, max_size=5), end=st.booleans())
def test_whatever_a_helper_writes_nothing_is_raised(heard, lines, end):
    made, watcher = heard
    write(watcher, b"\n".join(lines)[:60_000] + b"\n" * end)
    before = made.events.history.events[-1]["number"] if made.events.history.events else 0
    try:
        made.helpers.read(watcher, time.monotonic())
        said = [each for each in made.events.history.events if each["number"] > before]
        assert [each for each in said if each["event"] == "internal_error"] == []
        # Whoever wrote nonsense is killed for it, and that is said.
        mad = [each for each in said if each["event"] == "action_failed"]
        assert len(mad) == bool(watcher.protocol_error)
        made.supervisor.reconcile(time.monotonic())
        pending = made.supervisor.pending_swap
        for path in pending.changed if pending else ():
            os.fsencode(path)
            assert "\0" not in path
    finally:
        watcher.ended(time.monotonic(), 0.5)


@fuzz
@given(right=st.lists(RIGHT, min_size=1, max_size=3), wrong=st.binary(max_size=20))
def test_what_came_before_the_nonsense_is_heeded(heard, right, wrong):
    _, watcher = heard
    write(watcher, b"".join(json.dumps(each).encode() + b"\n" for each in right) + wrong + b"{\n")
    try:
        told = watcher.read_events()
        assert [each["event"] for each in told] == [each["event"] for each in right]
        assert watcher.protocol_error
        assert watcher.read_events() == []
    finally:
        watcher.ended(time.monotonic(), 0.5)
