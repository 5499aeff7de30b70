"""GPT-2 124M from scratch on OpenWebText: GPT-2's architecture, with batch and schedule of nanoGPT's config/train_gpt2.py.

Reproduces  aims at nanoGPT's validation loss of about 2.85 after 600,000 steps of 0.5 M tokens (its README: 4 days on
            eight A100 40 GB), which leaves biases out and lets documents attend to each other; here there are biases, as
            in GPT-2, and documents do not
Data        the TFDS set `openwebtext`, prepared where it can be downloaded, or any text:
              jaxllm data build mytext FOLDER --validation-fraction 0.001
              jaxllm train configs/gpt2_124m.py --data.dataset mytext
            The tokenizer is GPT-2's published one: --data.tokenizer.path FOLDER_WITH_TOKENIZER_JSON
Command     jaxllm train configs/gpt2_124m.py
Hardware    a v5e-8 (topology v5e:2x4), or GPUs; with less memory, more --accumulate
Planned     for v5e:2x4 (record plan): 5.7 of 16.9 GB a chip; estimated step 0.74 s, MFU 36%
Result      not run: no accelerator of that size yet; stepped at tiny size in the tests only
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, TokenizerConfig
from jaxllm.models import TransformerConfig
from jaxllm.recipe import Recipe
from jaxllm.training import EvaluateConfig, LossConfig, OptimizerConfig, ScheduleConfig


def config() -> Recipe:
    return Recipe(
        name="gpt2_124m",
        steps=600_000,
        batch_size=480,
        accumulate=5,
        seed=1337,
        model=TransformerConfig(
            vocab_size=50257,
            num_layers=12,
            num_heads=12,
            embed_dim=768,
            context_len=1024,
            compute_dtype="bfloat16",
            remat="dots",
        ),
        data=DataConfig(
            dataset="openwebtext:1.0.0",
            seq_len=1024,
            train_split="train[:-4000]",
            validation_split="train[-4000:]",
            test_split=None,
            tokenizer=TokenizerConfig(kind="pretrained", path="gpt2"),
            num_workers=8,
        ),
        loss=LossConfig(chunk=128),
        optimizer=OptimizerConfig(
            learning_rate=6e-4,
            b2=0.95,
            weight_decay=0.1,
            schedule=ScheduleConfig(kind="cosine", warmup_steps=2000, decay_steps=600_000, final_fraction=0.1),
        ),
        evaluate=EvaluateConfig(every=1000),
        checkpoint=CheckpointConfig(every=1000, keep_last=3),
    )
