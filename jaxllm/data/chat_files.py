"""Conversations out of rows: OpenAI messages, ShareGPT, Alpaca, prompts and responses, and the better and worse of two answers.

All become messages as chat templates take them: {"role": "user", "content": "Hello"}; a call of a tool is the assistant's
message with `tool_calls`, its result a message of the role "tool".
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jaxllm.data.table_files import WrongRow

Messages = list[dict[str, Any]]
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function_call": "call",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}


def chat_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """`messages` and, where the row has them, `tools`."""
    if "messages" in values:
        messages = _messages(values["messages"])
        if values.get("system"):
            messages = [{"role": "system", "content": _content(values["system"])}, *messages]
    else:
        messages = _prompt(values) + [{"role": "assistant", "content": _said(values["response"], "the response")}]
    check_order(messages)
    if messages[-1]["role"] != "assistant":
        raise WrongRow(f"expected the assistant's message at the end: got the role {messages[-1]['role']!r}")
    tools = values.get("tools")
    return {"messages": _json(messages), "tools": _json(_tools(tools)) if tools else ""}


def preference_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """`messages`, the prompt, and the two answers, which may be whole conversations that begin alike."""
    chosen, rejected = (_answer(values[name]) for name in ("chosen", "rejected"))
    if "messages" in values:
        prompt = _messages(values["messages"])
        if values.get("system"):
            prompt = [{"role": "system", "content": _content(values["system"])}, *prompt]
    elif "prompt" in values:
        prompt = _prompt(values)
    else:
        prompt = []
    if "assistant" not in (chosen[0]["role"], rejected[0]["role"]):  # whole conversations
        same = min(len(chosen), len(rejected)) - 1
        while chosen[:same] != rejected[:same]:
            same -= 1
        prompt, chosen, rejected = _joined(prompt, chosen[:same]), chosen[same:], rejected[same:]
    if not prompt or prompt[-1]["role"] not in ("user", "tool"):
        raise WrongRow(
            "expected a prompt that ends with the user's message: got none; name its column with --columns prompt=COLUMN"
        )
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        check_order([*prompt, *answer])
        if answer[-1]["role"] != "assistant":
            raise WrongRow(f"expected {name} to end with the assistant's message: got the role {answer[-1]['role']!r}")
    return {"messages": _json(prompt), "chosen": _json(chosen), "rejected": _json(rejected)}


def _joined(prompt: Messages, begin: Messages) -> Messages:
    """A prompt and what two conversations begin with, which may have more or less of the same."""
    first = [message for message in prompt[:1] if message["role"] == "system" and begin[:1] != [message]]
    asked = prompt[len(first) :]
    if not begin or asked[len(asked) - len(begin) :] == begin:
        return prompt
    if asked in (begin[: len(asked)], begin[len(begin) - len(asked) :]):
        return [*first, *begin]
    raise WrongRow("expected chosen and rejected to begin with the prompt, or to be answers alone: got other messages")


def check_order(messages: Messages) -> None:
    """A system message first if there is one, then user and assistant in turn; the results of tools follow their call."""
    before = "start"
    follows = {
        "start": ("system", "user"),
        "system": ("user",),
        "user": ("assistant",),
        "assistant": ("user",),
        "call": ("tool",),
        "tool": ("tool", "assistant"),
    }
    for number, message in enumerate(messages, 1):
        role = message["role"]
        if role not in follows[before]:
            last = {"start": "at the beginning", "call": "after a call of a tool"}.get(before, f"after {before!r}")
            raise WrongRow(
                f"message {number}: expected the role {' or '.join(map(repr, follows[before]))} {last}: got {role!r}; "
                "user and assistant take turns after a system message, if there is one"
            )
        before = "call" if message.get("tool_calls") else role


def _messages(value: Any) -> Messages:
    value = _parsed(value)
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise WrongRow(f"expected a list of messages: got {json.dumps(value, ensure_ascii=False, default=str)[:60]}")
    return [_message(message, number) for number, message in enumerate(value, 1)]


def _message(message: Any, number: int) -> dict[str, Any]:
    """One message of either form, {"role", "content"} or {"from", "value"}."""
    if not isinstance(message, Mapping):
        raise WrongRow(f'message {number}: expected an object with "role" and "content": got {str(message)[:60]!r}')
    given = message.get("role", message.get("from"))
    role = _ROLES.get(str(given).lower())
    if role is None:
        raise WrongRow(f"message {number}: expected a role of {', '.join(_ROLES)}: got {given!r}")
    content = message.get("content", message.get("value"))
    calls = message.get("tool_calls")
    if role == "call":
        return {"role": "assistant", "content": "", "tool_calls": _calls(_parsed(content), number)}
    if role == "assistant" and calls:
        return {"role": role, "content": _content(content or ""), "tool_calls": _calls(_parsed(calls), number)}
    whole = {"role": role, "content": _said(content, f"message {number}") if role != "tool" else _content(content)}
    kept = {key: message[key] for key in ("name", "tool_call_id") if isinstance(message.get(key), str)}
    return whole | kept


def _calls(calls: Any, number: int) -> list[dict[str, Any]]:
    """Calls of tools as templates take them, with the arguments as an object."""
    found: list[dict[str, Any]] = []
    for call in calls if isinstance(calls, list) else [calls]:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise WrongRow(f'message {number}: expected a call with "name" and "arguments": got {str(call)[:60]!r}')
        identity = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
        body = {"name": function["name"], "arguments": _parsed(function.get("arguments", {}))}
        found.append({**identity, "type": "function", "function": body})
    return found


def _tools(value: Any) -> list[dict[str, Any]]:
    tools = _parsed(value)
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise WrongRow(f"expected tools as a list of objects: got {str(value)[:60]!r}")
    return [dict(tool) if "function" in tool else {"type": "function", "function": dict(tool)} for tool in tools]


def _answer(value: Any) -> Messages:
    """A text, a message, or a list of messages."""
    if isinstance(value, str):
        return [{"role": "assistant", "content": _said(value, "an answer")}]
    return _messages([value] if isinstance(value, Mapping) else value)


def _prompt(values: Mapping[str, Any]) -> Messages:
    """A text, with the input of an Alpaca row below its instruction, or messages; a system message and earlier turns first."""
    if isinstance(values["prompt"], list):
        return _messages(values["prompt"])
    parts = [_said(values["prompt"], "the prompt"), _content(values.get("input") or "")]
    messages: Messages = []
    if values.get("system"):
        messages.append({"role": "system", "content": _content(values["system"])})
    history = values.get("history") or []
    if not isinstance(history, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in history):
        raise WrongRow(f"expected a history of pairs, what was asked and what was answered: got {str(history)[:60]}")
    for asked, answered in history:
        messages += [{"role": "user", "content": _content(asked)}, {"role": "assistant", "content": _content(answered)}]
    return [*messages, {"role": "user", "content": "\n\n".join(part for part in parts if part.strip())}]


def _said(value: Any, what: str) -> str:
    content = _content(value)
    if not content.strip():
        raise WrongRow(f"expected text in {what}: got an empty one")
    return content


def _content(value: Any) -> str:
    """Text, or the texts of OpenAI's list of parts, or of several columns."""
    if isinstance(value, tuple):
        return "\n\n".join(part for _, each in value if (part := _content(each)).strip())
    if isinstance(value, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in value):
        return "\n".join(str(part.get("text", "")) for part in value)
    if not isinstance(value, str):
        raise WrongRow(f"expected text: got {json.dumps(value, ensure_ascii=False, default=str)[:60]}")
    return value


def _parsed(value: Any) -> Any:
    """JSON inside a text, as tables and ShareGPT keep it."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise WrongRow(f"expected JSON: got {value[:60]!r} ({error})") from error


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
