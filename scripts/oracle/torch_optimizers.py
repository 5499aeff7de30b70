"""Writes tests/training/golden/optimizers.json: what PyTorch and transformers make of fifty steps.

    python scripts/oracle/torch_optimizers.py        # a Python with torch and transformers; jaxllm is not needed

Parameters and gradients follow a formula that the test knows, too (`values`), and are laid out as jaxllm's: kernels are
input x output, those in `layers` with a leading axis of layers. Each case names the fields of `OptimizerConfig` and gives
the parameters after some of the steps; each schedule gives the learning rate of every step.

Lion is not in PyTorch: here it is the update of its paper (arXiv 2302.06675, algorithm 2). What cannot agree by definition:
- torch.optim.Muon computes its Newton-Schulz iteration in bfloat16, which moves parameters by 1.3e-3 in these fifty steps;
  here it is told to stay in float32, as jaxllm's.
- With Nesterov momentum Optax's Muon corrects the bias of the momentum and PyTorch's does not: 3.0e-3. There is no such case.
- transformers' Adafactor factors every matrix, Optax's those of at least 128 x 128: the case is as wide as that.
- transformers' cosine rises again after its last step, where jaxllm's stays: rates are compared up to there.
- transformers' WSD warms up from its final fraction, jaxllm's from 0: warm-up is compared where that fraction is 0.
"""
# pyright: reportMissingImports=false

import json
import math
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import transformers
from transformers import optimization

STEPS = 50
LOOK_AT = (2, 50)
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
    if config["name"] == "muon":
        matrices = [p for name, p in params.items() if "layers/" in name and name.endswith("/kernel")]
        rest = {name: p for name, p in params.items() if all(p is not matrix for matrix in matrices)}
        options = {"momentum": config["momentum"], "nesterov": config["nesterov"]}
        muon = torch.optim.Muon(matrices, lr=rate, weight_decay=decay, **options)
        return [muon, *make_torch({**config, "name": "adamw"}, rest)]
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
    """The parameters after the steps to look at; as in PyTorch each layer has its own."""
    start = split(values(shapes, 0))
    params = {name: torch.tensor(value).requires_grad_() for name, value in start.items()}
    optimizers = make_torch(config, params)
    schedules = [make_schedule(optimizer, config["schedule"]) for optimizer in optimizers]
    seen = {}
    for step in range(1, STEPS + 1):
        for name, gradient in split(values(shapes, step)).items():
            params[name].grad = torch.tensor(gradient)
        if config["clip_norm"] is not None:
            torch.nn.utils.clip_grad_norm_(list(params.values()), config["clip_norm"])
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        if step in LOOK_AT:
            seen[step] = stack(shapes, {name: p.detach().numpy() for name, p in params.items()})
    return seen


def split(stacked: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A parameter for each layer; matrices as PyTorch has them, output x input (an output kernel has two input axes)."""
    parts = {}
    for name, value in stacked.items():
        layers = enumerate(value) if name.startswith("layers/") else [("", value)]
        for number, part in layers:
            matrix = part.reshape(-1, part.shape[-1]).T if name.endswith("/kernel") else part
            parts[f"{number}/{name}"] = np.ascontiguousarray(matrix)
    return parts


def stack(shapes: dict[str, tuple[int, ...]], parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `split`, as a copy."""
    stacked = {}
    for name, shape in shapes.items():
        of_name = [part for key, part in parts.items() if key.split("/", 1)[1] == name]
        matrices = [part.T if name.endswith("/kernel") else part for part in of_name]
        stacked[name] = np.stack(matrices).reshape(shape)
    return stacked


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
    """The learning rate of each step, and the final one."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = make_schedule(optimizer, config)
    found = []
    for _ in range(STEPS + 1):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


def rounded(array: np.ndarray, every: int) -> list[float]:
    """A sample of the elements, with the digits that float32 has."""
    return [float(f"{value:.9g}") for value in array.ravel()[::every].tolist()]


def golden(config: dict, shapes: dict[str, tuple[int, ...]], every: int) -> dict:
    """A case with its parameters after the steps to look at."""
    with mock.patch.object(torch.Tensor, "bfloat16", lambda tensor: tensor.clone()):
        seen = run_torch(config, shapes)
    return {
        "config": config,
        "shapes": shapes,
        "every": every,
        "after": {step: {name: rounded(value, every) for name, value in params.items()} for step, params in seen.items()},
    }


def main() -> None:
    cases = {}
    for title, config in CASES.items():
        wide = config["name"] == "adafactor"
        cases[title] = golden(config, WIDE if wide else SMALL, 997 if wide else 1)
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
