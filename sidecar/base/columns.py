"""The one printer of tables: plain text in columns, without lines."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]], max_width: int | None = None, gap: int = 2) -> list[str]:
    """A line for each row, its cells below those of the other rows, `gap` blanks apart.

    A cell that is longer than `max_width` characters moves the rest of its row to the right, not
    that of all rows. No line ends with blanks.
    """
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    if max_width is not None:
        widths = [min(width, max_width) for width in widths]
    between = " " * gap
    return [
        between.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
