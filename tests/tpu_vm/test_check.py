"""Options of a recipe are read before anything is rented, where jaxllm is there to read them."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def package(folder, text):
    (folder / "jaxllm").mkdir()
    (folder / "jaxllm" / "__init__.py").write_text(text)
    return folder


def test_what_training_takes_is_let_pass_and_what_it_refuses_is_not(tool):
    check = tool("check").check_options
    recipe = str(ROOT / "configs" / "llama_1b.py")
    assert check(ROOT, [recipe, "--mesh.fsdp", "16", "--num-processes", "4"]) is None
    with pytest.raises(ValueError, match=r"^training would refuse this: unknown field --mesh.fsd: did you mean --mesh.fsdp\?$"):
        check(ROOT, [recipe, "--mesh.fsd", "16"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def config():\n    return nothing", "mine.py: NameError: name 'nothing' is not defined"),
        ("import not_there", "mine.py: ModuleNotFoundError: No module named 'not_there'"),
        ("def config():\n    return 3", "mine.py: config.. must return a Recipe: got int"),
    ],
)
def test_a_recipe_that_cannot_be_read_is_refused(tool, tmp_path, text, said):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ValueError, match=f"^training would refuse this: .*{said}$"):
        tool("check").check_options(ROOT, [str(tmp_path / "mine.py")])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import not_there", "jaxllm cannot be imported here, No module named 'not_there'"),
        ("import os; print('first'); print('cannot', flush=True); os._exit(9)", "jaxllm ended with exit code 9, cannot"),
    ],
)
def test_where_jaxllm_is_not_there_it_is_said(tool, tmp_path, text, said):
    assert tool("check").check_options(package(tmp_path, text), ["configs/llama_1b.py"]) == said
