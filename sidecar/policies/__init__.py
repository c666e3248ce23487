"""What the jobs of the host decide, pure: when next, how often, and what supersedes what."""
