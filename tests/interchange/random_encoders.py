"""Random small configs of published encoders of texts and images, as random_configs.py has them for the others."""

from typing import Any

from hypothesis import strategies as st

from tests.interchange.random_configs import CONTEXT_LEN, VOCAB_SIZE, Fields, activation, epsilon, ffw_dim, num_layers, theta


@st.composite
def encoder(draw: st.DrawFn, model_type: str, **more: Any) -> Fields:
    """What most encoders share; a strategy in `more` adds a field."""
    heads = draw(st.integers(1, 6))
    return {
        "model_type": model_type,
        "hidden_size": heads * draw(st.integers(2, 9)),
        "num_attention_heads": heads,
        "num_hidden_layers": draw(num_layers),
        "intermediate_size": draw(ffw_dim),
        "hidden_act": draw(activation("gelu")),
        "layer_norm_eps": draw(epsilon),
        **{name: draw(strategy) for name, strategy in more.items()},
    }


@st.composite
def bert(draw: st.DrawFn, model_type: str = "bert", **more: Any) -> Fields:
    fields = draw(encoder(model_type, type_vocab_size=st.integers(1, 3), **more))
    return fields | {"vocab_size": VOCAB_SIZE, "max_position_embeddings": CONTEXT_LEN}


@st.composite
def distilbert(draw: st.DrawFn) -> Fields:
    heads = draw(st.integers(1, 6))
    return {
        "model_type": "distilbert",
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": CONTEXT_LEN,
        "dim": heads * draw(st.integers(2, 9)),
        "n_heads": heads,
        "n_layers": draw(num_layers),
        "hidden_dim": draw(ffw_dim),
        "activation": draw(st.sampled_from(["gelu", "relu"])),
        "tie_word_embeddings": draw(st.booleans()),
    }


@st.composite
def modernbert(draw: st.DrawFn) -> Fields:
    """Layers with and without a window, by their kinds or by every how many sees all; biases each on or off."""
    heads, layers = draw(st.integers(1, 6)), draw(num_layers)
    fields: Fields = {
        "model_type": "modernbert",
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": CONTEXT_LEN,
        "hidden_size": heads * draw(st.sampled_from([2, 4, 6, 8])),
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "intermediate_size": draw(ffw_dim),
        "hidden_activation": draw(activation("gelu")),
        "classifier_activation": draw(activation("gelu")),
        "norm_eps": draw(epsilon),
        "local_attention": draw(st.integers(1, 12)),
        "tie_word_embeddings": draw(st.booleans()),
    }
    for name in ("norm_bias", "attention_bias", "mlp_bias", "classifier_bias", "decoder_bias"):
        fields[name] = draw(st.booleans())
    if draw(st.booleans()):
        return fields | {
            "global_attn_every_n_layers": draw(st.integers(1, 4)),
            "global_rope_theta": draw(theta),
            "local_rope_theta": draw(theta),
        }
    kinds = ["full_attention", "sliding_attention"]
    return fields | {
        "layer_types": draw(st.lists(st.sampled_from(kinds), min_size=layers, max_size=layers)),
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": draw(theta)} for kind in kinds},
    }


@st.composite
def image(draw: st.DrawFn, model_type: str) -> Fields:
    patch_size = draw(st.integers(1, 5))
    return draw(encoder(model_type, qkv_bias=st.booleans(), num_channels=st.integers(1, 4), num_labels=st.integers(1, 7))) | {
        "patch_size": patch_size,
        "image_size": patch_size * draw(st.integers(1, 4)),
    }


num_labels = st.integers(1, 7)
TEXTS: dict[str, st.SearchStrategy[Fields]] = {
    "BertModel": bert(),
    "BertForMaskedLM": bert(tie_word_embeddings=st.booleans()),
    "BertForSequenceClassification": bert(num_labels=num_labels),
    "BertForTokenClassification": bert(num_labels=num_labels),
    "BertForQuestionAnswering": bert(),
    "RobertaForMaskedLM": bert("roberta", pad_token_id=st.integers(0, 2), tie_word_embeddings=st.booleans()),
    "DistilBertForMaskedLM": distilbert(),
    "ModernBertForMaskedLM": modernbert(),
}
IMAGES: dict[str, st.SearchStrategy[Fields]] = {
    "ViTForImageClassification": image("vit"),
    "DeiTForImageClassification": image("deit"),
}
