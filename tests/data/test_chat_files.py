"""Conversations out of all their layouts, and those that no template could render."""

import json
from typing import Any

import pytest

from jaxllm.data.chat_files import chat_of, preference_of
from jaxllm.data.table_files import WrongRow
from tests.data.test_task_files import read

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
SYSTEM = {"role": "system", "content": "Be kind."}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [USER, ANSWER]}, [USER, ANSWER]),
        ({"messages": json.dumps([USER, ANSWER])}, [USER, ANSWER]),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, ANSWER]}, [USER, ANSWER]),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}, [USER, ANSWER]),
        ({"conversations": [USER, ANSWER], "system": "Be kind."}, [SYSTEM, USER, ANSWER]),
        ({"prompt": "Hi", "response": "Hello"}, [USER, ANSWER]),
        ({"question": "Hi", "answer": "Hello"}, [USER, ANSWER]),
        ({"instruction": "Hi", "input": "", "output": "Hello"}, [USER, ANSWER]),
        ({"instruction": "Say", "input": "Hi", "output": "Hello"}, [{"role": "user", "content": "Say\n\nHi"}, ANSWER]),
        ({"instruction": "Hi", "output": "Hello", "history": [["Hi", "Hello"]]}, [USER, ANSWER, USER, ANSWER]),
        ({"instruction": "Hi", "output": "Hello", "system": "Be kind."}, [SYSTEM, USER, ANSWER]),
        ({"instruction": "Hi", "instances": [{"input": "", "output": "Hello"}]}, [USER, ANSWER]),
    ],
)  # fmt: skip
def test_every_layout(tmp_path, row: dict[str, Any], expected: list):
    (example,) = read(tmp_path / "a.json", json.dumps([row]), task="chat")
    assert json.loads(example["messages"]) == expected and example["tools"] == ""


def test_tools():
    call = {"name": "add", "arguments": {"a": 1}}
    tool = {"name": "add", "parameters": {}}
    sharegpt = [
        {"from": "human", "value": "Hi"},
        {"from": "function_call", "value": json.dumps(call)},
        {"from": "observation", "value": "2"},
        {"from": "gpt", "value": "Hello"},
    ]
    calls = [{"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}]
    openai = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "2"},
        ANSWER,
    ]
    called = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]}
    expected = [USER, called, {"role": "tool", "content": "2"}, ANSWER]
    functions = [{"type": "function", "function": tool}]
    for messages, tools in ((sharegpt, json.dumps([tool])), (openai, functions)):
        example = chat_of({"messages": messages, "tools": tools})
        assert json.loads(example["messages"]) == expected and json.loads(example["tools"]) == functions
    with pytest.raises(WrongRow, match="message 3: expected the role 'tool' after a call of a tool: got 'user'"):
        chat_of({"messages": [*sharegpt[:2], sharegpt[0]]})
    with pytest.raises(WrongRow, match='message 2: expected a call with "name" and "arguments"'):
        chat_of({"messages": [USER, {"from": "function_call", "value": "{}"}]})


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([USER, USER], "message 2: expected the role 'assistant' after 'user': got 'user'; user and assistant take turns"),
        ([ANSWER], "message 1: expected the role 'system' or 'user' at the beginning: got 'assistant'"),
        ([USER, SYSTEM, ANSWER], "message 2: expected the role 'assistant' after 'user': got 'system'"),
        ([USER, ANSWER, USER], "expected the assistant's message at the end: got the role 'user'"),
        ([{"role": "teacher", "content": "x"}], "message 1: expected a role of .*: got 'teacher'"),
        ([USER, {"role": "assistant", "content": " "}], "expected text in message 2: got an empty one"),
        ([USER, {"role": "assistant", "content": None}], "expected text: got null"),
        (["Hi"], 'message 1: expected an object with "role" and "content": got'),
        ([], "expected a list of messages"),
        ("Hi", "expected JSON: got 'Hi'"),
    ],
)
def test_bad_conversations(messages: Any, message: str):
    with pytest.raises(WrongRow, match=message):
        chat_of({"messages": messages})


@pytest.mark.parametrize("name", ["history", "tools"])
def test_what_stands_beside_a_prompt(name: str):
    with pytest.raises(WrongRow, match=f"expected .*{name}.*: got '?5"):
        chat_of({"prompt": "Hi", "response": "Hello", name: 5})


def test_the_row_of_a_bad_conversation_is_named(tmp_path):
    rows = [{"messages": [USER, ANSWER]}, {"messages": [ANSWER]}]
    with pytest.raises(ValueError, match="a.jsonl, line 2: message 1: expected the role 'system' or 'user'.*--on-error skip"):
        read(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)), task="chat")


WORSE = {"role": "assistant", "content": "What?"}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "What?"},
        {"instruction": "Hi", "input": "", "chosen": "Hello", "rejected": "What?"},
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [WORSE]},
        {"chosen": [USER, ANSWER], "rejected": [USER, WORSE]},
        {"prompt": "Hi", "chosen": [USER, ANSWER], "rejected": [USER, WORSE]},
        {
            "conversations": [{"from": "human", "value": "Hi"}],
            "chosen": {"from": "gpt", "value": "Hello"},
            "rejected": {"from": "gpt", "value": "What?"},
        },
    ],
)
def test_preferences(tmp_path, row: dict[str, Any]):
    (example,) = read(tmp_path / "a.json", json.dumps([row]), task="preference")
    assert {name: json.loads(text) for name, text in example.items()} == {
        "messages": [USER],
        "chosen": [ANSWER],
        "rejected": [WORSE],
    }


def test_what_comes_before_the_question_is_kept():
    """A system message and earlier turns, given with the prompt or in the conversations; answers that call a tool first."""
    system, earlier = {"role": "system", "content": "In French."}, [{"role": "user", "content": "Yes?"}, ANSWER]
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    used = [call, {"role": "tool", "content": "3"}]
    for row, messages, chosen in (
        ({"system": "In French.", "prompt": "Hi", "chosen": [USER, ANSWER], "rejected": [USER, WORSE]},
         [system, USER], [ANSWER]),
        ({"prompt": [system, *earlier, USER], "chosen": [USER, ANSWER], "rejected": [USER, WORSE]},
         [system, *earlier, USER], [ANSWER]),
        ({"prompt": "Yes?", "chosen": [*earlier, USER, ANSWER], "rejected": [*earlier, USER, WORSE]},
         [*earlier, USER], [ANSWER]),
        ({"prompt": "Hi", "chosen": [*used, ANSWER], "rejected": [*used, WORSE]}, [USER], [*used, ANSWER]),
    ):  # fmt: skip
        found = {name: json.loads(text) for name, text in preference_of(row).items()}
        assert found["messages"] == messages and [each["role"] for each in found["chosen"]] == [each["role"] for each in chosen]
    with pytest.raises(WrongRow, match="expected chosen and rejected to begin with the prompt, or to be answers alone"):
        preference_of({"prompt": "Bye", "chosen": [USER, ANSWER], "rejected": [USER, WORSE]})


def test_bad_preferences():
    with pytest.raises(WrongRow, match="expected a prompt that ends with the user's message"):
        preference_of({"chosen": "Hello", "rejected": "What?"})
    with pytest.raises(WrongRow, match="message 2: expected the role 'assistant' after 'user': got 'user'"):
        preference_of({"prompt": "Hi", "chosen": [USER], "rejected": [WORSE]})
    with pytest.raises(WrongRow, match="expected text in an answer: got an empty one"):
        preference_of({"prompt": "Hi", "chosen": "", "rejected": "What?"})
