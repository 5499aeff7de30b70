"""Methods that train parameters of the model itself: all, some by name, or biases alone (BitFit, arXiv:2106.10199)."""

from dataclasses import dataclass

from jaxllm.finetune.method import HEADS, Defaults, listed
from jaxllm.models import EncoderDecoderConfig, ModelConfig, VisionConfig, abstract_params, make_model, paths


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
    """Parameters whose path, in a stack of blocks, matches a pattern stay as they are; the others learn."""

    patterns: tuple[str, ...] = (
        "embed/*", "embed_norm/*", "position", "position/*", "token_type/*", "relative_bias", "patch/*", "class_token",
        "distillation_token", "layers/*",
    )  # fmt: skip
    """Paths, * for any text: "layers/ffw/*", which means encoder and decoder, or "encoder/*". By default all but norms behind
    the blocks and heads."""

    def check(self, model: ModelConfig) -> None:
        there = _paths(model) if _is_told(model) else ()
        learn = [self.learns(path) for path in there]
        if learn and all(learn):
            raise ValueError(
                f"method.patterns must freeze parameters of this model: {', '.join(self.patterns) or 'no pattern'} matches "
                f"none of its paths, {', '.join(there)}; take Full to train all"
            )
        if learn and not any(learn):
            raise ValueError(
                f"method.patterns must leave parameters of this model to learn: {', '.join(self.patterns)} matches all of its "
                "paths; name fewer, or take LoRA"
            )

    def learns(self, path: str) -> bool:
        stack = path.removeprefix("encoder/").removeprefix("decoder/")
        return not (listed(path, self.patterns) or listed(stack, self.patterns))


@dataclass(frozen=True, kw_only=True)
class BitFit(_Own):
    """Biases learn, and the head of the task (arXiv:2106.10199)."""

    also: tuple[str, ...] = HEADS
    """Paths of other parameters that learn, * for any text."""

    def check(self, model: ModelConfig) -> None:
        if _is_told(model) and not any(path.endswith("/bias") and "layers" in path.split("/") for path in _paths(model)):
            raise ValueError("method BitFit needs a model with biases in its layers: this one has none; take LoRA or IA3")

    def learns(self, path: str) -> bool:
        return path.endswith("/bias") or listed(path, self.also)


def _is_told(model: ModelConfig) -> bool:
    """Whether the sizes that data can tell, of vocabulary and labels, are there; a recipe asks anew when they are."""
    if isinstance(model, VisionConfig):
        return True
    stacks = (model.encoder, model.decoder) if isinstance(model, EncoderDecoderConfig) else (model,)
    labelled = [stack.head for stack in stacks if stack.head.kind in ("sequence", "tokens")]
    return all(stack.vocab_size is not None for stack in stacks) and all(head.num_labels is not None for head in labelled)


def _paths(model: ModelConfig) -> tuple[str, ...]:
    return tuple(paths(abstract_params(make_model(model))[0]))
