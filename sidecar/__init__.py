"""A hot-deploy supervisor for containers: binds the sockets, starts the server, swaps it without
losing a request.
"""

__version__ = "0.1.0"
