"""The smallest run that has everything: two layers on tiny Shakespeare, a step in milliseconds."""

import dataclasses
from typing import Any

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, TokenizerConfig
from jaxllm.inference import SamplingConfig
from jaxllm.models import TransformerConfig
from jaxllm.recipe import Recipe, SampleConfig
from jaxllm.sharding import MeshConfig
from jaxllm.training import EvaluateConfig, LogConfig, OptimizerConfig, ScheduleConfig


def config(**changes: Any) -> Recipe:
    recipe = Recipe(
        name="tiny",
        steps=12,
        batch_size=8,
        model=TransformerConfig(num_layers=2, num_heads=2, embed_dim=16, context_len=16, init_std=0.1, layer_loop="scan"),
        data=DataConfig(dataset="tiny_shakespeare", seq_len=16, test_split=None, tokenizer=TokenizerConfig(kind="characters")),
        optimizer=OptimizerConfig(learning_rate=1e-3, schedule=ScheduleConfig(warmup_steps=2, decay_steps=60)),
        mesh=MeshConfig(data=1),
        evaluate=EvaluateConfig(every=6, batch_size=64, batches=4),
        checkpoint=CheckpointConfig(every=4),
        log=LogConfig(every=3, tensorboard=False),
        sample=SampleConfig(prompt="ROMEO:", sampling=SamplingConfig(max_tokens=8)),
    )
    return dataclasses.replace(recipe, **changes)
