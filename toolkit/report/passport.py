"""The passport of a measurement, as far as it may be handed on: not who ran it, nor where the device is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# Words of a key that say who or where; `_` and `.` part the words of a key.
_PRIVATE = {
    *("host", "hostname", "nodename", "address", "ip", "url"),
    *("user", "username", "login", "account", "serial"),
    *("home", "path", "folder", "file", "cwd"),
}
# user@host, four numbers with dots, and the folders that are named after their owner
_PLACE = r"\S+@\S+|(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])|/(?:home|Users)/[^/\s]+"
_LEFT_OUT = "(left out)"
_MOST_LETTERS = 400


def shareable(passport: Mapping[str, Any], private: Sequence[str] = ()) -> dict[str, Any]:
    """Return a passport without the entries that name a host, a user or an address.

    Args:
        private: words, such as the device's host and user, that are also taken out of the texts that stay.
    """
    words = [re.escape(word) for word in private if word]
    pattern = re.compile("|".join([_PLACE, *(rf"(?<!\w){word}(?!\w)" for word in words)]))
    return {key: _clean(value, pattern) for key, value in passport.items() if _public(key)}


def private_words(host: str) -> list[str]:
    """Return the words of `user@address:port` that a passport must not repeat."""
    user, _, address = host.rpartition("@")
    return [word for word in (host, user, address, address.partition(":")[0]) if word]


def rows(passport: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a passport as (name, text) rows; nested entries are named `outer, inner`.

    A list of entries, such as one a process, is told entry by entry: once where all agree, else in turn.
    """
    found: list[tuple[str, str]] = []
    for key, value in passport.items():
        name = str(key).replace("_", " ")
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            value = _merged(value)
        if isinstance(value, dict):
            found += [(f"{name}, {inner}", text) for inner, text in rows(value)]
        else:
            found.append((name, _text(value)))
    return found


def _merged(entries: list[dict[str, Any]]) -> dict[str, Any]:
    every = {key: [entry.get(key) for entry in entries] for entry in entries for key in entry}
    return {
        key: values[0] if values.count(values[0]) == len(values) else values for key, values in every.items()
    }


def _public(key: Any) -> bool:
    return not _PRIVATE & set(re.split(r"[\W_]+", str(key).lower()))


def _clean(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, dict):
        return {key: _clean(inner, pattern) for key, inner in value.items() if _public(key)}
    if isinstance(value, list):
        return [_clean(inner, pattern) for inner in value]
    return pattern.sub(_LEFT_OUT, value) if isinstance(value, str) else value


def _text(value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(_text(inner) for inner in value) or "none"
    text = "yes" if value is True else "no" if value is False else "unknown" if value is None else str(value)
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]}…"
