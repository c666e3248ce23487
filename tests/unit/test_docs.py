"""The documentation keeps up with the code."""

from __future__ import annotations

import re
from pathlib import Path

from sidecar.control import commands
from sidecar.log.messages import PHRASES
from tests.support import ROOT


def test_every_event_of_the_log_is_documented_with_its_level():
    page = (ROOT / "docs" / "logging.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE))
    assert rows == {event: level for event, (level, _) in PHRASES.items()}


def test_every_event_that_is_said_has_a_phrase_and_every_phrase_is_said():
    package = Path(ROOT / "sidecar")
    folders = ("core", "host", "log", "system", "upgrade", "control")
    source = "".join(
        path.read_text() for folder in folders for path in (package / folder).glob("*.py")
    )
    said = set(re.findall(r"(?:say|log)\(\s*\"(\w+)\"", source)) | {"worker_exited", "worker_died"}
    assert said == set(PHRASES)


def test_the_page_on_the_control_socket_has_every_command_every_member_and_every_exit_status():
    page = (ROOT / "docs" / "control.md").read_text()
    assert dict(re.findall(r"^\| `sidecar (\w+)(?: (.+?))?` \|", page, re.MULTILINE)) == {
        each.name: each.usage.replace("|", "\\|") for each in commands.COMMANDS.values()
    }
    documented = {
        name: set(re.findall(r"`(\w+)`", told))
        for name, told in re.findall(r"^\| `(\w+)` \| (.*?) ?\|", page, re.MULTILINE)
    }
    words = {"scale": [["1"], ["+1"]], "signal": [["USR1"]]}
    assert documented == {
        name: {member for each in words.get(name, [[]]) for member in command.request(each)}
        for name, command in commands.COMMANDS.items()
    }
    assert set(map(int, re.findall(r"^\| (\d) \|", page, re.MULTILINE))) == {
        commands.DONE, commands.FAILED, commands.USAGE_ERROR, commands.UNREACHABLE, commands.TIMED_OUT,
    }  # fmt: skip


def test_every_link_between_pages_leads_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_event_that_a_test_counts_is_one_of_the_log():
    """Of one that has another name by now, there would always be none."""
    text = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    asked = set(re.findall(r"\.(?:seen|events|wait_event)\(\s*\"(\w+)\"", text))
    assert asked
    assert asked <= set(PHRASES)
