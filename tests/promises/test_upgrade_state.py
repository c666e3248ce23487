"""A supervisor that is written down and made anew, at any moment of any schedule, goes on exactly
as it would have.

The same schedules as in test_promises.py, each lived through twice; in the second life the
supervisor is another one again and again.
"""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from sidecar.core import facts
from sidecar.core.supervisor import Supervisor
from sidecar.settings.table import Settings
from sidecar.upgrade import state
from sidecar.upgrade.state import IncompatibleState, from_json_value, to_json_value

from .world import World

SCHEDULES = 400


def reborn(supervisor: Supervisor, now: float) -> Supervisor:
    """What an upgrade in place makes of it."""
    text = json.dumps(to_json_value(supervisor))
    return state.import_supervisor(
        from_json_value(json.loads(text)), Settings(), now, supervisor.random_fraction
    )


class Mortal(World):
    """A world in which the supervisor may be replaced before any turn and any fact."""

    def __init__(self, dice: random.Random, fate: random.Random) -> None:
        self.fate = fate
        self.often = fate.choice((0.05, 0.3, 1.0))
        self.lives = 0
        super().__init__(dice)

    def _perhaps(self) -> None:
        if self.fate.random() < self.often:
            self.supervisor = reborn(self.supervisor, self.now)
            self.lives += 1

    def turn(self) -> None:
        self._perhaps()
        super().turn()
        self._perhaps()

    def observe(self, fact: facts.Fact) -> None:
        self._perhaps()
        super().observe(fact)


@pytest.mark.timeout(0)
def test_a_supervisor_that_is_made_anew_gives_the_same_orders_to_the_end() -> None:
    lives = 0
    for seed in range(SCHEDULES):
        once = World(random.Random(seed)).run()
        mortal = Mortal(random.Random(seed), random.Random(seed + 1)).run()
        assert mortal.trace == once.trace, f"schedule {seed}"
        lives += mortal.lives
    assert lives > 20 * SCHEDULES


def test_a_state_is_text_and_nothing_but() -> None:
    supervisor = World(random.Random(1)).run().supervisor
    told = to_json_value(supervisor)
    assert from_json_value(json.loads(json.dumps(told))) == told
    with pytest.raises(TypeError, match="a state cannot hold a object"):
        to_json_value({"something": object()})


def test_a_state_has_no_private_names() -> None:
    """Its names are what two versions agree upon."""
    supervisor = World(random.Random(1)).run().supervisor
    supervisor._secret = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"Supervisor\._secret is private"):
        to_json_value(supervisor)


def test_the_settings_in_force_are_kept_as_they_have_become() -> None:
    supervisor = Supervisor(Settings(workers=3), 0.0, lambda: 0.0)
    supervisor.observe(
        facts.TimingChanged(
            enable_auto_restart=True, auto_restart_interval=9.0, kill_old_delay=4.0
        ),
        0.0,
    )
    assert reborn(supervisor, 1.0).settings == supervisor.settings
    assert (supervisor.settings.workers, supervisor.settings.kill_old_delay) == (3, 4.0)


def test_what_a_state_lacks_is_as_at_a_start_and_what_it_has_too_much_is_refused() -> None:
    def made(told: dict[str, Any]) -> Supervisor:
        return state.import_supervisor(told, Settings(), 5.0, lambda: 0.0)

    supervisor = Supervisor(Settings(workers=3), 0.0, lambda: 0.0)
    supervisor.size, supervisor.number = 7, 2
    told = to_json_value(supervisor)
    del told["number"]
    assert (made(told).size, made(told).number) == (7, 0)
    told["moods"] = []
    with pytest.raises(
        IncompatibleState,
        match=r"a Supervisor\.moods in its state, which this version does not know",
    ):
        made(told)
    with pytest.raises(IncompatibleState, match="a Mood in its state"):
        from_json_value({"~": "Mood"})
    with pytest.raises(IncompatibleState, match="unexpected 'colour'"):
        from_json_value(
            {"~": "PendingSwap", "trigger": "signal", "not_before": 0.0, "colour": "red"}
        )
