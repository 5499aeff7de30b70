"""`jaxllm generate`: continue a prompt with a trained model."""

import argparse
from typing import Any

from jaxllm.cli.parser import Parser

SAMPLING = (
    *("max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop"),
    *("suppress", "begin_suppress", "forced_bos", "forced_eos", "num_beams", "length_penalty", "early_stopping"),
)
LISTS = ("stop", "suppress", "begin_suppress", "forced_eos")
TOKENS = ("suppress", "begin_suppress", "forced_bos", "forced_eos")
OFF = "none"
"""Instead of a token: the model's own are switched off."""


def run(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    given = {name: _value(name, getattr(options, name)) for name in SAMPLING if getattr(options, name) is not None}
    from jaxllm.inference import SamplingConfig, generate

    # A mistake is said before the model is loaded.
    SamplingConfig(**{name: value for name, value in given.items() if value is not None})
    from jaxllm.models import VisionTransformer
    from jaxllm.recipe import load

    loaded = load(options.model, step=options.checkpoint)
    if isinstance(loaded.model, VisionTransformer):
        raise ValueError(f"generate needs a model of text: {loaded.source} has one of images")
    if loaded.tokenizer is None:
        raise ValueError(f"a prompt needs a tokenizer: {loaded.source} has none; put its tokenizer files there")
    sampling = loaded.sampling(**given)
    prompt = loaded.chat_ids(options.prompt) if options.chat else options.prompt

    # The first sample appears as it is written, the others when all are done. The prompt waits until it is accepted.
    beginning = "" if options.chat or loaded.reads_prompt else options.prompt
    unshown = [beginning]

    def show(row: int, text: str) -> None:
        if row == 0:
            print("".join([*unshown, text]), end="", flush=True)
            unshown.clear()

    completions = generate(
        *(loaded.model, loaded.params, loaded.tokenizer, [prompt], sampling),
        num_samples=options.num_samples,
        eos_ids=loaded.generation.eos_ids,
        prefix=loaded.prefix,
        on_text=show,
    )
    show(0, "")
    for completion in completions[1:]:
        print(f"\n{'-' * 40}\n{beginning}{completion}", end="")
    print(flush=True)
    return 0


def _value(name: str, given: Any) -> Any:
    """What the option means: None where it switches off what the model was published with."""
    if name not in TOKENS or OFF not in (given if name in LISTS else [given]):
        return tuple(given) if name in LISTS else given
    if name in LISTS and len(given) > 1:
        raise ValueError(
            f"--{name.replace('_', '-')} {OFF} must stand alone: got {' '.join(map(str, given))}; give ids or {OFF}"
        )
    return None


def _token(text: str) -> int | str:
    """A token's id, or `OFF`."""
    if text.lower() == OFF:
        return OFF
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a token's id or {OFF}: got {text!r}") from None


def _parser() -> Parser:
    parser = Parser(
        prog="jaxllm generate",
        description="Continues a prompt with a trained or published model, and shows the text as it is written.",
        epilog="Text longer than the model's context goes on from the last half of it.",
    )
    add = parser.add_argument
    add("model", metavar="RUN_DIR|MODEL", help="run folder, Hugging Face folder or name, GGUF file, or converted folder")
    add("--prompt", required=True, metavar="TEXT", help="text to continue, or for an encoder-decoder to read")
    add("--chat", action="store_true", help="the prompt is a user's message to a chat model")
    add("--max-tokens", type=int, metavar="N", help="tokens to add (default: 256)")
    add("--temperature", type=float, metavar="X", help="divides the logits; 0: always the likeliest token (default: 1.0)")
    add("--top-k", type=int, metavar="K", help="draw among the K likeliest tokens (default: all)")
    add("--top-p", type=float, metavar="P", help="draw among the likeliest tokens that reach probability P (default: all)")
    add("--min-p", type=float, metavar="P", help="draw among tokens at least P times as probable as the likeliest")
    add("--repetition-penalty", type=float, metavar="X", help="above 1: tokens that were there become less likely")
    add("--seed", type=int, metavar="N", help="seed of the draws (default: 0)")
    add("--num-samples", type=int, metavar="N", default=1, help="completions to write (default: 1)")
    add("--stop", action="append", metavar="TEXT", help="end before this text; may be given several times")
    token: Any = {"type": _token, "metavar": f"ID|{OFF}"}
    add("--suppress", action="append", **token, help=f"never write this token; several times ({OFF}: not the model's own)")
    add("--begin-suppress", action="append", **token, help="do not write this token first; several times, or likewise")
    add("--forced-bos", **token, help=f"write this token first, such as a language's (encoder-decoders); {OFF}: force none")
    add("--forced-eos", action="append", **token, help=f"write this token last where the text is cut; {OFF}: force none")
    add("--num-beams", type=int, metavar="N", help="beam search with N beams instead of drawing")
    add("--length-penalty", type=float, metavar="X", help="beams compete by log-probability over length to this power (1.0)")
    add("--early-stopping", action="store_true", default=None, help="stop when N beams have ended")
    add("--checkpoint", type=int, metavar="STEP", help="checkpoint to take (default: the best, else the newest)")
    return parser
