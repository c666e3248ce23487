"""`sidecar rollout`: one change, rolled over many containers. "rsync, then HUP, host by host",
where the hosts are containers now.

    command.py      the entry point: arguments and a plan's file, the question, the loop, the exit status
    plan.py         what the user wants, from the arguments and the plan's file: pure
    state.py        which container is next, which is given up, when it ends: pure, facts in, orders out
    job.py          what is done to one container
    archive.py      a tar archive of a local directory
    engine.py       what all engines have in common: a target, what can be done with it, what can go wrong
    containers.py   the containers of a Docker engine
    pods.py         the pods of a Kubernetes cluster
    summary.py      the result, as values and as a table: pure
    output.py       what is written for people and for programs

It runs where the engine's client runs, never in PID 1: nothing that PID 1 runs imports it
(pyproject.toml has the contract). What it asks of a container it asks through that container's own
`sidecar`, by exec: so a reload is checked, made ready and drained there as always, and no port and
no agent is needed.

One thread decides; each container under way has a thread that blocks in the engine's client and
tells what happened through one queue. A thread that does not come back (a frozen container, an
engine that says nothing) is left behind, and its container is reported as hung.
"""
