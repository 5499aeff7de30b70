"""Many processes, one run: who they are, that they do the same, when they stop, and which one is missing.

    from jaxllm.distributed import Hosts, joined
    with joined(Hosts(coordinator="10.0.0.1:8476", num_processes=4, process_index=2)):   # before JAX chooses its devices
        fit(recipe)

Arrays travel by JAX's own collectives. Beside them each process keeps one connection to process 0, the coordinator, by which
they meet, compare what they run, agree on the step after which to stop, and learn within moments that one of them has failed,
died or hangs. With one process none of this is there, and every function answers at once.
"""

from jaxllm.distributed.checkup import check_coordinator
from jaxllm.distributed.hosts import Hosts, find_hosts
from jaxllm.distributed.joined import (
    agreed_stop,
    beat,
    check_same,
    describe_hosts,
    from_first,
    gather,
    is_first,
    joined,
    limit_time,
    num_processes,
    process_index,
    unseen_by,
)
from jaxllm.distributed.notice import Notice, is_notice
from jaxllm.distributed.same import Different, code_facts

__all__ = [
    "Different",
    "Hosts",
    "Notice",
    "agreed_stop",
    "beat",
    "check_coordinator",
    "check_same",
    "code_facts",
    "describe_hosts",
    "find_hosts",
    "from_first",
    "gather",
    "is_first",
    "is_notice",
    "joined",
    "limit_time",
    "num_processes",
    "process_index",
    "unseen_by",
]
