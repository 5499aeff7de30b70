"""Several data sets in one run: which set each position of the stream is from, and which example of it.

Position p is in block p // SLOTS, and each block has the same number of places for a set, in an order of its own. So both
follow from the seed and p alone, and the places of a set count its own positions without gaps: each of its examples comes
once before any comes again.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from jaxllm.data import TaskData, TaskDataConfig, Tokenizer, open_task_data
from jaxllm.data.example_rows import ExampleRows
from jaxllm.data.example_table import ExampleTable
from jaxllm.data.shuffle import keys_of, permute
from jaxllm.data.task_data import Records
from jaxllm.data.whole import write_whole
from jaxllm.evaluate.class_report import ClassReport
from jaxllm.evaluate.metrics import Numbers, Scores, Statistic
from jaxllm.finetune.tasks.classification import TextClassification
from jaxllm.finetune.tasks.instruction import InstructionTuning
from jaxllm.finetune.tasks.preference import PreferenceTuning
from jaxllm.finetune.tasks.regression import Regression
from jaxllm.finetune.tasks.task import Best, Found, Labels, Predict
from jaxllm.finetune.tasks.text_rows import TextRows
from jaxllm.finetune.tasks.text_to_text import TextToText
from jaxllm.finetune.tasks.tokens import TokenClassification
from jaxllm.hardware import cache_dir
from jaxllm.models import ModelConfig
from jaxllm.training import LossConfig
from jaxllm.training.loss import Loss
from jaxllm.training.objectives.objective import AnyData, AnyDataConfig, Field, Reports

Mixable = InstructionTuning | PreferenceTuning | TextToText | TextClassification | Regression | TokenClassification
SLOTS = 1024
"""Places of a block: the finest share of a set is 1 / SLOTS."""


def mixing_rates(
    sizes: Sequence[int], weights: Sequence[float], temperature: float, limit: int | None
) -> Float[np.ndarray, " sets"]:
    """The share of each set: (weight · min(size, limit)) ** (1 / temperature) over their sum (arXiv:1910.10683, 3.5.2)."""
    counted = np.array(weights, np.float64) * np.minimum(sizes, np.inf if limit is None else limit)
    raised = counted ** (1 / temperature)
    return raised / raised.sum()


def places_of(rates: Float[np.ndarray, " sets"]) -> Int64[np.ndarray, " sets"]:
    """Places of each set in a block: those nearest to its share, and one at least."""
    places = np.maximum(np.floor(rates * SLOTS).astype(np.int64), 1)
    short = SLOTS - int(places.sum())
    if short > 0:
        places[np.argsort(places - rates * SLOTS, kind="stable")[:short]] += 1
    while places.sum() > SLOTS:
        places[np.argmax(places)] -= 1
    return places


def mixed_positions(
    positions: Int64[np.ndarray, " N"], places: Int64[np.ndarray, " sets"], seed: int
) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
    """The set of each position, and the position in that set's own stream."""
    blocks, offsets = np.divmod(positions, SLOTS)
    ends = np.cumsum(places)
    sets, inside = np.empty_like(blocks), np.empty_like(blocks)
    for block in np.unique(blocks):  # a batch is in one, or in a few
        order = permute(np.arange(SLOTS), SLOTS, keys_of(seed, np.full(SLOTS, block, np.int64)))
        whole = np.searchsorted(ends, order, side="right")
        before = np.empty(SLOTS, np.int64)
        for k, count in enumerate(places):
            before[whole == k] = np.arange(count)
        here = blocks == block
        sets[here] = whole[offsets[here]]
        inside[here] = block * places[sets[here]] + before[offsets[here]]
    return sets, inside


@dataclass(frozen=True)
class MixedRecords(Records):
    """The records of several sets, one set behind the other; folder and split are the first one's."""

    parts: tuple[Records, ...] = ()

    @classmethod
    def of(cls, parts: Sequence[Records]) -> "MixedRecords":
        return cls(parts[0].folder, parts[0].split, None, tuple(parts))

    def __reduce__(self) -> tuple[Any, ...]:
        return MixedRecords.of, (self.parts,)

    @cached_property
    def fingerprint(self) -> str:
        return hashlib.sha256(" ".join(part.fingerprint for part in self.parts).encode()).hexdigest()

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for part in self.parts:
            yield from part

    def __getitem__(self, number: int) -> dict[str, Any]:
        part, place = self._find(number)
        return part[place]

    def describe(self, number: int) -> str:
        """The set and the place in it."""
        part, place = self._find(number)
        return f"{part.folder.parent.name} {part.describe(place)}"

    def _find(self, number: int) -> tuple[Records, int]:
        for part in self.parts:
            if number < len(part):
                return part, number
            number -= len(part)
        raise IndexError(f"there are {len(self)} records: got one behind them")


@dataclass(frozen=True)
class MixedRows(TextRows):
    """Items of several sets by global position, each set with its share."""

    chosen: tuple[tuple[int, ...], ...] = ()
    """Of each set, where its items begin in the table, and where they end."""
    places: tuple[int, ...] = ()
    """Places of each set in a block; for training."""
    names: tuple[str, ...] = ()
    """What the sets are called."""

    @cached_property
    def _sets(self) -> list[Int64[np.ndarray, " items"]]:
        """The items of each set that are trained on."""
        whole = ~self.table.cut if self.drop_cut and self.seed is not None else np.ones(len(self.table), bool)
        found = [begin + np.flatnonzero(whole[begin:end]) for begin, end in self.chosen]
        if not all(len(items) for items in found):
            raise ValueError(f"each set of a mixture must have an example within data.seq_len={self.row_len} tokens")
        return found

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{super().fingerprint} {self.chosen} {self.places}".encode()).hexdigest()[:24]

    def _numbers(self, positions: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
        if self.seed is None:
            return super()._numbers(positions)
        sets, inside = mixed_positions(positions, np.array(self.places, np.int64), self.seed)
        numbers = np.empty(len(positions), np.int64)
        for k, items in enumerate(self._sets):
            here = sets == k
            epochs, index = np.divmod(inside[here], len(items))
            numbers[here] = items[permute(index, len(items), keys_of(self.seed + 1 + k, epochs))]
        return numbers


def joined_table(tables: Sequence[ExampleTable], lengths: Sequence[int]) -> ExampleTable:
    """The items of several tables as one; kept on disk.

    Args:
      lengths: records of each set, so that the records of the joined table can be told from each other.
    """
    names = [[*sum((table.by_token(text) for text in table.texts), []), *table.by_item] for table in tables]
    if any(sorted(other) != sorted(names[0]) for other in names):
        raise ValueError(f"the sets of a mixture must give the same arrays: got {names}")
    key = hashlib.sha256(" ".join(["mixture", *(table.fingerprint for table in tables), *map(str, lengths)]).encode())
    folder = cache_dir() / "examples" / key.hexdigest()[:24]
    if not folder.is_dir():
        write_whole(folder, lambda work: _join(tables, lengths, names[0], key.hexdigest()[:24], work))
    return ExampleTable(folder)


def _join(tables: Sequence[ExampleTable], lengths: Sequence[int], names: list[str], fingerprint: str, folder: Path) -> None:
    for name in [*names, "cut"]:
        np.save(folder / f"{name}.npy", np.concatenate([table.array(name) for table in tables]))
    for text in tables[0].texts:
        inside = np.concatenate([table.lengths(text) for table in tables])
        np.save(folder / f"{text}offsets.npy", np.concatenate([[0], np.cumsum(inside)]).astype(np.int64))
    begins = np.cumsum([0, *lengths[:-1]])
    records = [table.records + begin for table, begin in zip(tables, begins, strict=True)]
    np.save(folder / "record.npy", np.concatenate(records))
    by_token = [name for name in names if name not in tables[0].by_item]
    by_token.sort(key=lambda name: name != "tokens")
    meta = {"by_token": by_token, "by_item": tables[0].by_item, "records": int(sum(lengths)), "fingerprint": fingerprint}
    (folder / "meta.json").write_text(json.dumps(meta, indent=1), "utf-8")


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Learn a task from several sets at once; evaluations are over all of them that have the split, and over each by itself.

    Mixture(task=InstructionTuning(), others=("dolly_chat", "gsm8k_chat"), temperature=2.0)
    """

    task: Mixable
    """What is learned from each set."""
    others: tuple[str, ...]
    """The sets beside `data`, named as that is; all is read as `data` says, but that `data.examples` is for `data` alone. One
    without a split of an evaluation has no part in that."""
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
        if not self.temperature > 0:
            raise ValueError(f"objective.temperature must be positive: got {self.temperature}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"objective.limit must be at least 1: got {self.limit}")

    @property
    def metrics(self) -> Mapping[str, Best]:
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

    def metrics_of(self, data: TaskDataConfig) -> Mapping[str, Best]:
        """The task's metrics over all sets, and over each by itself: "films/accuracy"."""
        sets = (data.dataset, *self.others)
        own: dict[str, Best] = {f"{Path(name).name}/{metric}": best for name in sets for metric, best in self.metrics.items()}
        return {**self.metrics, **own}

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

    def rows(self, data: AnyData, model: ModelConfig, split: str, *, seed: int | None) -> ExampleRows:
        assert isinstance(data, TaskData)
        own = self.task.rows(data, model, split, seed=seed)
        rows, names = [own], [data.config.dataset]
        for name in self.others:
            config = dataclasses.replace(data.config, dataset=name, examples=None)
            opened = open_task_data(config, seed=data.seed, tokenizer=data.tokenizer)
            if seed is None and not opened.has_split(split):
                continue
            if self.task.labels(opened) != self.task.labels(data):
                raise ValueError(
                    f"the sets of a mixture must have the same labels: {name} has others than {data.config.dataset}"
                )
            rows.append(self.task.rows(opened, model, split, seed=seed))
            names.append(name)
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
            own.class_weights,
            chosen,
            places,
            tuple(Path(name).name for name in names),
        )

    def _places(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Of each set in a block."""
        rates = mixing_rates(sizes, self.weights or [1.0] * len(sizes), self.temperature, self.limit)
        return tuple(places_of(rates).tolist())


def _of_part(statistic: Statistic, mine: Bool[np.ndarray, " n"]) -> Statistic:
    """The statistic of the examples of one set as a function of numbers of the examples of all."""
    place = np.cumsum(mine) - 1

    def of_all(numbers: Numbers) -> float:
        drawn = numbers[mine[numbers]]
        return statistic(place[drawn if len(drawn) else np.flatnonzero(mine)])

    return of_all
