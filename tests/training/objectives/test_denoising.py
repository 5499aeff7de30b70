import numpy as np
import pytest

from jaxllm.training.objectives import Denoising
from tests.training.objectives.battery import BOTH, BPE


def examples(data, count=300, **options):
    source = Denoising(**options).rows(data, BOTH, "train", seed=0)
    return source, source.rows(np.arange(count)), source.base.rows(np.arange(count))


def valid(tokens, segments) -> list[int]:
    return tokens[segments > 0].tolist()


def is_subsequence(part: list[int], whole: list[int]) -> bool:
    rest = iter(whole)
    return all(token in rest for token in part)


@pytest.mark.parametrize("packing", ["concat", "fit"])
def test_the_target_is_the_text(open_set, packing):
    data = open_set(tokenizer=BPE, packing=packing)
    source, batch, base = examples(data)
    for k in range(len(batch["tokens"])):
        written = valid(batch["targets"][k], batch["decoder_segment_ids"][k])
        assert written.pop() == source.make.end
        assert written == valid(base["tokens"][k], base["segment_ids"][k])


def test_the_source_is_the_text_with_spans_masked(open_set):
    """What is left stands in its order; each mask hides what is missing there, 30 % in all and 3 at a time on average."""
    data = open_set(tokenizer=BPE, seq_len=64)
    source, batch, base = examples(data, permute_sentences=False)
    masks, left = 0, 0
    for k in range(len(batch["tokens"])):
        read = valid(batch["tokens"][k], batch["segment_ids"][k])
        assert read.pop() == source.make.end
        kept = [token for token in read if token != source.make.mask]
        assert is_subsequence(kept, valid(base["tokens"][k], base["segment_ids"][k]))
        masks, left = masks + len(read) - len(kept), left + len(kept)
    text = (base["segment_ids"] > 0).sum()
    hidden = text - left
    assert hidden == sum(np.ceil(0.3 * (base["segment_ids"] > 0).sum(axis=1)))
    assert 2.5 < hidden / masks < 3.1  # the last span of a row is cut short


def test_sentences_are_permuted_within_their_documents(open_set):
    data = open_set(tokenizer=BPE, seq_len=64)
    source, batch, base = examples(data, noise=0.0)
    ends, end = source.make.sentence_end, source.make.end
    moved = 0
    for k in range(len(batch["tokens"])):
        read, text = (valid(b["tokens"][k], b["segment_ids"][k]) for b in (batch, base))
        assert read.pop() == end
        moved += read != text
        begin = 0
        for segment in range(1, base["segment_ids"][k].max() + 1):
            count = int((base["segment_ids"][k] == segment).sum())
            there, here = text[begin : begin + count], read[begin : begin + count]
            assert sorted(there) == sorted(here)
            assert all(stands_in(sentence, here) for sentence in sentences(there, ends))
            assert (there[-1] == end) == (here[-1] == end)
            begin += count
    assert moved > 0.8 * len(batch["tokens"])


def sentences(text: list[int], ends: np.ndarray) -> list[list[int]]:
    """The whole ones."""
    parts: list[list[int]] = [[]]
    for token in text:
        parts[-1].append(token)
        if ends[token]:
            parts.append([])
    return parts[:-1]


def stands_in(part: list[int], whole: list[int]) -> bool:
    return any(whole[i : i + len(part)] == part for i in range(len(whole)))


def test_without_noise_and_permutation_the_source_is_the_text(open_set):
    _, batch, _ = examples(open_set(tokenizer=BPE), noise=0.0, permute_sentences=False)
    assert (batch["tokens"] == batch["targets"]).all()


def test_impossible_options():
    with pytest.raises(ValueError, match=r"objective.noise must be in \[0, 1\): got 1.0"):
        Denoising(noise=1.0)
    with pytest.raises(ValueError, match=r"objective.mean_span must be in \(0, 10\]: got 0"):
        Denoising(mean_span=0.0)
