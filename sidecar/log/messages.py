"""The words of the log: a level and a phrase for each event, and the phrases of two other styles.

The names of events and of their fields are stable (docs/logging.md). Values of variables never
reach this module.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

INFO, WARNING, ERROR = "info", "warning", "error"

PHRASES: dict[str, tuple[str, str]] = {
    # sidecar itself
    "control_socket_opened": (INFO, "control socket at {path}"),
    "admin_opened": (INFO, "health, metrics and a page at {address}"),
    "starting": (INFO, "sidecar {version} starts, pid {pid}"),
    "settings_read": (INFO, "settings read from {file}, changed: {changed}"),
    "reload_rejected": (ERROR, "the settings are wrong, everything stays as it is: {cause}"),
    "listening": (INFO, "listening on {address}{families} (fd {fd} in the workers)"),
    "socket_removed": (INFO, "removed the stale socket {path}"),
    "listener_closed": (
        INFO,
        "no longer listening on {address}: the last generation that had it is gone",
    ),
    "profile_applied": (
        INFO,
        "profile {profile}: adds {arguments}, drains on SIG{signal}, protocols {handoff}"
        " (--profile none: off)",
    ),
    "listener_repaired": (WARNING, "{text}"),
    "notice": (WARNING, "{text}"),
    "action_failed": (ERROR, "cannot {what}: {cause}"),
    "internal_error": (
        ERROR,
        "a defect in sidecar: {error} at {where}; it goes on. Please report this",
    ),
    "upgrade_waiting": (
        INFO,
        "the upgrade waits until generation {generation} serves or has failed",
    ),
    "upgrade_checked": (INFO, "sidecar {version} has proved that it can take over"),
    "upgrading": (INFO, "sidecar {before} becomes sidecar {version}"),
    "upgraded": (INFO, "sidecar {version} has taken over from {before} after {took} s, pid {pid}"),
    "upgrade_failed": (ERROR, "the upgrade failed: {cause}; sidecar {version} goes on"),
    "signal_received": (INFO, "SIG{signal} received"),
    "orphan_reaped": (INFO, "reaped process {pid}, which was no worker ({cause})"),
    # what is watched
    "watching": (INFO, "watching {roots} by {mode} (directories of code: {directories})"),
    "files_changed": (INFO, "changed: {paths} ({count} in all)"),
    "environment_changed": (INFO, "changed in the envdir: {names}"),
    "environment_unreadable": (
        ERROR,
        "cannot read the envdir: {cause}; the environment stays what it is until that changes",
    ),
    "helper_exited": (
        WARNING,
        "{helper} (pid {pid}) ended ({cause}); it is started again in {pause} s",
    ),
    "check_output": (INFO, "the check of generation {generation} said: {output}"),
    "key_pressed": (INFO, "{key} was pressed"),
    "terminal_closed": (INFO, "the terminal was closed"),
    "log_command_exited": (
        WARNING,
        "the log command (pid {pid}) ended ({cause}); it is started again in {pause} s",
    ),
    # the swap
    "swap_started": (INFO, "generation {generation} begins (trigger: {trigger})"),
    "swap_failed": (
        ERROR,
        "generation {generation} failed after {lasted} s (trigger: {trigger}): {cause};"
        " {still_serving}; {next_attempt}",
    ),
    "swap_superseded": (
        INFO,
        "generation {generation} is given up after {lasted} s for a newer one (trigger: {trigger})",
    ),
    "reverted": (
        WARNING,
        "generation {failed} died soon after time alone had made it ready: until the next swap"
        " generation {generation} has the settings and environment of generation {like}, the last"
        " that held out (settings that differ: {settings}; variables: {variables})",
    ),
    "kept_previous": (
        WARNING,
        "generation {failed} was refused: until the next swap that is asked for, generation"
        " {generation} has the settings and environment of generation {like}, which served",
    ),
    "revert_impossible": (
        WARNING,
        "generation {generation} died soon after time alone had made it ready; there is no way"
        " back to generation {like}, the last that held out: its --port was another",
    ),
    "retry_scheduled": (INFO, "trying again in {pause} s (trigger: {trigger})"),
    "gave_up": (
        ERROR,
        "nothing serves after {failures} failures in a row (--max-failures); leaving with status"
        " {status}: {cause}",
    ),
    "interval_due": (INFO, "the interval of {interval} s for automatic restarts is over"),
    "worker_shrunk": (
        INFO,
        "generation {generation}: worker {slot} (pid {pid}) is sent SIG{signal}: {left} of its"
        " {had} processes stay beside {new} new",
    ),
    "retire_delayed": (
        INFO,
        "generation {generation} is ready: in {delay} s the old workers {pids} are sent"
        " SIG{signal}",
    ),
    "overlap_skipped": (
        WARNING,
        "generation {generation} starts when the old workers {pids} have left (SIG{signal}), and"
        " until it is ready nothing serves: {why}",
    ),
    "overlap_limited": (
        INFO,
        "generation {generation} takes over with at most {surge} workers more at a time: {why}",
    ),
    "generation_ended": (INFO, "generation {generation} is gone"),
    "retiring": (
        INFO,
        "generation {generation} is ready: sending SIG{signal} to old workers: {pids}",
    ),
    "serving": (
        INFO,
        "generation {generation} serves after {took} s (trigger: {trigger}), workers {pids}",
    ),
    # the workers
    "worker_started": (INFO, "generation {generation}: worker {slot} started, pid {pid}"),
    "worker_ready": (
        INFO,
        "generation {generation}: worker {slot} (pid {pid}) is ready after {after} s (by {by})",
    ),
    "worker_overdue": (ERROR, "generation {generation}: worker {slot} (pid {pid}) {cause}"),
    "worker_exited": (
        INFO,
        "generation {generation}: worker {slot} (pid {pid}) left after {lived} s ({cause})",
    ),
    "worker_died": (
        ERROR,
        "generation {generation}: worker {slot} (pid {pid}) died after {lived} s: {cause}",
    ),
    "spawn_failed": (ERROR, "generation {generation}: worker {slot} could not be started: {cause}"),
    "leader_exited": (
        WARNING,
        "generation {generation}: worker {slot} (pid {pid}) has gone, but its {who} on{then}{hint}",
    ),
    "worker_killed": (
        WARNING,
        "generation {generation}: {who} has not left {after} s after it was asked to: SIGKILL",
    ),
    "recycling": (
        WARNING,
        "generation {generation}: worker {slot} (pid {pid}) holds {held}, more than {most}:"
        " another takes its place",
    ),
    "recycled": (
        INFO,
        "generation {generation}: worker {slot} (pid {pid}) has been replaced by {by} after"
        " {lived} s{hint}",
    ),
    "socket_unused": (
        WARNING,
        "generation {generation}: worker {slot} (pid {pid}) {what}; {advice}",
    ),
    "readiness_probe_unavailable": (
        WARNING,
        "cannot see whether workers take connections ({cause}); going by --interval {interval} s",
    ),
    "worker_limit_reached": (
        WARNING,
        "SIG{signal} asks for more than {workers} workers: there will be no more (--max-workers)",
    ),
    "scaling_paced": (
        WARNING,
        "SIGTTIN comes so often that workers are started one by one, every {pause} s; {waiting}"
        " wait",
    ),
    "scaled": (INFO, "{workers} workers from now on, {before} before"),
    # the stop
    "stopping": (
        INFO,
        "stopping on SIG{signal}: lame duck {lame_duck} s, then at most {drain_timeout} s for the"
        " workers",
    ),
    "stopped": (INFO, "stopped, status {status}"),
}

# Server::Starter's lines, to the letter, for `start_server`: by event, and its variant
# (log/writer.py, _start_server_line). Of the events without such a line, warnings and errors get
# the usual one, and the others get none.
START_SERVER_PHRASES = {
    "listening fixed": "socket is duplicated to file descriptor {fd}",
    "socket_removed": "removing existing socket file:{path}",
    "worker_started": "starting new worker {pid}",
    "worker new": "new worker {pid} seems to have failed to start, exit status:{wait_status}",
    "worker current": "worker {pid} died unexpectedly with status:{wait_status}, restarting",
    "worker old": "old worker {pid} died, status:{wait_status}",
    "worker stopping": "worker {pid} died, status:{wait_status}",
    "signal_received": "received {signal}, spawning a new worker",
    "interval_due": "autorestart triggered (interval={interval})",
    "interval_due forced": "autorestart triggered (forced, interval={interval})",
    "retire_delayed": (
        "new worker is now running, sending {signal} to old workers:{pids}\n"
        "sleeping {delay} secs before killing old workers"
    ),
    "retiring": (
        "new worker is now running, sending {signal} to old workers:{pids}\nkilling old workers"
    ),
    "retiring delayed": "killing old workers",
    "retry_scheduled": "trying again in {pause} secs",
    "stopping": "received {signal}, sending {sending} to all workers:{pids}",
    "stopped": "exiting",
}

# The style `dev`, for a programmer at a terminal who has just saved a file: by event, each with a
# mark. Of the events without a phrase here, warnings and errors are shown with the usual one, and
# the others are not shown. A failed swap has several lines (log/dev.py).
DEV_PHRASES = {
    "settings_read": "· settings from {file}",
    "listening": "· listening on {address}",
    "watching": "· watching {roots}",
    "files_changed": "~ {paths}",
    "environment_changed": "~ environment: {names}",
    "key_pressed": "~ {key}",
    "terminal_closed": "~ the terminal was closed",
    "signal_received": "~ SIG{signal}",
    "check_output": "· {output}",
    "serving": "● generation {generation} serves after {took} s",
    "stopping": "· stopping",
    "stopped": "· stopped",
}


def phrase_fields(event: str, fields: Mapping[str, Any]) -> dict[str, str]:
    """What the phrase of an event is filled with: its fields as texts, and texts made of them."""
    texts = {name: format_value(value) for name, value in fields.items()}
    match event:
        case "swap_failed":
            texts.update(_swap_failed_texts(fields))
        case "listening":
            texts["families"] = f", {fields['families']}" if fields["families"] else ""
        case "recycling":
            texts["held"] = f"{fields['memory'] / 2**20:.1f} MiB"
            texts["most"] = f"{fields['limit'] / 2**20:.1f} MiB"
        case "recycled":
            hint = (
                f"; so big so soon: not again in this slot for {texts['pause']} s"
                " (is --max-memory too low for this program?)"
            )
            texts["hint"] = hint if fields["pause"] else ""
        case "worker_killed":
            worker = f"worker {fields['slot']} (pid {fields['pid']})"
            texts["who"] = worker if fields["leader"] else f"what has outlived {worker}"
        case "leader_exited":
            texts.update(_leader_exited_texts(fields, texts))
    return texts


def _swap_failed_texts(fields: Mapping[str, Any]) -> dict[str, str]:
    serving, again = fields["still"], fields["again"]
    still_serving = "nothing serves"
    if serving:
        still_serving = f"generation {', '.join(map(str, serving))} serves on"
    if fields["degraded"]:
        still_serving += ", degraded: workers that had taken over stay"
    next_attempt = "it is not tried again by itself"
    if again is not None:
        next_attempt = f"the next attempt is in {format_value(again)} s"
    return {"still_serving": still_serving, "next_attempt": next_attempt}


def _leader_exited_texts(fields: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, str]:
    pids = f" {texts['pids']}" if fields["pids"] else ""
    if len(fields["pids"]) > 1:
        strays = f" ({texts['strays']} in sessions of their own)" if fields["strays"] else ""
        who, then = f"processes{pids}{strays} live", ": they are"
    else:
        strays = ", in a session of its own," if fields["strays"] else ""
        who, then = f"process{pids}{strays} lives", ": it is"
    if fields["signal"]:
        then += f" sent SIG{fields['signal']} and"
    then += f" killed in {texts['kill_in']} s at the latest"
    hint = "; have the shell start the program with `exec`, so that it gets the signals itself"
    return {"who": who, "then": then, "hint": hint if fields["shell"] else ""}


def format_value(value: object) -> str:
    """A field as text: seconds with three digits at most, a list with commas."""
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".") if value < 100 else f"{value:.0f}"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(each) for each in value) or "none"
    return str(value)
