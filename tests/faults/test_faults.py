"""A fixed list of cases: one at least of each kind that did not hold once. `make faults` tries many more."""

from __future__ import annotations

import pytest

from tests.faults.harness import LOGS, Case, play, why_not

CASES = [
    # No process can be made for the check, the reader of the settings, the watcher.
    "swap clone EAGAIN 1+",
    "saved clone ENOMEM 1",
    "reload clone EAGAIN 2+",
    # No descriptors for a helper: for its first pipe, its second, and later.
    "swap pipe2 EMFILE 2",
    "swap pipe2 EMFILE 3",
    "reload pipe2 ENFILE 9",
    "reload pipe2 EMFILE 1+",
    # A watcher that cannot be made anew while the settings are.
    "reload memfd_create EMFILE 1",
    "reload memfd_create ENOSYS 1+",
    "reload epoll_ctl ENOMEM 2",
    "reload kill EPERM 1+",
    # In the version that has just been executed (the check is a child, and has no fault).
    "upgrade epoll_create1 EMFILE 2",
    "upgrade getsockopt ENOBUFS 2",
    "upgrade pipe2 ENFILE 1+",
    "upgrade memfd_create ENOMEM 1+",
]


@pytest.fixture(autouse=True)
def _able():
    if reason := why_not():
        pytest.skip(reason)


@pytest.mark.parametrize("text", CASES)
def test_it_holds(text, tmp_path):
    case = Case(*text.split())
    assert play(case, tmp_path / "life") == [], LOGS[-1]
