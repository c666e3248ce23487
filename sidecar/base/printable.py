"""What others wrote, so that it can be shown: file names, answers, causes. Pure."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    r"""The text with everything that a terminal would obey instead of show (control characters, and
    those that turn the direction of what follows) as an escape such as \x1b; those in `keep` stay.
    """
    if text.isprintable():
        return text
    return "".join(
        # Spaces of other scripts are no harm.
        char if char.isprintable() or char in keep or (char >= "\xa0" and char.isspace())
        else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )  # fmt: skip


# The names of what has changed are told up to this length in all (characters).
MOST_TOLD = 1500


def shortened(names: list[str]) -> tuple[str, ...]:
    """As many as are read at a glance, and go into an environment."""
    kept: list[str] = []
    for name in names:
        if sum(map(len, kept)) + len(name) > MOST_TOLD:
            break
        kept.append(name)
    return tuple(kept)
