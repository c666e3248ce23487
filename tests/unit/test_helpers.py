"""A helper that cannot be started: nothing of the attempt is left, and the attempts are paced."""

from __future__ import annotations

import os
import resource

import pytest

from sidecar.host.helpers import Helper


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture
def helper():
    made = Helper(
        "it", ("true",), 0.0, environment={}, make_fds=list, allowed_events={}, on_event=print
    )
    yield made
    made.close()


@pytest.mark.parametrize("room", range(5))
def test_whatever_of_it_could_be_opened_is_closed_again(helper, room):
    """Descriptors for none of its pipes, for a half of one, for all of them: 4 are needed."""
    before = open_descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [number for number in range(soft) if not os.path.exists(f"/proc/self/fd/{number}")]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[room], hard))
    try:
        if room < 4:
            with pytest.raises(OSError, match="Too many open files"):
                helper.open()
        else:
            assert [number for _, number in helper.open()] == [0, 1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    helper.ended(1.0, 0.0)
    assert open_descriptors() == before


def test_one_that_lived_long_and_then_cannot_be_started_is_tried_ever_less_often(helper):
    helper.open()
    helper.started(4711, 0.0)
    pauses = [helper.ended(100.0, 0.0)]
    now = 100.0
    for _ in range(8):
        now += pauses[-1]
        pauses.append(helper.ended(now, 0.0))
    assert pauses[0] == pytest.approx(0.1)
    assert pauses[1:] == pytest.approx([0.25, 0.5, 1, 2, 4, 5, 5, 5])
