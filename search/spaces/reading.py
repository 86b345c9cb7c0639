"""Reading genotypes, which anybody may have written."""

from __future__ import annotations

import json
from typing import Any

from ehdnas.core.errors import UsageError
from ehdnas.core.text import nearest

_MOST = 20_000  # characters; the longest genotype there is has a few thousand


def option(name: Any, known: tuple[str, ...], where: str) -> int:
    """Return which option a name is.

    Raises:
        UsageError: it is none of those known; the message says where it stood, and names the nearest.
    """
    if not isinstance(name, str) or name not in known:
        shown = str(name)[:40]
        raise UsageError(f"genotype: unknown choice {shown!r} in {where}{nearest(shown, known)}")
    return known.index(name)


def require_short(text: str) -> str:
    """Return the text without white space around it.

    Raises:
        UsageError: it is too long to be a genotype.
    """
    text = text.strip()
    if len(text) > _MOST:
        raise UsageError(f"genotype of {len(text)} characters: at most {_MOST} make sense")
    return text


def read_json(text: str) -> dict[str, Any]:
    """Return the JSON object that a genotype is.

    Raises:
        UsageError: it is not JSON, or no object.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"genotype is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError("genotype: JSON, but no object of the form {...}")
    return found
