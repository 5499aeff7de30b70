"""Several data sets in one run, each with its share of the examples: of one task, or of several that are all text to text."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from jaxllm.checkpoint import Direction
from jaxllm.data import TaskData, TaskDataConfig, Tokenizer, open_task_data
from jaxllm.data.example_rows import ExampleRows
from jaxllm.data.source import find_set
from jaxllm.evaluate.class_report import ClassReport
from jaxllm.evaluate.metrics import Numbers, Scores, Statistic
from jaxllm.finetune.tasks.classification import TextClassification
from jaxllm.finetune.tasks.instruction import InstructionTuning
from jaxllm.finetune.tasks.mixed_rows import SLOTS, MixedRecords, MixedRows, joined_table, mixing_rates, places_of
from jaxllm.finetune.tasks.preference import PreferenceTuning
from jaxllm.finetune.tasks.regression import Regression
from jaxllm.finetune.tasks.task import Found, Labels, Predict
from jaxllm.finetune.tasks.text_to_text import TextToText
from jaxllm.finetune.tasks.tokens import TokenClassification
from jaxllm.models import ModelConfig
from jaxllm.training import LossConfig
from jaxllm.training.loss import Loss
from jaxllm.training.objectives.objective import AnyData, AnyDataConfig, Field, Reports

Mixable = InstructionTuning | PreferenceTuning | TextToText | TextClassification | Regression | TokenClassification


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Learn from several sets at once; evaluations are over all of them that have the split, and over each by itself.

    Mixture(task=InstructionTuning(), others=("dolly_chat", "gsm8k_chat"), temperature=2.0)
    Mixture(task=TextToText(), others=("news",), prompts=("translate to English: {text}", "summarize: {text}"))
    """

    task: Mixable
    """What is learned from each set."""
    others: tuple[str, ...]
    """The sets beside `data`, named as that is; all is read as `data` says, but that `data.examples` is for `data` alone. One
    without a split of an evaluation has no part in that."""
    prompts: tuple[str, ...] | None = None
    """The `prompt` of each set, that of `data` first, where the task is TextToText: so each set can be another task. By default
    the task's own for all."""
    weights: tuple[float, ...] | None = None
    """A factor on the size of each set, that of `data` first. By default 1 for each."""
    temperature: float = 1.0
    """1 draws from each set in proportion to its size; the higher, the more alike are the shares."""
    limit: int | None = None
    """Examples that a set counts as, at most. By default as many as it has."""

    def __post_init__(self) -> None:
        if not self.others:
            raise ValueError("objective.others must name a set to mix with: got none; use the task itself as objective")
        if self.weights is not None and (len(self.weights) != 1 + len(self.others) or min(self.weights) <= 0):
            raise ValueError(
                f"objective.weights must be positive, one for `data` and one for each of objective.others: got {self.weights} "
                f"for {1 + len(self.others)} sets"
            )
        if self.prompts is not None:
            if not isinstance(self.task, TextToText) or len(self.prompts) != 1 + len(self.others):
                raise ValueError(
                    "objective.prompts are for the task TextToText, one for `data` and one for each of objective.others: got "
                    f"{len(self.prompts)} for {1 + len(self.others)} sets and {type(self.task).__name__}"
                )
            for number in range(len(self.prompts)):
                self._task_of(number)  # a prompt without its place is refused
        if not self.temperature > 0:
            raise ValueError(f"objective.temperature must be positive: got {self.temperature}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"objective.limit must be at least 1: got {self.limit}")

    def _task_of(self, number: int) -> Mixable:
        """The task as it is asked of a set."""
        if self.prompts is None:
            return self.task
        return dataclasses.replace(self.task, prompt=self.prompts[number])  # type: ignore[call-arg]

    def task_for(self, name: str, data: TaskDataConfig) -> Mixable:
        """The task as it is asked of the set with this name, alone; of one that is not among those mixed, the task itself."""
        names = (data.dataset, *self.others)
        return self._task_of(names.index(name)) if name in names else self.task

    @property
    def metrics(self) -> Mapping[str, Direction]:
        return self.task.metrics

    @property
    def reports(self) -> Reports:
        return self.task.reports

    def headed(self, model: ModelConfig) -> ModelConfig:
        return self.task.headed(model)

    def check(self, model: ModelConfig, data: AnyDataConfig, loss: LossConfig) -> None:
        self.task.check(model, data, loss)

    def labels(self, data: TaskData) -> Labels | None:
        return self.task.labels(data)

    def vocab_size(self, tokenizer: Tokenizer, data: AnyDataConfig) -> int:
        return self.task.vocab_size(tokenizer, data)

    def fields(self, data: AnyDataConfig) -> dict[str, Field]:
        return self.task.fields(data)

    def fields_for(self, model: ModelConfig, data: AnyDataConfig) -> dict[str, Field]:
        """Of texts whose names depend on the model."""
        return self.task.fields_for(model, data) if isinstance(self.task, TextToText) else self.task.fields(data)

    def tokens(self, data: AnyDataConfig) -> int:
        return self.task.tokens(data)

    def compares(self, model: Any) -> bool:
        """As the task's, where it has a reference."""
        asks = getattr(self.task, "compares", None)
        return asks is not None and asks(model)

    def make_reference(self, model: Any, config: LossConfig) -> Predict:
        return self.task.make_reference(model, config)  # type: ignore[union-attr]

    def reference_name(self, model: Any, params: Any) -> str:
        return self.task.reference_name(model, params)  # type: ignore[union-attr]

    def make_loss(self, model: Any, config: LossConfig) -> Loss:
        return self.task.make_loss(model, config)

    def make_predict(self, model: Any, config: LossConfig) -> Predict:
        return self.task.make_predict(model, config)

    def metrics_of(self, data: TaskDataConfig) -> Mapping[str, Direction]:
        """The task's metrics over all sets, and over each that is evaluated on, "films/accuracy"; those of texts that are
        written over the first."""
        sets = (data.dataset, *self.others)
        own: dict[str, Direction] = {
            f"{told}/{metric}": best
            for name, told in zip(sets, _told(sets), strict=True)
            if data.validation_split is None or find_set(name, data_dir=data.data_dir).has_split(data.validation_split)
            for metric, best in self.metrics.items()
        }
        by_data = getattr(self.task, "metrics_of", None)
        return {**(self.metrics if by_data is None else by_data(data)), **own}

    def score(self, found: Found, rows: ExampleRows, data: TaskData) -> Scores:
        whole = self.task.score(found, rows, data)
        if not isinstance(rows, MixedRows):
            return whole
        statistics, examples = dict(whole.statistics), np.unique(found["items"])
        for set_name, (begin, end) in zip(rows.names, rows.chosen, strict=True):
            there, mine = ((items >= begin) & (items < end) for items in (found["items"], examples))
            if not mine.any():
                continue  # an evaluation that ends before
            part = self.task.score({name: values[there] for name, values in found.items()}, rows, data)
            for name, statistic in part.statistics.items():
                statistics[f"{set_name}/{name}"] = _of_part(statistic, mine)
        return Scores(whole.count, statistics)

    def report(self, found: Found, rows: ExampleRows, data: TaskData) -> ClassReport | None:
        """Where the task has one."""
        report = getattr(self.task, "report", None)
        return None if report is None else report(found, rows, data)

    def show(self, found: Found, rows: ExampleRows, data: TaskData) -> str:
        return self.task.show(found, rows, data)

    def write(self, model: Any, params: Any, rows: Any, data: TaskData, *, examples: int = 100) -> Any:
        """As the task's, for the first texts of the first set, where it writes."""
        mixed = isinstance(rows.records, MixedRecords)
        alone = dataclasses.replace(rows, records=rows.records.parts[0]) if mixed else rows
        return self._task_of(0).write(model, params, alone, data, examples=examples)  # type: ignore[union-attr]

    def rows(self, data: AnyData, model: ModelConfig, split: str, *, seed: int | None) -> ExampleRows:
        assert isinstance(data, TaskData)
        own = self._task_of(0).rows(data, model, split, seed=seed)
        sets = (data.config.dataset, *self.others)
        told = _told(sets)
        rows, names = [own], [told[0]]
        for number, name in enumerate(self.others, 1):
            config = dataclasses.replace(data.config, dataset=name, examples=None, validation_split=None, test_split=None)
            opened = open_task_data(config, seed=data.seed, tokenizer=data.tokenizer)
            if seed is None and not opened.has_split(split):
                continue
            if self.task.labels(opened) != self.task.labels(data):
                raise ValueError(
                    f"the sets of a mixture must have the same labels: {name} has others than {data.config.dataset}"
                )
            rows.append(self._task_of(number).rows(opened, model, split, seed=seed))
            names.append(told[number])
        sizes = [each.rows_per_epoch for each in rows]
        places = () if seed is None else self._places(sizes)
        records = [each.records for each in rows]
        table = joined_table([each.table for each in rows], [len(each) for each in records])
        ends = np.cumsum([len(each.table) for each in rows]).tolist()
        chosen = tuple(zip([0, *ends[:-1]], ends, strict=True))
        return MixedRows(
            table,
            MixedRecords.of(records),
            own.row_len,
            own.packed,
            seed,
            own.drop_cut,
            _class_weights([each.class_weights for each in rows], places),
            chosen,
            places,
            tuple(names),
        )

    def _places(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Of each set in a block."""
        rates = mixing_rates(sizes, self.weights or [1.0] * len(sizes), self.temperature, self.limit)
        return tuple(places_of(rates).tolist())


def _told(sets: Sequence[str]) -> list[str]:
    """What sets are called: their own names, numbered from the second that has the same."""
    names = [Path(name).name for name in sets]
    return [f"{name}-{1 + names[:k].count(name)}" if name in names[:k] else name for k, name in enumerate(names)]


def _class_weights(of_sets: Sequence[tuple[float, ...] | None], places: Sequence[int]) -> tuple[float, ...] | None:
    """Of the sets' examples as they are drawn: a balanced weight is 1 / (classes · share of the class), and shares add up."""
    if len(set(of_sets)) == 1:
        return of_sets[0]
    shares = np.sum([count / SLOTS / np.array(weights) for count, weights in zip(places, of_sets, strict=True)], axis=0)
    return tuple((1 / shares).tolist())


def _of_part(statistic: Statistic, mine: Bool[np.ndarray, " n"]) -> Statistic:
    """The statistic of the examples of one set as a function of numbers of the examples of all."""
    place = np.cumsum(mine) - 1

    def of_all(numbers: Numbers) -> float:
        drawn = numbers[mine[numbers]]
        return statistic(place[drawn if len(drawn) else np.flatnonzero(mine)])

    return of_all
