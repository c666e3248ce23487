"""One exception anywhere in PID 1, before its effect or after it, during a start, a swap or a stop:
promises 1 (continuity), 3 (a stop ends) and 6 (every process is reaped) hold.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.support import APPS, PATIENCE, Load, Sidecar, marked, until

ENTRIES = [
    *(f"sidecar.host.loop:Loop.{each}" for each in ("observe", "decide", "_turn_once", "_work")),
    *(f"sidecar.host.signal_handling:SignalHandling.{each}" for each in ("on_readable", "_act_upon")),
    *(f"sidecar.host.control_desk:ControlDesk.{each}" for each in ("on_readable", "_answer", "flush")),
    *(f"sidecar.host.workers:WorkerProcesses.{each}" for each in (
        "spawn", "retire", "on_worker_exit", "_killed_for_memory")),
    *(f"sidecar.host.readiness:Readiness.{each}" for each in ("add", "drop", "ready", "_see_executed")),
    *(f"sidecar.host.generations:Generations.{each}" for each in ("prepare", "environment", "_prepared")),
    "sidecar.host.announcements:Announcements.say", "sidecar.host.generation_end:GenerationEnd.close",
    "sidecar.host.listener_sets:ListenerSets.close_unused", "sidecar.host.unknown_holders:UnknownHolders.look",
    "sidecar.host.host:Host._leave", "sidecar.host.requests:Requests.reload", "sidecar.host.watching:Watching.follow_link",
    "sidecar.host.performing:Performing._perform", "sidecar.host.in_force:InForce.plan",
    *(f"sidecar.host.readiness_probes:ReadinessProbes.{each}" for each in ("deadline", "on_deadline", "_probe")),
    *(f"sidecar.host.ready_commands:ReadyCommands.{each}" for each in ("on_deadline", "on_exit")),
    *(f"sidecar.host.children:Children.{each}" for each in ("deadline", "on_deadline", "_see_end", "start")),
    *(f"sidecar.host.sources:Sources.{each}" for each in ("deadline", "listen_to", "stop_listening", "wait")),
    "sidecar.host.events:Events.say", "sidecar.host.redaction:Redaction.fact", "sidecar.host.stop_deadline:StopDeadline.begin",
    "sidecar.host.status_reports:StatusFileReport.on_deadline", "sidecar.host.status_reports:ServiceManagerReport.on_deadline",
    "sidecar.host.generation_checks:GenerationChecks.on_exit", "sidecar.host.listener_repair:ListenerRepair.on_deadline",
    *(f"sidecar.system.processes:ChildProcesses.{each}" for each in ("start", "collect", "_read_report_and_end", "signal", "has_executed", "was_stopped")),
    *(f"sidecar.host.{each}.deadline" for each in (
        "notify_reader:NotifyReader", "listener_repair:ListenerRepair", "log_command:LogCommand", "helper_processes:HelperProcesses",
        "settings_reload:SettingsReload", "delegation:Delegation", "missed_sockets:MissedSockets", "ready_commands:ReadyCommands",
        "memory_watch:MemoryWatch", "status_reports:StatusFileReport", "status_reports:ServiceManagerReport", "control_desk:ControlDesk",
        "upgrading:Upgrading", "stop_deadline:StopDeadline")),
    "sidecar.host.notify_reader:NotifyReader.on_readable", "sidecar.host.upgrading:Upgrading.advance",
    "sidecar.host.missed_sockets:MissedSockets.ended_early", "sidecar.host.helper_processes:HelperProcesses.kill_stopped",
    *(f"sidecar.host.delegation:Delegation.{each}" for each in ("start", "on_exit", "drop_generation")),
    *(f"sidecar.host.settings_reload:SettingsReload.{each}" for each in ("request", "on_exit")),
    *(f"sidecar.host.settings_change:SettingsChange.{each}" for each in ("prepare", "_put_in_force")),
    "sidecar.core.supervisor:Supervisor.observe",
    *(f"sidecar.core.{each}" for each in (
        "swaps:begin_swap", "retirement:remove_finished", "retirement:kill_overdue", "retirement:retire",
        "stopping:advance_stop", "stopping:exit_when_empty", "starting:start_missing_workers", "starting:spawn",
        "failures:handle_failed_generation", "failures:lose_worker", "worker_events:check_start_deadlines",
        "takeover:take_over", "takeover:serve")),
    "sidecar.host.job:Tools.read_tail",
    *(f"sidecar.host.helper_processes:HelperProcesses.{each}" for each in ("on_deadline", "read")),
    "sidecar.host.watcher:Watcher._on_watching",
    "sidecar.log.writer:Log.say", "sidecar.core.history:EventHistory.record", "sidecar.control.server:ControlSocket.publish", "sidecar.control.server:ControlSocket.turn",
    "sidecar.control.server:ControlSocket.flush", "sidecar.host.helpers:Helper.open", "sidecar.host.helpers:Helper.read_events", "sidecar.host.tail:Tail.close",
    "sidecar.system.service_manager:ServiceManager.on_event", "sidecar.system.status_file:StatusFile.write", "sidecar.core.probe_schedule:ProbeSchedule.due",
]  # fmt: skip


#: What has to be asked for, or the entry is never come to.
OPTIONS = {
    "ReadyCommands": ("--ready", "command", "--ready-command", "true"),
    "NotifyReader": ("--ready", "notify"),
    "LogCommand": ("--log-file", "| exec cat >&2"),
    "MemoryWatch": ("--max-memory", "1G"),
    "Delegation": ("--envdir", "env"),
    "Settings": ("--config", "sidecar.yml"),
}


class Planted(Sidecar):
    """With a defect in it."""

    MODULE = (str(APPS / "planted.py"),)

    def serves(self) -> int:
        """The number of the generation that serves."""
        return int(self.seen("serving")[-1]["generation"])

    def zombies(self) -> list[int]:
        """Children that have ended and have not been reaped."""
        found = []
        for path in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            try:
                if Path(f"/proc/{path}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    found.append(int(path))
            except OSError:
                continue
        return found


def request(path: Path) -> None:
    """Ask for something. There may be no answer: whoever asks meets with the defect, too."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        sock.sendall(b'{"command": "health"}\n')
        sock.recv(1000)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.partition(":")[2])
def test_the_promises_hold(tmp_path, entry, when):
    armed = tmp_path / "armed"
    for name in ("code", "env"):
        (tmp_path / name).mkdir()
    (tmp_path / "sidecar.yml").write_text("min-uptime: 1s\n")
    wanted = next((OPTIONS[each] for each in OPTIONS if f":{each}" in entry), ())
    if not entry.endswith(
        (":Events.say", "Sources.stop_listening", "Sources.listen_to")
    ):  # before anything is served: an end
        armed.touch()
    run = Planted(
        "--workers", "2", "--drain-timeout", "4", "--start-timeout", "8", "--watch", str(tmp_path / "code"),
        "--check", "true", *wanted, "--status-file", str(tmp_path / "status"), "--control", str(tmp_path / "control"),
        env={"PLANT": entry, "WHEN": when, "ARMED": str(armed), "PYTHONDONTWRITEBYTECODE": "1",
             **({"NOTIFY": "1"} if "NotifyReader" in entry else {})},
        cwd=tmp_path,
    )  # fmt: skip
    try:
        run.wait("serving")
        if "_on_watching" in entry:
            run.wait("internal_error")
        with Load(run.port, one_shot=1, kept=1, pause=0.02) as load:
            armed.touch()
            before = run.serves()
            failed = len(run.seen("swap_failed"))
            run.signal("HUP")
            request(tmp_path / "control")
            until(
                lambda: (
                    run.serves() > before
                    or len(run.seen("swap_failed")) > failed
                    or run.seen("reload_rejected")
                ),
                "the swap's outcome",
                run,
            )
            if run.seen("reload_rejected"):
                assert "a defect in sidecar" in run.seen("reload_rejected")[0]["cause"]
                run.signal("HUP")
                until(lambda: run.serves() > before, "a reload that was asked for again", run)
                assert len(run.seen("reload_rejected")) == 1
            elif run.serves() == before:
                # What serves goes on, who asked has been told so, and asks again.
                said = run.seen("swap_failed")[-1]
                assert "a defect in sidecar" in said["cause"]
                assert (said["still"], said["again"]) == ([before], None)
                run.signal("HUP")
                until(lambda: run.serves() > before, "a swap that was asked for again", run)
                assert len(run.seen("swap_failed")) == failed + 1
            run.alone(run.serves())
            until(lambda: len(run.workers()) == 2, "two workers", run)
            until(lambda: not run.zombies(), "everything reaped", run)
            assert load.failures == []
        if not entry.endswith(".say"):  # what it does not say is not to be seen in what it says
            armed.touch()
            killed = run.workers()[0]
            os.kill(killed, signal.SIGKILL)
            until(lambda: killed not in run.workers() and len(run.workers()) == 2, "another", run)
            until(lambda: not run.zombies(), "everything reaped", run)
        armed.touch()
        run.signal("TERM")
        run.process.wait(PATIENCE)
        run._reader.join(PATIENCE)
        assert marked(run.mark) == []
        assert not [line for line in run.output if "Traceback" in line or "secret" in line]
        assert "planted" in run.output
    finally:
        run.clean_up()


def test_every_entry_is_there():
    """Against a list that has grown old: a method that was renamed would be planted in vain."""
    for entry in ENTRIES:
        module, _, path = entry.partition(":")
        __import__(module)
        owner: object = sys.modules[module]
        for name in path.split("."):
            assert hasattr(owner, name), entry
            owner = getattr(owner, name)


LAST_STEPS = [
    "sidecar.host.last_sweep:LastSweep.run",
    "sidecar.host.sources:Sources.close",
    "sidecar.host.terminal_keys:TerminalKeys.close",
    "sidecar.host.listener_sets:ListenerSets.close",
    "sidecar.system.signals:SignalPipe.close",
    "sidecar.host.listener_repair:ListenerRepair.close",
    "sidecar.host.notify_reader:NotifyReader.close",
    "sidecar.system.service_manager:ServiceManager.close",
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("entry", LAST_STEPS, ids=lambda entry: entry.partition(":")[2])
def test_a_defect_in_a_last_step_leaves_no_other_undone(tmp_path, entry, when):
    """The exit status stays, and the files that are removed last are removed."""
    armed = tmp_path / "armed"
    run = Planted(
        "--status-file", str(tmp_path / "status"), "--control", str(tmp_path / "control"),
        env={"PLANT": entry, "WHEN": when, "ARMED": str(armed)},
    )  # fmt: skip
    try:
        run.wait("serving")
        armed.touch()
        run.signal("TERM")
        assert run.process.wait(PATIENCE) == 0
        run._reader.join(PATIENCE)
        assert marked(run.mark) == []
        assert len(run.seen("internal_error")) == 1
        assert "planted" in run.output
        assert not [line for line in run.output if "Traceback" in line or "secret" in line]
        assert not (tmp_path / "status").exists()
        assert not (tmp_path / "control").exists()
    finally:
        run.clean_up()
