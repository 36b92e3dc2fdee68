"""Masks secrets in everything a run stores, in every spelling in which a secret is likely to appear.

Pure code. The spellings of a secret are the value itself, JSON-escaped, URL-quoted, in base64, in hex and as Python
shows it in error messages; they are found inside larger texts and in the keys of objects too. Secrets shorter than
MIN_LENGTH are not masked: they would be found everywhere.
"""

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Any, cast
from urllib.parse import quote, quote_plus

from ahocorasick_rs import AhoCorasick, Implementation, MatchKind

from routines_core.mask import MASK

MIN_LENGTH = 4
"""The length from which a secret is masked, in characters."""
PIECE_LENGTH = 2048
"""Maximum length of a spelling that is searched for in one piece, in characters."""
MASKING_ROUNDS = 2
"""Number of rounds before the whole text is masked. Only secrets that look like masks need more than one."""


class Masker:
    """Knows the secrets of one run and masks them.

    Two automata find the spellings of all secrets, one from the start of a text and one from its end, so the time is
    linear in the text whatever the secrets are.
    """

    def __init__(self) -> None:
        self._spellings: set[str] = set()
        self._automata: tuple[AhoCorasick, AhoCorasick] | None = None

    def add(self, secret: str) -> None:
        """Mask this secret from now on."""
        # A secret made only of the mask's character hides nothing, and would be found in every mask.
        if len(secret) >= MIN_LENGTH and secret.strip(MASK[0]):
            for spelling in spellings_of(secret):
                self._spellings |= set(_pieces(spelling))
            self._automata = None  # built on demand, since a step adds many secrets at once

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
        """Mask every secret; if masks and the text beside them still spell one, the whole text becomes a mask."""
        for _ in range(MASKING_ROUNDS):
            masked = self._mask_once(text)
            if masked is text:
                return text
            text = masked
        return text if self._mask_once(text) is text else MASK

    def _mask_once(self, text: str) -> str:
        """Replace every stretch that spellings cover; returns the text itself if there is none."""
        kept, end = list[str](), 0
        for first, last in self._stretches(text):
            kept += (text[end:first], MASK)
            end = last
        return "".join([*kept, text[end:]]) if kept else text

    def _stretches(self, text: str) -> list[tuple[int, int]]:
        """Return what to mask, as (first, last) in ascending order.

        Each automaton takes the longest spelling at each place and goes on after it. Where two secrets overlap, the one
        that the first automaton misses is found by the other.
        """
        forward, backward = self._automata = self._automata or _automata(self._spellings)
        found = [(first, last) for _, first, last in forward.find_matches_as_indexes(text)]
        if not found:
            return found
        size = len(text)
        found += [(size - last, size - first) for _, first, last in backward.find_matches_as_indexes(text[::-1])]
        return _merged(found)


def _pieces(spelling: str) -> Iterator[str]:
    """Split a long spelling, since an automaton is slow to leave a long partial match. All pieces are masked."""
    for first in range(0, max(1, len(spelling) - MIN_LENGTH), PIECE_LENGTH):
        is_last = first + PIECE_LENGTH + MIN_LENGTH >= len(spelling)
        yield spelling[first:] if is_last else spelling[first : first + PIECE_LENGTH]


def _automata(spellings: Iterable[str]) -> tuple[AhoCorasick, AhoCorasick]:
    """Return an automaton of these spellings, and one of the same reversed."""
    ordered = sorted(spellings)
    return _automaton(ordered), _automaton([each[::-1] for each in ordered])


def _automaton(spellings: list[str]) -> AhoCorasick:
    # Not a DFA, which takes long to build for long secrets.
    return AhoCorasick(spellings, matchkind=MatchKind.LeftmostLongest, implementation=Implementation.ContiguousNFA)


def _merged(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the stretches in ascending order, with those joined that overlap or touch."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(stretches):
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return merged


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
