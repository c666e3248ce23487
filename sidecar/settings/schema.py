"""The JSON Schema of sidecar.yml (draft 2020-12), for editors: made of the table of settings.

It is a little stricter than the reader (settings/file.py), never laxer: a number in quotes is read,
but it is not proposed.
"""

from __future__ import annotations

import json

from sidecar.settings import address
from sidecar.settings.table import TABLE, Setting
from sidecar.settings.types import (
    SIGNALS,
    admin_address,
    command_words,
    count,
    duration,
    envdir,
    octal,
    one_of,
    signal_name,
    size,
    switch,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

DRAFT = "https://json-schema.org/draft/2020-12/schema"

FILLED = {"$ref": "#/$defs/filled"}
COMMAND: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "pattern": "\\S"},
        {"type": "array", "items": {"type": ["string", "number"]}, "minItems": 1},
    ]
}


def schema() -> dict[str, Any]:
    """The whole schema."""
    command = {
        "title": "command",
        "description": "the program and its arguments, where the command line has none",
        **COMMAND,
    }
    return {
        "$schema": DRAFT,
        "title": "sidecar.yml",
        "description": "settings of sidecar; a flag and a SIDECAR_ variable win over each",
        "type": "object",
        "properties": {
            "command": command,
            **{each.key: _property(each) for each in TABLE.values() if each.name != "config"},
        },
        "additionalProperties": False,
        "$defs": {
            "filled": {
                "type": "string",
                "pattern": "\\$\\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\\}",
                "description": "a variable's value",
            }
        },
    }


def _property(each: Setting) -> dict[str, Any]:
    text = each.help_text + ("; cannot change while sidecar runs" if each.fixed else "")
    about: dict[str, Any] = {"title": each.key, "description": text}
    if each.default not in (None, "", ()):
        about["default"] = list(each.default) if isinstance(each.default, tuple) else each.default
    if each.kind is command_words:
        return {**about, **COMMAND}
    one = [*_one(each), FILLED]
    if each.repeat:
        return {**about, "anyOf": [*one, {"type": "array", "items": {"anyOf": one}, "minItems": 1}]}
    return {**about, "anyOf": one}


_NUMBER = "([0-9]+\\.?[0-9]*|\\.[0-9]+)"
_ADDRESS = (
    {"type": "integer", "minimum": 0, "maximum": 65535},
    {"type": "string", "minLength": 1},
)
# What one value of a kind may be, of the kinds that not every text is.
_OF_KIND: dict[Callable[[str], Any], Sequence[dict[str, Any]]] = {
    duration: (
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": f"^{_NUMBER}(ms|s|m|h|d)?$"},
    ),
    size: (
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": f"^{_NUMBER}([KMGT]i?)?B?$"},
    ),
    switch: ({"type": "boolean"}, {"enum": ["yes", "no", "on", "off"]}),
    signal_name: ({"enum": [*SIGNALS, *(f"SIG{name}" for name in SIGNALS)]},),
    # In quotes: to an editor the number 022 is 18, or 22.
    octal: ({"type": "string", "pattern": "^[0-7]{1,4}$"},),
    envdir: (
        {"type": "string", "pattern": "^[^,]+(,(upper|prefix=[^,=]+))*$"},
        {"type": "integer"},
    ),
    address.parse: _ADDRESS,
    admin_address: _ADDRESS,
}
_ANY_TEXT = ({"type": "string", "minLength": 1}, {"type": "integer"})


def _one(setting: Setting) -> Sequence[dict[str, Any]]:
    """What one value of a setting may be."""
    kind = setting.kind
    if isinstance(kind, count):
        return [{"type": "integer", "minimum": kind.minimum, "maximum": 999_999_999}]
    if isinstance(kind, one_of):
        return [{"enum": list(kind.allowed)}]
    return _OF_KIND.get(kind, _ANY_TEXT)


def text() -> str:
    """As `sidecar schema` prints it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
