"""Where jaxllm keeps what it can compute again: compiled programs, the CPU probe, measured peaks."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def cache_dir() -> Path:
    """The cache folder: `$JAXLLM_CACHE`, else `~/.cache/jaxllm`. It is not created here."""
    named = os.environ.get("JAXLLM_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "jaxllm"


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a cached JSON file, or None where there is none that can be read (it is then computed again)."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: dict[str, Any]) -> bool:
    """Write a cached JSON file in one move, so that a reader never sees half of it; False where the folder refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
            json.dump(value, file, indent=1)
        os.replace(file.name, path)
    except OSError:
        return False
    return True
