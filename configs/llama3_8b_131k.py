"""Llama 3.1 8B goes on with sequences of 131,072 tokens, each split over 16 chips of a v5p-256.

Reproduces  the last stage of Llama 3.1's long-context training (arXiv:2407.21783, section 3.4.2), which went on
            from the stage before; here from scratch
Data        any large text, such as FineWeb-Edu as Parquet files:
              jaxllm data build webtext FOLDER --validation-fraction 0.0005 --test-fraction 0
            The tokenizer is Llama 3's published one: --data.tokenizer.path FOLDER_WITH_TOKENIZER_JSON
Command     jaxllm train configs/llama3_8b_131k.py
Hardware    a v5p-256 (128 chips, topology v5p:4x4x8)
Planned     for v5p:4x4x8 (record plan): 7.7 of 102.8 GB a chip; estimated step 9.23 s, MFU 49%
Result      not run: no accelerator of that size yet; stepped at tiny size in the tests only
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, TokenizerConfig
from jaxllm.models import RopeScaling, TransformerConfig
from jaxllm.recipe import Recipe
from jaxllm.sharding import MeshConfig
from jaxllm.training import EvaluateConfig, LossConfig, OptimizerConfig, ScheduleConfig


def config() -> Recipe:
    return Recipe(
        name="llama3_8b_131k",
        steps=100_000,
        batch_size=8,
        model=TransformerConfig(
            vocab_size=128256,
            num_layers=32,
            num_heads=32,
            num_kv_heads=8,
            embed_dim=4096,
            ffw_dim=14336,
            context_len=131072,
            norm="rms_norm",
            position="rotary",
            rope_theta=500_000.0,
            rope_scaling=RopeScaling(
                kind="llama3", factor=8.0, original_context_len=8192, low_frequency_factor=1.0, high_frequency_factor=4.0
            ),
            activation="swiglu",
            bias=False,
            tie_embeddings=False,
            compute_dtype="bfloat16",
            remat="block",
        ),
        data=DataConfig(
            dataset="webtext",
            seq_len=131_072,
            test_split=None,
            tokenizer=TokenizerConfig(kind="pretrained", path="llama-3.1-8b"),
            num_workers=8,
        ),
        loss=LossConfig(chunk=1024),
        optimizer=OptimizerConfig(
            learning_rate=8e-5,
            b2=0.95,
            weight_decay=0.1,
            schedule=ScheduleConfig(kind="cosine", warmup_steps=100, final_fraction=0.1),
        ),
        mesh=MeshConfig(data=1, fsdp=8, context=16),
        evaluate=EvaluateConfig(every=1000, batches=20),
        checkpoint=CheckpointConfig(every=1000, keep_last=3),
    )
