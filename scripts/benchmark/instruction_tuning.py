"""The record of a decoder that was tuned on conversations: losses before and after, the curve, and answers to four questions.

python scripts/benchmark/instruction_tuning.py runs/smollm2_alpaca_lora     # base and data set must be there: $JAXLLM_DATA
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from record import write_record
from run_result import logged, of_training

from jaxllm import load
from jaxllm.finetune import Full, unadapted
from jaxllm.finetune.operations import take_base
from jaxllm.finetune.tasks import InstructionTuning
from jaxllm.recipe import Job, find_recipe, open_for_evaluation
from jaxllm.training import read_metrics

QUESTIONS = (
    "Give three tips for staying healthy.",
    "Explain in one sentence why the sky is blue.",
    "Write a short poem about the sea.",
    "Rewrite this sentence in the passive voice: The cat chased the mouse.",
)
"""None of them is in the data."""
ANSWER_LEN = 96
SMOOTHED = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--shared", action="store_true", help="other work ran on the machine: its times are no measurement")
    options = parser.parse_args()
    recipe, told = find_recipe(str(options.run_dir)), json.loads((options.run_dir / "results.json").read_text("utf-8"))
    if not isinstance(recipe.objective, InstructionTuning) or recipe.data.validation_split is None:
        raise SystemExit(f"a run of InstructionTuning with a validation split is needed: {options.run_dir} is none")
    lines = read_metrics(options.run_dir)
    results: dict[str, Any] = logged(recipe, lines) | of_training(told)
    results |= {name: told.get(name) for name in ("trainable_parameters", "peak_memory_bytes", "forgetting")}
    results |= {"shared_machine": options.shared, "validation": measured(options.run_dir), "answers": answers(options.run_dir)}
    print(json.dumps(results, indent=1))
    notes = (
        "Losses in nats a token of the answers. validation: over the whole split, before (the base alone) and after, with 95 % "
        "bootstrap intervals over conversations; validation_loss and the curve beside this record are over its first batches. "
        "answers: greedy, at most "
        f"{ANSWER_LEN} tokens, of the base and of the tuned model. peak_memory_bytes: largest resident size of the training "
        "process."
    )
    if options.shared:
        notes += " Other work ran on the machine."
    where = json.loads((options.run_dir / "environment.json").read_text("utf-8"))
    path = write_record("instruction_tuning", recipe, results, notes, where)
    draw(lines, path.with_suffix(".png"))
    print(path)


def measured(run_dir: Path) -> dict[str, Any]:
    """Loss, perplexity and share of tokens right over the validation split, of the base and of the tuned model."""
    job, params, _ = open_for_evaluation(run_dir)
    plain = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, method=Full()))
    return {"before": on_validation(plain, take_base(job.recipe.method, params)), "after": on_validation(job, params)}


def on_validation(job: Job, params: Any) -> dict[str, Any]:
    found, scores, _ = job.predict_split(params, job.recipe.data.validation_split, batches=None)  # type: ignore[arg-type]
    metrics = {name: value._asdict() for name, value in scores.measured(job.recipe.seed).items()}
    return {"loss": found["loss"], "conversations": found["examples"], **metrics}


def answers(run_dir: Path) -> list[dict[str, str]]:
    """What the base and the tuned model say to the questions."""
    tuned = load(run_dir)
    assert tuned.recipe is not None
    base = dataclasses.replace(tuned, model=unadapted(tuned.model), params=take_base(tuned.recipe.method, tuned.params))
    found = []
    for question in QUESTIONS:
        said = {
            when: model.generate([{"role": "user", "content": question}], max_tokens=ANSWER_LEN, temperature=0.0)[0]
            for when, model in (("before", base), ("after", tuned))
        }
        found.append({"question": question, **said})
    return found


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """The loss by step."""
    train = np.array([(line["step"], line["loss"]) for line in lines if line["split"] == "train"])
    validation = np.array([(line["step"], line["loss"]) for line in lines if line["split"] == "validation"])
    count = len(train) // SMOOTHED * SMOOTHED
    means = train[:count].reshape(-1, SMOOTHED, 2).mean(axis=1)
    figure = Figure(figsize=(6.0, 3.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.plot(train[:, 0], train[:, 1], color="#2f6fde", alpha=0.3, linewidth=0.8, label="train")
    axes.plot(means[:, 0], means[:, 1], color="#2f6fde", linewidth=1.4, label=f"train, mean of {SMOOTHED} steps")
    axes.plot(validation[:, 0], validation[:, 1], color="#d9622b", marker="o", markersize=3.5, label="validation")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats a token")
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    main()
