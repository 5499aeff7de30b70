"""A small BERT: masked language modeling on whole words, on books, Wikipedia and web text.

Reproduces  nothing exact: BERT (arXiv:1810.04805) at the size "mini" of arXiv:1908.08962, without next-sentence prediction,
            and with norms before sublayers and rotary positions, as ModernBERT (arXiv:2412.13663). With BERT's own learned
            positions, norms behind sublayers and 200 steps of warmup the validation loss was 6.67 (11.0 % right) after 300
            steps, with these and 100 steps 5.90 (18.5 %)
Data        Gutenberg books, a little Wikipedia and C4, and WikiText-2 `valid` to train on; WikiText-2 `test` to report:
              jaxllm data build bert_text gutenberg/ wiki_c4_demo/ wikitext2/valid.txt --encoding utf-8,latin-1 \
                --test wikitext2/test.txt --validation-fraction 0.02 --split-by characters
Command     jaxllm train configs/bert_mini.py
Hardware    two CPU cores, shared with other work: 19 minutes
Result      scripts/benchmark/results/{run,masked_words}--bert_mini--*.json: WikiText-2 test, 4.28 nats a hidden token, where
            the unigram entropy is 6.41; 37.6 % of them guessed, 28.2 % without the literal <unk>
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, TokenizerConfig
from jaxllm.models import HeadConfig, TransformerConfig
from jaxllm.recipe import Recipe
from jaxllm.training import EvaluateConfig, OptimizerConfig, ScheduleConfig
from jaxllm.training.objectives import MaskedLM


def config() -> Recipe:
    return Recipe(
        name="bert_mini",
        steps=1300,
        batch_size=32,
        model=TransformerConfig(
            causal=False,
            num_layers=4,
            num_heads=4,
            embed_dim=256,
            context_len=128,
            activation="gelu",
            norm_placement="pre",
            embed_norm=True,
            position="rotary",
            head=HeadConfig(bias=True, transform=True),
        ),
        data=DataConfig(
            dataset="bert_text",
            seq_len=128,
            tokenizer=TokenizerConfig(kind="wordpiece", vocab_size=8192),
            cross_document_attention=True,
        ),
        objective=MaskedLM(whole_words=True),
        optimizer=OptimizerConfig(
            learning_rate=1e-3, b2=0.98, schedule=ScheduleConfig(kind="linear", warmup_steps=100, final_fraction=0.0)
        ),
        evaluate=EvaluateConfig(every=300),
        checkpoint=CheckpointConfig(every=300),
    )
