"""The command line: one thin file a command. Help imports neither JAX nor anything that does."""

import errno
import os
import sys
from collections.abc import Callable
from importlib import import_module

COMMANDS = {
    "train": "train a recipe, or go on with a run",
    "generate": "continue a prompt with a trained or published model",
    "evaluate": "what a model is worth on a split: loss, metrics with intervals, a report by class",
    "convert": "a model to and from the Hugging Face layout, or from GGUF",
    "data": "build a data set from files, or look at one",
    "sweep": "search a recipe's hyperparameters, or run it with several seeds or folds",
    "plan": "memory and speed of a recipe on hardware that is not here",
    "doctor": "check this machine, and say what to do about it",
}

HELP = """jaxllm: the life of a language model in JAX.

usage: jaxllm COMMAND ...

{commands}

  jaxllm COMMAND --help    what a command takes
  jaxllm --version

A first run:  jaxllm train configs/shakespeare_char.py
"""


def run(argv: list[str]) -> int:
    """Runs one command line; returns the exit code: 0 done, 1 the run failed, 2 bad input."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP.format(commands="\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items())), end="")
        return 0 if argv else 2
    if argv[0] == "--version":
        from jaxllm import __version__

        print(f"jaxllm {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(argv[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        return _fail(f"unknown command {argv[0]!r}: {hint}", 2)
    command: Callable[[list[str]], int] = import_module(f"jaxllm.cli.{argv[0]}").run
    return _guarded(command, argv[1:])


def _guarded(command: Callable[[list[str]], int], argv: list[str]) -> int:
    """Runs a command; what the user can mend is said in one line, without a traceback."""
    try:
        return command(argv)
    except (ValueError, OSError) as error:
        if os.environ.get("JAXLLM_TRACEBACK"):
            raise
        return _fail(_words(error), 1 if _run_failed(error) else 2)
    except RuntimeError as error:
        if not _run_failed(error):
            raise
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)


def _run_failed(error: Exception) -> bool:
    """Whether the run met its end on the way, rather than what the user typed being wrong."""
    if isinstance(error, OSError):
        from jaxllm.checkpoint import SaveError

        return isinstance(error, SaveError) or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
    if isinstance(error, RuntimeError):
        from jaxllm.training import NonFiniteLoss

        return isinstance(error, NonFiniteLoss)
    return False


def _words(error: Exception) -> str:
    """The message on one line; where the system made it, with the file first."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code
