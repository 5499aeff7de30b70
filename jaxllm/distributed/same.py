"""What must be the same on all processes: the code, the versions, the recipe; and how two of them differ, in words."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxllm.hardware.environment import commit, versions

MOST_SHOWN = 3
LONGEST_VALUE = 60


class Different(ValueError):
    """The processes of a run do not do the same; every one of them raises this."""


def code_facts() -> dict[str, Any]:
    """Versions of Python and of the packages, the commit, and a fingerprint of each file of this package."""
    root = Path(__file__).resolve().parents[1]
    files = {
        f"jaxllm/{path.relative_to(root).as_posix()}": hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        for path in sorted(root.rglob("*.py"))
    }
    return {**versions(), "commit": commit(), **files}


def fingerprint(facts: Mapping[str, Any]) -> str:
    """The same for two mappings exactly when they hold the same, in any order."""
    return hashlib.sha256(json.dumps(flat(facts), sort_keys=True).encode()).hexdigest()


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What differs, in a few words each."""
    first, second = flat(there), flat(here)
    names = [name for name in first | second if first.get(name) != second.get(name)]
    told = [f"{name} is {_short(second.get(name))} and not {_short(first.get(name))}" for name in names[:MOST_SHOWN]]
    return told + ([f"{len(names) - MOST_SHOWN} more differences"] if len(names) > MOST_SHOWN else [])


def flat(tree: Any) -> dict[str, Any]:
    """A nested mapping by dotted names: "optimizer.learning_rate"."""
    return dict(_leaves(tree, ""))


def _leaves(node: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(node, Mapping):
        yield name, json.loads(json.dumps(node))
        return
    for key, value in node.items():
        yield from _leaves(value, f"{name}.{key}" if name else str(key))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "..."
