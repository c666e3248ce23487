"""The documentation keeps up with the code."""

from __future__ import annotations

import re
from pathlib import Path

from sidecar.log import PHRASES
from tests.support import ROOT


def test_every_event_of_the_log_is_documented_with_its_level():
    page = (ROOT / "docs" / "logging.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE))
    assert rows == {event: level for event, (level, _) in PHRASES.items()}


def test_every_event_that_is_said_has_a_phrase_and_every_phrase_is_said():
    source = "".join(path.read_text() for path in Path(ROOT / "sidecar").glob("*.py"))
    said = set(re.findall(r"say\(\s*\"(\w+)\"", source)) | {"worker_left", "worker_died"}
    assert said == set(PHRASES)


def test_every_link_between_pages_leads_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
