"""Are these options that training would take? Asked of jaxllm itself, where it can be imported, before anything is rented."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

READ = """
import sys
try:
    from jaxllm.cli.overrides import override
    from jaxllm.cli.train import split_hosts
    from jaxllm.recipe import find_recipe
except ImportError as error:
    print(error)
    sys.exit(3)
try:
    _, (recipe, *fields) = split_hosts(sys.argv[1:])
    override(find_recipe(recipe), fields)
except Exception as error:  # whatever the recipe's own code raises
    told = "" if isinstance(error, (ValueError, OSError)) else f"{recipe}: {type(error).__name__}: "
    print(told + " ".join(str(error).split()))
    sys.exit(2)
"""
"""What `jaxllm train` reads of its command line, in a process of its own: it imports JAX."""
SECONDS = 120


def check_options(root: Path, options: Sequence[str]) -> str | None:
    """Reads the recipe and its options as training will; answers why that could not be done here, or None.

    Args:
      root: the working tree, whose jaxllm is asked.
      options: what follows `jaxllm train`.

    Raises:
      ValueError: what training would refuse.
    """
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = {"PYTHONPATH": os.pathsep.join(paths), "JAX_PLATFORMS": "cpu"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", READ, *options],
            env=os.environ | settings,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"jaxllm did not answer in {SECONDS} s"
    last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1:] or ["no reason"]
    if done.returncode == 2:
        raise ValueError(f"training would refuse this: {last[0]}")
    if done.returncode == 3:
        return f"jaxllm cannot be imported here, {last[0]}"
    return None if done.returncode == 0 else f"jaxllm ended with exit code {done.returncode}, {last[0]}"
