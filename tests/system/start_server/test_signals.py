"""The rows of docs/start_server.md on signals and on what it does: where ours is meant to differ from
Perl's, both are run and each is seen to do what the table says.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.support import PATIENCE, alive, marked, until
from tests.system.start_server.side_by_side import gone, sh, touch
from tests.system.start_server.starter import shows


@shows("HUP")
def test_hups_that_come_during_a_swap(pair):
    perl, ours = pair("--interval=1")
    for run in (perl, ours):
        run.wait_generations(1)
        for count in (1, 2, 3):
            run.signal("HUP")
            run.wait("^received HUP", count)
            run.wait("^starting new worker", 2)
    perl.wait_generations(4)
    ours.wait_generations(3)
    for run, attempts in ((perl, 4), (ours, 3)):
        assert run.stop() == 0
        assert run.text().count("starting new worker") == attempts


@shows("TERM")
def test_a_second_term_kills_what_is_left(starter, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "DEAF").touch()
    run = starter()
    run.wait_generations(1)
    run.signal("TERM")
    run.wait("^received TERM")
    assert alive(run.worker(1))
    until(lambda: run.process.poll() is not None or run.signal("TERM"), "the end")
    assert run.process.returncode == 0
    assert re.search(r"^worker \d+ died, status:9$", run.text(), re.MULTILINE)


@shows("TERM in a crash loop")
def test_perl_starts_one_more_on_term_in_a_crash_loop(pair):
    perl, ours = pair(before=lambda where: (where / "BREAK").write_text("for ever"))
    started = {}
    for run in (perl, ours):
        run.wait("seems to have failed to start", 2)
        if run is perl:
            run.wait("^starting new worker", 3)
            gone(int(re.findall(r"^starting new worker (\d+)$", run.text(), re.MULTILINE)[2]))
            (run.where / "BREAK").unlink()
        started[run] = run.text().count("starting new worker")
        assert run.stop() == 0
        (one,) = [
            index
            for index, line in enumerate(run.lines())
            if line.startswith("received TERM, sending TERM to all workers:")
        ]
        assert run.lines()[-1] == "exiting"
        assert not [line for line in run.lines()[one:] if line.startswith("starting")]
    assert perl.text().count("starting new worker") > started[perl]


@shows("QUIT", "USR1", "USR2")
@pytest.mark.parametrize("name", ["QUIT", "USR1", "USR2"])
def test_perl_dies_of_a_signal_that_it_does_not_know_and_leaves_its_program(pair, name):
    perl, ours = pair()
    for run in (perl, ours):
        run.wait_generations(1)
        run.signal(name)
    assert perl.process.wait(PATIENCE) == -signal.Signals[f"SIG{name}"]
    assert alive(perl.worker(1))
    if name == "QUIT":
        assert ours.process.wait(PATIENCE) == 0
        assert marked(ours.mark) == []
    elif name == "USR1":
        ours.signal("HUP")
        ours.wait_generations(2)
        assert "died unexpectedly" not in ours.text()
    else:
        # An upgrade in place: the program it was exec'd with is another one, of the same pid, with
        # the same worker.
        until(
            lambda: (
                b"SIDECAR_UPGRADE_STATE=" in Path(f"/proc/{ours.process.pid}/environ").read_bytes()
            ),
            "the upgrade",
        )
        worker = ours.worker(1)
        assert alive(worker)
        ours.signal("HUP")
        ours.wait_generations(2)


@shows("TTIN, TTOU")
def test_ttin_and_ttou(starter):
    run = starter("--interval=0.1")
    run.wait_generations(1)
    run.signal("TTIN")
    until(lambda: len(run.text("status").splitlines()) == 2, "two programs")
    assert {line.partition(":")[0] for line in run.text("status").splitlines()} == {"1"}
    run.signal("TTOU")
    until(lambda: len(run.text("status").splitlines()) == 1, "one program")
    assert {life["environ"]["SERVER_STARTER_GENERATION"] for life in run.lives()} == {"1"}


@shows("ALRM")
def test_alrm(pair):
    """Both are sent HUP behind it: what it would have done, it has done by the time that has served."""
    for run in pair():
        run.wait_generations(1)
        run.signal("ALRM")
        run.signal("HUP")
        run.wait_generations(2)
        assert run.process.poll() is None
        assert len(run.lives()) == 2


@shows("any other that would end it (PROF, VTALRM, real time …)")
def test_signals_without_a_meaning(pair):
    perl, ours = pair()
    for run in (perl, ours):
        run.wait_generations(1)
        run.signal("VTALRM")
    assert perl.process.wait(PATIENCE) == -signal.SIGVTALRM
    assert alive(perl.worker(1))
    ours.signal("HUP")
    ours.wait_generations(2)
    assert ours.process.poll() is None


@shows("start_server is killed outright")
def test_start_server_is_killed_outright(pair):
    perl, ours = pair()
    for run in (perl, ours):
        run.wait_generations(1)
        run.process.kill()
        run.process.wait(PATIENCE)
    gone(ours.worker(1))
    assert alive(perl.worker(1))


# --- what it does
@shows("a program that dies in the interval", "a program that dies later")
def test_a_program_that_dies_is_tried_again_after_a_pause(starter, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "BREAK").write_text("3")
    run = starter("--interval=0.1")
    run.wait_generations(4)
    pauses = [
        float(text)
        for text in re.findall(r"^trying again in ([\d.]+) secs$", run.text(), re.MULTILINE)
    ]
    assert len(pauses) == 3
    assert max(pauses) == pauses[2] > pauses[0] > 0
    os.kill(run.worker(4), signal.SIGKILL)
    run.wait("^trying again in", 4)
    run.wait_generations(5)


@shows("old programs that do not leave")
def test_old_programs_that_do_not_leave(pair):
    perl, ours = pair(before=touch("DEAF"), ours=("--drain-timeout=0.5",))
    for run in (perl, ours):
        for generation in (2, 3):
            run.wait_generations(*range(1, generation)) if run is perl else run.wait_generations(
                generation - 1
            )
            run.signal("HUP")
    perl.wait_generations(1, 2, 3)
    ours.wait(r"^old worker \d+ died, status:9$", 2)
    ours.wait_generations(3)


@shows("processes that a program has left in its group")
def test_what_a_program_has_left_in_its_group(pair):
    perl, ours = pair(program=sh("sleep 1000 & echo $! >> left"), ours=("--drain-timeout=0.5",))
    for run in (perl, ours):
        run.wait_generations(1)
        run.signal("HUP")
        run.wait(r"^old worker \d+ died, status:15$")
        run.wait_generations(2)
    gone(int(ours.text("left").split()[0]))
    assert alive(int(perl.text("left").split()[0]))


@shows("Ctrl-C at a terminal")
def test_programs_have_groups_of_their_own(pair):
    perl, ours = pair()
    for run in (perl, ours):
        run.wait_generations(1)
    assert os.getpgid(perl.worker(1)) == perl.process.pid
    assert os.getpgid(ours.worker(1)) == ours.worker(1)


@shows("new worker is now running, sending SIG to old workers:P1,P2")
def test_a_swap_is_said_to_be_over_also_if_the_old_program_dies_meanwhile(pair):
    perl, ours = pair("--interval=2")
    for run in (perl, ours):
        run.wait_generations(1)
        run.signal("HUP")
    for run in (perl, ours):
        run.wait("^starting new worker", 2)
        os.kill(run.worker(1), signal.SIGKILL)
    for run in (perl, ours):
        run.wait("^killing old workers$")
        run.wait(r"^old worker \d+ died, status:9$")
    end = [
        "new worker is now running, sending TERM to old workers:<worker 1>",
        "killing old workers",
        "old worker <worker 1> died, status:9",
    ]
    assert perl.lines()[-3:] == end
    assert ours.lines()[-3:] == [end[2], end[0].replace("<worker 1>", "none"), end[1]]
