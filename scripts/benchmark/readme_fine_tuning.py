"""The README's blocks about fine-tuning: MiniLM beside transformers' Trainer, and the methods beside each other."""

from typing import Any

from method_comparison import table
from record import newest_record

NAMES = {
    "sst2": "SST-2",
    "mr": "MR",
    "ag_news": "AG News",
    "mrpc": "MRPC",
    "cola": "CoLA",
    "stsb": "STS-B",
    "wnut17": "WNUT-17",
    "conll2000": "CoNLL-2000",
    "chnsenticorp": "ChnSentiCorp",
    "squad2": "SQuAD 2",
}
ALONE = ("adalora", "bottleneck", "prefix")
"""Methods that are run here only."""
BASES = {"minilm": "MiniLM (22 M parameters)", "smollm2": "SmolLM2-135M-Instruct", "vit": "a ViT of 0.8 M parameters"}


def fine_tuning() -> str:
    """Test metrics here and there, by set, and how fast."""
    parity, speed = newest_record("trainer_parity", "minilm"), newest_record("trainer_speed", "minilm")
    return "\n\n".join(part for part in (_parity(parity), _speed(speed)) if part) or "No record yet."


def tuned(recipe: str) -> str | None:
    """What a recipe of MiniLM or SmolLM2 on labels has shown; None where that is not known."""
    record = newest_record("method_comparison", "smollm2")
    if recipe == "smollm2_sst2" and record is not None:
        found, steps, batch = record["results"]["methods"]["lora"], record["config"]["steps"], record["config"]["batch_size"]
        mean, deviation = 100 * found["accuracy_mean"], 100 * found["accuracy_deviation"]
        texts = record["config"]["data"]["test_split"].partition(":")[2].rstrip("]")
        return f"accuracy {mean:.1f} ± {deviation:.1f} on {texts} test texts after {steps} steps of {batch}"
    record = newest_record("trainer_parity", "minilm")
    if record is None:
        return None
    for run in record["results"]["runs"]:
        if f"minilm_{run['set']}" == recipe and run["method"] == "full":
            value, low, high = (100 * number for number in run["ours"][run["metric"]])
            examples, steps = run["examples"], record["config"][run["set"]]["steps"]
            found = f"{run['metric']} {value:.1f} ({low:.1f} to {high:.1f})"
            return f"{found} on {examples:,} test examples after {steps} steps{_nothing_learned(run)}"
    return None


def _parity(record: dict[str, Any] | None) -> str:
    if record is None:
        return ""
    runs = {(run["set"], run["method"]): run for run in record["results"]["runs"] if run["seed"] == 0}
    alone = [method for method in ALONE if any(method == other for _, other in runs)]
    head = ["set", "test metric", "full, jaxllm / Trainer", "LoRA, jaxllm / Trainer + peft", *alone]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, shown in NAMES.items():
        there = [runs.get((name, method)) for method in ("full", "lora", *alone)]
        if there[0] is not None:
            lines.append(f"| {' | '.join([shown, there[0]['metric'], *map(_cell, there)])} |")
    apart = record["results"]["largest_difference_points"]
    by_set = {shown: record["config"][name]["steps"] for name, shown in NAMES.items() if (name, "full") in runs}
    usual = min(by_set.values())
    more = "".join(f" ({shown} {steps})" for shown, steps in by_set.items() if steps != usual)
    told = (
        f"MiniLM, {usual} steps{more} without dropout, one seed, the same data, order and rates on both sides, rates not "
        f"tuned, LoRA of query and value; the two differ by {apart:.3f} points at most:"
    )
    return "\n".join([told, "", *lines])


def _cell(run: dict[str, Any] | None) -> str:
    if run is None:
        return ""
    values = [run[side][run["metric"]][0] for side in ("ours", "theirs") if side in run]
    return " / ".join(f"{100 * value:.1f}" for value in values) + _nothing_learned(run)


def _nothing_learned(run: dict[str, Any]) -> str:
    if run["ours"].get("matthews", [1.0])[0] == 0.0:
        return " (one class for all)"
    return " (no answer for all)" if run["set"] == "squad2" and run["ours"]["f1"] == run["ours"]["exact_match"] else ""


def _speed(record: dict[str, Any] | None) -> str:
    if record is None:
        return ""
    told = []
    for name, found in record["results"].items():
        data, _, method = name.rpartition("_")
        times, ours, theirs = found["times_as_fast"], found["jaxllm_peak_bytes"] / 1e9, found["trainer_peak_bytes"] / 1e9
        told.append(f"{NAMES[data]} {method}: {times['median']:.2f} times its samples/s, {ours:.2f} of its {theirs:.2f} GB")
    where = record["environment"]
    return f"Beside transformers' Trainer (+ peft), in turn on {where['cores']} CPU cores, median of rounds: {'; '.join(told)}."


def methods() -> str:
    """Every method on the same data, by base."""
    parts = []
    for base, what in BASES.items():
        record = newest_record("method_comparison", base)
        if record is not None:
            parts.append(f"{what}, {_data(record)}:\n\n{table(record['results'])}")
    return "\n\n".join(parts)


def _data(record: dict[str, Any]) -> str:
    config, runs = record["config"], [method["accuracy_by_seed"] for method in record["results"]["methods"].values()]
    wide = 50 * max(seed["high"] - seed["low"] for seeds in runs for seed in seeds)
    cores = record["environment"]["cores"] // record["results"]["jobs"]
    few = "" if config["data"].get("examples") is None else f" of {config['data']['examples']:,}"
    shared = (
        ", with other work on the machine, so that its times are no measurement" if record["results"]["shared_machine"] else ""
    )
    rates = "rates chosen on validation examples" if record["results"]["tuning"] else "rates by default"
    return (
        f"{cores} CPU core{'s' if cores > 1 else ''} a run{shared}, {config['steps']} steps of {config['batch_size']} examples"
        f"{few} of `{config['data']['dataset']}`, LoRA and VeRA of all linear layers, {rates}, mean and deviation of "
        f"{min(map(len, runs))} seeds; with these test examples one run is known to ± {wide:.0f} points"
    )
