"""How much memory is left: the control group's limit, version 1 and 2, nested, and in name spaces."""

from __future__ import annotations

import pytest

from sidecar.system import cgroup

MIB = 1 << 20
V1, V2 = "cgroup cgroup rw,memory", "cgroup2 cgroup rw,nsdelegate"


@pytest.fixture
def system(tmp_path):
    """A /proc/self and a mounted tree of groups: what is written of each is (limit, used, cached)
    in MiB.
    """

    def make(
        version: int, ours: str, root: str, groups: dict[str, tuple[int | str, int, int]]
    ) -> str:
        mounted = tmp_path / "a mount"
        for group, (limit, used, cached) in groups.items():
            directory = mounted / group
            directory.mkdir(parents=True, exist_ok=True)
            names = (
                ("memory.limit_in_bytes", "memory.usage_in_bytes")
                if version == 1
                else ("memory.max", "memory.current")
            )
            (directory / names[0]).write_text(
                f"{limit if isinstance(limit, str) else limit * MIB}\n"
            )
            (directory / names[1]).write_text(f"{used * MIB}\n")
            total = "total_" if version == 1 else ""
            (directory / "memory.stat").write_text(
                f"anon 1\n{total}inactive_file {cached * MIB}\n{total}active_file {MIB}\n"
            )
        proc = tmp_path / "proc"
        proc.mkdir()
        controllers = "4:memory:" if version == 1 else "0::"
        (proc / "cgroup").write_text(f"9:name=systemd:/elsewhere\n{controllers}{ours}\n")
        place = str(mounted).replace(" ", "\\040")
        (proc / "mountinfo").write_text(
            f"22 1 0:2 / /proc rw - proc proc rw\n32 31 0:29 {root} {place} rw,relatime shared:4 - {V1 if version == 1 else V2}\n"
        )
        return str(proc)

    return make


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_left_below_the_limit_and_cached_files_are_not_taken(system, version):
    assert cgroup.free_bytes(system(version, "/", "/", {".": (100, 60, 20)})) == (
        (100 - 60 + 20 + 1) * MIB,
        100 * MIB,
    )


@pytest.mark.parametrize(("version", "none"), [(1, "9223372036854771712"), (2, "max")])
def test_no_limit_is_no_answer(system, version, none):
    assert cgroup.free_bytes(system(version, "/", "/", {".": (none, 60, 20)})) is None


@pytest.mark.parametrize("version", [1, 2])
def test_of_nested_groups_the_tightest_counts(system, version):
    proc = system(
        version,
        "/pod/app",
        "/",
        {
            ".": ("max" if version == 2 else 1 << 50, 500, 0),
            "pod": (200, 190, 0),
            "pod/app": (150, 20, 0),
        },
    )
    assert cgroup.free_bytes(proc) == (11 * MIB, 200 * MIB)


@pytest.mark.parametrize("version", [1, 2])
def test_a_group_that_is_mounted_as_the_root_is_ours(system, version):
    """Docker's version 1: /proc/self/cgroup tells the host's path, the mount shows that group
    alone.
    """
    assert cgroup.free_bytes(
        system(version, "/docker/abc", "/docker/abc", {".": (100, 40, 0)})
    ) == (
        61 * MIB,
        100 * MIB,
    )


def test_a_group_beyond_the_name_space_is_looked_at_from_its_mount(system):
    assert cgroup.free_bytes(system(2, "/../other", "/", {".": (100, 40, 0)})) == (
        61 * MIB,
        100 * MIB,
    )


def test_more_than_the_limit_is_nothing_left(system):
    assert cgroup.free_bytes(system(2, "/", "/", {".": (100, 140, 0)})) == (0, 100 * MIB)


@pytest.mark.parametrize("file", ["cgroup", "mountinfo"])
def test_what_cannot_be_read_is_no_answer(system, tmp_path, file):
    proc = system(2, "/", "/", {".": (100, 40, 0)})
    (tmp_path / "proc" / file).unlink()
    assert cgroup.free_bytes(proc) is None


def test_this_system_is_understood():
    found = cgroup.free_bytes()
    assert found is None or 0 <= found[0] <= found[1]
