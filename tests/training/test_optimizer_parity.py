"""Fifty steps of every optimizer, and every schedule, as PyTorch and transformers take them.

The figures come from `scripts/oracle/torch_optimizers.py`; run it again when a case is added.
"""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxllm.training import OptimizerConfig, ScheduleConfig, make_optimizer, make_schedule

GOLDEN = json.loads((Path(__file__).parent / "golden" / "optimizers.json").read_text())
STEPS = GOLDEN["steps"]


def values(shapes: dict[str, list[int]], step: int) -> dict[str, np.ndarray]:
    """Parameters (step 0) or gradients, by the formula of the script."""
    return {
        name: np.sin(np.arange(math.prod(shape)) ** 2.0 + 0.37 * step + leaf).reshape(shape).astype(np.float32)
        for leaf, (name, shape) in enumerate(shapes.items())
    }


def nested(flat: dict[str, np.ndarray]) -> dict:
    """`layers/up/kernel` as the model has it, a dict in a dict in a dict."""
    tree: dict = {}
    for path, value in flat.items():
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = jnp.asarray(value)
    return tree


def after_steps(config: OptimizerConfig, shapes: dict[str, list[int]]) -> dict[int, dict]:
    """Parameters after each step, nested."""
    optimizer, _ = make_optimizer(config, STEPS)
    params = nested(values(shapes, 0))
    state = optimizer.init(params)

    @jax.jit
    def update(params, state, gradients):
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    seen = {}
    for step in range(1, STEPS + 1):
        params, state = update(params, state, nested(values(shapes, step)))
        seen[step] = params
    return seen


@pytest.mark.parametrize("title", GOLDEN["optimizers"])
def test_fifty_steps(title):
    case = GOLDEN["optimizers"][title]
    fields = {**case["config"], "schedule": ScheduleConfig(**case["config"]["schedule"])}
    seen = after_steps(OptimizerConfig(**fields), case["shapes"])
    for step, expected in case["after"].items():
        for name, sample in expected.items():
            found = seen[int(step)]
            for part in name.split("/"):
                found = found[part]
            np.testing.assert_allclose(
                np.asarray(found).ravel()[:: case["every"]], sample, rtol=1e-5, atol=1e-5, err_msg=f"{name} after {step} steps"
            )


def test_the_steps_go_somewhere():
    """Fifty steps move every leaf by far more than the tolerance above, so that agreeing is no accident."""
    for case in GOLDEN["optimizers"].values():
        start = values(case["shapes"], 0)
        for name, sample in case["after"][str(STEPS)].items():
            moved = np.abs(start[name].ravel()[:: case["every"]] - sample)
            assert moved.max() > 1e-3, name


@pytest.mark.parametrize("case", GOLDEN["schedules"], ids=lambda case: "-".join(map(str, case["config"].values())))
def test_schedule(case):
    schedule = make_schedule(ScheduleConfig(**case["config"]), 1.0, STEPS)
    found = [float(schedule(step)) for step in range(len(case["rates"]))]
    np.testing.assert_allclose(found, case["rates"], atol=1e-6)
