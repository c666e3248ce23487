"""The control socket: its server, its commands (both ends), its client and the health probe."""
