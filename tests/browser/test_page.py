"""The page, in a real browser: it shows a swap as it happens and why one failed, by itself, and
asks nobody else for anything.

SIDECAR_PICTURES=docs/images has it write the pictures of docs/admin.md (`make pictures`).
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from tests.browser.browser import CHROMIUM, DRIVER, Browser
from tests.support import until

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")

PICTURES = os.environ.get("SIDECAR_PICTURES", "")


@pytest.fixture(scope="module")
def chromium():
    with Browser() as started:
        yield started


@pytest.fixture
def browser(chromium) -> Browser:
    """The one browser, as if it had just been started."""
    chromium.clear()
    return chromium


@pytest.fixture
def run(sidecar, tmp_path):
    (tmp_path / "env").mkdir()
    if PICTURES:
        (tmp_path / "env" / "BOOT").write_text("0.6")
    run = sidecar(
        "--admin", "127.0.0.1:0", "--control", "none", "--envdir", str(tmp_path / "env"), "--workers", "2", "--max-backoff", "60s"
    )  # fmt: skip
    run.wait("worker_ready", count=2)
    return run


def picture(browser: Browser, name: str, height: int) -> None:
    if PICTURES:
        browser.picture(Path(PICTURES) / f"{name}.png", height)


def test_it_shows_a_swap_and_a_failure_by_itself(run, tmp_path, browser):
    """Without a reload, without a complaint on the console, without a request to anybody else; text
    is text, whatever it says.
    """
    where = f"http://{run.wait('admin_opened')['address']}/"
    browser.clear(1060, 900)
    browser.open(where)
    browser.run("window.mark = 'the same page'")
    browser.shows("#state", "serving")
    browser.shows("#about", "generation 1")
    browser.shows("#program", "server.py")
    browser.shows("#host", socket.gethostname())
    title = f"server.py on {socket.gethostname()}: serving"
    until(lambda: browser.run("return document.title") == title, "the title")
    browser.shows("#timeline", "serving for")
    assert browser.run("return document.querySelectorAll('#workers tr').length") == 2
    browser.shows("#workers", "MiB")
    assert browser.run("return document.querySelector('#notice').hidden")

    run.swap(2)
    browser.shows("#about", "generation 2")
    browser.shows("#events", "generation 2 serves after")
    browser.shows("#events", "generation 1 is gone")
    browser.shows("#timeline", "served for")
    if PICTURES:
        time.sleep(12)  # a picture of something that has gone on for a while
        run.swap(3)
        time.sleep(6)
        picture(browser, "serving", 900)

    (tmp_path / "env" / "DIE").write_text("3")
    run.signal("HUP")
    failed = run.wait("swap_failed")
    browser.shows("#notice", f"Generation {failed['generation']} failed")
    browser.shows("#notice", "exited with status 3 before it was ready")
    browser.shows("#notice", "serves on, untouched")
    browser.shows("#notice", "It is not tried again by itself")
    browser.shows("#timeline", "failed: exited with status 3 before it was ready")
    browser.shows("#events", failed["message"])
    if PICTURES:
        time.sleep(1)
        picture(browser, "failed", 900)
    (tmp_path / "env" / "DIE").unlink()
    run.signal("HUP")
    number = run.wait("serving", count=len(run.seen("serving")) + 1)["generation"]
    browser.shows("#about", f"generation {number}")
    browser.shows("#notice", "Mended since")

    assert browser.run("return window.mark") == "the same page"
    assert browser.console() == []
    asked = [each for each in browser.requests() if not each.startswith(("chrome:", "data:"))]
    assert asked
    assert [each for each in asked if not each.startswith(where)] == []
    # The policy holds: nothing that came in as text could run.
    browser.run(
        "const s = document.createElement('script'); s.textContent = 'window.broken = 1'; document.body.append(s)"
    )
    assert browser.run("return window.broken === undefined")
    assert run.stop() == 0


def test_retries_do_not_crowd_out_what_served(run, tmp_path, browser):
    """Those that failed one after the other are one row, whatever their causes."""
    run.swap(2)
    for status in range(3, 15):
        (tmp_path / "env" / "DIE").write_text(str(status))
        run.signal("HUP")
        run.wait("swap_failed", count=status - 2)
    browser.open(f"http://{run.wait('admin_opened')['address']}/")
    browser.shows("#timeline", "failed, the last: exited with status")
    rows = browser.run(
        "return [...document.querySelectorAll('#timeline .name')].map(each => each.innerText)"
    )
    assert len(rows) == 3
    assert [row.split()[0] for row in rows[1:]] == ["#2", "#1"]
    run.stop()


def test_of_many_workers_ten_are_shown_until_all_are_wanted(sidecar, browser):
    run = sidecar("--admin", "127.0.0.1:0", "--control", "none", "--workers", "12")
    run.wait("worker_ready", count=12)
    count = "return document.querySelectorAll('#workers tr').length"
    browser.open(f"http://{run.wait('admin_opened')['address']}/")
    browser.shows("#more", "show all 12 workers")
    assert browser.run(count) == 10
    browser.run("document.querySelector('#more').click()")
    assert browser.run(count) == 12
    browser.shows("#more", "show 10 workers")
    run.swap(2)
    browser.shows("#about", "generation 2")
    assert browser.run(count) >= 12
    run.stop()


def test_what_is_told_is_shown_as_text(sidecar, tmp_path, browser):
    """A cause that looks like HTML is read, not obeyed."""
    evil = "<img src=x onerror=window.broken=1><b id=evil>"
    (tmp_path / "env").mkdir()
    if PICTURES:
        (tmp_path / "env" / "BOOT").write_text("0.6")
    run = sidecar(
        "--admin",
        "127.0.0.1:0",
        "--control",
        "none",
        "--check",
        f"sh -c 'test ! -e {tmp_path}/bad' '{evil}'",
        "--ready",
        "interval",
        "--interval",
        "0",
    )
    run.wait("serving")
    (tmp_path / "bad").write_text("")
    run.signal("HUP")
    run.wait("swap_failed")
    browser.open(f"http://{run.wait('admin_opened')['address']}/")
    browser.shows("#notice", "<b id=evil>")
    assert browser.run(
        "return document.querySelector('#evil') === null && document.images.length === 0 && window.broken === undefined"
    )
    run.stop()


def test_a_narrow_screen_and_a_dark_one(run, browser):
    """Nothing is wider than the screen but what scrolls by itself; the colours follow the reader's."""
    colours = []
    for dark in (False, True):
        browser.clear(360, 800, dark)
        browser.open(f"http://{run.wait('admin_opened')['address']}/")
        browser.shows("#workers", "MiB")
        assert browser.run("return document.documentElement.scrollWidth") == 360
        wide = "return document.querySelector('.wide').scrollWidth - document.querySelector('.wide').clientWidth"
        assert browser.run(wide) == 0  # nor does the table scroll
        if PICTURES:
            browser.picture(Path(PICTURES) / f"narrow-{dark}.png", 1600)
        colours.append(browser.run("return getComputedStyle(document.body).backgroundColor"))
        if dark:
            # When sidecar goes, the page says so.
            run.stop()
            browser.shows("#state", "no connection")
    brightness = [sum(int(part) for part in each.strip("rgb()").split(",")) for each in colours]
    assert brightness[0] > 4 * brightness[1]


def test_a_helper_that_dies_is_made_up_for(run, browser):
    """The page is there again by itself, and misses nothing."""
    from tests.system.admin.asking import Admin

    browser.open(f"http://{run.wait('admin_opened')['address']}/")
    browser.shows("#about", "generation 1")
    os.kill(Admin(run).pid(), 9)
    run.wait("helper_exited")
    run.swap(2)
    browser.shows("#state", "serving")
    browser.shows("#about", "generation 2")
    browser.shows("#events", "the admin (pid")
    numbers = "return [...document.querySelectorAll('#events li span')].filter(e => e.textContent.startsWith('generation 2 serves')).length"
    until(lambda: browser.run(numbers) == 1, "one line, once")
    run.stop()
