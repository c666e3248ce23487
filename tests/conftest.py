"""Fixtures that every layer may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support import Sidecar


@pytest.fixture
def sidecar() -> Iterator[Callable[..., Sidecar]]:
    """Start sidecars; each is ended with all it started when the test is over, and its log is shown
    if the test failed.
    """
    started: list[Sidecar] = []

    def start(*options: str, **keywords: object) -> Sidecar:
        started.append(Sidecar(*options, **keywords))
        return started[-1]

    yield start
    for each in started:
        each.clean_up()
        print(each)


# Two groups of about the same length: an engine does two things at once well enough, and more only
# slowly.
SECOND = {"rollout", "test_limits.py", "test_prod.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What shares something is run one after the other where tests run side by side: containers of
    one engine, one browser.
    """
    for item in items:
        _, layer, *within = item.nodeid.partition("::")[0].split("/")
        if layer == "container":
            number = 2 if SECOND.intersection(within) else 1
            item.add_marker(pytest.mark.xdist_group(f"container {number}"))
        elif layer == "browser":
            item.add_marker(pytest.mark.xdist_group("browser"))
