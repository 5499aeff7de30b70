"""Ties of encoder-decoders: what is stored once, twice, or differently than the config says."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxllm.interchange import open_published
from tests.interchange.battery import golden, load, write_published

T5, MARIAN = "T5ForConditionalGeneration", "MarianMTModel"


def rewrite(folder, name, tensors, **fields):
    (folder / "config.json").write_text(json.dumps(golden(name)["config"] | fields))
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, folder / "model.safetensors")


def test_t5_with_an_output_matrix_of_its_own_as_published_and_as_transformers_5_writes_it(tmp_path):
    """The first says that nothing is tied; the second that everything is, and stores the matrix all the same."""
    tensors = write_published(tmp_path, f"{T5}.v1_1")
    written_anew = open_published(tmp_path).config
    assert golden(f"{T5}.v1_1")["config"]["tie_word_embeddings"] and not written_anew.decoder.tie_embeddings
    rewrite(tmp_path, f"{T5}.v1_1", tensors, tie_word_embeddings=False)
    assert open_published(tmp_path).config == written_anew


def test_t5_trained_without_scale_but_with_a_tied_matrix(tmp_path):
    tensors = write_published(tmp_path, f"{T5}.v1_1")
    del tensors["lm_head.weight"]
    rewrite(tmp_path, f"{T5}.v1_1", tensors)
    published, _, _ = load(tmp_path)
    assert published.config.decoder.tie_embeddings and published.config.decoder.unembed_scale is None


@pytest.mark.parametrize(
    ("name", "table", "copies"),
    [
        (T5, "shared.weight", ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")),
        (MARIAN, "model.shared.weight", ("model.decoder.embed_tokens.weight", "lm_head.weight")),
        (f"{MARIAN}.separate", "model.decoder.embed_tokens.weight", ("lm_head.weight",)),
    ],
)
def test_copies_of_a_tied_embedding(name, table, copies, tmp_path):
    """Each may be stored beside it if it is equal, or alone."""
    tensors = write_published(tmp_path, name)
    everything = tensors | dict.fromkeys(copies, tensors[table])
    rewrite(tmp_path, name, everything)
    load(tmp_path)
    for copy in copies:
        rewrite(tmp_path, name, {key: value for key, value in tensors.items() if key != table} | {copy: tensors[table]})
        load(tmp_path)
        rewrite(tmp_path, name, everything | {copy: tensors[table] + 1})
        with pytest.raises(ValueError, match=f"{copy} in .* must equal {table}, since config.json ties them"):
            load(tmp_path)
