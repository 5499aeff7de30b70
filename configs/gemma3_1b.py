"""Gemma 3 1B on a v5e-32: small layers and a vocabulary of 262,144, fully sharded.

Reproduces  Gemma 3's architecture (arXiv:2503.19786), which learned from 2 T tokens by distillation; here by plain next
            tokens
Data        any large text, such as FineWeb-Edu as Parquet files:
              jaxllm data build webtext FOLDER --validation-fraction 0.0005 --test-fraction 0
            The tokenizer is Gemma 3's published one: --data.tokenizer.path FOLDER_WITH_TOKENIZER_JSON
Command     jaxllm train configs/gemma3_1b.py
Hardware    a v5e-32 (topology v5e:4x8)
Planned     for v5e:4x8 (record plan): 4.2 of 16.9 GB a chip; estimated step 0.80 s, MFU 33%
Result      not run: no accelerator of that size yet; stepped at tiny size in the tests only
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, TokenizerConfig
from jaxllm.models import TransformerConfig
from jaxllm.recipe import Recipe
from jaxllm.sharding import MeshConfig
from jaxllm.training import EvaluateConfig, LossConfig, OptimizerConfig, ScheduleConfig


def config() -> Recipe:
    return Recipe(
        name="gemma3_1b",
        steps=500_000,
        batch_size=128,
        model=TransformerConfig(
            vocab_size=262144,
            num_layers=26,
            num_heads=4,
            num_kv_heads=1,
            head_dim=256,
            embed_dim=1152,
            ffw_dim=6912,
            context_len=32768,
            activation="geglu_tanh",
            norm="rms_norm",
            norm_unit_offset=True,
            norm_epsilon=1e-6,
            norm_placement="sandwich",
            embed_scale=1152**0.5,
            position="rotary",
            rope_theta=1_000_000.0,
            local_rope_theta=10_000.0,
            window=512,
            full_attention_layers=(5, 11, 17, 23),
            qk_norm="head",
            bias=False,
            compute_dtype="bfloat16",
            remat="block",
        ),
        data=DataConfig(
            dataset="webtext",
            seq_len=2048,
            test_split=None,
            tokenizer=TokenizerConfig(kind="pretrained", path="gemma-3-1b"),
            num_workers=8,
        ),
        loss=LossConfig(chunk=256),
        optimizer=OptimizerConfig(
            learning_rate=1e-3,
            b2=0.95,
            weight_decay=0.1,
            schedule=ScheduleConfig(kind="cosine", warmup_steps=2000, final_fraction=0.1),
        ),
        mesh=MeshConfig(data=1, fsdp=32),
        evaluate=EvaluateConfig(every=1000, batches=20),
        checkpoint=CheckpointConfig(every=1000, keep_last=3),
    )
