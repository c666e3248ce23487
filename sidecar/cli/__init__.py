"""sidecar's command line: options, `check`, tables. With start_server/ the only reader of argv and
the environment.
"""
