r"""The Transformer of "Attention is all you need" (arXiv:1706.03762), small, translating German captions into English.

Reproduces  nothing exact: published Multi30k figures for text alone are 38 to 40 BLEU with larger models and ensembles
Data        Multi30k, task 1, 29,000 pairs (https://github.com/multi30k/dataset):
              jaxllm data build multi30k train.de.gz train.en.gz --pair de en --validation val.de.gz val.en.gz \
                --test test_2016_flickr.de.gz test_2016_flickr.en.gz
Command     jaxllm train configs/transformer_multi30k_de_en.py
Hardware    two CPU cores, shared with other work: 84 minutes
Result      scripts/benchmark/results/{run,translation_bleu}--transformer_multi30k_de_en--*.json: BLEU 39.9 +- 1.6 on the 2016
            test set, beam 4
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, TokenizerConfig
from jaxllm.models import EncoderDecoderConfig, HeadConfig, TransformerConfig
from jaxllm.recipe import Recipe
from jaxllm.training import EvaluateConfig, LossConfig, OptimizerConfig, ScheduleConfig
from jaxllm.training.objectives import SequenceToSequence


def config() -> Recipe:
    stack = dict(
        num_layers=3,
        num_heads=4,
        embed_dim=192,
        ffw_dim=512,
        context_len=128,
        position="sinusoidal",
        norm_placement="post",
        activation="relu",
        embed_scale=192**0.5,
        init_std=0.04,
        dropout=0.3,
    )
    return Recipe(
        name="transformer_multi30k_de_en",
        steps=3000,
        batch_size=32,
        model=EncoderDecoderConfig(
            encoder=TransformerConfig(causal=False, head=HeadConfig(kind="none"), **stack),  # type: ignore[arg-type]
            decoder=TransformerConfig(cross_attention=True, **stack),  # type: ignore[arg-type]
        ),
        data=DataConfig(
            dataset="multi30k",
            seq_len=128,
            text_feature="de",
            target_feature="en",
            tokenizer=TokenizerConfig(kind="bpe", vocab_size=8000),
        ),
        objective=SequenceToSequence(target_len=124),
        loss=LossConfig(label_smoothing=0.1),
        optimizer=OptimizerConfig(
            learning_rate=1e-3,
            b2=0.98,
            weight_decay=0.0,
            schedule=ScheduleConfig(kind="cosine", warmup_steps=400, final_fraction=0.05),
        ),
        evaluate=EvaluateConfig(every=500),
        checkpoint=CheckpointConfig(every=500),
    )
