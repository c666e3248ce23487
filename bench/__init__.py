"""The figures of sidecar, measured beside Debian's start_server in the same run; see docs/bench.md."""
