"""Fine-tunes with transformers' Trainer, and peft where there is an adapter, from a start and on batches that are given.

    python scripts/oracle/trainer_fit.py FOLDER            # a Python with torch, transformers and peft
    python scripts/oracle/trainer_fit.py FOLDER --serve    # to be timed in turn: see scripts/benchmark/turns.py

FOLDER holds start/, the model with its head and its tokenizer; adapter/ perhaps, of peft, to go on with; settings.json, with
`kind` (sequence, tokens, span), `labels` (their number; 1 for a score) and the optimizer's settings; train.npz, the examples in
the order in which they are trained on, and test.npz: `tokens` and `token_types` end to end, `offsets` where each example begins
and the last one ends, and `labels` (one an example, or one a token, -100 for none) or `starts` and `ends`.
Writes found.npz: `loss` of each step, and for each test example `logits` (tokens: end to end, of those that have a label; span:
[examples, longest, 2]), and found.json with the seconds of training and the peak of resident memory.
"""
# pyright: reportMissingImports=false

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import Dataset, SequentialSampler

CLASSES = {"sequence": "AutoModelForSequenceClassification", "tokens": "AutoModelForTokenClassification",
           "span": "AutoModelForQuestionAnswering"}  # fmt: skip
TEST_BATCH = 64
WARM_STEPS = 5


class Examples(Dataset):
    """The examples of a file, as a tokenizer gives them."""

    def __init__(self, path: Path):
        with np.load(path) as stored:
            self.arrays = {name: stored[name] for name in stored.files}

    def __len__(self) -> int:
        return len(self.arrays["offsets"]) - 1

    def __getitem__(self, number: int) -> dict[str, Any]:
        arrays, (begin, end) = self.arrays, self.arrays["offsets"][number : number + 2]
        found = {"input_ids": arrays["tokens"][begin:end].tolist(), "attention_mask": [1] * int(end - begin)}
        if "token_types" in arrays:
            found["token_type_ids"] = arrays["token_types"][begin:end].tolist()
        if "starts" in arrays:
            return found | {"start_positions": int(arrays["starts"][number]), "end_positions": int(arrays["ends"][number])}
        labels = arrays["labels"]
        by_token = len(labels) == len(arrays["tokens"])
        return found | {"labels": labels[begin:end].tolist() if by_token else labels[number].item()}


class InOrder(transformers.Trainer):
    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any) -> Any:
        """The model's own, but for spans: there the model lets padding take part, so that the loss depends on the batch."""
        if "start_positions" not in inputs:
            return super().compute_loss(model, inputs, return_outputs, **kwargs)
        places = inputs.pop("start_positions"), inputs.pop("end_positions")
        output = for_spans(model)(**inputs)
        padding = inputs["attention_mask"] == 0
        sides = [logits.masked_fill(padding, float("-inf")) for logits in (output.start_logits, output.end_logits)]
        loss = sum(torch.nn.functional.cross_entropy(side, place) for side, place in zip(sides, places, strict=True)) / 2
        return (loss, output) if return_outputs else loss


def for_spans(model: Any) -> Any:
    """What is called where spans are looked for: peft's class for them does not pass the token types on."""
    return model.base_model if hasattr(model, "peft_config") else model


class Turns(transformers.TrainerCallback):
    """The worker's side of turns.py: stops between steps until it is told how many to take."""

    def __init__(self) -> None:
        self.left, self.count, self.begin = WARM_STEPS, 0, 0.0

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.left -= 1
        if self.left:
            return
        print((time.perf_counter() - self.begin) / self.count if self.count else "ready", flush=True)
        line = sys.stdin.readline()
        if not line:
            sys.exit()
        self.count = self.left = int(line)
        self.begin = time.perf_counter()


def build(folder: Path, settings: dict[str, Any]) -> Any:
    """The model as it begins."""
    dropped: dict[str, Any] = {}
    if settings["dropout"] is not None:
        dropped = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), settings["dropout"])
    if settings["kind"] != "span":
        dropped["num_labels"] = settings["labels"]
    if settings["labels"] == 1:
        dropped["problem_type"] = "regression"
    model = getattr(transformers, CLASSES[settings["kind"]]).from_pretrained(folder / "start", dtype=torch.float32, **dropped)
    if not (folder / "adapter").is_dir():
        return model
    import peft

    return peft.PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True)


def make_trainer(folder: Path, settings: dict[str, Any], serve: bool) -> transformers.Trainer:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "start")
    collators = {"tokens": transformers.DataCollatorForTokenClassification}
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "out"),
        max_steps=10**6 if serve else settings["steps"],
        per_device_train_batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        warmup_steps=settings["warmup_steps"],
        lr_scheduler_type="linear",
        adam_beta1=settings["b1"],
        adam_beta2=settings["b2"],
        adam_epsilon=settings["epsilon"],
        weight_decay=settings["weight_decay"],
        max_grad_norm=settings["clip_norm"],
        logging_steps=500 if serve else 1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        seed=settings["seed"],
    )
    return InOrder(
        model=build(folder, settings),
        args=arguments,
        train_dataset=Examples(folder / "train.npz"),
        data_collator=collators.get(settings["kind"], transformers.DataCollatorWithPadding)(tokenizer),
        callbacks=[Turns()] if serve else [],
    )


@torch.no_grad()
def predict(trainer: Any, kind: str, test: Examples) -> np.ndarray:
    model: Any = trainer.model
    model = for_spans(model.eval()) if kind == "span" else model.eval()
    longest = int(np.diff(test.arrays["offsets"]).max())
    found = []
    for begin in range(0, len(test), TEST_BATCH):
        batch = trainer.data_collator([test[number] for number in range(begin, min(begin + TEST_BATCH, len(test)))])
        inputs = {name: x for name, x in batch.items() if name not in ("labels", "start_positions", "end_positions")}
        output = model(**inputs)
        if kind == "span":
            logits = torch.stack([output.start_logits, output.end_logits], dim=-1)
            found.append(torch.nn.functional.pad(logits, (0, 0, 0, longest - logits.shape[1])))
        else:
            found.append(output.logits if kind == "sequence" else output.logits[batch["labels"] != -100])
    return torch.cat(found).numpy()


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tuning by transformers' Trainer.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--serve", action="store_true", help="take steps when asked, for timing")
    args = parser.parse_args()
    settings = json.loads((args.folder / "settings.json").read_text())
    trainer = make_trainer(args.folder, settings, args.serve)
    if not args.serve:
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    begin = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - begin
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    logits = predict(trainer, settings["kind"], Examples(args.folder / "test.npz"))
    np.savez(args.folder / "found.npz", loss=np.array(losses), logits=logits)
    model: Any = trainer.model
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    report = {"train_seconds": seconds, "peak_bytes": peak_bytes(), "learning": learning}
    (args.folder / "found.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
