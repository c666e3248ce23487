"""`sidecar rollout`: one change, rolled over many containers. "rsync, then HUP, host by host",
where the hosts are containers now.

    command.py      the door: words and a plan's file → a plan, the question, the loop, the exit status
    show.py         what people and pipes are told
    containers.py   the containers of a Docker engine          pods.py   the pods of a Kubernetes cluster
    job.py          what is done to one container              parcel.py   a directory → a tar archive
    course.py       who is next, who is given up, when it ends: pure, facts in, orders out
    plan.py         what is asked for, from words and from a file: pure
    fleet.py        the words they share: a target, what an engine can do, what can go wrong with it

It runs where the engine's client runs, never in PID 1: nothing that PID 1 runs imports it
(pyproject.toml has the contract). What it asks of a container it asks through that container's own
`sidecar`, by exec: so a reload is checked, made ready and drained there as always, and no port and
no agent is needed.

One thread decides; each container under way has a thread that blocks in the engine's client and
tells what happened through one queue. A thread that does not come back (a frozen container, an
engine that says nothing) is left behind, and its container is reported as hung.
"""
