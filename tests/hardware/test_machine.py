import sys
from pathlib import Path

import pytest

from jaxllm.hardware.machine import return_memory


def resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmRSS")))


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_goes_back_to_the_system():
    pieces = [b"\1" * 100_000 for _ in range(2000)]
    last = pieces.pop()  # stands behind the others, so that they do not go by themselves
    pieces.clear()
    before = resident()
    return_memory()
    assert before - resident() > 100e6, last[0]
