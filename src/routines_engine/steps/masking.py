"""Secrets in what a run leaves behind: each is replaced by a mask, in every form in which it is likely to stand there.

Pure code. What is masked: the value itself, JSON-escaped, URL-quoted, in base64, in hex and as Python shows it in
errors, also inside a larger text and in the keys of objects. A value shorter than MIN_LENGTH is not looked for: it
would be found everywhere.
"""

import base64
import json
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import quote, quote_plus

from routines_core.mask import MASK

MIN_LENGTH = 4
"""Characters from which on a secret is looked for in texts."""


class Masker:
    """Knows the secrets of one run and replaces them."""

    def __init__(self) -> None:
        self._forms: list[str] = []

    def add(self, secret: str) -> None:
        """Mask this value from now on."""
        # One of nothing but the mask's own character hides nothing, and would be found in every mask.
        if len(secret) >= MIN_LENGTH and secret.strip(MASK[0]):
            # The longest first: one secret may be part of another.
            self._forms = sorted({*self._forms, *forms_of(secret)}, key=lambda form: (-len(form), form))

    def mask(self, value: Any) -> Any:
        """The JSON value without any of the secrets; numbers that are one are masked too."""
        if not self._forms:
            return value
        if isinstance(value, str):
            return self._masked_text(value)
        if isinstance(value, list):
            return [self.mask(item) for item in cast("list[Any]", value)]
        if isinstance(value, dict):
            items = cast("dict[str, Any]", value).items()
            return {self._masked_text(key): self.mask(item) for key, item in items}
        if isinstance(value, int | float) and not isinstance(value, bool) and json.dumps(value) in self._forms:
            return MASK
        return value

    def _masked_text(self, text: str) -> str:
        """Masked until nothing is found: a mask and what stands beside it may spell a secret again.

        It ends, since each round takes at least one character that is none of the mask's.
        """
        before = None
        while text != before:
            before = text
            # Not one expression of them all: this is several times as fast in a large text.
            for form in self._forms:
                text = text.replace(form, MASK)
        return text


def forms_of(secret: str) -> set[str]:
    """The ways in which a secret is likely to be written."""
    raw = secret.encode("utf-8", "surrogatepass")
    forms = {secret, raw.hex(), raw.hex().upper()}
    forms |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    forms |= {quote(raw, safe=""), quote(raw), quote_plus(raw)}
    # With and without padding: what is left of it beside the mask says nothing.
    forms |= {encode(raw).decode().rstrip("=") for encode in (base64.b64encode, base64.urlsafe_b64encode)}
    forms |= {form for form in _base64_within(raw) if len(form) >= MIN_LENGTH}
    forms |= _shown_by_python(secret, raw)
    return {form for form in forms if form.strip(MASK[0])}


def _base64_within(raw: bytes) -> Iterator[str]:
    """What is the same in the base64 of every text that holds it (`user:secret`), wherever in a group it begins."""
    for before in range(3):
        first = -(-before * 8 // 6)  # the characters before it hold bits of other bytes
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(before) + raw).decode()[first : (before + len(raw)) * 8 // 6]


def _shown_by_python(secret: str, raw: bytes) -> set[str]:
    """As repr shows the text or its bytes: errors do (`invalid literal for int(): 'abc'`)."""
    both = "'\""  # where a text has both quotes, the single ones are escaped
    escaped = {repr(both + secret)[4:-1], ascii(both + secret)[4:-1], repr(both.encode() + raw)[5:-1]}
    return escaped | {form.replace("\\'", "'") for form in escaped}
