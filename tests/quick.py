"""Which cases of a test always run, and which only with `-m slow`."""

from collections.abc import Callable, Container, Iterable
from typing import Any

import pytest


def some(cases: Iterable[Any], quick: Container[Any] | Callable[[Any], bool]) -> list[Any]:
    """All cases, a tuple for several names; those that are not quick are slow."""
    is_quick = quick if callable(quick) else quick.__contains__
    slow = lambda case: pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)  # noqa: E731
    return [case if is_quick(case) else slow(case) for case in cases]
