"""Secret values that are planted, and the search for them: raw and in four encodings."""

import base64
import json
import re
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote

LEAST_WORD = 9
"""Characters from which on a word is found nowhere by accident."""


def new_value() -> str:
    """A value that each encoding spells in its own way: quotes, a slash, a plus, a space, a letter beyond ASCII.

    Between two words, so that it is found too where only its beginning or its end is shown.
    """
    return f'{_word()}"ü/+ {_word()}'


def _word() -> str:
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(LEAST_WORD))


def spellings(text: str) -> dict[str, set[bytes]]:
    """The value raw, in base64 at each of the three places where it may begin, hex, URL-quoted and JSON-escaped.

    Raw is each of its long words alone, which escapes and quotes leave as they are, however often they are applied.
    """
    raw = text.encode()
    return {
        "raw": {word for word in re.findall(rb"[A-Za-z0-9_-]+", raw) if len(word) >= LEAST_WORD},
        "base64": {spelled for alphabet in (b"+/", b"-_") for spelled in _in_base64(raw, alphabet)},
        "hex": {raw.hex().encode(), raw.hex().upper().encode()},
        "url": {quote(text).encode(), quote(text, safe="").encode()},
        "json": {json.dumps(text)[1:-1].encode(), json.dumps(text, ensure_ascii=False)[1:-1].encode()},
    }


def _in_base64(raw: bytes, alphabet: bytes) -> Iterable[bytes]:
    for lead in range(3):
        encoded = base64.b64encode(b"\0" * lead + raw, alphabet)
        # The first characters hold bits of what stood before, the last ones of what follows.
        first, whole = -(-lead * 8 // 6), (lead + len(raw)) * 8 // 6
        yield encoded[first:whole]


@dataclass
class Canaries:
    """What was planted, by a name that says where."""

    planted: dict[str, str] = field(default_factory=dict[str, str])

    def new(self, where: str) -> str:
        """A new value for this place."""
        return self.plant(where, new_value())

    def plant(self, where: str, text: str) -> str:
        """A value that came from elsewhere, such as an API key."""
        self.planted[f"{where} #{len(self.planted)}"] = text
        return text

    def hits(self, place: str, found: bytes) -> list[tuple[str, str, str]]:
        """(where it was planted, in which encoding, where it was found) of each canary in these bytes."""
        return [
            (name, encoding, place)
            for name, text in self.planted.items()
            for encoding, spelled in spellings(text).items()
            if any(each in found for each in spelled)
        ]
