"""`jaxllm generate`: continue a prompt with a trained model."""

import argparse

SAMPLING = ("max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop")


def run(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    given = {name: getattr(options, name) for name in SAMPLING if getattr(options, name) is not None}
    from jaxllm.inference import SamplingConfig, generate

    sampling = SamplingConfig(**{**given, "stop": tuple(given.get("stop", ()))})
    from jaxllm.recipe import load

    loaded = load(options.run_dir, step=options.checkpoint)

    # The first sample appears as it is written, the others when all are done. The prompt waits until it is accepted.
    unshown = [options.prompt]

    def show(row: int, text: str) -> None:
        if row == 0:
            print("".join([*unshown, text]), end="", flush=True)
            unshown.clear()

    completions = generate(
        *(loaded.model, loaded.params, loaded.tokenizer, [options.prompt], sampling),
        num_samples=options.num_samples,
        on_text=show,
    )
    show(0, "")
    for completion in completions[1:]:
        print(f"\n{'-' * 40}\n{options.prompt}{completion}", end="")
    print(flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxllm generate",
        description="Continues a prompt with the model of a run, and shows the text as it is written.",
        epilog="Text longer than the model's context goes on from the last half of it.",
    )
    add = parser.add_argument
    add("run_dir", metavar="RUN_DIR", help="folder of a run")
    add("--prompt", required=True, metavar="TEXT", help="text to continue")
    add("--max-tokens", type=int, metavar="N", help="tokens to add (default: 256)")
    add("--temperature", type=float, metavar="X", help="divides the logits; 0: always the likeliest token (default: 1.0)")
    add("--top-k", type=int, metavar="K", help="draw among the K likeliest tokens (default: all)")
    add("--top-p", type=float, metavar="P", help="draw among the likeliest tokens that reach probability P (default: all)")
    add("--min-p", type=float, metavar="P", help="draw among tokens at least P times as probable as the likeliest")
    add("--repetition-penalty", type=float, metavar="X", help="above 1: tokens that were there become less likely")
    add("--seed", type=int, metavar="N", help="seed of the draws (default: 0)")
    add("--num-samples", type=int, metavar="N", default=1, help="completions to write (default: 1)")
    add("--stop", action="append", metavar="TEXT", help="end before this text; may be given several times")
    add("--checkpoint", type=int, metavar="STEP", help="checkpoint to take (default: the best, else the newest)")
    return parser
