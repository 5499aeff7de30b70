import jax
import numpy as np
import pytest

from jaxllm.data import TokenizerConfig
from jaxllm.models import init_params, make_model
from jaxllm.training import LossConfig
from jaxllm.training.objectives import SequenceToSequence
from tests.training.objectives.battery import BOTH, BPE
from tests.training.objectives.conftest import PAIRS


def pairs_of(data, batch):
    """The texts of each pair of each row, and what the decoder begins with."""
    for k in range(len(batch["tokens"])):
        for segment in range(1, batch["segment_ids"][k].max() + 1):
            read, written = batch["segment_ids"][k] == segment, batch["decoder_segment_ids"][k] == segment
            assert (batch["positions"][k][read] == np.arange(read.sum())).all()
            assert (batch["decoder_positions"][k][written] == np.arange(written.sum())).all()
            target = batch["targets"][k][written]
            assert batch["tokens"][k][read][-1] == target[-1] == data.tokenizer.eos_id
            assert (batch["decoder_tokens"][k][written] == [BOTH.start_id, *target[:-1]]).all()
            yield data.tokenizer.decode(batch["tokens"][k][read].tolist()), data.tokenizer.decode(target.tolist())


@pytest.mark.parametrize("split", ["train", "validation"])
def test_every_pair_is_there_once_an_epoch(open_set, split):
    data = open_set("pairs", tokenizer=BPE)
    source = SequenceToSequence().rows(data, BOTH, split, seed=0 if split == "train" else None)
    found = list(pairs_of(data, source.rows(np.arange(source.rows_per_epoch))))
    assert sorted(found) == sorted(PAIRS[:100] if split == "train" else PAIRS[100:])
    if split == "validation":
        assert PAIRS[100] in pairs_of(data, source.rows(np.arange(1)))


def test_packed_pairs_have_the_loss_of_single_ones(open_set):
    """A segment of the decoder attends to its own and to that of the encoder with its number."""
    data = open_set("pairs", tokenizer=BPE)
    batch = SequenceToSequence().rows(data, BOTH, "train", seed=0).rows(np.arange(3))
    model = make_model(BOTH)
    params = init_params(model, jax.random.key(0))
    loss = jax.jit(SequenceToSequence().make_loss(model, LossConfig()))
    together, apart, count = loss(params, batch, None), 0.0, 0
    for k in range(3):
        for segment in range(1, batch["segment_ids"][k].max() + 1):
            single = {name: array[k : k + 1] for name, array in batch.items()}
            for prefix in ("", "decoder_"):
                segments = single[f"{prefix}segment_ids"]
                single[f"{prefix}segment_ids"] = np.where(segments == segment, segments, 0)
            single["loss_weights"] = (single["decoder_segment_ids"] > 0).astype(np.float32)
            apart, count = apart + float(loss(params, single, None).cross_entropy), count + 1
    assert count > 5 and float(together.cross_entropy) == pytest.approx(apart, rel=1e-5)


def test_a_mark_before_each_source(open_set):
    """For tokenizers that were published with one, as BART's: the decoder's texts have none."""
    data = open_set("pairs", tokenizer=TokenizerConfig(kind="wordpiece", vocab_size=320))
    batch = SequenceToSequence().rows(data, BOTH, "train", seed=0).rows(np.arange(4))
    begins = (batch["positions"] == 0) & (batch["segment_ids"] > 0)
    assert begins.sum() > 4 and (batch["tokens"][begins] == data.tokenizer.cls_id).all()
    assert (batch["tokens"][~begins] != data.tokenizer.cls_id).all() and (batch["targets"] != data.tokenizer.cls_id).all()
    assert sorted(pairs_of(data, batch))[0] in [tuple(map(str, pair)) for pair in PAIRS]


def test_what_cannot_be(open_set):
    data = open_set("pairs", tokenizer=BPE)
    plain = open_set(tokenizer=BPE).config
    with pytest.raises(ValueError, match="needs data.target_feature, the second text of each pair: got none"):
        SequenceToSequence().check(BOTH, plain, LossConfig())
    with pytest.raises(ValueError, match="encoder's 80 tokens a row must not exceed model.encoder.context_len: got 64"):
        SequenceToSequence().check(BOTH, open_set("pairs", seq_len=80).config, LossConfig())
    with pytest.raises(ValueError, match="needs a tokenizer with an end mark"):
        other = open_set("pairs", tokenizer=TokenizerConfig(kind="characters"))
        SequenceToSequence().rows(other, BOTH, "train", seed=0)
    with pytest.raises(ValueError, match="has no feature 'nothing': it has here, id, there; choose with data.target_feature"):
        open_set("pairs", target_feature="nothing")
    assert data.config.target_feature == "there"
