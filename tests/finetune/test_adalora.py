"""AdaLoRA's budget, scores and masks against PEFT's RankAllocator, in a run, and over a save and a load."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxllm.finetune import AdaLoRA, report
from jaxllm.finetune.budget import Allocation, _scores, allocate
from jaxllm.recipe import fit
from jaxllm.recipe.serialize import load_json
from tests.finetune.programs import FAMILIES, fresh, moved, train
from tests.recipe import tiny

GOLDEN = Path(__file__).parent / "golden" / "peft_adalora.npz"
RANK, TARGET, STEPS = 6, 2, 24
SHAPES = {"first": (7, 10), "second": (12, 5), "third": (9, 9)}
"""Outputs and inputs, as in scripts/oracle/peft_adalora.py, which has made the file from the same numbers (--make)."""


def drawn():
    """Parameters and gradients of each step, by matrix and kind."""
    rng, steps = np.random.default_rng(0), STEPS + 3
    found: dict = {"params": {}, "grads": {}}
    for matrix, (out, inputs) in SHAPES.items():
        for leaf, shape in (("a", (RANK, inputs)), ("e", (RANK, 1)), ("b", (out, RANK))):
            for kind in ("params", "grads"):
                values = rng.standard_normal((steps, *shape)).astype(np.float32)
                values = values[..., 0] if leaf == "e" else values.transpose(0, 2, 1)
                found[kind].setdefault(matrix, {}).setdefault("adalora", {})[leaf] = values
    return found


def test_budgets_scores_and_masks_are_those_of_peft():
    given, allocation = drawn(), Allocation(tinit=3, last=STEPS - 5, delta_t=2, beta1=0.85, beta2=0.9)
    transform = allocate(optax.set_to_zero(), allocation, RANK, TARGET)
    at = lambda kind, step: jax.tree.map(lambda x: x[step], given[kind])  # noqa: E731
    state = transform.init(at("params", 0))
    update = jax.jit(transform.update)
    with np.load(GOLDEN) as stored:
        want = {name: stored[name] for name in stored.files}
    budgets = allocation.budgets(RANK * 3, TARGET * 3)
    assert budgets == want["budget"][: len(budgets)].tolist() and len(set(budgets)) > 8
    for step in range(STEPS + 3):
        params = at("params", step)
        updates, state = update(at("grads", step), state, params)
        scores = _scores(state.importance, state.uncertainty)
        for matrix in SHAPES:
            e, change = params[matrix]["adalora"]["e"], updates[matrix]["adalora"]["e"]
            np.testing.assert_array_equal((e + change) == e, want[f"mask/{matrix}"][step], err_msg=f"{matrix} {step}")
            assert not np.asarray(e + change)[~want[f"mask/{matrix}"][step]].any()
            np.testing.assert_array_equal(state.kept[matrix]["adalora"]["e"] == 1, want[f"kept/{matrix}"][step])
            theirs = want[f"scores/{matrix}"][step]
            if not np.isnan(theirs).any():
                np.testing.assert_allclose(scores[f"{matrix}/adalora"], theirs, rtol=1e-5)
    assert report(state) == {"budget": 6, "ranks": {name: int(want[f"kept/{name}"][-1].sum()) for name in SHAPES}}


def test_a_run_ends_with_its_budget_and_what_was_taken_away_stays_zero():
    method = AdaLoRA(init_rank=4, target_rank=2, tinit=0, tfinal=1)
    state = train(method, FAMILIES["llama"])[2]
    found = report(state)
    assert found["budget"] == 2 * 14 and set(found["ranks"]) >= {"layers/0/attention/query", "layers/1/ffw/down"}
    assert len(set(found["ranks"].values())) > 1
    e = state.params["layers"]["attention"]["query"]["adalora"]["e"]
    assert [int((row != 0).sum()) for row in e] == [found["ranks"][f"layers/{n}/attention/query"] for n in (0, 1)]


def test_the_penalty_is_peft_s():
    method, config = AdaLoRA(init_rank=4, target_rank=2), FAMILIES["llama"]
    params, norms = moved(method, fresh(method, config)), []
    for sublayer in ("attention", "ffw"):
        for module in params["layers"][sublayer].values():
            own = module["adalora"]
            for layer in range(2):
                a, b = np.asarray(own["a"][layer]).reshape(-1, 4), np.asarray(own["b"][layer]).reshape(4, -1)
                norms += [np.linalg.norm(a.T @ a - np.eye(4)), np.linalg.norm(b @ b.T - np.eye(4))]
    np.testing.assert_allclose(jax.jit(method.penalty)(params), 0.5 * np.mean(norms), rtol=1e-5)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="must leave steps between them: got 5 and 5 of 10 steps"):
        AdaLoRA(tinit=5, tfinal=5).wrap(optax.identity(), 10)
    with pytest.raises(ValueError, match="target_rank must be in 1..init_rank: got target_rank=9"):
        AdaLoRA(init_rank=8, target_rank=9)
    with pytest.raises(ValueError, match="whose method is AdaLoRA"):
        report(optax.adam(1.0).init({"a": jnp.zeros(1)}))


@pytest.mark.slow
def test_a_longer_run_keeps_its_schedule(tmp_path):
    """The steps of the schedule are those with which the run began, in its recipe and in each step."""
    method = AdaLoRA(init_rank=4, target_rank=2, targets=("query", "value"))
    made = tiny.config(steps=6, run_dir=str(tmp_path / "run"), method=method)
    fit(made)
    longer = fit(dataclasses.replace(made, steps=12))
    assert longer.step == 12
    saved = load_json(tmp_path / "run" / "recipe.json")
    assert saved.method == dataclasses.replace(method, total_steps=6) and saved.steps == 12
    assert saved.method.allocation(12) == method.allocation(6) != method.allocation(12)
    records = [json.loads(line) for line in (tmp_path / "run" / "ranks.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [6, 12] and records[0]["ranks"] == records[1]["ranks"]
    fit(dataclasses.replace(saved, run_dir=str(tmp_path / "run"), steps=13))
