"""What argparse refuses, in one line: what was expected, what came, and the name that was probably meant."""

import argparse
import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

_KINDS = {"int": "a whole number", "float": "a number"}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose mistakes are a ValueError without the usage; its subcommands' parsers are the same."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        if args is not None and self._subparsers is None:  # what stands behind a subcommand is that one's to know
            self._check_names(args)
        return super().parse_known_args(args, namespace)

    def _check_names(self, args: Sequence[str]) -> None:
        """A mistyped option is said before one that is missing, which is often the same."""
        known = self._option_string_actions
        for name in (each.partition("=")[0] for each in args):
            if name == "--":
                return
            if name.startswith("--") and " " not in name and not any(option.startswith(name) for option in known):
                self.error(f"unknown option {name}: {_did_you_mean(name, known) or self._help()}")

    def split_fields(self, args: Sequence[str]) -> tuple[list[str], list[str]]:
        """The command's own words, and those that change fields of a recipe: options that are not its own, nor mistyped ones
        of its own, each with its value."""
        known, own, fields = self._option_string_actions, [], []
        words = own
        for word in args:
            if word.startswith("-"):
                name = word.partition("=")[0]
                is_field = name not in known and ("." in name or not difflib.get_close_matches(name, known, cutoff=0.75))
                words = fields if is_field else own
            words.append(word)
        return own, fields

    def error(self, message: str) -> NoReturn:
        """Raises ValueError, in our words where argparse's are not plain."""
        if found := re.fullmatch(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", message):
            choices = re.findall(r"[^\s',]+", found[3])
            near = _did_you_mean(found[2], choices)
            message = f"{found[1]} must be one of {', '.join(choices)}: got {found[2]!r}{near and f'; {near}'}"
        elif found := re.fullmatch(r"argument (\S+): invalid (int|float) value: (.*)", message):
            message = f"{found[1]} must be {_KINDS[found[2]]}: got {found[3]}"
        elif found := re.fullmatch(r"the following arguments are required: (.*)", message):
            message = f"expected {', '.join(map(self._described, found[1].split(', ')))}: got none; {self._help()}"
        elif found := re.fullmatch(r"unrecognized arguments: (.*)", message):
            message = f"unexpected {found[1]}: {self._help()}"
        raise ValueError(message.removeprefix("argument "))

    def _described(self, name: str) -> str:
        """A missing option with what its help says, such as --prompt TEXT (text to continue)."""
        action = self._option_string_actions.get(name)
        return name if action is None else f"{name} {action.metavar} ({action.help})"

    def _help(self) -> str:
        return f"`{self.prog} --help` says what there is"


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else ""
