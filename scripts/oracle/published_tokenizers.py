"""Writes tests/data/golden/tokenizers: small vocabularies in the published layouts, and what their authors' code makes of text.

    python scripts/oracle/published_tokenizers.py [DATA]       # a Python with transformers, sentencepiece and jinja2

The vocabularies are learnt from the copy of Tiny Shakespeare in the package. `expected.json` holds, for each folder, the ids of
some texts: alone, with special tokens, as a pair with token types, and shortened; by transformers, and where a folder is of
SentencePiece alone, by sentencepiece. DATA is a folder with `tokenizers`, full-size published vocabularies: what becomes of the
same texts with those goes into `full_size.json`.
"""
# pyright: reportMissingImports=false

import io
import json
import sys
import warnings
from pathlib import Path

import sentencepiece
import tokenizers
import transformers
from tokenizers import AddedToken, pre_tokenizers, trainers

warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "data" / "golden" / "tokenizers"
LINES = [line for line in (ROOT / "jaxllm/data/assets/tiny_shakespeare.txt").read_text("utf-8").split("\n") if line][:6000]
TEXTS = [
    "Now is the winter of our discontent",
    "  two spaces before,  two within and one behind ",
    "Café 2024: naïve—$3.50 (½) ’tis 明月光 🙂",
    "line\nbreak\tand tab",
    "UPPER lower MiXeD's I'LL we've",
    "a <mask> of [MASK] words",
    "",
    " ",
    "<unk> and </s> within",
]
PAIRS = [
    ("My kingdom for a horse!", "A horse?"),
    ("no", "What light through yonder window breaks"),
    ("one two three", "one two three"),
]
CHAT = [
    {"role": "system", "content": 'Be <brief> & "kind".'},
    {"role": "user", "content": "Hello\nthere"},
    {"role": "assistant", "content": "Hi.", "tool_calls": [{"name": "look", "arguments": {"at": "月", "n": 1}}]},
    {"role": "user", "content": "Bye"},
]
TEMPLATES = {
    "qwen2": None,
    "json and functions": "{% for m in messages %}"
    "{%- if m.tool_calls is defined %}{{ m.tool_calls | tojson(indent=2) }}{% endif %}"
    "{{ m['role'] }}: {{ m.content | trim }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}",
    "loop and generation": "{% for m in messages %}{% if loop.index > 3 %}{% break %}{% endif %}\n"
    "    {% if m.role == 'assistant' %}{% generation %}[{{ m.content }}]{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}\n"
    "{% endfor %}{% set ns = namespace(seen=0) %}"
    "{% for m in messages %}{% set ns.seen = ns.seen + 1 %}{% endfor %}{{ ns.seen }}",
    "tools": "{% if tools %}{{ tools[0] | tojson }}{% else %}no tools{% endif %}{{ bos_token is defined }}",
}


def main() -> None:
    write_vocabularies()
    expected = {"texts": TEXTS, "pairs": PAIRS}
    for name, make in {
        "bert": transformers.BertTokenizer,
        "bert_cased": transformers.BertTokenizer,
        "gpt2": transformers.GPT2Tokenizer,
        "roberta": transformers.RobertaTokenizer,
        "qwen2": transformers.Qwen2Tokenizer,
        "fast": transformers.AutoTokenizer,
        "marian": transformers.MarianTokenizer,
    }.items():
        # RoBERTa's own tokenizer.json has a mask that takes the space before it; transformers 5 forgets that without the file.
        options = {"mask_token": AddedToken("<mask>", lstrip=True, normalized=False, special=True)} if name == "roberta" else {}
        expected[name] = describe(make.from_pretrained(str(GOLDEN / name), **options))
    marian = transformers.MarianTokenizer.from_pretrained(str(GOLDEN / "marian"))
    expected["marian"]["targets"] = [marian(text_target=text).input_ids for text in TEXTS]
    for name, file in {"llama": "tokenizer.model", "t5": "spiece.model"}.items():
        pieces = sentencepiece.SentencePieceProcessor(str(GOLDEN / name / file))
        expected[name] = {"ids": [pieces.encode(text) for text in TEXTS[:-1]]}
    write_json(GOLDEN / "expected.json", expected)
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    if data is not None:
        write_json(GOLDEN / "full_size.json", full_size(data / "tokenizers"))


def write_vocabularies() -> None:
    for name in ("bert", "bert_cased"):
        words = tokenizers.BertWordPieceTokenizer(lowercase=name == "bert")
        words.train_from_iterator(LINES, vocab_size=400, show_progress=False)
        vocab = sorted(words.get_vocab(), key=words.get_vocab().get)
        (fresh(name) / "vocab.txt").write_text("\n".join(vocab) + "\n", "utf-8")
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": 128}
    write_json(GOLDEN / "bert_cased" / "tokenizer_config.json", config)
    for name, special in (("gpt2", ["<|endoftext|>"]), ("roberta", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]), ("qwen2", [])):
        core = tokenizers.Tokenizer(tokenizers.models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        options = {"vocab_size": 500, "special_tokens": special, "initial_alphabet": alphabet, "show_progress": False}
        core.train_from_iterator(LINES, trainers.BpeTrainer(**options))
        core.model.save(str(fresh(name)))
    write_json(GOLDEN / "roberta" / "config.json", {"model_type": "roberta"})
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None}
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    config["added_tokens_decoder"] = {str(500 + i): added(mark) for i, mark in enumerate(marks)}
    config["chat_template"] = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    write_json(GOLDEN / "qwen2" / "tokenizer_config.json", config)
    write_fast()
    write_sentencepiece()


def write_fast() -> None:
    """A tokenizer.json with tokens added to it and a template of its own."""
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), tokenizers.decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
    core.add_special_tokens(["<s>", "</s>"])
    core.add_tokens([AddedToken("kingdom", single_word=True)])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", add_bos_token=True)
    fast.save_pretrained(str(fresh("fast")))


def write_sentencepiece() -> None:
    options = {"character_coverage": 1.0, "normalization_rule_name": "identity", "minloglevel": 2}
    llama = {"model_type": "bpe", "byte_fallback": True, "vocab_size": 600}
    llama |= {"remove_extra_whitespaces": False, "split_digits": True}
    (fresh("llama") / "tokenizer.model").write_bytes(train(LINES, **options, **llama))
    t5 = {"model_type": "unigram", "vocab_size": 400, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    (fresh("t5") / "spiece.model").write_bytes(train(LINES, **options, **t5))
    folder = fresh("marian")
    vocab = {"</s>": 0, "<unk>": 1}
    for name, lines in (("source.spm", LINES), ("target.spm", [line.swapcase() for line in LINES])):
        model = train(lines, **options, vocab_size=300)
        (folder / name).write_bytes(model)
        pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        for i in range(3, pieces.get_piece_size()):
            vocab.setdefault(pieces.id_to_piece(i), len(vocab))
    vocab |= {">>fra<<": len(vocab), "<pad>": len(vocab) + 1}
    write_json(folder / "vocab.json", vocab)


def train(lines: list[str], **options: object) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, **options)
    return model.getvalue()


def describe(tokenizer) -> dict:
    """What a tokenizer makes of the texts."""
    whole = [tokenizer(text) for text in TEXTS]
    marian = isinstance(tokenizer, transformers.MarianTokenizer)
    pairs = [] if marian else [tokenizer(*p, return_token_type_ids=True) for p in PAIRS]
    short = [tokenizer(*pair, truncation=True, max_length=n).input_ids for pair in PAIRS for n in (5, 8, 11)] if pairs else []
    return {
        "ids": [tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS],
        "special": [encoded.input_ids for encoded in whole],
        "pairs": [[pair.input_ids, pair.token_type_ids] for pair in pairs],
        "short": short,
        "decoded": [tokenizer.decode(encoded.input_ids, skip_special_tokens=True) for encoded in whole],
        "roles": {role: getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad", "unk", "cls", "sep", "mask")},
    }


def full_size(folder: Path) -> dict:
    """The published vocabularies, and chat templates rendered with one of them."""
    classes = {
        "gpt2": transformers.GPT2Tokenizer,
        "bert-base-uncased": transformers.BertTokenizer,
        "qwen2": transformers.Qwen2Tokenizer,
        "t5": transformers.AutoTokenizer,
    }
    found = {}
    for name, make in classes.items():
        if name == "gpt2":
            tokenizer = make(vocab=str(folder / name / "encoder.json"), merges=str(folder / name / "vocab.bpe"))
        elif name == "t5":
            core = tokenizers.Tokenizer.from_file(str(folder / name / "tokenizer.json"))
            special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
            tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, **special)
        else:
            tokenizer = make.from_pretrained(str(folder / name))
        found[name] = describe(tokenizer)
    qwen2 = transformers.Qwen2Tokenizer.from_pretrained(str(folder / "qwen2"))
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    found["chats"] = []
    for template in TEMPLATES.values():
        for prompt in (False, True):
            options = {"chat_template": template, "add_generation_prompt": prompt, "tools": tools if prompt else None}
            text = qwen2.apply_chat_template(CHAT, tokenize=False, **options)
            ids = qwen2.apply_chat_template(CHAT, tokenize=True, return_dict=False, **options)
            found["chats"].append({**options, "text": text, "ids": ids})
    return found | {"messages": CHAT}


def added(content: str) -> dict:
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}


def fresh(name: str) -> Path:
    (GOLDEN / name).mkdir(parents=True, exist_ok=True)
    return GOLDEN / name


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
