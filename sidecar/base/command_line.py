"""The one reader of command lines, driven by a table of options: what follows each, "" for nothing.

It is no argparse: that would be a tenth of start-up, and it stops at the first mistake. A class
below CommandLine says what is different for one command: where its options end, which spellings
count, and how a mistake is worded.
"""

from __future__ import annotations

from sidecar.base.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


class Parsed(Record):
    """What a command line said: the options (name, value) in their order, the words that are no
    options, and what is wrong.
    """

    options: list[tuple[str, Any]]
    words: list[str]
    problems: list[str]


class CommandLine:
    """The options of one command. They end at the first word that is none, or behind `--`."""

    #: Options and other words may be mixed; `--` is a word like any other.
    mixed = False
    #: The value of a switch that was given without one.
    switched_on = "yes"

    def __init__(self, options: Mapping[str, str]) -> None:
        #: By name: what follows it (`TIME`), "" if it is a switch.
        self.options = options

    def parse(self, words: Sequence[str]) -> Parsed:
        """Read all words; never raises."""
        parsed = Parsed([], [], [])
        left = list(words)
        while left:
            word = left.pop(0)
            if not self.is_option(word):
                parsed.words.append(word)
                if not self.mixed:
                    break
            elif word == "--" and not self.mixed:
                break
            else:
                try:
                    parsed.options.append(self._option(word, left))
                except ValueError as error:
                    parsed.problems.append(str(error))
        parsed.words.extend(left)
        return parsed

    def _option(self, word: str, left: list[str]) -> tuple[str, Any]:
        """The option's name and value; a value that follows is taken from `left`. Raises
        ValueError.
        """
        flag, equals, value = word.partition("=")
        name = self.find(flag)
        if name is None:
            self.skip_unknown(word, left)
            raise ValueError(self.unknown(flag))
        if self.options[name]:
            if not equals:
                if not left or not self.is_value(left[0]):
                    raise ValueError(self.missing(flag, name))
                value = left.pop(0)
        elif not equals:
            value = self.switched_on
        return name, self.read_value(flag, name, value, attached=bool(equals))

    def is_option(self, word: str) -> bool:
        """Whether a word is to be read as an option."""
        return word.startswith("-") and word != "-"

    def is_value(self, word: str) -> bool:
        """Whether a word behind an option may be its value."""
        return self.mixed or word != "--"

    def find(self, flag: str) -> str | None:
        """The name in the table for a flag as it was typed, None if it is unknown. Raises
        ValueError if it may be several.
        """
        return flag if flag in self.options else None

    def read_value(self, flag: str, name: str, text: str, attached: bool) -> Any:
        """The value that a text stands for, which may be `attached` to the flag by an equals sign.
        Raises ValueError with the message if it is none.
        """
        return text

    def skip_unknown(self, word: str, left: list[str]) -> None:
        """Remove from `left` what belongs to an unknown option."""

    def unknown(self, flag: str) -> str:
        """The message about an option that is not in the table."""
        return f"{flag}: there is no such option"

    def missing(self, flag: str, name: str) -> str:
        """The message about an option whose value is missing."""
        return f"{flag}: its value is missing"
