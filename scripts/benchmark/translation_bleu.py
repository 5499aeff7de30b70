"""How well does a run translate? BLEU and chrF of a whole test set, by beam search, and five of its translations.

pip install -e '.[benchmark]'                                                        # sacrebleu
python scripts/benchmark/translation_bleu.py runs/transformer_multi30k_de_en \
  --source test_2016_flickr.de.gz --reference test_2016_flickr.en.gz
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from record import write_record

import jaxllm
from jaxllm.data.lines import read_lines
from jaxllm.inference.decode import bucket
from jaxllm.models import EncoderDecoder

BOOTSTRAP = 1000
EXAMPLES = 5

Write = Callable[[list[str], int], list[str]]
"""Translations of some texts, each of so many tokens at most."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--source", type=Path, required=True, help="a text a line, may be gzip")
    parser.add_argument("--reference", type=Path, required=True, help="its translation, on the same line")
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--length-penalty", type=float, default=1.0)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--step", type=int, help="the checkpoint to take; by default the best by validation loss")
    options = parser.parse_args()

    sources, references = ([line.strip() for line in lines(path)] for path in (options.source, options.reference))
    if len(sources) != len(references):
        raise SystemExit(f"the two files must have as many lines: got {len(sources)} and {len(references)}")
    m = jaxllm.load(options.run_dir, step=options.step)
    if not isinstance(m.model, EncoderDecoder) or m.tokenizer is None or m.recipe is None:
        raise SystemExit(f"a run of a model with encoder and decoder is needed: {options.run_dir} has none")

    def write(texts: list[str], max_tokens: int) -> list[str]:
        return m.generate(
            texts, num_beams=options.beams, length_penalty=options.length_penalty, max_tokens=max_tokens, temperature=0.0
        )

    contexts = m.model.config.encoder.context_len, m.model.config.decoder.context_len
    counts = [len(ids) + 1 for ids in m.tokenizer.encode_batch(sources)]
    started = time.perf_counter()
    written = translate(write, sources, counts, contexts, options.batch_size)
    seconds = time.perf_counter() - started

    shown = range(0, len(sources), -(-len(sources) // EXAMPLES))
    results = scores(written, references) | {
        "sentences": len(sources),
        "beams": options.beams,
        "length_penalty": options.length_penalty,
        "checkpoint_step": m.step,
        "translating_seconds": seconds,
        "examples": [{"source": sources[i], "written": written[i], "reference": references[i]} for i in shown],
    }
    print(json.dumps(results, indent=1, ensure_ascii=False))
    notes = (
        "Raw text in and out, cased; the checkpoint with the best validation loss unless a step was named. Intervals: "
        f"sacrebleu's bootstrap of {BOOTSTRAP} samples, half the width of the middle 95 %. Examples are evenly spaced lines, "
        "not chosen."
    )
    print(write_record("translation_bleu", m.recipe, results, notes))


def lines(path: Path) -> list[str]:
    """The lines of a file; what follows the last line's end is none."""
    found = list(read_lines(path, "utf-8"))
    return found if found[-1] else found[:-1]


def translate(
    write: Write, sources: Sequence[str], counts: Sequence[int], contexts: tuple[int, int], batch_size: int
) -> list[str]:
    """What is written of each source, in their order, in batches of like length.

    Programs are compiled for a number of texts and buckets of lengths: a last batch that is not full is filled up, and the
    most tokens to write follow from the bucket of what is read, twice of it less the start.

    Args:
      counts: tokens of each source.
      contexts: tokens that the encoder and the decoder can have.
    """
    order = sorted(range(len(sources)), key=counts.__getitem__)
    written: dict[int, str] = {}
    for first in range(0, len(order), batch_size):
        numbers = order[first : first + batch_size]
        texts = [sources[number] for number in numbers]
        texts += texts[:1] * (batch_size - len(texts))
        most = min(2 * bucket(counts[numbers[-1]], contexts[0]), contexts[1]) - 1
        written.update(zip(numbers, (text.strip() for text in write(texts, most)), strict=False))
        print(f"{len(written)} of {len(sources)}", flush=True)
    return [written[number] for number in range(len(sources))]


def scores(written: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """BLEU and chrF of sacrebleu, each with its interval and signature."""
    from sacrebleu.metrics import BLEU, CHRF  # type: ignore[import-not-found]

    found: dict[str, Any] = {}
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
        score = metric.corpus_score(written, [references], n_bootstrap=BOOTSTRAP)
        told = json.loads(score.format(width=4, signature=str(metric.get_signature()), is_json=True))
        found[name] = score.score
        found[f"{name}_bootstrap_mean"] = told["confidence_mean"]
        found[f"{name}_interval_95"] = told["confidence_var"]
        found[f"{name}_signature"] = str(metric.get_signature())
        if name == "bleu":
            found["written_over_reference_words"] = score.sys_len / score.ref_len
    return found


if __name__ == "__main__":
    main()
