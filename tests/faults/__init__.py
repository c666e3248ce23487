"""System calls of sidecar that fail: what must hold whatever the kernel says."""
