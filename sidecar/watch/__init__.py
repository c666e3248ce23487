"""The watcher: a helper process that tells PID 1, a JSON line at a time, that files have changed.

    python -I -m sidecar.watch        __main__.py has its configuration, and the lines

PID 1 imports nothing of this package. What PID 1 does not need is here: watchdog and pathspec, more
than 10 MB, and the names of a tree.

**Truth is a comparison, events are hints.** inotify says that something may have happened in a
directory; it does not say so on network file systems, through overlays and bind mounts, when the
queue was full, or when the root has become another directory. So an event only marks directories as
dirty. When the tree has settled they are read again and compared with what was last reported
(tree.py); what differs is reported. A lost event costs time, since the safety scan finds the change;
a needless event costs a scan.

**One thread.** inotify is read in the same poll(2) that waits for the end of sidecar. inotify.py says
which of watchdog's classes that takes, and why its observers are not used.

    watcher.py      the loop: when to look, when to report
    burst.py        what has become dirty together
    tree.py         what was last reported, and what differs
    scanner.py      reads the directories
    entries.py      a file: its stamp and digest
    rules.py        what is ignored
    inotify.py      which directory may have changed, by watchdog
    mounts.py       where inotify is silent, and where no files are
    symlinks.py     where a path leads, link by link
    env_watch.py    when the envdirs are read
    envdirs.py      what they would give, as digests
    saved_state.py  what was last reported, kept by PID 1 in case the watcher dies
    notices.py      sentences for the log
    output.py       the lines to PID 1
"""
