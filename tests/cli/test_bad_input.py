"""What a user gets wrong: one line that says expected, got and what to do; exit code 2; nothing written."""

import json
import shutil
from pathlib import Path

import pytest

from jaxllm.cli import run

SHAKESPEARE = "configs/shakespeare_char.py"
TINY = "tests/recipe/tiny.py"


@pytest.fixture
def fails(tmp_path, capsys):
    """Runs a command line that must fail, and gives its message; the folder it would have written must not be there."""

    def check(*argv: str, code: int = 2) -> str:
        folder = tmp_path / "run"
        new = argv[0] == "train" and argv[1].endswith((".py", ".json")) and "--run-dir" not in argv
        words = [*argv, "--run-dir", str(folder)] if new else list(argv)
        assert run(words) == code
        said = capsys.readouterr().err
        assert said.startswith("error: ") and "Traceback" not in said and said.count("\n") == 1, said
        assert not folder.exists()
        return said

    return check


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "unknown command 'trian': did you mean train?"),
        (["train", "configs/shakespear_char.py"], "did you mean configs/shakespeare_char.py?"),
        (["train", SHAKESPEARE, "--model.num-layer", "2"], "unknown field --model.num-layer: did you mean --model.num-layers?"),
        (["train", SHAKESPEARE, "--learning-rate", "1"], "did you mean --optimizer.learning-rate?"),
        (["train", SHAKESPEARE, "--optimizer.lr", "1"], "did you mean --optimizer.learning-rate?"),
        (["train", SHAKESPEARE, "--lr", "1"], "did you mean --optimizer.learning-rate?"),
        (["train", SHAKESPEARE, "--bs", "1"], "did you mean --batch-size?"),
        (["train", SHAKESPEARE, "--evaluate.batch", "1"], "did you mean --evaluate.batch-size?"),
        (["train", SHAKESPEARE, "--optimizer.wd", "1"], "did you mean --optimizer.weight-decay?"),
        (["train", SHAKESPEARE, "--seq-length", "1"], "did you mean --data.seq-len?"),
        (["train", SHAKESPEARE, "--model.layers", "1"], "did you mean --model.num-layers?"),
        (
            ["train", SHAKESPEARE, "--steps", "50", "--optimizer.schedule.decay-steps", "None"],
            "got 50 and 100; train for longer, or shorten the warm-up with --optimizer.schedule.warmup-steps 5",
        ),
        (["train", SHAKESPEARE, "--steps", "many"], "--steps: must be a whole number: got 'many'"),
        (["train", SHAKESPEARE, "--profile.steps", "3"], "--profile.steps: must be {None}|{INT INT}: got '3'"),
        (
            ["train", SHAKESPEARE, "--checkpoint.asynchronous", "True"],
            "--GROUP.NAME turns it on, --GROUP.no-NAME off",
        ),
        (["train", SHAKESPEARE, "shakespeare"], "unknown option shakespeare: a field is --name VALUE"),
        (["train", SHAKESPEARE, "--model.dropout", "1.5"], "dropout must be in [0, 1): got 1.5"),
        (["train", SHAKESPEARE, "--optimizer.name", "adam"], "--optimizer.name must be one of 'adamw', 'adafactor'"),
        (["train", SHAKESPEARE, "--model.num-heads", "7"], "num_heads must divide embed_dim: got embed_dim=128, num_heads=7"),
        (
            ["train", SHAKESPEARE, "--mesh.data", "5"],
            "mesh.data must divide batch_size: got data=5, batch_size=12; sizes that work: 1, 2, 3, 4, 6, 12",
        ),
        (
            ["train", SHAKESPEARE, "--mesh.tensor", "8"],
            "mesh.tensor must divide model.num_heads: got tensor=8, model.num_heads=4",
        ),
        (["train", SHAKESPEARE, "--batch-size", "16", "--mesh.data", "16"], "needs 16 devices: this machine has 8"),
        (["train", SHAKESPEARE, "--data.seq-len", "65"], "data.seq_len must not exceed model.context_len: got 65 and 64"),
        (["train", SHAKESPEARE, "--data.dataset", "no_such_set"], "no data set 'no_such_set'"),
        (["train", SHAKESPEARE, "--data.validation-split", "valid"], "no split 'valid'"),
        (["train", SHAKESPEARE, "--model.vocab-size", "64"], "model.vocab_size must be at least the tokenizer's: got 64"),
        (["train", "jaxllm"], "jaxllm is not a run folder: it has no recipe.json"),
        (
            ["train", "configs"],
            "configs is not a run folder: it has no recipe.json; name one of its recipes: configs/bert_base.py, ",
        ),
        (["train", "README.md"], "a recipe is a .py file, a .json file or a run folder: got README.md"),
        (["generate", "no_run", "--prompt", "x"], "there is no folder no_run"),
        (["evaluate", "no_run"], "no_run is no run, so it needs --task"),
        (["generate", "run", "--promt", "hi"], "unknown option --promt: did you mean --prompt?"),
        (["generate", "run", "hi"], "expected --prompt TEXT (text to continue, or for an encoder-decoder to read): got none"),
        (["generate", "run", "hi", "--prompt", "x"], "unexpected hi: `jaxllm generate --help` says what there is"),
        (["generate", "run", "--prompt", "x", "--top-k", "few"], "error: --top-k must be a whole number: got 'few'"),
        (["generate", "run", "--prompt"], "error: --prompt: expected one argument"),
        (["generate"], "expected RUN_DIR|MODEL, --prompt TEXT ("),
        (
            ["data", "build", "x", "y", "--split-by", "chars"],
            "error: --split-by must be one of documents, characters: got 'chars'; did you mean characters?",
        ),
        (["data", "build", "x", "y", "--columm", "text"], "unknown option --columm: did you mean --column?"),
        (["data", "shwo"], "must be one of build, show: got 'shwo'; did you mean show?"),
        (["convert", "a", "b", "--to", "onnx"], "error: --to must be one of hf, jaxllm, peft: got 'onnx'"),
        (["doctor", "--measur3"], "unknown option --measur3: did you mean --measure?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input(fails, argv, message):
    assert message in fails(*argv)


def test_no_command_and_help(capsys):
    assert run([]) == 2 and run(["--help"]) == 0 and run(["train", "--help"]) == 0
    assert "--mesh.fsdp N" in capsys.readouterr().out


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert run(["train", TINY, "--run-dir", str(folder)]) == 0
    return folder


@pytest.fixture
def copy(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def test_the_run_folder_of_another_recipe(fails, trained):
    said = fails("train", SHAKESPEARE, "--run-dir", str(trained))
    assert "holds a run of another recipe" in said and "choose another --run-dir" in said


def test_a_folder_that_is_no_run(fails, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    assert "exists and is not a run folder" in fails("train", TINY, "--run-dir", str(tmp_path / "mine"))
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


def test_a_folder_that_cannot_be_written(fails, tmp_path):
    (tmp_path / "file").write_text("")
    assert "Not a directory" in fails("train", TINY, "--run-dir", str(tmp_path / "file" / "run"))
    assert "/proc/run: " in fails("train", TINY, "--run-dir", "/proc/run")  # a file system that takes no folders


def test_a_tokenizer_that_does_not_match(fails, copy, capsys):
    from jaxllm.data import TokenizerConfig, train_tokenizer

    shutil.rmtree(copy / "tokenizer")
    train_tokenizer(TokenizerConfig(kind="bytes"), []).save(copy / "tokenizer")
    assert "must have at most 65 entries" in fails("generate", str(copy), "--prompt", "x")
    assert "model.vocab_size must be at least the tokenizer's" in fails("train", str(copy))


def test_another_tokenizer_of_the_same_size(fails, copy):
    """Ids that mean other characters: nothing would fail, and everything would be wrong."""
    file = copy / "tokenizer" / "jaxllm_tokenizer.json"
    content = json.loads(file.read_text())
    name = next(name for name, value in content.items() if isinstance(value, str) and len(value) == 65)
    file.write_text(json.dumps({**content, name: content[name][::-1]}))
    assert "must be the one that the checkpoint was trained with" in fails("generate", str(copy), "--prompt", "x")
    assert "must be the one that its checkpoint of step 12 was trained with" in fails("train", str(copy), "--steps", "20")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--method LoRA --method.targets quary", "method.targets: 'quary' matches no projection: there are attention/key"),
        ("--method LoRA --method.rank 100", "rank must be at most"),
        (
            "--method LoRA --adapter nowhere",
            "expected an adapter in nowhere, adapter.json or adapter_config.json: no such folder",
        ),
        ("--method Laro", "--method must be one of"),
        ("--method LoRA --method.dropot 0.1", "--method.dropot is no field of the method LoRA, which has rank, alpha, dropout"),
    ],
    ids=str,
)
def test_methods(fails, trained, words, message):
    assert message in fails("train", TINY, "--pretrained", str(trained), *words.split())


def test_a_pickle_is_no_adapter(fails, trained, tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2}))
    (tmp_path / "adapter" / "adapter_model.bin").write_bytes(b"\x80\x04.")
    told = fails("evaluate", str(tmp_path / "adapter"), "--base", str(trained), "--task", "language-model", "--data", "x")
    assert "has its weights in adapter_model.bin, a pickle, which can run any program" in told


def test_run_dir_is_not_for_a_run(fails, trained):
    assert "--run-dir is for a recipe" in fails("train", str(trained), "--run-dir", "elsewhere")


def test_a_prompt_longer_than_the_context(fails, trained):
    said = fails("generate", str(trained), "--prompt", "x" * 100)
    assert "100" in said and "16" in said


def test_a_split_that_is_not_there(fails, trained):
    assert "no split 'test'" in fails("evaluate", str(trained), "--split", "test")


def test_a_damaged_checkpoint_is_refused_and_training_uses_the_one_before(fails, copy, capsys):
    for file in (copy / "checkpoints" / "12" / "state").rglob("*"):
        if file.is_file() and (content := bytearray(file.read_bytes())):
            content[len(content) // 2] ^= 0xFF
            file.write_bytes(content)
    said = fails("evaluate", str(copy), "--checkpoint", "12")
    assert "damaged" in said and "the previous good one is step" in said
    assert run(["train", str(copy), "--steps", "14"]) == 0
    said = capsys.readouterr().out
    assert "damaged" in said and "is used instead" in said


def test_a_finished_run_says_how_to_go_on(trained, capsys):
    assert run(["train", str(trained)]) == 0
    assert "already at step 12 of 12: to go on, give more than 12 with --steps" in capsys.readouterr().out
    assert run(["train", str(trained), "--steps", "10"]) == 0
    assert "already at step 12 where 10 are asked for: to go on, give more than 12" in capsys.readouterr().out
