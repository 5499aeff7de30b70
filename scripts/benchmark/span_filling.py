"""What does a run write into the gaps of a text? Its losses by step, a picture of them, and texts with gaps filled in.

python scripts/benchmark/span_filling.py runs/t5_mini_span_corruption       # the data set must be there: $JAXLLM_DATA
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from checkpoint import open_checkpoint
from matplotlib.figure import Figure
from record import write_record

from jaxllm.data import Tokenizer
from jaxllm.inference import SamplingConfig, beam_search, encode_sources
from jaxllm.models import EncoderDecoder
from jaxllm.recipe import Job
from jaxllm.training import read_metrics
from jaxllm.training.objectives import SpanCorruption
from jaxllm.training.objectives.span_corruption import CorruptSpans

EXAMPLES = 3


def main() -> None:
    run_dir, job, params, step = open_checkpoint(__doc__)
    split = job.data.test_split
    if not isinstance(job.recipe.objective, SpanCorruption) or split is None:
        raise SystemExit(f"a run with the objective SpanCorruption and a test split is needed: {run_dir} has none")
    figures = job.evaluate_params(params, split)
    metrics = read_metrics(run_dir)
    shown = [name for name in (split, job.recipe.data.validation_split) if name]
    curve = {line["step"]: line["loss"] for line in metrics if line["split"] == "validation"}
    results = {
        "test_loss": figures["loss"],
        "test_accuracy": figures["accuracy"],
        "test_tokens": figures["tokens"],
        "checkpoint_step": step,
        "validation_loss_by_step": curve,
        "examples": {name: fill_in(job, jax.device_put(params, jax.devices()[0]), name) for name in shown},
    }
    print(json.dumps(results, indent=1, ensure_ascii=False))
    notes = (
        "Losses in nats a token of what the decoder writes, marks included. The picture beside this record is of the losses. "
        "Examples are rows of their split at even distances, not chosen: <0>, <1>, ... stand for the spans taken out; "
        "written greedily."
    )
    path = write_record("span_filling", job.recipe, results, notes)
    draw_losses(metrics, path.with_suffix(".png"))
    print(path)


def fill_in(job: Job, params: Any, split: str) -> list[dict[str, str]]:
    """Texts with marks for their gaps, what stood there, and what the model writes."""
    model, tokenizer, rows = job.model, job.tokenizer, job.rows(split)
    corrupt: Any = rows.make  # type: ignore[attr-defined]
    assert isinstance(model, EncoderDecoder) and isinstance(corrupt, CorruptSpans) and tokenizer is not None
    assert model.config.start_id is not None
    batch = rows.rows(np.linspace(0, rows.rows_per_epoch - 1, EXAMPLES + 2)[1:-1].astype(np.int64))
    sources = [row[there > 0].tolist() for row, there in zip(batch["tokens"], batch["segment_ids"], strict=True)]
    targets = [row[there > 0].tolist() for row, there in zip(batch["targets"], batch["loss_weights"], strict=True)]
    greedy = SamplingConfig(max_tokens=corrupt.target_len, num_beams=1)
    written = beam_search(
        model,
        params,
        [[model.config.start_id]] * len(sources),
        greedy,
        eos_ids=[corrupt.end],
        memory=encode_sources(model, params, sources),
    )
    columns = zip(sources, targets, written, strict=True)
    names = ("text", "taken_out", "written")
    return [dict(zip(names, (marked(tokenizer, ids, corrupt) for ids in texts), strict=True)) for texts in columns]


def marked(tokenizer: Tokenizer, ids: Sequence[int], corrupt: CorruptSpans) -> str:
    """Text of ids, the marks in it as <0>, <1>, ..., up to the end mark."""
    words, run = [], []
    for id in [*ids, corrupt.end]:
        if id != corrupt.end and id not in corrupt.sentinels:
            run.append(id)
            continue
        words.append(tokenizer.decode([id for id in run if id < tokenizer.vocab_size]).strip())
        run = []
        if id == corrupt.end:
            break
        words.append(f"<{corrupt.sentinels.index(id)}>")
    return " ".join(word for word in words if word)


def draw_losses(metrics: Sequence[dict[str, Any]], path: Path) -> None:
    """Training losses, each the mean of 25 steps, and validation losses over steps."""
    series = {split: [(m["step"], m["loss"]) for m in metrics if m["split"] == split] for split in ("train", "validation")}
    train = np.array(series["train"])
    whole = train[: max(len(train) // 25, 1) * 25]
    means = whole.reshape(-1, min(25, len(whole)), 2).mean(axis=1)
    figure = Figure(figsize=(6.0, 3.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.plot(means[:, 0], means[:, 1], color="#2f6fde", linewidth=1.4, label="train, mean of 25 steps")
    if series["validation"]:
        axes.plot(*np.array(series["validation"]).T, color="#d9622b", marker="o", markersize=3.5, label="validation")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats a token")
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    main()
