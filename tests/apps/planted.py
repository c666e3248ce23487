"""A sidecar with a defect planted in it, from the variables PLANT (module:Class.method or module:function), WHEN
(before or after its effect) and ARMED: while a file of that name exists, the next call removes it
and raises. The arguments are sidecar's.
"""

import importlib
import os
import sys

from sidecar.cli import main


def plant(where: str, when: str, armed: str) -> None:
    """Put the defect in the place of the method or function."""
    module, _, path = where.partition(":")
    kind, _, method = path.rpartition(".")
    owner = importlib.import_module(module)
    if kind:
        owner = getattr(owner, kind)
    real = getattr(owner, method)

    def planted(*args: object, **kwargs: object) -> object:
        raises = os.path.exists(armed)
        if raises:
            os.unlink(armed)
            os.write(2, b"planted\n")
        if raises and when == "before":
            raise RuntimeError("a secret could be in here")
        result = real(*args, **kwargs)
        if raises:
            raise RuntimeError("a secret could be in here")
        return result

    planted.__name__ = method
    setattr(owner, method, planted)


plant(os.environ["PLANT"], os.environ["WHEN"], os.environ["ARMED"])
sys.exit(main.main(sys.argv[1:]))
