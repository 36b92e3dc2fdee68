"""Create canaries (secret values to plant) and search for them: raw and in four encodings."""

import base64
import json
import re
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote

MIN_WORD_LENGTH = 9
"""A word of this many characters is never found by accident."""


def new_value() -> str:
    """Return a value that each encoding spells differently: quotes, a slash, a plus, a space, a non-ASCII letter.

    These stand between two words, so that the value is found even if only its beginning or its end leaks.
    """
    return f'{_word()}"ü/+ {_word()}'


def _word() -> str:
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(MIN_WORD_LENGTH))


def spellings(text: str) -> dict[str, set[bytes]]:
    """Return the value raw, in base64 at each of the three possible offsets, in hex, URL-quoted and JSON-escaped.

    The raw spellings are the value's long words on their own: escaping and quoting leave them unchanged, however often
    they are applied.
    """
    raw = text.encode()
    return {
        "raw": {word for word in re.findall(rb"[A-Za-z0-9_-]+", raw) if len(word) >= MIN_WORD_LENGTH},
        "base64": {spelled for alphabet in (b"+/", b"-_") for spelled in _in_base64(raw, alphabet)},
        "hex": {raw.hex().encode(), raw.hex().upper().encode()},
        "url": {quote(text).encode(), quote(text, safe="").encode()},
        "json": {json.dumps(text)[1:-1].encode(), json.dumps(text, ensure_ascii=False)[1:-1].encode()},
    }


def _in_base64(raw: bytes, alphabet: bytes) -> Iterable[bytes]:
    for lead in range(3):
        encoded = base64.b64encode(b"\0" * lead + raw, alphabet)
        # The first and last characters also hold bits of the neighbouring bytes.
        first, whole = -(-lead * 8 // 6), (lead + len(raw)) * 8 // 6
        yield encoded[first:whole]


@dataclass
class Canaries:
    """The planted values, by a name that says where."""

    planted: dict[str, str] = field(default_factory=dict[str, str])

    def new(self, where: str) -> str:
        """Plant a new value in this place and return it."""
        return self.plant(where, new_value())

    def plant(self, where: str, text: str) -> str:
        """Record a value that came from elsewhere, such as an API key, and return it."""
        self.planted[f"{where} #{len(self.planted)}"] = text
        return text

    def hits(self, place: str, found: bytes) -> list[tuple[str, str, str]]:
        """Search these bytes; return (where it was planted, encoding, where it was found) for each canary found."""
        return [
            (name, encoding, place)
            for name, text in self.planted.items()
            for encoding, spelled in spellings(text).items()
            if any(each in found for each in spelled)
        ]
