"""A recipe names `CheckpointConfig` before anything heavy is needed, `jaxllm train --help` among others."""

import subprocess
import sys

CODE = """
import sys
from jaxllm.checkpoint import CheckpointConfig, CheckpointError, SaveError
assert not {"jax", "orbax", "tensorstore", "numpy"} & sys.modules.keys()
from jaxllm.checkpoint import Restored, Store
assert "orbax.checkpoint" in sys.modules
assert not {"torch", "tensorflow"} & sys.modules.keys()
try:
    from jaxllm.checkpoint import Stoer
except ImportError as error:
    assert "Stoer" in str(error)
"""


def test_config_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
