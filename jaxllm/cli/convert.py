"""`jaxllm convert`: a model from one layout to another."""

from jaxllm.cli.parser import Parser


def run(argv: list[str]) -> int:
    parser = Parser(
        prog="jaxllm convert",
        description="Writes a model in another layout: for Hugging Face transformers or PEFT, or as a checkpoint of jaxllm.",
        epilog="jaxllm convert runs/tinystories exported; jaxllm convert model.gguf smollm2 --to jaxllm",
    )
    add = parser.add_argument
    add("source", metavar="SRC", help="run folder, Hugging Face folder or name, GGUF file, or folder written by this command")
    add("destination", metavar="DST", help="folder to write; must not exist")
    add(
        "--to", choices=("hf", "jaxllm", "peft"), default="hf", help="layout to write; peft: only a run's adapter (default: hf)"
    )
    add(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="type to store (default: a run's own; each tensor's own from one published folder to another; else float32)",
    )
    add("--as", dest="architecture", metavar="CLASS", help="published class to export as, such as LlamaForCausalLM")
    options = parser.parse_args(argv)
    from jaxllm.recipe import convert

    written = convert(
        options.source, options.destination, to=options.to, dtype=options.dtype, architecture=options.architecture
    )
    print(f"{written}: {sum(file.stat().st_size for file in written.rglob('*') if file.is_file()) / 1e6:,.1f} MB")
    return 0
