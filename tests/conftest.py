"""Tests run on eight virtual CPU devices, with compiled programs kept between runs.

Most of those programs run once, on a few numbers: XLA leaves out what makes them fast, which takes it a tenth of the time.
"""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
os.environ["JAXLLM_CPU_TUNING"] = "off"
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1")
os.environ.setdefault("JAXLLM_CACHE", str(Path.home() / ".cache" / "jaxllm" / "tests"))

import jax  # noqa: E402
import pytest  # noqa: E402

from jaxllm.hardware import set_up  # noqa: E402
from tests.gcs import bucket_url, google  # noqa: E402, F401

set_up()
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_finish() -> None:
    """What is there before the first test is not looked through for garbage again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def own_programs() -> Iterator[None]:
    """The programs of a file go with it: some thousands more of them slow down all that follow."""
    yield
    jax.clear_caches()
