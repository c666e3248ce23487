"""How a line of the log looks."""
