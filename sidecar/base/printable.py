"""How to show text that others wrote, such as file names, answers and causes. Pure."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    r"""The text with an escape such as \x1b for each character that a terminal would act on instead
    of showing it (control characters, and those that change the direction of text). The characters in
    `keep` stay.
    """
    if text.isprintable():
        return text
    return "".join(
        # Spaces of other scripts do no harm.
        char if char.isprintable() or char in keep or (char >= "\xa0" and char.isspace())
        else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )  # fmt: skip


# The names of what has changed are shown up to this length in all.
MAX_NAMES_CHARS = 1500


def limit_names(names: list[str]) -> tuple[str, ...]:
    """The first of the names, up to MAX_NAMES_CHARS: they are for people to read, and go into an
    environment.
    """
    kept: list[str] = []
    for name in names:
        if sum(map(len, kept)) + len(name) > MAX_NAMES_CHARS:
            break
        kept.append(name)
    return tuple(kept)
