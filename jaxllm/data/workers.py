"""Worker processes, by Grain."""

import signal
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from multiprocessing import resource_tracker
from typing import TypeVar

import absl.flags
import grain

T = TypeVar("T")


def in_workers(dataset: grain.IterDataset[T], num_workers: int, prefetch: int) -> Generator[T, None, None]:
    """The elements of a Grain data set in order, prepared in worker processes, which start with the first and end with the
    iterator.

    Ctrl-C in a terminal goes to all processes. The workers never see it: this process decides what becomes of them.
    """
    if not absl.flags.FLAGS.is_parsed():
        absl.flags.FLAGS.mark_as_parsed()  # Grain reads absl flags, which only programs that run `absl.app` parse
    workers = grain.multiprocessing.MultiprocessingOptions(num_workers, per_worker_buffer_size=max(1, prefetch))
    with closing(iter(dataset.mp_prefetch(workers))) as elements:
        with _interrupts_blocked():
            first = list(islice(elements, 1))
        yield from first
        yield from elements


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Blocks SIGINT for this thread, and for good in the threads and processes that it starts, from their first instruction on.

    A handler set in the worker would come after seconds of imports.
    """
    resource_tracker.ensure_running()  # its start, which would come with the first worker's, unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
