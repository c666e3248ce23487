#!/usr/bin/env python3
"""Assemble /opt/sidecar: sidecar with an interpreter of its own, in one directory that runs in any
image whose glibc is not older.

    assemble.py TARGET PACKAGES       run by the python3 that is to go in; PACKAGES is what `pip install --target` made

It takes this interpreter, the standard library without what no part of sidecar uses, the packages,
and every shared library that these need besides glibc's. What is found at run time is found from
where it lies: the interpreter looks for its library upwards of itself, and the dynamic linker is
told $ORIGIN. So nothing has to be said in the environment, which the workers inherit: no PATH,
PYTHONHOME or LD_LIBRARY_PATH.

    TARGET/bin/sidecar, start_server      the commands; nothing else is there, so this directory can be on PATH
    TARGET/libexec/python3                the interpreter, for them alone
    TARGET/lib/python3.N/                 library and packages in one: found by every build of Python, Debian's too, without `site`
    TARGET/lib/*.so*                      what the above are linked with
    TARGET/ABOUT                          what is in it, and the glibc it asks for

The road not taken: a zip application needs a Python there; a frozen binary (PyInstaller) unpacks
itself somewhere at each start, health probes included; a virtual environment is nothing without the
interpreter it was made from.

The same input makes the same bytes: no time of the day goes in, all is dated SOURCE_DATE_EPOCH (0
where it is not set).
"""

from __future__ import annotations

import compileall
import fnmatch
import importlib.metadata
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

# The standard library's modules that are of no use to a supervisor, its watcher and its HTTP page,
# whose prometheus_client imports ssl and wsgiref.
LEFT_OUT = (
    "__pycache__", "site-packages", "dist-packages", "config-*", "test", "tests", "idlelib", "idle_test", "tkinter", "turtle*",
    "ensurepip", "venv", "lib2to3", "pydoc*", "distutils", "_distutils_hack", "sqlite3", "dbm", "curses", "xmlrpc", "unittest",
    "doctest.py", "pip*", "setuptools*", "pkg_resources", "sitecustomize.py", "EXTERNALLY-MANAGED", "imaplib.py", "nntplib.py",
    "poplib.py", "smtplib.py", "ftplib.py", "telnetlib.py", "smtpd.py", "mailbox.py", "webbrowser.py", "antigravity.py", "this.py",
    "_pyrepl", "cgi.py", "cgitb.py", "crypt.py", "*.a", "*.exe", "libpython*", "multiprocessing", "xml", "_pydecimal.py",
    # extension modules
    "_test*.so", "_xx*.so", "xx*.so", "_ctypes_test*.so", "_tkinter*.so", "_hashlib*.so", "_sqlite3*.so", "_curses*.so",
    "readline*.so", "_dbm*.so", "_gdbm*.so", "_lzma*.so", "_bz2*.so", "_crypt*.so", "nis.*.so", "_uuid*.so", "ossaudiodev*.so",
    "audioop*.so", "spwd*.so", "_codecs_*.so", "_remote_debugging*.so", "_multiprocessing*.so", "_posixshmem*.so", "_yaml*.so",
)  # fmt: skip

# glibc's own, which have to be the image's: they go with its dynamic linker and its kernel of a
# name service.
GLIBC = re.compile(r"(ld-linux.*|lib(c|m|dl|pthread|rt|util|resolv|anl|mvec))\.so\.\d+$")

SCRIPT = """\
#!{target}/libexec/python3 -IS
from {module} import main
raise SystemExit(main())
"""

# Everything imports, and nothing is mapped that is neither from here nor glibc's. (A rollout is run
# beside an engine's client, not here.)
PROOF = """
import importlib, pkgutil, sys, sidecar
for each in pkgutil.walk_packages(sidecar.__path__, "sidecar."):
    if not each.name.endswith("__main__") and not each.name.startswith("sidecar.rollout."):
        importlib.import_module(each.name)
import ctypes, hashlib, json, threading, watchdog.observers.inotify, pathspec, yaml, prometheus_client.openmetrics.exposition
hashlib.blake2b(key=b"1")
print(*sorted({line.split()[-1] for line in open("/proc/self/maps") if ".so" in line or "python" in line}), *sys.path, sep="\\n")
"""


def main() -> int:
    """Make TARGET; it must not be there yet."""
    target, packages = map(Path, sys.argv[1:])
    library = target / "lib" / f"python{sysconfig.get_python_version()}"
    standard = sysconfig.get_path("stdlib")
    shutil.copytree(standard, library, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for each in sorted(packages.iterdir()):
        if each.is_dir() and each.name not in ("bin", "__pycache__"):
            shutil.copytree(
                each,
                library / each.name,
                ignore=shutil.ignore_patterns(
                    "__pycache__", "RECORD", "direct_url.json", "REQUESTED"
                ),
            )
        elif each.is_file():
            shutil.copy(each, library)
    for place in ("bin", "libexec"):
        (target / place).mkdir()
    interpreter = target / "libexec" / "python3"
    shutil.copy(os.path.realpath(sys.executable), interpreter)
    libraries(target, library, interpreter)
    for name, module in (
        ("sidecar", "sidecar.cli.main"),
        ("start_server", "sidecar.start_server.main"),
    ):
        (target / "bin" / name).write_text(SCRIPT.format(target=target, module=module))
        (target / "bin" / name).chmod(0o755)
    # Compiled here, as nobody can write there: start-up would compile everything anew each time.
    # Unchecked, because nothing in an image is edited in place.
    compileall.compile_dir(
        library, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    (target / "ABOUT").write_text(about(target, packages))
    prove(target, interpreter)
    date(target)
    return 0


def libraries(target: Path, library: Path, interpreter: Path) -> None:
    """Bring what the interpreter and the extension modules are linked with, and have each look for
    it here.
    """
    wanted = {interpreter: "$ORIGIN/../lib"}
    for each in library.rglob("*.so"):
        wanted[each] = "$ORIGIN/" + os.path.relpath(target / "lib", each.parent)
    brought = {}
    for each in wanted:
        for line in subprocess.run(
            ["ldd", each], capture_output=True, text=True, check=True
        ).stdout.splitlines():
            name, arrow, rest = line.strip().partition(" => ")
            if arrow and not GLIBC.match(name):
                path = rest.split(" (")[0]
                if not path.startswith("/"):
                    raise SystemExit(f"{each} needs {name}, which is not there")
                brought[target / "lib" / name] = path
    for place, path in brought.items():
        shutil.copy(os.path.realpath(path), place)
        place.chmod(0o644)
        wanted[place] = "$ORIGIN"
    for each, places in wanted.items():
        subprocess.run(["patchelf", "--set-rpath", places, each], check=True)


def about(target: Path, packages: Path) -> str:
    """What is in it."""
    newest = max(
        tuple(map(int, version.split(b".")))
        for each in target.rglob("*")
        if each.is_file() and (each.suffix not in (".pyc", ".py"))
        for version in re.findall(rb"\0GLIBC_(2\.\d+)", each.read_bytes())
    )
    inside = sorted(
        f"{each.metadata['Name']} {each.version}"
        for each in importlib.metadata.distributions(path=[str(packages)])
    )
    brought = sorted(each.name for each in (target / "lib").glob("*.so*"))
    return "\n".join(
        [
            f"needs: glibc {'.'.join(map(str, newest))} or newer, {os.uname().machine}",
            f"python: {sys.version.split()[0]}",
            *(f"package: {each}" for each in inside),
            *(f"library: {each}" for each in brought),
            "",
        ]
    )


def prove(target: Path, interpreter: Path) -> None:
    """Raise SystemExit if it does not run by itself."""
    seen = subprocess.run(
        [interpreter, "-IS", "-c", PROOF], env={}, capture_output=True, text=True, check=False
    )
    if seen.returncode:
        raise SystemExit(seen.stderr)
    foreign = [
        path
        for path in seen.stdout.splitlines()
        if not path.startswith(f"{target}/") and not GLIBC.match(os.path.basename(path))
    ]
    foreign = [path for path in foreign if not fnmatch.fnmatch(path, "[[]*")]
    if foreign:
        raise SystemExit(f"it takes from elsewhere: {foreign}")


def date(target: Path) -> None:
    """All of it has one date, and is readable by all and writable by its owner."""
    when = int(os.environ.get("SOURCE_DATE_EPOCH") or 0)
    for each in [*sorted(target.rglob("*"), reverse=True), target]:
        if not each.is_symlink():
            each.chmod(
                0o755
                if each.is_dir()
                or (os.access(each, os.X_OK) and each.parent.name in ("bin", "libexec"))
                else 0o644
            )
        os.utime(each, (when, when), follow_symlinks=False)


if __name__ == "__main__":
    sys.exit(main())
