"""Encoder families beyond the battery: older spellings, heads, labels, and where the first token stands."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxllm.interchange import ConfigReader, find_family, open_published, write_folder
from jaxllm.interchange.export import published_config
from jaxllm.interchange.open import read_config
from jaxllm.models import HeadConfig
from jaxllm.recipe import Loaded
from tests.interchange.battery import golden, load, write_published
from tests.interchange.encoder_battery import model_inputs


def logits_of(folder, name):
    published, model, params = load(folder)
    inputs, more = model_inputs(golden(name), published.config)
    return model.apply({"params": params}, inputs, **more).logits


def rewritten(folder, rename, more=None):
    """The folder's tensors under other names."""
    published = open_published(folder)
    tensors = {
        rename(name): published.tensors.read(name, tuple(slice(0, n) for n in published.tensors.shape(name)))
        for name in published.tensors.names
    }
    save_file(tensors | (more or {}), folder / "model.safetensors")


def as_first_released(name):
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


@pytest.mark.parametrize(
    ("name", "rename"),
    [
        ("BertForMaskedLM", as_first_released),
        ("BertForMaskedLM", lambda name: name.removeprefix("bert.")),
        ("BertModel", lambda name: as_first_released(f"bert.{name}")),
        ("RobertaForMaskedLM", as_first_released),
        ("DistilBertForMaskedLM", lambda name: name.removeprefix("distilbert.")),
    ],
)
def test_older_spellings_are_the_same_model(tmp_path, name, rename):
    write_published(tmp_path, name)
    want = load(tmp_path)[2]
    rewritten(tmp_path, rename)
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path)[2], want)


def test_what_a_pretrained_folder_has_besides_is_left(tmp_path):
    """The first BERT files have the other head, the pooler, positions as a buffer, and the tied matrix once more."""
    tensors = write_published(tmp_path, "BertForMaskedLM")
    want = load(tmp_path)[2]
    more = {
        "cls.seq_relationship.weight": np.ones((2, 32), np.float32),
        "bert.pooler.dense.weight": np.ones((32, 32), np.float32),
        "bert.embeddings.position_ids": np.arange(24)[None],
        "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"],
        "cls.predictions.decoder.bias": tensors["cls.predictions.bias"],
    }
    rewritten(tmp_path, str, more)
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path)[2], want)


def test_an_untied_bert_reads_its_own_output_matrix(tmp_path):
    tensors = write_published(tmp_path, "BertForMaskedLM")
    tied = logits_of(tmp_path, "BertForMaskedLM")
    (tmp_path / "config.json").write_text(json.dumps(golden("BertForMaskedLM")["config"] | {"tie_word_embeddings": False}))
    more = {
        "cls.predictions.decoder.weight": 2 * tensors["bert.embeddings.word_embeddings.weight"],
        "cls.predictions.decoder.bias": 2 * tensors["cls.predictions.bias"],
    }
    save_file(tensors | more, tmp_path / "model.safetensors")
    np.testing.assert_allclose(logits_of(tmp_path, "BertForMaskedLM"), 2 * tied, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "BertModel"])
def test_the_first_token_is_found_behind_padding(tmp_path, name):
    write_published(tmp_path, name)
    published, model, params = load(tmp_path)
    tokens, more = model_inputs(golden(name), published.config)
    shift = int(jnp.sum(more["segment_ids"][0] == 0))
    assert shift == 4
    left = {key: jnp.roll(value[:1], shift, axis=1) for key, value in more.items()}
    got = model.apply({"params": params}, jnp.roll(tokens[:1], shift, axis=1), **left)
    want = golden(name)["logits"][:1]
    np.testing.assert_allclose(got.pooled if got.logits is None else got.logits, want, atol=1e-5)


def test_labels_keep_their_names(tmp_path):
    write_published(tmp_path / "in", "BertForSequenceClassification")
    published, _, params = load(tmp_path / "in")
    assert published.config.head.label_names == ("bad", "neither", "good")
    write_folder(tmp_path / "out", published.family, published.config, params)
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    assert fields["id2label"] == {"0": "bad", "1": "neither", "2": "good"}
    assert fields["label2id"] == {"bad": 0, "neither": 1, "good": 2}


def test_several_labels_of_a_text(tmp_path):
    write_published(tmp_path / "in", "BertForSequenceClassification")
    fields = json.loads((tmp_path / "in" / "config.json").read_text())
    (tmp_path / "in" / "config.json").write_text(json.dumps(fields | {"problem_type": "multi_label_classification"}))
    published, _, params = load(tmp_path / "in")
    assert published.config.head.several
    write_folder(tmp_path / "out", published.family, published.config, params)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["problem_type"] == "multi_label_classification"
    assert load(tmp_path / "out")[0].config == published.config
    (tmp_path / "in" / "config.json").write_text(json.dumps(fields | {"problem_type": "single_label_classification"}))
    published, _, params = load(tmp_path / "in")
    assert not published.config.head.several
    write_folder(tmp_path / "one", published.family, published.config, params)
    assert "problem_type" not in json.loads((tmp_path / "one" / "config.json").read_text())


def read(**fields):
    reader = ConfigReader(fields, "config.json")
    return read_config(find_family(reader.architecture), reader)


SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
BERT = SIZES | {"vocab_size": 61, "max_position_embeddings": 24, "model_type": "bert"}


def test_labels_without_names():
    head = read(**BERT, architectures=["BertForTokenClassification"], num_labels=7).head
    assert (head.num_labels, head.label_names) == (7, None)
    head = read(**BERT, architectures=["BertForTokenClassification"], id2label={"0": "LABEL_0"}).head
    assert (head.num_labels, head.label_names) == (1, None)
    assert read(**BERT, architectures=["BertForSequenceClassification"]).head.num_labels == 2


def test_labels_that_are_not_counted_from_0_are_refused():
    with pytest.raises(ValueError, match="id2label in config.json must name the labels by number"):
        read(**BERT, architectures=["BertForTokenClassification"], id2label={"1": "a", "2": "b"})


def test_an_answer_has_two_ends():
    with pytest.raises(ValueError, match="config.json must have two labels, for an answer's start and end: got 3"):
        read(**BERT, architectures=["BertForQuestionAnswering"], num_labels=3)


def test_relative_positions_of_bert_are_refused():
    with pytest.raises(ValueError, match="position_embedding_type in config.json must be absolute"):
        read(**BERT, architectures=["BertModel"], position_embedding_type="relative_key")


def test_files_of_other_years():
    """Fields as they stand in widely used files of each family."""
    dropouts = {"attention_probs_dropout_prob": 0.1, "hidden_dropout_prob": 0.1, "initializer_range": 0.02}
    bert = read(**BERT, **dropouts, architectures=["BertForMaskedLM"], hidden_act="gelu", layer_norm_eps=1e-12, pad_token_id=0,
                pooler_fc_size=768, pooler_type="first_token_transform", directionality="bidi", type_vocab_size=2)  # fmt: skip
    assert bert.norm_epsilon == 1e-12 and bert.embed_norm and not bert.causal
    roberta = read(**BERT | {"max_position_embeddings": 514}, **dropouts, architectures=["RobertaForMaskedLM"], pad_token_id=1,
                   bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5, type_vocab_size=1)  # fmt: skip
    assert (roberta.context_len, roberta.position_offset) == (512, 2)
    distilbert = read(architectures=["DistilBertForMaskedLM"], model_type="distilbert", activation="gelu", dim=32, n_layers=2,
                      n_heads=4, hidden_dim=48, vocab_size=61, max_position_embeddings=24, dropout=0.1, attention_dropout=0.1,
                      qa_dropout=0.1, seq_classif_dropout=0.2, sinusoidal_pos_embds=False, tie_weights_=True)  # fmt: skip
    assert distilbert.norm_epsilon == 1e-12 and distilbert.token_types is None
    vit = read(**SIZES, **dropouts, architectures=["ViTForImageClassification"], image_size=32, patch_size=8, num_channels=3,
               qkv_bias=True, layer_norm_eps=1e-12, id2label={"0": "tench", "1": "pike"}, label2id={"tench": 0})  # fmt: skip
    assert vit.label_names == ("tench", "pike") and vit.num_patches == 16


def test_modernbert_as_it_was_first_published():
    config = read(**BERT | {"num_hidden_layers": 7, "model_type": "modernbert"}, architectures=["ModernBertForMaskedLM"],
                  global_attn_every_n_layers=3, global_rope_theta=160000.0, local_rope_theta=5000.0, local_attention=128,
                  position_embedding_type="absolute", layer_norm_eps=1e-5, norm_eps=1e-5, norm_bias=False, mlp_bias=False,
                  hidden_activation="gelu", decoder_bias=True, classifier_pooling="mean", classifier_activation="gelu",
                  deterministic_flash_attn=False, tie_word_embeddings=True, sparse_prediction=False)  # fmt: skip
    assert config.full_attention_layers == (0, 3, 6) and config.window == 65
    assert (config.rope_theta, config.local_rope_theta) == (160_000, 5_000)


def test_an_encoder_of_images_that_was_made_here_goes_out(tmp_path):
    """What a text would need, a vocabulary and a context, says nothing of images."""
    write_published(tmp_path, "ViTForImageClassification")
    published = open_published(tmp_path)
    encoder = dataclasses.replace(published.config.encoder, context_len=7, vocab_size=3, head=HeadConfig(kind="none"))
    named = dataclasses.replace(published.config, encoder=encoder, label_names=("a", "b", "c", "d", "e"))
    assert published_config(published.family, named)["id2label"]["4"] == "e"
    post = dataclasses.replace(named, encoder=dataclasses.replace(encoder, norm_placement="post"))
    with pytest.raises(ValueError, match="it cannot say encoder.norm_placement='post', encoder.final_norm=False; export"):
        published_config(published.family, post)


def test_roberta_counts_its_tokens_itself(tmp_path):
    """Rows padded on the left and right, told apart by their mask alone, have transformers' logits."""
    write_published(tmp_path, "RobertaForMaskedLM")
    published, model, params = load(tmp_path)
    tokens, more = model_inputs(golden("RobertaForMaskedLM"), published.config)
    real = np.asarray(more["segment_ids"]) == 1
    assert not real[0, 0], "no row is padded on the left: the test shows nothing"
    del more["positions"]
    want = golden("RobertaForMaskedLM")["logits"][real]
    np.testing.assert_allclose(model.apply({"params": params}, tokens, **more).logits[real], want, atol=1e-4)
    loaded = Loaded(model=model, params=params, tokenizer=None, source=tmp_path)
    np.testing.assert_allclose(loaded(tokens, real, token_types=more["token_types"]).logits[real], want, atol=1e-4)
    wrong = dataclasses.replace(published.config, position_skips_padding=False)
    with pytest.raises(ValueError, match="it cannot say position_skips_padding=False"):
        published_config(published.family, wrong)
