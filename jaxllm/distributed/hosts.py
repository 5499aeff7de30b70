"""Which processes make up this run, and which of them this one is: from flags, the environment, or the cluster."""

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxllm.hardware.cpu import runs_on_cpu

ENVIRONMENT = {
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "num_processes": "JAX_NUM_PROCESSES",
    "process_index": "JAX_PROCESS_ID",
}
"""Environment variables that stand for the flags of the same meaning."""

FLAGS = {"coordinator": "--coordinator", "num_processes": "--num-processes", "process_index": "--process-index"}

CLUSTER_SIGNS = (
    *("SLURM_STEP_NODELIST", "OMPI_COMM_WORLD_SIZE", "JOB_COMPLETION_INDEX"),
    *("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES", "MEGASCALE_COORDINATOR_ADDRESS"),
)
"""Variables of which Slurm, Open MPI, Kubernetes or GKE sets one; a Cloud TPU has chips and may have none of them."""


@dataclass(frozen=True, kw_only=True)
class Hosts:
    """The processes of a run, one or several a host."""

    coordinator: str | None = None
    """HOST:PORT at which process 0 can be reached by the others. By default found by `find_hosts`."""
    num_processes: int | None = None
    """How many processes there are."""
    process_index: int | None = None
    """Which one this is, from 0."""
    local_devices: tuple[int, ...] | None = None
    """The devices of its host that are this process's, where several processes share a host; None: all."""
    connect_timeout: float = 300.0
    """Seconds in which all processes must have come together."""

    def __post_init__(self) -> None:
        if self.coordinator is not None:
            self.address  # noqa: B018  refuses one that is none
        if self.num_processes is not None and self.num_processes < 1:
            raise ValueError(f"--num-processes must be at least 1: got {self.num_processes}")
        if self.process_index is not None and not 0 <= self.process_index < (self.num_processes or 2**31):
            raise ValueError(f"--process-index must be in 0..{(self.num_processes or 2**31) - 1}: got {self.process_index}")
        if self.connect_timeout <= 0:
            raise ValueError(f"--connect-timeout must be a number of seconds above 0: got {self.connect_timeout:g}")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the coordinator."""
        host, _, port = (self.coordinator or "").rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 2**16:
            raise ValueError(f"--coordinator must be HOST:PORT, such as 10.0.0.1:8476: got {self.coordinator!r}")
        return host.strip("[]"), int(port)


def find_hosts(given: Hosts) -> Hosts | None:
    """The processes of this run, with what was not `given` taken from the environment, or from the cluster where JAX knows it
    (Cloud TPU, GKE, Slurm, Open MPI). None: this process is alone.

    Raises:
      ValueError: something is missing, and no cluster tells it.
    """
    hosts = replace(given, **{name: value for name, value in _environment().items() if getattr(given, name) is None})
    known = [getattr(hosts, name) is not None for name in FLAGS]
    if not all(known):
        if hosts.num_processes == 1:
            return None
        found = _from_cluster(hosts) if any(known) or _in_cluster() else None
        if found is None and not any(known):
            return None
        hosts = found
    if hosts is None:
        missing = [flag for flag, there in zip(FLAGS.values(), known, strict=True) if not there]
        raise ValueError(
            f"a run of many processes needs {', '.join(FLAGS.values())}, unless the cluster tells: {' and '.join(missing)} "
            f"{'is missing; add it' if len(missing) == 1 else 'are missing; add them'}, or set "
            f"{', '.join(ENVIRONMENT.values())}"
        )
    return hosts if hosts.num_processes != 1 else None


def _environment() -> dict[str, str | int]:
    found: dict[str, str | int] = {}
    for name, variable in ENVIRONMENT.items():
        value = os.environ.get(variable)
        if not value:
            continue
        if name == "coordinator":
            found[name] = value
        elif value.isdigit():
            found[name] = int(value)
        else:
            raise ValueError(f"{variable} must be a whole number: got {value!r}")
    return found


def _in_cluster() -> bool:
    """Whether it is worth to ask JAX, which warns, and waits for a server, where there is no cluster after all."""
    return any(os.environ.get(sign) for sign in CLUSTER_SIGNS) or (
        importlib.util.find_spec("libtpu") is not None and not runs_on_cpu()
    )


def _from_cluster(hosts: Hosts) -> Hosts | None:
    """What JAX's own detection finds. It is not public, but the public way gives no answer before it connects."""
    from jax._src.clusters import ClusterEnv

    detect = ClusterEnv.auto_detect_unset_distributed_params
    devices: Sequence[int] | None
    coordinator, count, index, devices = detect(
        hosts.coordinator, hosts.num_processes, hosts.process_index, hosts.local_devices, None, int(hosts.connect_timeout)
    )
    if coordinator is None or count is None or index is None:
        return None
    return replace(
        hosts,
        coordinator=coordinator,
        num_processes=count,
        process_index=index,
        local_devices=None if devices is None else tuple(devices),
    )
