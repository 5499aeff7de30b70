"""Mixtral 8x7B on a v4-128: each chip holds one of eight experts of its group, and a part of everything.

Reproduces  Mixtral's architecture (arXiv:2401.04088); how it was trained was not published
Data        any large text, such as FineWeb-Edu as Parquet files:
              jaxllm data build webtext FOLDER --validation-fraction 0.0005 --test-fraction 0
            The tokenizer is Mixtral's published one: --data.tokenizer.path FOLDER_WITH_TOKENIZER_JSON
Command     jaxllm train configs/mixtral_8x7b.py
Hardware    a v4-128 (64 chips, topology v4:4x4x4)
Planned     for v4:4x4x4 (record plan): 31.9 of 33.0 GB a chip; estimated step 3.98 s, MFU 31%
Result      not run: no accelerator of that size yet; stepped at tiny size in the tests only
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, TokenizerConfig
from jaxllm.models import ExpertsConfig, TransformerConfig
from jaxllm.recipe import Recipe
from jaxllm.sharding import MeshConfig
from jaxllm.training import EvaluateConfig, LossConfig, OptimizerConfig, ScheduleConfig


def config() -> Recipe:
    return Recipe(
        name="mixtral_8x7b",
        steps=250_000,
        batch_size=64,
        model=TransformerConfig(
            vocab_size=32000,
            num_layers=32,
            num_heads=32,
            num_kv_heads=8,
            embed_dim=4096,
            ffw_dim=14336,
            experts=ExpertsConfig(num_experts=8, top_k=2, load_balance=0.02),
            context_len=32768,
            norm="rms_norm",
            position="rotary",
            rope_theta=1_000_000.0,
            activation="swiglu",
            bias=False,
            tie_embeddings=False,
            compute_dtype="bfloat16",
            remat="block",
        ),
        data=DataConfig(
            dataset="webtext",
            seq_len=4096,
            test_split=None,
            tokenizer=TokenizerConfig(kind="pretrained", path="mixtral-8x7b"),
            num_workers=8,
        ),
        loss=LossConfig(chunk=512),
        optimizer=OptimizerConfig(
            learning_rate=3e-4,
            b2=0.95,
            weight_decay=0.1,
            schedule=ScheduleConfig(kind="cosine", warmup_steps=2000, final_fraction=0.1),
        ),
        mesh=MeshConfig(data=1, fsdp=8, expert=8),
        evaluate=EvaluateConfig(every=1000, batches=20),
        checkpoint=CheckpointConfig(every=1000, keep_last=3),
    )
