"""BERT base with the paper's settings: masked language modeling, 12 layers of width 768, a million steps of 256 rows.

Reproduces  aims at BERT base, uncased (arXiv:1810.04805, appendix A.2), without next-sentence prediction, which RoBERTa
            (arXiv:1907.11692) found to do no good; whole rows of 512 tokens from the first step on
Data        English Wikipedia and books as text files:
              jaxllm data build wikibooks FOLDER --validation-fraction 0.001 --test-fraction 0.001
            The tokenizer is BERT's published one: --data.tokenizer.path FOLDER_WITH_TOKENIZER_JSON
Command     jaxllm train configs/bert_base.py
Hardware    a guess: four days on a v3-32, as in the paper; with less memory, --accumulate
Result      not run: no accelerator of that size yet; stepped at tiny size in the tests only
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, TokenizerConfig
from jaxllm.models import HeadConfig, TransformerConfig
from jaxllm.recipe import Recipe
from jaxllm.training import EvaluateConfig, OptimizerConfig, ScheduleConfig
from jaxllm.training.objectives import MaskedLM


def config() -> Recipe:
    return Recipe(
        name="bert_base",
        steps=1_000_000,
        batch_size=256,
        model=TransformerConfig(
            vocab_size=30522,
            causal=False,
            num_layers=12,
            num_heads=12,
            embed_dim=768,
            context_len=512,
            activation="gelu",
            norm_placement="post",
            norm_epsilon=1e-12,
            embed_norm=True,
            token_types=2,
            head=HeadConfig(bias=True, transform=True),
            dropout=0.1,
            compute_dtype="bfloat16",
            remat="dots",
        ),
        data=DataConfig(
            dataset="wikibooks",
            seq_len=512,
            tokenizer=TokenizerConfig(kind="pretrained", path="bert-base-uncased"),
            cross_document_attention=True,
            num_workers=8,
        ),
        objective=MaskedLM(),
        optimizer=OptimizerConfig(
            learning_rate=1e-4,
            b2=0.999,
            epsilon=1e-6,
            weight_decay=0.01,
            schedule=ScheduleConfig(kind="linear", warmup_steps=10_000, final_fraction=0.0),
        ),
        evaluate=EvaluateConfig(every=10_000),
        checkpoint=CheckpointConfig(every=5000, keep_last=3),
    )
