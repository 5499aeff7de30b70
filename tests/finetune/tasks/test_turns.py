"""Which tokens of a conversation the assistant said: by the template's marks, by what it writes more, and without one."""

import json

import numpy as np
import pytest

from jaxllm.finetune.tasks.turns import Template, encode_request, encode_turns, template_of
from tests.finetune.tasks.chats import MARKED, TEMPLATE, chat, tokenizer, turn

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"place": "Bergen"}}}


def pieces(tok, found):
    """The text of each run of tokens that the assistant said, special tokens in words."""
    runs, before = [], False
    for token, said in zip(found.ids, found.said, strict=True):
        if said and not before:
            runs.append([])
        if said:
            runs[-1].append(token)
        before = said
    return [tok._core.decode(run, skip_special_tokens=False) for run in runs]


@pytest.mark.parametrize("template", [TEMPLATE, MARKED])
def test_answers_and_their_end_marks_are_said(template):
    tok = tokenizer(template)
    for number in range(9):
        messages = chat(number)
        found = encode_turns(tok, messages, None, "chat")
        assert found.ids == tok.encode(tok.apply_chat_template(messages, add_generation_prompt=False))
        answers = [f"{message['content']}<|end|>" for message in messages if message["role"] == "assistant"]
        assert pieces(tok, found) == answers
        last = encode_turns(tok, messages, None, "chat", len(messages) - 1)
        assert last.ids == found.ids and pieces(tok, last) == answers[-1:]


def test_marks_and_beginnings_say_the_same():
    for number in range(9):
        marked, plain = (encode_turns(tokenizer(template), chat(number), None, "chat") for template in (MARKED, TEMPLATE))
        assert marked == plain


def test_a_request_is_what_stands_before_the_answer():
    kinds: tuple[Template, ...] = ("chat", "plain", "verbatim")
    for kind in kinds:
        tok, messages = tokenizer(TEMPLATE if kind == "chat" else None), chat(3)
        whole = encode_turns(tok, messages, None, kind, len(messages) - 1)
        assert encode_request(tok, messages[:-1], None, kind) == whole.ids[: whole.said.index(True)]


def test_plain_text_has_headings_and_end_marks():
    tok = tokenizer(None)
    assert template_of(tok, None) == "plain" and template_of(tokenizer(), None) == "chat"
    messages = [turn("user", "a boat"), turn("assistant", "to sea"), turn("user", "fish"), turn("assistant", "bread")]
    found = encode_turns(tok, messages, None, "plain")
    assert pieces(tok, found) == ["to sea<|end|>", "bread<|end|>"]
    assert tok._core.decode(found.ids, skip_special_tokens=False) == (
        "# Request\na boat\n\n# Answer\nto sea<|end|>\n\n# Request\nfish\n\n# Answer\nbread<|end|>"
    )
    assert tok._core.decode(encode_turns(tok, messages, None, "verbatim").ids, skip_special_tokens=False) == (
        "a boatto sea<|end|>fishbread<|end|>"
    )
    with pytest.raises(ValueError, match="objective.template='chat' needs a tokenizer with a chat template: this one has none"):
        template_of(tok, "chat")


def test_tools():
    messages = [
        turn("user", "fish"),
        turn("assistant", "") | {"tool_calls": [CALL]},
        turn("tool", "7"),
        turn("assistant", "so"),
    ]
    found = encode_turns(tokenizer(None), messages, [TOOL], "plain")
    call = json.dumps(CALL["function"])
    assert pieces(tokenizer(None), found) == [f"{call}<|end|>", "so<|end|>"]
    with pytest.raises(
        ValueError, match="no place for calls of tools: it leaves 'weather' out; use objective.template='plain'"
    ):
        encode_turns(tokenizer(), messages, None, "chat")
    with pytest.raises(ValueError, match="no place for tools: it leaves 'weather' out"):
        encode_turns(tokenizer(), messages[:1] + messages[3:], [TOOL], "chat")
    with pytest.raises(ValueError, match="'verbatim' has no place for tools"):
        encode_turns(tokenizer(None), messages, [TOOL], "verbatim")
    template = TEMPLATE.replace(
        "{{ message['content'] }}", "{{ message['content'] }}{{ message.tool_calls | tojson if message.tool_calls }}"
    )
    template = "{{ tools | tojson if tools }}" + template
    assert pieces(tokenizer(template), encode_turns(tokenizer(template), messages, [TOOL], "chat"))[1] == "so<|end|>"


def test_a_template_that_writes_the_past_otherwise():
    """As those that leave the thoughts of earlier answers out."""
    shortened = TEMPLATE.replace(
        "{{ message['content'] }}", "{{ message['content'] if loop.last or message.role == 'user' else '-' }}"
    )
    tok, messages = tokenizer(shortened), chat(3)
    assert sum(message["role"] == "assistant" for message in messages) > 1
    with pytest.raises(ValueError, match="writes the beginning of a conversation otherwise when it goes on.*turns='last'"):
        encode_turns(tok, messages, None, "chat")
    assert pieces(tok, encode_turns(tok, messages, None, "chat", len(messages) - 1)) == [f"{messages[-1]['content']}<|end|>"]


def test_without_an_end_mark_the_line_break_ends_an_answer():
    bare = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    tok, messages = (
        tokenizer(bare),
        [turn("user", "fish"), turn("assistant", "to sea"), turn("user", "a"), turn("assistant", "b")],
    )
    found = encode_turns(tok, messages, None, "chat")
    assert [piece.strip(" ") for piece in pieces(tok, found)] == ["to sea\n", "b\n"]


def test_spaces_inside_an_answer_are_said():
    """Byte-level tokenizers may leave spaces out of the places that they give."""
    tok = tokenizer()
    messages = [turn("user", "a"), turn("assistant", "if:\n        fish")]
    found = encode_turns(tok, messages, None, "chat")
    assert pieces(tok, found) == ["if:\n        fish<|end|>"] and np.mean(found.said) < 1
