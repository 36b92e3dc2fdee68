"""A cache of what texts parse to, bounded by the characters of the texts and not by their number. Pure code."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import TypeVar

Parsed = TypeVar("Parsed")


def cached_by_text(
    *, most_characters: int, longest: int
) -> Callable[[Callable[[str], Parsed]], Callable[[str], Parsed]]:
    """Cache a function of one text. The texts that were not used for the longest time are forgotten first.

    What a text parses to takes at most about a hundred times as many bytes as the text has characters.

    Args:
        most_characters: The most characters of all cached texts together.
        longest: The most characters of a text that is cached.
    """

    def decorate(parse: Callable[[str], Parsed]) -> Callable[[str], Parsed]:
        known: OrderedDict[str, Parsed] = OrderedDict()
        lock = threading.Lock()  # the API checks large workflows in threads
        characters = 0

        @wraps(parse)
        def cached(text: str) -> Parsed:
            nonlocal characters
            if len(text) > longest:
                return parse(text)
            with lock:
                if text in known:
                    known.move_to_end(text)
                    return known[text]
            parsed = parse(text)
            with lock:
                if text not in known:
                    known[text] = parsed
                    characters += len(text)
                while characters > most_characters:
                    characters -= len(known.popitem(last=False)[0])
            return parsed

        return cached

    return decorate
