"""Prints the README's numbers from the records in results/: every block between <!-- name --> and <!-- /name -->.

python scripts/benchmark/readme_tables.py          # writes README.md
python scripts/benchmark/readme_tables.py --check  # says whether README.md is as the records say
"""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from readme_fine_tuning import fine_tuning, methods, tuned
from record import newest_record

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def result() -> str:
    run, plain = newest_record("run", "shakespeare_char"), newest_record("run_nanogpt_rate", "shakespeare_char")
    assert run is not None and plain is not None, "no records of shakespeare_char: scripts/benchmark/run_result.py writes them"
    found, where = run["results"], run["environment"]
    return (
        f"A character GPT of 0.8 M parameters, {found['steps']:,} steps on {where['cores']} CPU cores: validation loss "
        f"**{found['validation_loss']:.3f}** in {_minutes(found['seconds'])} of steps "
        "(nanoGPT publishes 1.88 for this setting, at a lower learning rate; "
        f"at that rate it is {plain['results']['validation_loss']:.3f} here, over the whole validation split)."
    )


def quickstart() -> str:
    run = newest_record("run", "shakespeare_char")
    assert run is not None
    found = run["results"]
    return (
        f"```\n{found['steps']}/{found['steps']}  validation loss {found['validation_loss']:.4f}\n\n"
        f"{_lines(found['sample'], 9)}\n```\n\n"
        f"{_minutes(found['seconds'])} of steps, {found['step_ms']:.0f} ms each, {found['tokens_per_second']:,.0f} tokens/s."
    )


def recipes() -> str:
    rows = []
    for path in sorted((ROOT / "configs").glob("*.py")):
        what = path.read_text(encoding="utf-8").split('"""')[1].splitlines()[0].rstrip(".")
        rows.append(f"| `{path.stem}` | {what} | {_run(path.stem)} |")
    return "\n".join(["| recipe | what | run here |", "|---|---|---|", *rows])


def speed() -> str:
    record = newest_record("train_cpu", "shakespeare_char")
    pipeline = newest_record("input_pipeline", "shakespeare_char")
    assert record is not None and pipeline is not None, "no records of train_cpu and input_pipeline"
    found, where = record["results"], record["environment"]
    rows = [
        ("step of `shakespeare_char`, 768 tokens", f"{found['jaxllm_step_ms']['median']:.1f} ms"),
        ("the same in nanoGPT, PyTorch eager, in turn in the same run", f"{found['nanogpt_step_ms']['median']:.1f} ms"),
        ("ratio, median of rounds", f"{found['jaxllm_over_nanogpt']['median']:.2f}"),
        ("command to first step, programs cached", f"{found['command_to_first_step_s']['median']:.1f} s"),
        ("`import jaxllm`", f"{found['import_s']['median']:.2f} s"),
        ("`jaxllm --help`", f"{found['help_s']['median']:.2f} s"),
        (
            "input pipeline alone, over what the step consumes",
            f"{pipeline['results']['times_what_the_step_consumes']:.0f} times",
        ),
    ]
    body = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"| {where['cores']} CPU cores, jax {where['versions']['jax']} | median |\n|---|---|\n{body}"


def compiled() -> str:
    """Our steps beside MaxText's."""
    rows = []
    for topic, name, what in COMPARED:
        record = newest_record(topic, name)
        if record is None:
            continue
        found = record["results"]
        cells = [what]
        for key, unit, digits in (("peak_bytes_per_chip", 1e9, 2), ("collective_bytes", 1e9, 1), ("estimated_cycles", 1e9, 2)):
            cells.append(f"{found['jaxllm_' + key] / unit:.{digits}f} / {found['maxtext_' + key] / unit:.{digits}f}")
        cells.append(f"{found['jaxllm_over_maxtext_lower_and_compile_seconds']:.2f}")
        rows.append(f"| {' | '.join(cells)} |")
    if not rows:
        return "No record yet."
    head = "| jaxllm / MaxText | peak GB a chip | GB sent by a chip | cycles, 10^9 | our compile time over its |"
    return "\n".join([head, "|---|---|---|---|---|", *rows])


COMPARED = (
    ("maxtext_compile", "llama2_7b", "Llama 2 7B, v5e:4x4, 1 x 2,048 tokens a chip"),
    ("maxtext_compile_4", "llama2_7b", "Llama 2 7B, v5e:4x4, 4 x 2,048 tokens a chip"),
    ("maxtext_compile", "llama3_8b", "Llama 3.1 8B, v5p:2x2x4, 2 x 8,192 tokens a chip"),
)
"""Topic and recipe of a record, and what it compares."""


def _run(name: str) -> str:
    """What a recipe's run has shown: the figure of its kind, from that kind's own record where there is one."""
    run = newest_record("run", name)
    if run is None and (shown := tuned(name)) is not None:
        return shown
    if run is None:
        plan = newest_record("plan", name)
        return "not run" if plan is None else f"not run; {_plan(plan['results'])}"
    found, where = run["results"], run["environment"]
    records = [(figure, newest_record(topic, name)) for topic, figure in FIGURES.items()]
    own = [figure(record["results"]) for figure, record in records if record is not None]
    cores = f"{where['cores']} CPU cores{', shared with other work' if found.get('shared_machine') else ''}"
    return f"{own[0] if own else _loss(found)} after {found['steps']:,} steps, {_minutes(found['seconds'])} on {cores}"


def _plan(found: dict) -> str:
    gigabytes, capacity = found["peak_bytes_per_chip"] / 1e9, found["capacity_bytes_per_chip"] / 1e9
    return (
        f"planned for {found['topology']}: {gigabytes:.1f} of {capacity:.1f} GB a chip, estimated step "
        f"{found['estimated_step_seconds']:.2f} s, MFU {found['estimated_mfu']:.0%}"
    )


def _loss(found: dict) -> str:
    figure = f"validation loss {found['validation_loss']:.3f}"
    if "validation_perplexity" not in found:
        return figure
    return f"{figure}: perplexity {found['validation_perplexity']:.1f}, {found['validation_bits_per_byte']:.2f} bits a byte;"


def _translation(found: dict) -> str:
    return (
        f"BLEU {found['bleu']:.1f} ± {found['bleu_interval_95']:.1f}, chrF {found['chrf']:.1f} on {found['sentences']:,} test "
        f"sentences, beam {found['beams']}"
    )


def _masked(found: dict) -> str:
    other = found["without_unknown_words"]
    return (
        f"test loss {found['test_loss']:.2f} nats a hidden token ({other['test_loss']:.2f} without `<unk>`) where the unigram "
        f"entropy is {found['test_unigram_entropy_nats']:.2f}; {found['test_accuracy']:.1%} of them guessed "
        f"({other['test_accuracy']:.1%})"
    )


def _spans(found: dict) -> str:
    return f"test loss {found['test_loss']:.2f} nats a token, {found['test_accuracy']:.1%} of tokens right"


def _images(found: dict) -> str:
    low, high = found["interval_95"]
    return f"accuracy {found['test_accuracy']:.1%} ({low:.1%} to {high:.1%}) on {found['test_images']:,} test images"


def _instruction(found: dict) -> str:
    before, after = (found["validation"][when]["loss"] for when in ("before", "after"))
    return f"validation loss from {before:.3f} to {after:.3f} nats a token"


FIGURES: dict[str, Callable[[dict], str]] = {
    "translation_bleu": _translation,
    "masked_words": _masked,
    "span_filling": _spans,
    "image_accuracy": _images,
    "instruction_tuning": _instruction,
}
"""By topic of the record."""


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _lines(text: str, count: int) -> str:
    return "\n".join(text.strip().splitlines()[:count])


BLOCKS = {
    "result": result,
    "quickstart": quickstart,
    "recipes": recipes,
    "speed": speed,
    "compiled": compiled,
    "fine_tuning": fine_tuning,
    "methods": methods,
}


def filled(text: str) -> str:
    """README text with every block replaced by what the records say."""
    for name, block in BLOCKS.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text, found = re.subn(pattern, lambda m, b=block: f"{m[1]}{b()}\n{m[2]}", text, flags=re.DOTALL)
        assert found == 1, f"README.md has {found} blocks named {name}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    text = README.read_text(encoding="utf-8")
    if not options.check:
        README.write_text(filled(text), encoding="utf-8")
    elif filled(text) != text:
        sys.exit("README.md differs from the records: run scripts/benchmark/readme_tables.py")


if __name__ == "__main__":
    main()
