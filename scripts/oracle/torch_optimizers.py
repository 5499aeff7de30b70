"""Writes tests/training/golden/optimizers.json: what PyTorch and transformers make of fifty steps.

    python scripts/oracle/torch_optimizers.py        # a Python with torch and transformers; jaxllm is not needed

Parameters and gradients follow a formula that the test knows, too (`values`), and are laid out as jaxllm's: kernels are
input x output, those in `layers` with a leading axis of layers. Each case names the fields of `OptimizerConfig` and gives
the parameters after some of the steps; each schedule gives the learning rate of every step.

Lion is not in PyTorch: here it is the update of its paper (arXiv 2302.06675, algorithm 2) in NumPy. torch.optim.Muon
computes its Newton-Schulz iteration in bfloat16; here it is told to stay in float32, as jaxllm's.
"""
# pyright: reportMissingImports=false

import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import transformers
from transformers import optimization

STEPS = 50
LOOK_AT = (1, 2, 10, 50)
SMALL = {
    "layers/up/kernel": (2, 6, 10),
    "layers/up/bias": (2, 10),
    "layers/output/kernel": (2, 2, 3, 5),
    "embed/table": (7, 4),
    "norm/scale": (4,),
}
WIDE = {"layers/up/kernel": (2, 128, 130), "layers/up/bias": (2, 130), "embed/table": (140, 128), "norm/scale": (128,)}
BASE = {"learning_rate": 0.01, "clip_norm": None, "schedule": {"kind": "constant"}}
CASES = {
    "adamw": {**BASE, "name": "adamw", "weight_decay": 0.1, "b1": 0.9, "b2": 0.95, "epsilon": 1e-8},
    "adamw, clipped, cosine": {
        **BASE,
        "name": "adamw",
        "weight_decay": 0.1,
        "b2": 0.99,
        "clip_norm": 0.5,
        "schedule": {"kind": "cosine", "warmup_steps": 5, "final_fraction": 0.1},
    },
    "sgd": {**BASE, "name": "sgd", "weight_decay": 0.0, "momentum": 0.0},
    "sgd, momentum": {**BASE, "name": "sgd", "weight_decay": 0.01, "momentum": 0.9},
    "sgd, nesterov": {**BASE, "name": "sgd", "weight_decay": 0.01, "momentum": 0.9, "nesterov": True},
    "lion": {**BASE, "name": "lion", "learning_rate": 0.003, "weight_decay": 0.1, "b1": 0.9, "b2": 0.99},
    "adafactor": {**BASE, "name": "adafactor", "weight_decay": 0.0},
    "adafactor, decay": {**BASE, "name": "adafactor", "weight_decay": 0.1},
    "muon": {**BASE, "name": "muon", "weight_decay": 0.1, "momentum": 0.95, "nesterov": False},
}
"""Fields of OptimizerConfig."""


def values(shapes: dict[str, tuple[int, ...]], step: int) -> dict[str, np.ndarray]:
    """Parameters (step 0) or gradients: sin(i² + 0.37 step + leaf) for the i-th element of each leaf, in float32."""
    return {
        name: np.sin(np.arange(math.prod(shape)) ** 2.0 + 0.37 * step + leaf).reshape(shape).astype(np.float32)
        for leaf, (name, shape) in enumerate(shapes.items())
    }


def decays(name: str) -> bool:
    return name.endswith(("kernel", "table"))


def make_torch(config: dict, params: dict[str, torch.Tensor]) -> list[torch.optim.Optimizer]:
    """The optimizers that together do what the config says."""
    rate, decay = config["learning_rate"], config["weight_decay"]
    groups = [
        {"params": [p for name, p in params.items() if decays(name)], "weight_decay": decay},
        {"params": [p for name, p in params.items() if not decays(name)], "weight_decay": 0.0},
    ]
    betas = (config.get("b1", 0.9), config.get("b2", 0.95))
    if config["name"] == "adamw":
        return [torch.optim.AdamW(groups, lr=rate, betas=betas, eps=config.get("epsilon", 1e-8))]
    if config["name"] == "sgd":
        return [torch.optim.SGD(groups, lr=rate, momentum=config["momentum"], nesterov=config.get("nesterov", False))]
    if config["name"] == "adafactor":
        return [optimization.Adafactor(groups, lr=rate, scale_parameter=False, relative_step=False)]
    if config["name"] == "lion":
        return [Lion(groups, lr=rate, betas=betas)]
    raise ValueError(config["name"])


class Lion(torch.optim.Optimizer):
    """Algorithm 2 of arXiv 2302.06675."""

    def __init__(self, groups: list[dict], lr: float, betas: tuple[float, float]):
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                m, g = self.state[p].get("m", torch.zeros_like(p)), p.grad
                c = b1 * m + (1 - b1) * g
                p -= group["lr"] * (torch.sign(c) + group["weight_decay"] * p)
                self.state[p]["m"] = b2 * m + (1 - b2) * g


def run_torch(config: dict, shapes: dict[str, tuple[int, ...]]) -> dict[int, dict[str, np.ndarray]]:
    """The parameters after the steps to look at."""
    params = {name: torch.tensor(value).requires_grad_() for name, value in values(shapes, 0).items()}
    optimizers = make_torch(config, params)
    schedules = [make_schedule(optimizer, config["schedule"]) for optimizer in optimizers]
    seen = {}
    for step in range(1, STEPS + 1):
        for name, gradient in values(shapes, step).items():
            params[name].grad = torch.tensor(gradient)
        if config["clip_norm"] is not None:
            torch.nn.utils.clip_grad_norm_(list(params.values()), config["clip_norm"])
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        if step in LOOK_AT:
            seen[step] = {name: p.detach().numpy().copy() for name, p in params.items()}
    return seen


def run_muon(config: dict, shapes: dict[str, tuple[int, ...]], bfloat16: bool = False) -> dict[int, dict[str, np.ndarray]]:
    """torch.optim.Muon on each layer's matrix, output x input as PyTorch has them, and AdamW on the rest."""
    start = {name: torch.tensor(value) for name, value in values(shapes, 0).items()}
    kernels = [name for name in shapes if name.startswith("layers/") and name.endswith("/kernel")]
    matrices = {name: [m.requires_grad_() for m in as_matrices(name, start[name])] for name in kernels}
    rest = {name: value.requires_grad_() for name, value in start.items() if name not in kernels}
    muon = torch.optim.Muon(
        [m for each in matrices.values() for m in each],
        lr=config["learning_rate"],
        weight_decay=config["weight_decay"],
        momentum=config["momentum"],
        nesterov=config["nesterov"],
    )
    adamw = make_torch({**config, "name": "adamw"}, rest)[0]
    seen = {}
    for step in range(1, STEPS + 1):
        for name, gradient in values(shapes, step).items():
            if name in rest:
                rest[name].grad = torch.tensor(gradient)
            else:
                for matrix, part in zip(matrices[name], as_matrices(name, torch.tensor(gradient)), strict=True):
                    matrix.grad = part
        with nullcontext() if bfloat16 else mock.patch.object(torch.Tensor, "bfloat16", lambda tensor: tensor.clone()):
            muon.step()
        adamw.step()
        if step in LOOK_AT:
            merged = {n: torch.stack([m.T for m in each]).reshape(shapes[n]) for n, each in matrices.items()}
            seen[step] = {name: (rest | merged)[name].detach().numpy().copy() for name in shapes}
    return seen


def as_matrices(name: str, kernel: torch.Tensor) -> list[torch.Tensor]:
    """Each layer's kernel as output x input; the attention's output kernel has two input axes."""
    inputs = math.prod(kernel.shape[1:-1])
    return [layer.reshape(inputs, -1).T.contiguous() for layer in kernel]


def make_schedule(optimizer: torch.optim.Optimizer, config: dict) -> torch.optim.lr_scheduler.LambdaLR:
    kind, warmup, final = config["kind"], config.get("warmup_steps", 0), config.get("final_fraction", 0.1)
    peak = optimizer.param_groups[0]["lr"]
    if kind == "constant":
        return optimization.get_constant_schedule_with_warmup(optimizer, warmup)
    if kind == "cosine":
        return optimization.get_cosine_with_min_lr_schedule_with_warmup(optimizer, warmup, STEPS, min_lr_rate=final)
    if kind == "linear" and final == 0:
        return optimization.get_linear_schedule_with_warmup(optimizer, warmup, STEPS)
    if kind == "linear":
        return optimization.get_polynomial_decay_schedule_with_warmup(optimizer, warmup, STEPS, lr_end=peak * final)
    cooldown = config["cooldown_steps"]
    return optimization.get_wsd_schedule(optimizer, warmup, cooldown, STEPS, min_lr_ratio=final)


SCHEDULES = [
    {"kind": "constant"},
    {"kind": "constant", "warmup_steps": 7},
    {"kind": "cosine", "warmup_steps": 0, "final_fraction": 0.0},
    {"kind": "cosine", "warmup_steps": 7, "final_fraction": 0.1},
    {"kind": "linear", "warmup_steps": 7, "final_fraction": 0.0},
    {"kind": "linear", "warmup_steps": 7, "final_fraction": 0.1},
    {"kind": "wsd", "warmup_steps": 7, "cooldown_steps": 15, "final_fraction": 0.0},
    {"kind": "wsd", "warmup_steps": 0, "cooldown_steps": 15, "final_fraction": 0.1},
    {"kind": "wsd", "warmup_steps": 7, "cooldown_steps": 43, "final_fraction": 0.0},
]


def rates(config: dict) -> list[float]:
    """The learning rate of each step, and of three steps after the last."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = make_schedule(optimizer, config)
    found = []
    for _ in range(STEPS + 3):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


def rounded(array: np.ndarray, every: int) -> list[float]:
    """A sample of the elements, with the digits that float32 has."""
    return [float(f"{value:.9g}") for value in array.ravel()[::every].tolist()]


def golden(run: Callable, config: dict, shapes: dict[str, tuple[int, ...]], every: int) -> dict:
    seen = run(config, shapes)
    return {
        "config": config,
        "shapes": shapes,
        "every": every,
        "after": {step: {name: rounded(value, every) for name, value in params.items()} for step, params in seen.items()},
    }


def difference(one: dict[int, dict[str, np.ndarray]], other: dict[int, dict[str, np.ndarray]]) -> float:
    return max(float(np.abs(one[STEPS][name] - other[STEPS][name]).max()) for name in one[STEPS])


def main() -> None:
    cases = {}
    for title, config in CASES.items():
        run = run_muon if config["name"] == "muon" else run_torch
        wide = config["name"] == "adafactor"
        cases[title] = golden(run, config, WIDE if wide else SMALL, 997 if wide else 1)
    muon = CASES["muon"]
    print("muon: largest difference after 50 steps of bfloat16 from float32 Newton-Schulz:",
          difference(run_muon(muon, SMALL), run_muon(muon, SMALL, bfloat16=True)))  # fmt: skip
    document = {
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "steps": STEPS,
        "optimizers": cases,
        "schedules": [{"config": config, "rates": rates(config)} for config in SCHEDULES],
    }
    path = Path(__file__).parents[2] / "tests" / "training" / "golden" / "optimizers.json"
    path.write_text(json.dumps(document, separators=(",", ":")).replace('"config"', '\n"config"') + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
