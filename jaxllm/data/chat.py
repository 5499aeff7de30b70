"""A conversation as the text that a model was trained to continue, by the Jinja template published with its tokenizer.

A template is a program that a stranger wrote: it runs in Jinja's sandbox, which cannot reach Python's objects. The names it may
use are those that transformers gives it, so the text is the same.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = Mapping[str, Any]
"""{"role": "user", "content": "Hello"}; some templates know more fields."""
GENERATION_MARKS = ("generation_begin", "generation_end")


def render_chat(template: str, messages: Sequence[Message], *, add_generation_prompt: bool = True, **variables: Any) -> str:
    """The text of a conversation.

        render_chat(template, [{"role": "user", "content": "Hello"}], eos_token="</s>")

    Args:
      add_generation_prompt: end with what comes before the model's next answer.
      variables: what the template may use besides, such as `bos_token` and `tools`.

    Raises:
      ValueError: messages without a role, or the template is wrong or refuses them.
    """
    for message in messages:
        if not isinstance(message, Mapping) or "role" not in message:
            raise ValueError(f'a message must be like {{"role": "user", "content": "Hello"}}: got {message!r}')
    known = {"tools": None, "documents": None, "add_generation_prompt": add_generation_prompt} | variables
    try:
        return _compiled(template).render(messages=[dict(message) for message in messages], **known)
    except TemplateError as error:
        raise ValueError(f"the chat template of this tokenizer refuses the conversation: {error.message}") from error


@lru_cache(maxsize=8)
def _compiled(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals |= _FUNCTIONS
    return environment.from_string(template)


class _Generation(Extension):
    """{% generation %} marks, for those who train, what the model said: its text stands between the values of the two variables
    `GENERATION_MARKS`, where they are given."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        said = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        begin, end = (nodes.Output([nodes.Name(name, "load", lineno=line)], lineno=line) for name in GENERATION_MARKS)
        return [begin, *said, end]


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """As Python writes it: Jinja's own filter would write HTML entities."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


_FUNCTIONS: dict[str, Callable[..., Any]] = {"raise_exception": _refuse, "strftime_now": _now}
