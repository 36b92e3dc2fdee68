"""With ROUTINES_TEST_SAMPLE=1, as in CI, some tests try a sample of their cases and others are left out.

Most slow tests of a file are left out too, and most cases of tests that have many: see tests/conftest.py.

`make test` runs all of them, and so does `make nightly`.
"""

import os
from collections.abc import Collection
from typing import TypeVar

import pytest

Case = TypeVar("Case")
IS_SAMPLED = bool(os.environ.get("ROUTINES_TEST_SAMPLE"))

left_out = pytest.mark.skipif(IS_SAMPLED, reason="ROUTINES_TEST_SAMPLE leaves it out")
"""Marks tests and cases that take long and have siblings that a sample keeps."""


def sample(cases: Collection[Case], count: int) -> list[Case]:
    """Return all cases, or of a sample `count`, evenly spread and always with the first."""
    every = list(cases)
    if not IS_SAMPLED or len(every) <= count:
        return every
    return [every[len(every) * position // count] for position in range(count)]
