"""A conversation as the tokens that a model reads, and which of them the assistant said.

With a chat template the text is the template's own. What the assistant said stands between its {% generation %} marks where it
has them; else an answer is what the template writes more when the answer is there than when it asks for one, which needs a
template that writes the beginning of a conversation the same however it goes on. The mark at the end of an answer belongs to
it, since the model has to write that; a line break behind the mark does not.
"""

import json
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxllm.data import Tokenizer
from jaxllm.data.chat import GENERATION_MARKS
from jaxllm.data.subword import SubwordTokenizer
from jaxllm.finetune.tasks.encode import around

Template = Literal["chat", "plain", "verbatim"]
Messages = Sequence[dict[str, Any]]
Write = Callable[..., str]
"""`write(messages, **variables) -> text`, by a chat template."""
_MARKED = re.compile(r"{%[-+]?\s*generation\s*[-+]?%}")
_MARKS = ("\ufdd0", "\ufdd1")
"""Characters that Unicode keeps out of all texts."""


class Said(NamedTuple):
    ids: list[int]
    said: list[bool]
    """Of each token, whether the assistant said it."""


class Piece(NamedTuple):
    text: str
    said: bool


def template_of(tokenizer: Tokenizer, template: Template | None) -> Template:
    """The template that is asked for; by default the tokenizer's own, if it has one."""
    there = isinstance(tokenizer, SubwordTokenizer) and tokenizer.chat_template is not None
    if template == "chat" and not there:
        raise ValueError(
            "objective.template='chat' needs a tokenizer with a chat template: this one has none; use 'plain', or put a "
            "chat_template into tokenizer_config.json"
        )
    return template or ("chat" if there else "plain")


def encode_turns(tokenizer: Tokenizer, messages: Messages, tools: list[Any] | None, template: Template, first: int = 0) -> Said:
    """A whole conversation.

    Args:
      first: the message from which on it matters what the assistant said.

    Raises:
      ValueError: the template refuses the conversation, or does not let an answer be told from the rest.
    """
    if template == "chat":
        assert isinstance(tokenizer, SubwordTokenizer)
        return _encode_chat(tokenizer, messages, tools, first)
    pieces = plain_pieces(messages, tools) if template == "plain" else verbatim_pieces(messages, tools)
    ids, said, number = list(around(tokenizer, pair=False).before), [], 0
    said += [False] * len(ids)
    for piece in pieces:
        number += piece.said
        learned = piece.said and _assistant(messages)[number - 1] >= first
        more = tokenizer.encode(piece.text)
        if piece.said and tokenizer.eos_id is not None:
            more = [*more, tokenizer.eos_id]
        ids, said = [*ids, *more], [*said, *[learned] * len(more)]
    return Said(ids, said)


def encode_request(tokenizer: Tokenizer, messages: Messages, tools: list[Any] | None, template: Template) -> list[int]:
    """A conversation that the assistant is to go on with, as the model has learned to."""
    if template == "chat":
        assert isinstance(tokenizer, SubwordTokenizer)
        return tokenizer.encode_chat(messages, **_variables(tools))
    answered = [*messages, {"role": "assistant", "content": ""}]
    ids, said = encode_turns(tokenizer, answered, tools, template, first=len(messages))
    return ids[: said.index(True)] if True in said else ids


def _assistant(messages: Messages) -> list[int]:
    """The numbers of the assistant's messages."""
    return [number for number, message in enumerate(messages) if message["role"] == "assistant"]


def _variables(tools: list[Any] | None) -> dict[str, Any]:
    return {"tools": tools} if tools else {}


def _encode_chat(tokenizer: SubwordTokenizer, messages: Messages, tools: list[Any] | None, first: int) -> Said:
    def write(messages: Messages, **variables: Any) -> str:
        return tokenizer.apply_chat_template(messages, **{"add_generation_prompt": False, **_variables(tools), **variables})

    text = write(messages)
    _check_written(text, messages, tools)
    marked = tokenizer.chat_template is not None and _MARKED.search(tokenizer.chat_template)
    spans = (_marked_spans if marked else _prefix_spans)(write, text, messages, first)
    ids, offsets = tokenizer.encode_spans(text)
    begins, ends = np.array(offsets, np.int64).reshape(-1, 2).T
    said = np.zeros(len(ids), bool)
    for begin, end in spans:
        blank = (begins == ends) & (begin < ends) & (ends <= end)  # spaces, where the tokenizer leaves those out of its offsets
        said |= (begins < end) & (ends > begin) | blank
    return Said(ids, said.tolist())


def _check_written(text: str, messages: Messages, tools: list[Any] | None) -> None:
    """Refuse what the template leaves out: the model would learn to answer with nothing."""
    calls = [call["function"]["name"] for message in messages for call in message.get("tool_calls") or ()]
    given = [tool["function"]["name"] for tool in tools or () if "function" in tool]
    for what, names in (("calls of tools", calls), ("tools", given)):
        if names and names[0] not in text:
            raise ValueError(
                f"the chat template of this tokenizer has no place for {what}: it leaves {names[0]!r} out; use "
                "objective.template='plain', or a tokenizer whose template has"
            )


def _marked_spans(write: Write, text: str, messages: Messages, first: int) -> list[tuple[int, int]]:
    """What stands between the template's own marks."""
    marked = write(messages, **dict(zip(GENERATION_MARKS, _MARKS, strict=True)))
    pieces = re.split("|".join(_MARKS), marked)
    if "".join(pieces) != text:
        raise ValueError("the chat template changes the text that it marks as generated: take the marks out of the template")
    ends = np.cumsum([len(piece) for piece in pieces]).tolist()
    spans = list(zip(ends[0::2], ends[1::2], strict=False))
    answers = _assistant(messages)
    if len(spans) != len(answers) and first > 0:
        raise ValueError(
            f"the chat template must mark each answer as generated: it marks {len(spans)} pieces for {len(answers)} answers; "
            "use objective.turns='all', or another template"
        )
    return spans if first == 0 else spans[len(spans) - sum(number >= first for number in answers) :]


def _prefix_spans(write: Write, text: str, messages: Messages, first: int) -> list[tuple[int, int]]:
    """What the template writes for each answer, behind what it writes to ask for one."""
    spans = []
    for number in _assistant(messages):
        if number < first:
            continue
        before = write(messages[:number])
        asked = write(messages[:number], add_generation_prompt=True)
        upto = text if number == len(messages) - 1 else write(messages[: number + 1])
        if not text.startswith(upto) or not upto.startswith(before):
            raise ValueError(
                "the chat template writes the beginning of a conversation otherwise when it goes on, so an earlier answer "
                "cannot be told from the rest: set objective.turns='last', or put {% generation %} marks into the template"
            )
        begin = max(len(os.path.commonprefix([asked, upto])), len(before))
        answer = upto[begin:]
        content = str(messages[number].get("content") or "").strip()
        bare = content and answer.rstrip().endswith(content)  # no mark at the end but a line break
        spans.append((begin, len(upto) if bare else begin + len(answer.rstrip())))
    return spans


def plain_pieces(messages: Messages, tools: list[Any] | None) -> list[Piece]:
    """A conversation under headings, for tokenizers without a template; the end mark follows each answer."""
    pieces = [Piece(f"# Tools\n{json.dumps(tools, ensure_ascii=False)}\n\n", False)] if tools else []
    headings = {"system": "# Rules", "user": "# Request", "tool": "# Result"}
    for message in messages:
        if message["role"] == "assistant":
            pieces += [Piece("# Answer\n", False), Piece(_answer(message), True), Piece("\n\n", False)]
        else:
            pieces.append(Piece(f"{headings[message['role']]}\n{message['content']}\n\n", False))
    return _joined(pieces)


def verbatim_pieces(messages: Messages, tools: list[Any] | None) -> list[Piece]:
    """The messages as they are, one behind the other; the end mark follows each answer."""
    if tools:
        raise ValueError("objective.template='verbatim' has no place for tools: use 'plain', or a chat template")
    return _joined(
        [Piece(_answer(m) if m["role"] == "assistant" else m["content"], m["role"] == "assistant") for m in messages]
    )


def _answer(message: dict[str, Any]) -> str:
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in message.get("tool_calls") or ()]
    return "\n".join(part for part in (message.get("content") or "", *calls) if part)


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Text that nobody said in one piece, so that its tokens are those of the whole; what comes behind the last answer is left
    out."""
    joined: list[Piece] = []
    for piece in pieces:
        if joined and not piece.said and not joined[-1].said:
            joined[-1] = Piece(joined[-1].text + piece.text, False)
        else:
            joined.append(piece)
    while joined and not joined[-1].said:
        joined.pop()
    return joined
