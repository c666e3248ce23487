"""The sizes that a setting may have."""

from __future__ import annotations

import pytest

from sidecar.base.errors import SettingsError
from sidecar.settings.resolve import resolve
from sidecar.settings.types import size


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        *((text, 2**29) for text in ("512M", "512m", "512Mi", "512MB", "512MiB")),
        *(("1.5G", 3 * 2**29), ("800K", 819200), ("1048576", 2**20)),
    ],
)
def test_a_size_is_read(text, bytes_):
    assert size(text) == bytes_


@pytest.mark.parametrize(
    "text", ["", "M", "12X", "1MM", "-3", ".", "1.2.3M", "5 M", "iB", "1MK", "²M"]
)
def test_what_is_no_size_is_refused_with_what_would_be_right(text):
    with pytest.raises(ValueError, match="is no size; say 512M"):
        size(text)


def test_a_limit_without_its_unit_is_refused():
    with pytest.raises(SettingsError, match="--max-memory 512: no program is that small"):
        resolve([("max_memory", "512")], {}, ["program"]).checked()
