"""The watcher: a helper process that tells PID 1, a JSON line at a time, that files have changed.

    python -I -m sidecar.watch        __main__.py has its configuration, and the lines

PID 1 imports nothing of this package. It has what PID 1 has not: watchdog and pathspec, 10 MB and
more, a tree's names.

**Truth is a comparison, events are hints.** inotify says that something may have happened in a
directory; it does not say so on network file systems, through overlays and bind mounts, when the
queue was full, or when the root has become another directory. So an event only marks directories as
dirty. When the tree has settled they are read again and compared with what was last told (tree.py);
what differs is told. A lost event costs time (the safety scan finds the change), an event too many
costs a scan.

**One thread.** inotify is read in the same poll(2) that waits for the end of sidecar. inotify.py says
which of watchdog's classes that takes, and why its observers are not used.

    watcher.py      the loop: when to look, when to tell
    tree.py         what is there: stamps and digests of files; what differs
    rules.py        what is ignored
    inotify.py      inotify: which directory may have changed
    places.py       where a path leads, link by link, and where inotify is silent
    variables.py    what an envdir would give, as digests
    system/cgroup.py       what was last told, kept by PID 1 in case the watcher dies
"""
