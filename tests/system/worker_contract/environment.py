"""The environment of a worker that runs."""

from __future__ import annotations


def environment(run) -> dict[str, str]:
    """The worker's environment, from the worker itself."""
    lines = (line.partition("=") for line in run.get("/env").splitlines())
    return {name: value[1:-1] for name, _, value in lines}
