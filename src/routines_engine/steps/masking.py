"""Masks secrets in everything a run stores, in every spelling in which a secret is likely to appear.

Pure code. The spellings of a secret are the value itself, JSON-escaped, URL-quoted, in base64, in hex and as Python
shows it in error messages; they are found inside larger texts and in the keys of objects too. Secrets shorter than
MIN_LENGTH are not masked: they would be found everywhere.
"""

import base64
import json
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import quote, quote_plus

from routines_core.mask import MASK

MIN_LENGTH = 4
"""The length from which a secret is masked, in characters."""


class Masker:
    """Knows the secrets of one run and masks them."""

    def __init__(self) -> None:
        self._spellings: list[str] = []

    def add(self, secret: str) -> None:
        """Mask this secret from now on."""
        # A secret made only of the mask's character hides nothing, and would be found in every mask.
        if len(secret) >= MIN_LENGTH and secret.strip(MASK[0]):
            # Longest first, since one secret may be part of another.
            spellings = {*self._spellings, *spellings_of(secret)}
            self._spellings = sorted(spellings, key=lambda spelling: (-len(spelling), spelling))

    def mask(self, value: Any) -> Any:
        """Return the JSON value with every secret masked, numbers included."""
        if not self._spellings:
            return value
        if isinstance(value, str):
            return self._masked_text(value)
        if isinstance(value, list):
            return [self.mask(item) for item in cast("list[Any]", value)]
        if isinstance(value, dict):
            items = cast("dict[str, Any]", value).items()
            return {self._masked_text(key): self.mask(item) for key, item in items}
        if isinstance(value, int | float) and not isinstance(value, bool) and json.dumps(value) in self._spellings:
            return MASK
        return value

    def _masked_text(self, text: str) -> str:
        """Mask until no secret is found, since a mask and the text beside it may spell a secret again.

        This ends: each round replaces at least one character that is not the mask's.
        """
        before = None
        while text != before:
            before = text
            # Several times as fast in a large text as one regular expression for all spellings.
            for spelling in self._spellings:
                text = text.replace(spelling, MASK)
        return text


def spellings_of(secret: str) -> set[str]:
    """Return the spellings in which a secret is likely to appear."""
    raw = secret.encode("utf-8", "surrogatepass")
    spellings = {secret, raw.hex(), raw.hex().upper()}
    spellings |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    spellings |= {quote(raw, safe=""), quote(raw), quote_plus(raw)}
    # Without padding, so that both forms are found: the padding left beside the mask reveals nothing.
    spellings |= {encode(raw).decode().rstrip("=") for encode in (base64.b64encode, base64.urlsafe_b64encode)}
    spellings |= {spelling for spelling in _base64_within(raw) if len(spelling) >= MIN_LENGTH}
    spellings |= _shown_by_python(secret, raw)
    return {spelling for spelling in spellings if spelling.strip(MASK[0])}


def _base64_within(raw: bytes) -> Iterator[str]:
    """Yield what the base64 of any larger text (`user:secret`) has in common, for each offset within a group."""
    for before in range(3):
        first = -(-before * 8 // 6)  # the characters before it hold bits of other bytes
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(before) + raw).decode()[first : (before + len(raw)) * 8 // 6]


def _shown_by_python(secret: str, raw: bytes) -> set[str]:
    """Return the spellings of repr for the text and its bytes, as in `invalid literal for int(): 'abc'`."""
    both = "'\""  # in a text with both kinds of quotes, repr escapes the single ones
    escaped = {repr(both + secret)[4:-1], ascii(both + secret)[4:-1], repr(both.encode() + raw)[5:-1]}
    return escaped | {spelling.replace("\\'", "'") for spelling in escaped}
