"""Methods that train parameters of the model itself: all, some by name, or biases alone (BitFit, arXiv:2106.10199)."""

from dataclasses import dataclass

from jaxllm.finetune.method import HEADS, Defaults, listed
from jaxllm.models import ModelConfig


class _Own(Defaults):
    """What methods without parameters of their own share."""

    @property
    def dropout(self) -> float:
        return 0.0


@dataclass(frozen=True, kw_only=True)
class Full(_Own):
    """Every parameter learns."""

    def learns(self, path: str) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class Freeze(_Own):
    """Parameters whose path matches a pattern stay as they are; the others learn."""

    patterns: tuple[str, ...] = (
        "embed/*", "position", "position/*", "token_type/*", "patch/*", "class_token", "distillation_token", "layers/*",
    )  # fmt: skip
    """Paths, * for any text: "*/embed/table". By default all but norms behind the blocks and heads."""

    def learns(self, path: str) -> bool:
        return not listed(path, self.patterns)


@dataclass(frozen=True, kw_only=True)
class BitFit(_Own):
    """Biases learn, and the head of the task (arXiv:2106.10199)."""

    also: tuple[str, ...] = HEADS
    """Paths of other parameters that learn, * for any text."""

    def check(self, model: ModelConfig) -> None:
        if not _has_biases(model):
            raise ValueError("method BitFit needs a model with biases: this one has none; take LoRA or IA3")

    def learns(self, path: str) -> bool:
        return path.endswith("/bias") or listed(path, self.also)


def _has_biases(model: ModelConfig) -> bool:
    stacks = [getattr(model, name) for name in ("encoder", "decoder") if hasattr(model, name)] or [model]
    return any(stack.bias or stack.qkv_bias or stack.norm == "layer_norm" for stack in stacks)  # type: ignore[union-attr]
