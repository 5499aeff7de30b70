"""A Llama-style model of 1.2 billion parameters, at the size of Llama 3.2 1B, on 26 billion tokens, 20 for each parameter.

Reproduces  nothing exact: the architecture of Llama 3.2 1B, and the tokens that arXiv:2203.15556 finds best for its size
Data        any large text, such as FineWeb-Edu as Parquet files:
              jaxllm data build webtext FOLDER --validation-fraction 0.0005 --test-fraction 0
            The tokenizer is Llama 3's published one: --data.tokenizer.path FOLDER_WITH_TOKENIZER_JSON
Command     jaxllm train configs/llama_1b.py --mesh.fsdp 16
Hardware    a v4-32 (16 chips, topology v4:2x2x4); on other slices their number of chips as --mesh.fsdp, and with less memory
            more --accumulate
Planned     for v4:2x2x4 with --mesh.fsdp 16 (record plan): 7.6 of 33.0 GB a chip; estimated step 2.24 s, MFU 44%
Result      not run: no accelerator of that size yet; stepped at tiny size in the tests only
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, TokenizerConfig
from jaxllm.models import TransformerConfig
from jaxllm.recipe import Recipe
from jaxllm.training import EvaluateConfig, LossConfig, OptimizerConfig, ScheduleConfig


def config() -> Recipe:
    return Recipe(
        name="llama_1b",
        steps=50_000,
        batch_size=256,
        model=TransformerConfig(
            vocab_size=128256,
            num_layers=16,
            num_heads=32,
            num_kv_heads=8,
            embed_dim=2048,
            ffw_dim=8192,
            context_len=2048,
            norm="rms_norm",
            position="rotary",
            rope_theta=500_000.0,
            activation="swiglu",
            bias=False,
            compute_dtype="bfloat16",
            remat="block",
        ),
        data=DataConfig(
            dataset="webtext",
            seq_len=2048,
            test_split=None,
            tokenizer=TokenizerConfig(kind="pretrained", path="llama-3.2-1b"),
            num_workers=8,
        ),
        loss=LossConfig(z_loss=1e-4, chunk=256),
        optimizer=OptimizerConfig(
            learning_rate=6e-4, weight_decay=0.1, schedule=ScheduleConfig(kind="cosine", warmup_steps=2000, final_fraction=0.1)
        ),
        evaluate=EvaluateConfig(every=1000, batches=50),
        checkpoint=CheckpointConfig(every=1000, keep_last=3),
    )
