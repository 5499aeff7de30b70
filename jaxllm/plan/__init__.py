"""Does it fit, and how fast would it be, on hardware that is not here?

    plan = make_plan(find_recipe("configs/llama_1b.py"), "v5e:4x4")
    print(describe(plan))
    print(describe_search(search(find_recipe("configs/llama_1b.py"), "v5e:4x4")))

The step that would run, of training, prefill or decode, is compiled by the device's own compiler. Bytes are the compiler's;
times are estimates: on a TPU from the compiler's cycles, on this machine's devices from what they were measured to do.
"""

from jaxllm.plan.collectives import Collective
from jaxllm.plan.compile import make_plan
from jaxllm.plan.describe import as_json, describe
from jaxllm.plan.estimate import StepTime
from jaxllm.plan.memory import Memory
from jaxllm.plan.plan import Plan
from jaxllm.plan.report import write_plan_report
from jaxllm.plan.search import Search, describe_search, search
from jaxllm.plan.topology import topology_devices

__all__ = [
    "Collective",
    "Memory",
    "Plan",
    "Search",
    "StepTime",
    "as_json",
    "describe",
    "describe_search",
    "make_plan",
    "search",
    "topology_devices",
    "write_plan_report",
]
