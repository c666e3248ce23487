"""Fleets of containers, and what is copied into them."""

from __future__ import annotations

import json
import os

import pytest

from tests.container.rollout.fleet import Fleet


@pytest.fixture(scope="module")
def fleets(engine, images):
    """Makes a fleet of containers that serve v1, by their names."""
    made = []

    def make(label: str, *names: str, **options) -> Fleet:
        fleet = Fleet(engine, images.sidecar, f"sidecar-test-{label}-{os.getpid()}")
        made.append(fleet)
        fleet.start(*names, **options)
        fleet.wait()
        return fleet

    yield make
    for fleet in made:
        fleet.remove()


@pytest.fixture(scope="module")
def shop(fleets):
    """Three containers that the tests use one after the other, whatever they serve by then."""
    return fleets("shop", "1", "2", "3")


@pytest.fixture
def release(tmp_path):
    """Makes a directory to be copied."""
    source = tmp_path / "build"
    source.mkdir()

    def make(version: str, **more):
        (source / "release.json").write_text(json.dumps({"version": version, **more}))
        return f"{source}:/srv/code"

    return make
