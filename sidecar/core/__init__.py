"""The decisions, pure: facts come in, orders go out. No process, no socket, no clock, no randomness."""
