"""How many images of the test split does a run name rightly? With a 95 % interval, by class, and as a confusion matrix.

python scripts/benchmark/image_accuracy.py runs/vit_cifar10         # the data set must be there: $JAXLLM_DATA
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from checkpoint import open_checkpoint
from jaxtyping import Int
from matplotlib.figure import Figure
from record import newest_record, write_record

from jaxllm.data import ImageData, eval_batches
from jaxllm.recipe import Job
from jaxllm.training.objectives import ImageClassification


def main() -> None:
    run_dir, job, params, step = open_checkpoint(__doc__)
    if not isinstance(job.data, ImageData) or job.data.test_split is None:
        raise SystemExit(f"a run on images with a test split is needed: {run_dir} has none")
    names, train = job.data.label_names, job.data.rows(job.recipe.data.train_split)
    matrix = confusion(job, params, job.data.test_split, len(names))
    total, whole = int(matrix.sum()), share(int(np.trace(matrix)), int(matrix.sum()))
    by_class = {name: share(int(matrix[k, k]), int(matrix[k].sum())) for k, name in enumerate(names)}
    results: dict[str, Any] = {
        "test_images": total,
        "test_accuracy": whole["accuracy"],
        "interval_95": whole["interval_95"],
        "train_images": train.rows_per_epoch,
        "checkpoint_step": step,
        "by_class": by_class,
        "confusion": {"classes": names, "images_by_class_and_guess": matrix.tolist()},
    }
    other = newest_record("torch_vit", "vit_cifar10_published")
    if other is not None and job.recipe.name == "vit_cifar10":
        results["accuracy_of_published_weights"] = other["results"]["accuracy"]
    print(json.dumps(results, indent=1))
    notes = (
        "Test split, images as they are; intervals after Wilson. Confusion: a row a class, a column a guess; the picture "
        "beside this record shows it. accuracy_of_published_weights: a ViT of the same width and depth that others trained, on "
        "the same test images (record torch_vit)."
    )
    path = write_record("image_accuracy", job.recipe, results, notes)
    draw(matrix, names, path.with_suffix(".png"))
    print(path)


def confusion(job: Job, params: Any, split: str, classes: int) -> Int[np.ndarray, "class guess"]:
    """How many images of each class were taken for each."""
    objective, model = job.recipe.objective, job.model
    assert isinstance(objective, ImageClassification)

    @jax.jit
    def guess(params: Any, images: jax.Array) -> jax.Array:
        return model.apply({"params": params}, objective.normalized(images)).logits.argmax(axis=-1)  # type: ignore[union-attr]

    params, matrix = jax.device_put(params, jax.devices()[0]), np.zeros((classes, classes), np.int64)
    for batch in eval_batches(job.rows(split), batch_size=job.recipe.evaluate.batch_size or job.recipe.batch_size):
        there = batch["loss_weights"] > 0
        np.add.at(matrix, (batch["labels"][there], np.asarray(guess(params, batch["images"]))[there]), 1)
    return matrix


def share(right: int, total: int) -> dict[str, Any]:
    """An accuracy with its interval, for a record; none of either where there is no image, since JSON has no NaN."""
    if total == 0:
        return {"accuracy": None, "interval_95": None}
    return {"accuracy": right / total, "interval_95": wilson(right, total)}


def wilson(right: int, total: int) -> list[float]:
    """The 95 % interval of a share that was seen as `right` of `total`, at least one (Wilson 1927)."""
    z = 1.959964
    seen, spread = right / total, z * z / total
    middle = (seen + spread / 2) / (1 + spread)
    half = z * math.sqrt(seen * (1 - seen) / total + spread / (4 * total)) / (1 + spread)
    return [max(0.0, middle - half), min(1.0, middle + half)]


def draw(matrix: Int[np.ndarray, "class guess"], names: Sequence[str], path: Path) -> None:
    """The matrix as a picture: each row's shares, in percent; "-" in the row of a class without images."""
    shares = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(5.2, 4.8), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for (row, column), percent in np.ndenumerate(shares):
        color = "white" if percent > 55 else "#1c2127"
        text = f"{percent:.0f}" if matrix[row].any() else "-"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    places = range(len(names))
    axes.set_xticks(places, names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(places, names, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("guess")
    axes.set_ylabel("class")
    axes.set_title(f"percent of a class's images; accuracy {np.trace(matrix) / matrix.sum():.1%}", loc="left", fontsize=9)
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    main()
