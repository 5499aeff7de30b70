"""Preference tuning: of two answers to a prompt, make the chosen one likelier and the rejected one less so.

    PreferenceTuning(beta=0.1)                  # direct preference optimization (DPO)
    PreferenceTuning(kind="orpo", beta=0.1)     # without a reference

DPO and its kin compare with a reference: the model before it learned. Under a method that adds parameters and leaves the
others alone, that is the same model without them, computed in the same step. Where the model itself learns, `referenced`
computes what the reference says of the data once, and the rows bring it along.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxllm.checkpoint import Direction
from jaxllm.data import TaskData, eval_batches
from jaxllm.data.example_rows import ExampleRows
from jaxllm.data.example_table import Item
from jaxllm.evaluate.metrics import Scores, mean_of
from jaxllm.finetune.adapted import unadapted
from jaxllm.finetune.tasks.instruction import EncodeTurns, asked, conversation
from jaxllm.finetune.tasks.language import check_decoder, next_tokens
from jaxllm.finetune.tasks.preference_loss import Answers, Kind, preferences
from jaxllm.finetune.tasks.reference import REFERENCE, model_without, params_fingerprint, what_changes, with_reference
from jaxllm.finetune.tasks.target_probs import target_probs
from jaxllm.finetune.tasks.task import (
    Found,
    Predict,
    TaskDefaults,
    check_loss,
    open_rows,
    record_of,
    run_stack,
    task_data,
)
from jaxllm.finetune.tasks.turns import Template, encode_turns, template_of
from jaxllm.finetune.tasks.written import SHOWN
from jaxllm.models import Model, ModelConfig, Transformer, unembed_parts
from jaxllm.training import LossConfig, LossSums
from jaxllm.training.loss import Batch as DeviceBatch
from jaxllm.training.loss import Loss
from jaxllm.training.objectives.objective import AnyData, AnyDataConfig, Field, Reports

OTHER = "rejected_"
"""Names of the rejected answer's arrays begin with this; those of the chosen one's have nothing before."""
ARRAYS = ("tokens", "targets", "loss_weights", "positions", "segment_ids")


@dataclass(frozen=True)
class EncodePair(EncodeTurns):
    """A record as one item: the prompt with either answer."""

    def __call__(self, record: dict[str, Any]) -> list[Item]:
        prompt, tools = conversation(record)
        items = []
        for name, prefix in (("chosen", ""), ("rejected", OTHER)):
            messages = [*prompt, *json.loads(record[name])]
            ids, said = encode_turns(self.tokenizer, messages, tools, self.template, len(prompt))
            items.append(next_tokens(ids, said, self.limit, prefix))
        arrays = items[0].arrays | items[1].arrays
        if not all(arrays[f"{prefix}loss_weights"].any() for prefix in ("", OTHER)):
            return []  # nothing of an answer is left
        return [Item(arrays, items[0].cut or items[1].cut)]


@dataclass(frozen=True, kw_only=True)
class PreferenceTuning(TaskDefaults):
    """Prefer the chosen answer to the rejected one; the loss is the mean over the pairs of a batch."""

    reports: ClassVar[Reports] = Reports(unit="examples", perplexity=False, accuracy=True)
    metrics: ClassVar[Mapping[str, Direction]] = {
        "accuracy": "highest", "rewards/margins": "highest", "rewards/chosen": "highest", "rewards/rejected": "lowest",
    }  # fmt: skip

    kind: Kind = "sigmoid"
    """The loss: sigmoid (DPO), hinge, ipo, or orpo, which needs no reference."""
    beta: float = 0.1
    """How dear it is to leave the reference; for ipo 1 / (2 · the margin to reach), for orpo the weight of the odds."""
    label_smoothing: float = 0.0
    """For sigmoid: the probability that a preference is wrong (conservative DPO)."""
    learn_prompt: bool = False
    """For orpo: whether the likelihood that is learned is that of the prompt, too."""
    template: Template | None = None
    """How a conversation becomes a text, as in InstructionTuning."""

    def __post_init__(self) -> None:
        if self.kind not in ("sigmoid", "hinge", "ipo", "orpo"):
            raise ValueError(f"objective.kind must be sigmoid, hinge, ipo or orpo: got {self.kind!r}")
        if not self.beta > 0:
            raise ValueError(f"objective.beta must be positive: got {self.beta}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"objective.label_smoothing must be in [0, 0.5): got {self.label_smoothing}")
        for name, kind in (("label_smoothing", "sigmoid"), ("learn_prompt", "orpo")):
            if getattr(self, name) and self.kind != kind:
                raise ValueError(f"objective.{name} is for kind={kind!r}: got kind={self.kind!r}; leave it out")

    def check(self, model: ModelConfig, data: AnyDataConfig, loss: LossConfig) -> None:
        check_decoder("PreferenceTuning", model, data, loss)
        check_loss("PreferenceTuning", loss, "z_loss", "label_smoothing")

    def fields(self, data: AnyDataConfig) -> dict[str, Field]:
        shape = (task_data("PreferenceTuning", data).seq_len,)
        kinds = {name: np.float32 if name == "loss_weights" else np.int32 for name in ARRAYS}
        return {f"{prefix}{name}": Field(shape, kind) for prefix in ("", OTHER) for name, kind in kinds.items()}

    def compares(self, model: Any) -> bool:
        """Whether the rows must bring the reference along: it cannot be had by leaving the model's method out."""
        return self.kind != "orpo" and what_changes(model) is not None

    def rows(self, data: AnyData, model: ModelConfig, split: str, *, seed: int | None) -> ExampleRows:
        assert isinstance(data, TaskData)
        for name in ("messages", "chosen", "rejected"):
            data.require(name, "data.dataset, one built with --task preference")
        encode = EncodePair(data.tokenizer, data.config.seq_len, template_of(data.tokenizer, self.template))
        return open_rows(data, split, encode, packed=False, seed=seed)

    def make_loss(self, model: Any, config: LossConfig) -> Loss:
        judge = self._make_judge(model, config)

        def loss(params: Any, batch: DeviceBatch, dropout_key: Array | None) -> LossSums:
            return judge(params, batch, dropout_key)[0]

        return loss

    def make_predict(self, model: Any, config: LossConfig) -> Predict:
        judge = self._make_judge(model, config)

        def predict(params: Any, batch: DeviceBatch) -> tuple[LossSums, dict[str, Array]]:
            sums, rewards = judge(params, batch, None)
            return sums, {"items": jnp.max(batch["items"], axis=1), "rewards": rewards}

        return predict

    def _make_judge(self, model: Any, config: LossConfig) -> Any:
        """`judge(params, batch, dropout_key) -> (LossSums, rewards [B, 2])`."""
        assert isinstance(model, Transformer)

        def judge(params: Any, batch: DeviceBatch, dropout_key: Array | None) -> tuple[LossSums, Array]:
            answers, likelihood, finish = read_answers(model, params, batch, dropout_key, config.chunk, self.learn_prompt)
            reference = None if self.kind == "orpo" else self._reference(model, params, batch, config)
            losses, rewards = preferences(self.kind, self.beta, self.label_smoothing, answers, reference)
            if self.kind == "orpo":
                losses = losses - likelihood
            weights = jnp.all(answers.tokens > 0, axis=1).astype(jnp.float32)  # 0 for rows of padding
            loss = jnp.sum(weights * losses)
            right = jnp.sum(weights * (rewards[:, 0] > rewards[:, 1]))
            return finish(LossSums(loss, jnp.zeros_like(loss), jnp.sum(weights), right, loss)), rewards

        return judge

    def _reference(self, model: Transformer, params: Any, batch: DeviceBatch, config: LossConfig) -> Float[Array, "B 2"]:
        if REFERENCE in batch:
            return batch[REFERENCE]
        params = jax.lax.stop_gradient(params)
        return read_answers(model_without(model), params, batch, None, config.chunk, False)[0].log_probs

    def make_reference(self, model: Any, config: LossConfig) -> Predict:
        """What the model without its method says of the answers, as `reference`; the sums hold the number of pairs only."""
        plain = unadapted(model)

        def predict(params: Any, batch: DeviceBatch) -> tuple[LossSums, dict[str, Array]]:
            answers = read_answers(plain, params, batch, None, config.chunk, False)[0]
            pairs = jnp.sum(jnp.all(answers.tokens > 0, axis=1).astype(jnp.float32))
            found = {"items": jnp.max(batch["items"], axis=1), REFERENCE: answers.log_probs}
            return LossSums.zeros()._replace(weight=pairs), found

        return predict

    def reference_name(self, model: Any, params: Any) -> str:
        """The same exactly when the reference says the same."""
        plain = unadapted(model)
        return f"{plain.config!r} {params_fingerprint(plain, params)}"

    def referenced(self, rows: ExampleRows, model: Any, params: Any, config: LossConfig, *, batch_size: int = 8) -> ExampleRows:
        """The same examples with what the model says of them as it is now; computed once, then kept on disk.

        Args:
          params: the model's before it learns, those of a method among them or not.
        """
        read = jax.jit(self.make_reference(model, config))

        def compute() -> Float[np.ndarray, "items 2"]:
            values = np.zeros((len(rows.table), 2), np.float32)
            for batch in eval_batches(rows, batch_size=batch_size):
                found = jax.device_get(read(params, batch)[1])
                there = found["items"] > 0
                values[found["items"][there] - 1] = found[REFERENCE][there]
            return values

        return with_reference(rows, self.reference_name(model, params), compute)

    def score(self, found: Found, rows: ExampleRows, data: TaskData) -> Scores:
        chosen, rejected = found["rewards"].astype(np.float64).T
        statistics = {
            "accuracy": mean_of(chosen > rejected),
            "rewards/margins": mean_of(chosen - rejected),
            "rewards/chosen": mean_of(chosen),
            "rewards/rejected": mean_of(rejected),
        }
        return Scores(len(chosen), statistics)

    def show(self, found: Found, rows: ExampleRows, data: TaskData) -> str:
        """The first prompts, each with the rewards of its two answers."""
        lines = []
        for item, (chosen, rejected) in zip(found["items"][:SHOWN], found["rewards"], strict=False):
            messages, _ = conversation(record_of(rows, int(item)))
            lines.append(f"[{chosen:+.3f} {rejected:+.3f}] {' '.join(asked([*messages, {}]).split())[:200]}")
        return "\n".join(lines)


def read_answers(
    model: Model, params: Any, batch: DeviceBatch, dropout_key: Array | None, chunk: int | None, whole: bool
) -> tuple[Answers, Float[Array, " B"], Any]:
    """What the model gives both answers of each pair, the mean log-probability of a token of the chosen one, and what adds the
    losses of routers.

    Args:
      whole: count the prompt's tokens in that mean, too.
    """
    assert isinstance(model, Transformer)
    pairs = batch["tokens"].shape[0]
    both = {  # the two beside each other, so that no row leaves its device
        name: jnp.stack([batch[name], batch[f"{OTHER}{name}"]], axis=1).reshape(2 * pairs, -1) for name in ARRAYS
    }
    hidden, finish = run_stack(model, params, both, dropout_key)
    parts = unembed_parts(model.config, params)
    log_probs = target_probs(model.config, parts, hidden, both["targets"], chunk).log_probs
    weights = both["loss_weights"]
    sums = jnp.sum(weights * log_probs, axis=1).reshape(pairs, 2)
    counts = jnp.sum(weights, axis=1).reshape(pairs, 2)
    learned = (both["segment_ids"] > 0).astype(jnp.float32) if whole else weights
    mean = jnp.sum(learned * log_probs, axis=1) / jnp.maximum(jnp.sum(learned, axis=1), 1)
    return Answers(sums, counts), mean.reshape(pairs, 2)[:, 0], finish
