"""Worker processes, by Grain."""

from typing import Any

import absl.flags
import grain


def in_workers(dataset: grain.IterDataset[Any], num_workers: int, prefetch: int) -> grain.IterDataset[Any]:
    """Prepare the elements of a Grain data set in worker processes; their order stays."""
    if not absl.flags.FLAGS.is_parsed():
        absl.flags.FLAGS.mark_as_parsed()  # Grain reads absl flags, which only programs that run `absl.app` parse
    workers = grain.multiprocessing.MultiprocessingOptions(num_workers, per_worker_buffer_size=max(1, prefetch))
    return dataset.mp_prefetch(workers)
