"""What a run leaves to its device and its mesh is told in sentences."""

import dataclasses

import pytest

from jaxllm.models import EncoderDecoderConfig, HeadConfig, TransformerConfig
from jaxllm.recipe.choices import describe_choices
from jaxllm.recipe.program import Program
from jaxllm.sharding import MeshConfig, make_mesh
from jaxllm.training.objectives import SpanCorruption
from tests.recipe import tiny

STACK = TransformerConfig(num_layers=2, num_heads=2, embed_dim=16, context_len=16, vocab_size=64)
PAIR = EncoderDecoderConfig(
    encoder=dataclasses.replace(STACK, causal=False, head=HeadConfig(kind="none")),
    decoder=dataclasses.replace(STACK, cross_attention=True),
)


def told(model, stage, **changes):
    recipe = tiny.config(model=model, mesh=MeshConfig(stage=stage), **changes)
    return describe_choices(Program(recipe, make_mesh(recipe.mesh, recipe.batch_size)))


@pytest.mark.parametrize(
    ("model", "changes", "why"),
    [
        (PAIR, {"objective": SpanCorruption()}, "model.decoder looks at an encoder, so its layers do not pass batches through"),
        (dataclasses.replace(STACK, pruned_heads=((0, 1),)), {}, "model has layers of several sizes, so its layers do not"),
    ],
)
def test_layers_that_do_not_work_in_stages_are_named(model, changes, why):
    lines = [line for line in told(model, 2, **changes) if "stage" in line]
    assert len(lines) == 1 and why in lines[0] and "mesh.stage=2: each device gathers and computes all" in lines[0]
    assert not any("stage" in line for line in told(model, 1, **changes))


def test_of_a_decoder_in_stages_nothing_is_said():
    (line,) = told(STACK, 2)
    assert line == "attention by xla (cpu)"
