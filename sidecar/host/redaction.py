"""The values that are never shown: they are taken out of a text where it comes in."""

from __future__ import annotations

from sidecar.core import facts
from sidecar.settings.resolve import redact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any


class Redaction:
    """The secret values that are known; those of earlier settings stay secret."""

    def __init__(self, values: tuple[str, ...]) -> None:
        self.values = values

    def add(self, values: Iterable[str]) -> None:
        """These are secret, too, from now on."""
        self.values = tuple({*self.values, *values})

    def text(self, text: str) -> str:
        """The text without a secret value."""
        redacted: str = redact(text, self.values)
        return redacted

    def fields(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fields of an event without a secret value."""
        if not self.values:
            return fields
        return {name: redact(value, self.values) for name, value in fields.items()}

    def fact(self, fact: facts.AnyFact) -> facts.AnyFact:
        """The fact without a secret value in its texts: what the core makes of them is shown in
        many places.
        """
        if not self.values:
            return fact
        redacted = {
            name: redact(getattr(fact, name), self.values)
            for name in facts.FREE_TEXTS
            if name in fact.FIELDS
        }
        return fact.replace(**redacted)
