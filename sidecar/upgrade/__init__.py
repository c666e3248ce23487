"""Becoming another version in place: the exec, and the state that is exported and imported."""
