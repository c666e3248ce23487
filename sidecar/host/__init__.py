"""The loop of PID 1 and its jobs."""
