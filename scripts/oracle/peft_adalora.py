"""Feeds parameters and gradients, step by step, to the allocator of peft's AdaLoRA.

    python scripts/oracle/peft_adalora.py IN.npz OUT.npz [--make]        # a Python with torch and peft

IN.npz: `config`, JSON with fields of AdaLoraConfig; `steps` [S], the number of each step as the allocator is told;
`params/<matrix>/A` [S R in], `.../E` [S R 1], `.../B` [S out R], the parameters after the optimizer's step, and the gradients,
`grads/...`, alike. Each step begins with the parameters given: what the allocator did to them before is not carried on.

OUT.npz: `budget` [S]; `allocated` [S], whether ranks were chosen in that step; `scores/<matrix>` [S R], the scores of the
triplets by then (NaN once there are none), `mask/<matrix>` [S R], False where E was set to zero, `kept/<matrix>` [S R], the
pattern that the saved config would have (all True before the first), `importance/<matrix>/<A|E|B>` and `uncertainty/...`, the
two moving averages (NaN once forgotten). With --make an example is written to IN.npz first.
"""
# pyright: reportMissingImports=false

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch

EXAMPLE = {"init_r": 6, "target_r": 2, "tinit": 3, "tfinal": 5, "deltaT": 2, "total_step": 24, "beta1": 0.85, "beta2": 0.9}
SHAPES = {"first": (7, 10), "second": (12, 5), "third": (9, 9)}
"""Outputs and inputs of the matrices of the example."""


def make(path: Path) -> None:
    rng, steps, rank = np.random.default_rng(0), EXAMPLE["total_step"] + 3, EXAMPLE["init_r"]
    arrays: dict[str, Any] = {"config": np.array(json.dumps(EXAMPLE)), "steps": np.arange(steps)}
    for matrix, (out, inputs) in SHAPES.items():
        for leaf, shape in (("A", (rank, inputs)), ("E", (rank, 1)), ("B", (out, rank))):
            arrays[f"params/{matrix}/{leaf}"] = rng.standard_normal((steps, *shape)).astype(np.float32)
            arrays[f"grads/{matrix}/{leaf}"] = rng.standard_normal((steps, *shape)).astype(np.float32)
    np.savez(path, **arrays)


def build(config: dict[str, Any], shapes: dict[str, tuple[int, int]]) -> Any:
    """A model of these matrices alone."""
    matrices = torch.nn.ModuleDict({name: torch.nn.Linear(inputs, out, bias=False) for name, (out, inputs) in shapes.items()})
    return peft.get_peft_model(matrices, peft.AdaLoraConfig(target_modules=list(shapes), **config))


def read(allocator: Any, name: str, leaf: str, average: str, shape: tuple[int, ...]) -> np.ndarray:
    """A moving average, in the shape of its parameter."""
    found = getattr(allocator, average).get(f"{name}.lora_{leaf}.default")
    return np.full(shape, np.nan, np.float32) if found is None else found.numpy().copy()


def triplets(averages: dict[str, np.ndarray]) -> np.ndarray:
    """Score of each triplet: of E, plus the means over a row of A and over a column of B."""
    return averages["E"][:, 0] + averages["A"].mean(axis=1) + averages["B"].mean(axis=0)


def step(model: Any, arrays: dict[str, np.ndarray], names: list[str], place: int) -> dict[str, np.ndarray]:
    """What one step gives."""
    parameters, base = dict(model.base_model.model.named_parameters()), model.base_model
    for name in names:
        for leaf in "AEB":
            parameter = parameters[f"{name}.lora_{leaf}.default"]
            parameter.data = torch.from_numpy(arrays[f"params/{name}/{leaf}"][place].copy())
            parameter.grad = torch.from_numpy(arrays[f"grads/{name}/{leaf}"][place].copy())
    number, allocator, config = int(arrays["steps"][place]), base.rankallocator, base.peft_config["default"]
    budget, chosen = allocator.budget_schedule(number)
    last = config.total_step - config.tfinal
    before = {key: dict(getattr(allocator, key)) for key in ("exp_avg_ipt", "exp_avg_unc")}
    base.update_and_allocate(number)
    if number == last:  # peft forgets them in this step, after it has used them: those before the step are what it used
        allocator.exp_avg_ipt, allocator.exp_avg_unc = before["exp_avg_ipt"], before["exp_avg_unc"]
    allocated = (chosen and number < last) or number == last
    found = {"budget": np.array(budget), "allocated": np.array(allocated)}
    for name in names:
        products = {}
        for leaf in "AEB":
            shape = parameters[f"{name}.lora_{leaf}.default"].shape
            importance, uncertainty = (read(allocator, name, leaf, key, shape) for key in ("exp_avg_ipt", "exp_avg_unc"))
            found |= {f"importance/{name}/{leaf}": importance, f"uncertainty/{name}/{leaf}": uncertainty}
            products[leaf] = importance * uncertainty
        found[f"scores/{name}"] = triplets(products)
        given = arrays[f"params/{name}/E"][place]
        found[f"mask/{name}"] = (parameters[f"{name}.lora_E.default"].detach().numpy() == given)[:, 0]
        pattern = (config.rank_pattern or {}).get(f"{name}.lora_E.default")
        found[f"kept/{name}"] = np.ones(given.shape[0], bool) if pattern is None else np.array(pattern)
    if number == last:
        allocator.reset_ipt()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Budgets, masks and scores of peft's AdaLoRA.")
    parser.add_argument("given", type=Path, help="the .npz with config, steps, params and grads")
    parser.add_argument("out", type=Path, help="the .npz to write")
    parser.add_argument("--make", action="store_true", help="write an example to the first file before")
    args = parser.parse_args()
    if args.make:
        make(args.given)
    with np.load(args.given) as stored:
        arrays = {name: stored[name] for name in stored.files}
    names = sorted({key.split("/")[1] for key in arrays if key.startswith("params/")})
    shapes = {name: (arrays[f"params/{name}/B"].shape[1], arrays[f"params/{name}/A"].shape[2]) for name in names}
    model = build(json.loads(str(arrays["config"])), shapes)
    found = [step(model, arrays, names, place) for place in range(len(arrays["steps"]))]
    together: dict[str, Any] = {key: np.stack([one[key] for one in found]) for key in found[0]}
    np.savez(args.out, **together)
    kept = [sum(int(one[f"kept/{name}"].sum()) for name in names) for one in found]
    print("budgets:", *(int(one["budget"]) for one in found))
    print("kept:   ", *kept)


if __name__ == "__main__":
    main()
