"""An application's own module that happens to be called what PID 1 imports."""

raise SystemExit(f"{__file__} was imported")
