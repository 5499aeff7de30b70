import json
from pathlib import Path

import pytest

from jaxllm.data import load_tokenizer
from jaxllm.data.chat import render_chat

GOLDEN = Path(__file__).parent / "golden" / "tokenizers"
FULL = Path(__file__).parents[3] / "shared" / "data" / "tokenizers"
HELLO = [{"role": "user", "content": "Hello"}]


def test_equals_transformers():
    golden = json.loads((GOLDEN / "full_size.json").read_text("utf-8"))
    published = json.loads((GOLDEN / "qwen2" / "tokenizer_config.json").read_text("utf-8"))
    special = {"eos_token": "<|im_end|>", "pad_token": published["pad_token"]}
    checked = [chat for chat in golden["chats"] if chat["chat_template"] is not None]
    assert len(checked) == 6
    for chat in checked:
        options = {"add_generation_prompt": chat["add_generation_prompt"], "tools": chat["tools"]}
        assert render_chat(chat["chat_template"], golden["messages"], **options, **special) == chat["text"]


@pytest.mark.skipif(not FULL.is_dir(), reason="no full-size vocabularies in ../shared/data")
def test_published_template_and_ids():
    golden = json.loads((GOLDEN / "full_size.json").read_text("utf-8"))
    tokenizer = load_tokenizer(FULL / "qwen2")
    checked = [chat for chat in golden["chats"] if chat["chat_template"] is None]
    assert len(checked) == 2
    for chat in checked:
        options = {"add_generation_prompt": chat["add_generation_prompt"], "tools": chat["tools"]}
        assert tokenizer.apply_chat_template(golden["messages"], **options) == chat["text"]
        assert tokenizer.encode_chat(golden["messages"], **options) == chat["ids"]


def test_a_conversation_begins_the_answer():
    tokenizer = load_tokenizer(GOLDEN / "qwen2")
    text = tokenizer.apply_chat_template(HELLO)
    assert text == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.apply_chat_template(HELLO, add_generation_prompt=False) == text[: text.index("<|im_start|>assistant")]
    ids = tokenizer.encode_chat(HELLO)
    assert ids == tokenizer.encode(text)
    assert ids.count(tokenizer.eos_id) == 1  # the marks are tokens, not text


def test_a_template_in_its_own_file_goes_first(tmp_path: Path):
    load_tokenizer(GOLDEN / "qwen2").save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    assert load_tokenizer(tmp_path).apply_chat_template(HELLO) == "Hello!"


def test_the_default_of_several_templates(tmp_path: Path):
    load_tokenizer(GOLDEN / "qwen2").save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config["chat_template"] = [{"name": "tools", "template": "tools"}, {"name": "default", "template": "plain"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert load_tokenizer(tmp_path).apply_chat_template(HELLO) == "plain"


def test_no_template():
    with pytest.raises(ValueError, match="has no chat template"):
        load_tokenizer(GOLDEN / "gpt2").apply_chat_template(HELLO)


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('roles must alternate') }}", "{% if %}", "{{ messages.append(1) }}", "{{ ''.__class__.mro() }}"],
)
def test_a_template_that_refuses_or_reaches_out(template: str):
    with pytest.raises(ValueError, match="the chat template of this tokenizer refuses the conversation: "):
        render_chat(template, HELLO)


def test_messages_have_roles():
    with pytest.raises(ValueError, match='a message must be like {"role": "user"'):
        render_chat("", [{"content": "Hello"}])
