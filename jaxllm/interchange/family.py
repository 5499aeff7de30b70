"""What a family of published models is: one value in one small file of `families`."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from jaxllm.interchange.config_reader import ConfigReader
from jaxllm.interchange.keymap import Tensor


@dataclass(frozen=True, kw_only=True)
class Family:
    """A published class of models: its config both ways, and its key map.

    Every file in `families` has a `FAMILIES`, a tuple of these.
    """

    architectures: tuple[str, ...]
    """The classes that config.json names."""
    read_config: Callable[[ConfigReader], Any]
    """Our config from the published one. Fields that are not read are refused afterwards."""
    write_config: Callable[[Any], dict[str, Any]]
    """The published config, with architectures and model_type. It need not check that it can say everything: the result is
    read back and compared."""
    tensors: Callable[[Any], list[Tensor]]
    """The key map for one of our configs."""
    settle: Callable[[Any, Collection[str]], Any] | None = None
    """Our config, put right by the names of the stored tensors, for what config.json leaves open."""
    ignored: tuple[str, ...] = ()
    """Published tensors that hold no parameters, such as masks: names with * for any text."""
    tied: Mapping[str, str] = field(default_factory=dict)
    """Published names that may stand for another one when the key map does not have them: {"lm_head.weight":
    "model.embed_tokens.weight"}. That one may in turn stand for a third. A folder may store either or, if they are equal,
    both."""
    prefix: str = ""
    """What published names begin with when the model was saved inside a larger one: "transformer.". Names are found with
    or without it, whatever the key map has."""
    renamed: tuple[tuple[str, str], ...] = ()
    """Endings of names in older files and what they are now: ((".gamma", ".weight"),)."""

    def ignores(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.ignored)

    def stands_for(self, name: str, expected: Collection[str]) -> str | None:
        """Which of the `expected` tensors a tied one is."""
        target = self.tied.get(name)
        return target if target is None or target in expected else self.stands_for(target, expected)

    def spellings(self, name: str) -> list[str]:
        """What a stored name may be called in the key map."""
        endings = [name, *(name.removesuffix(old) + new for old, new in self.renamed if name.endswith(old))]
        if not self.prefix:
            return endings
        return [text for ending in endings for text in (ending, self.prefix + ending, ending.removeprefix(self.prefix))]
