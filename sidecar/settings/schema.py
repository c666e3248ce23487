"""The JSON Schema of sidecar.yml (draft 2020-12), for editors: made of the table of settings.

It is a little stricter than the reader (settings/file.py), never laxer: a number in quotes is read, but it
is not proposed.
"""

from __future__ import annotations

import json

from sidecar.settings import address
from sidecar.settings.table import TABLE, Setting
from sidecar.settings.types import (
    SIGNALS,
    choice,
    count,
    duration,
    envdir,
    octal,
    place,
    signal_name,
    size,
    switch,
    words,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
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
    text = each.text + ("; cannot change while sidecar runs" if each.fixed else "")
    about: dict[str, Any] = {"title": each.key, "description": text}
    if each.default not in (None, "", ()):
        about["default"] = list(each.default) if isinstance(each.default, tuple) else each.default
    if each.kind is words:
        return {**about, **COMMAND}
    one = [*_one(each), FILLED]
    if each.repeat:
        return {**about, "anyOf": [*one, {"type": "array", "items": {"anyOf": one}, "minItems": 1}]}
    return {**about, "anyOf": one}


def _one(each: Setting) -> list[dict[str, Any]]:
    """What one value of it may be."""
    kind = each.kind
    if isinstance(kind, count):
        return [{"type": "integer", "minimum": kind.least, "maximum": 999_999_999}]
    if isinstance(kind, choice):
        return [{"enum": list(kind.words)}]
    if kind is duration:
        return [
            {"type": "number", "minimum": 0},
            {"type": "string", "pattern": "^([0-9]+\\.?[0-9]*|\\.[0-9]+)(ms|s|m|h|d)?$"},
        ]
    if kind is size:
        return [
            {"type": "integer", "minimum": 0},
            {"type": "string", "pattern": "^([0-9]+\\.?[0-9]*|\\.[0-9]+)([KMGT]i?)?B?$"},
        ]
    if kind is switch:
        return [{"type": "boolean"}, {"enum": ["yes", "no", "on", "off"]}]
    if kind is signal_name:
        return [{"enum": [*SIGNALS, *(f"SIG{name}" for name in SIGNALS)]}]
    if kind is octal:
        # In quotes: to an editor the number 022 is 18, or 22.
        return [{"type": "string", "pattern": "^[0-7]{1,4}$"}]
    if kind is envdir:
        return [
            {"type": "string", "pattern": "^[^,]+(,(upper|prefix=[^,=]+))*$"},
            {"type": "integer"},
        ]
    if kind in (address.parse, place):
        return [
            {"type": "integer", "minimum": 0, "maximum": 65535},
            {"type": "string", "minLength": 1},
        ]
    return [{"type": "string", "minLength": 1}, {"type": "integer"}]


def text() -> str:
    """As `sidecar schema` prints it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
