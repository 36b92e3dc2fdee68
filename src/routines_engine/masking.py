"""Secret values that a step has read do not come back in what is stored of its run."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import quote, quote_plus

import msgspec

MASK = "********"
SHORTEST = 4
"""A shorter value is masked only where it is a whole text: as a part of others it would hit what is no secret."""


@dataclass
class Masking:
    """The secret values of one run, in the spellings that are looked for."""

    _parts: list[str] = field(default_factory=list[str])
    _wholes: set[str] = field(default_factory=set[str])

    def add(self, secret: str) -> None:
        """From now on this value is masked: as it is, in base64, in hex, percent-encoded and as in JSON."""
        if not secret or secret in self._wholes:
            return
        self._wholes.add(secret)
        if len(secret) >= SHORTEST:
            # The longest first, so that no part of a spelling is left over.
            self._parts = sorted({*self._parts, *_spellings(secret)}, key=len, reverse=True)

    def mask(self, value: Any) -> Any:
        """A JSON value with every secret in its texts and keys replaced; the value itself where no secret was read."""
        if not self._wholes:
            return value
        if isinstance(value, str):
            return self.mask_text(value)
        if isinstance(value, list):
            return [self.mask(item) for item in cast("list[Any]", value)]
        if isinstance(value, dict):
            return {self.mask(key): self.mask(item) for key, item in cast("dict[Any, Any]", value).items()}
        return MASK if str(value) in self._wholes else value

    def mask_text(self, text: str) -> str:
        """The text with every secret replaced."""
        if text in self._wholes:
            return MASK
        for part in self._parts:
            text = text.replace(part, MASK)
        return text


def _spellings(secret: str) -> Iterator[str]:
    yield secret
    yield quote(secret, safe="")
    yield quote(secret)
    yield quote_plus(secret)
    yield msgspec.json.encode(secret).decode()[1:-1]
    data = secret.encode("utf-8", "surrogatepass")
    yield data.hex()
    yield data.hex().upper()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield from _base64_spellings(data, encode)


def _base64_spellings(data: bytes, encode: Any) -> Iterator[str]:
    """What is the same in the base64 of any text that holds it, at each of the three places where it may begin."""
    for before in range(3):
        text = encode(b"\0" * before + data).decode().rstrip("=")
        first = -(-before * 8 // 6)  # characters that other bytes have a part in
        last = (before + len(data)) * 8 // 6
        if last - first >= SHORTEST:
            yield text[first:last]
