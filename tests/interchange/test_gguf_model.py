"""Configs and tensors of GGUF files: what llama.cpp changes on the way in is taken back."""

from pathlib import Path

import numpy as np
import pytest

import jaxllm
from jaxllm.interchange.gguf_config import ARCHITECTURES, read_gguf_config
from jaxllm.interchange.gguf_dequantize import dequantize
from jaxllm.interchange.gguf_file import open_gguf
from jaxllm.interchange.gguf_model import published_tensors
from jaxllm.interchange.stream import TensorSource
from tests.interchange.gguf_writer import write_gguf
from tests.interchange.test_gguf_tokenizer import byte_level

VOCAB, WIDTH, FFW, HEADS, KV_HEADS, HEAD, CONTEXT = 11, 32, 48, 4, 2, 8, 16
GOLDEN = np.load(Path(__file__).parent / "golden" / "gguf_blocks.npz")
DECODER = {
    "block_count": 2,
    "context_length": CONTEXT,
    "embedding_length": WIDTH,
    "feed_forward_length": FFW,
    "attention.head_count": HEADS,
    "attention.head_count_kv": KV_HEADS,
    "attention.layer_norm_rms_epsilon": 1e-6,
    "rope.freq_base": 10_000.0,
    "vocab_size": VOCAB,
}
PLAIN = {key: value for key, value in DECODER.items() if key not in ("attention.layer_norm_rms_epsilon", "rope.freq_base")}
METADATA = {
    "llama": DECODER | {"rope.dimension_count": HEAD, "tensor_data_layout": "Meta AI original pth"},
    "qwen2": DECODER,
    "qwen3": DECODER | {"attention.key_length": 16, "attention.value_length": 16},
    "gemma2": DECODER
    | {
        "attention.key_length": 8,
        "attention.sliding_window": 4,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    "gemma3": DECODER | {"attention.key_length": 8, "attention.sliding_window": 4, "rope.freq_base": 1e6},
    "gpt2": {k: v for k, v in PLAIN.items() if k != "attention.head_count_kv"} | {"attention.layer_norm_epsilon": 1e-5},
    "bert": {k: v for k, v in PLAIN.items() if k != "attention.head_count_kv"}
    | {"attention.layer_norm_epsilon": 1e-12, "attention.causal": False, "pooling_type": 1},
}


def rows_to_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp does to queries and keys: the two halves of a head, taken in turn."""
    return np.stack(np.split(weight.reshape(heads, -1, *weight.shape[1:]), 2, axis=1), axis=2).reshape(weight.shape)


def published(architecture: str) -> dict[str, np.ndarray]:
    """Random tensors by the published names."""
    random = np.random.default_rng(0)

    def make(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
        return {name.replace("__", "."): random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}

    if architecture == "gpt2":
        tensors = make(wte__weight=(VOCAB, WIDTH), wpe__weight=(CONTEXT, WIDTH), ln_f__weight=(WIDTH,), ln_f__bias=(WIDTH,))
        layer = make(
            **{f"{ln}__{part}": (WIDTH,) for ln in ("ln_1", "ln_2") for part in ("weight", "bias")},
            **{
                "attn__c_attn__weight": (WIDTH, 3 * WIDTH),
                "attn__c_attn__bias": (3 * WIDTH,),
                "attn__c_proj__weight": (WIDTH, WIDTH),
            },
            **{"mlp__c_fc__weight": (WIDTH, FFW), "mlp__c_proj__weight": (FFW, WIDTH), "mlp__c_proj__bias": (WIDTH,)},
        )
        tensors |= {f"h.{i}.{name}": value + i for i in range(2) for name, value in layer.items()}
        return {f"transformer.{name}": value for name, value in tensors.items()}
    if architecture == "bert":
        tables = make(word_embeddings__weight=(VOCAB, WIDTH), position_embeddings__weight=(CONTEXT, WIDTH))
        tables |= make(token_type_embeddings__weight=(2, WIDTH), LayerNorm__weight=(WIDTH,), LayerNorm__bias=(WIDTH,))
        layer = make(
            **{f"attention__self__{part}__weight": (WIDTH, WIDTH) for part in ("query", "key", "value")},
            **{"attention__output__dense__weight": (WIDTH, WIDTH), "attention__output__LayerNorm__bias": (WIDTH,)},
            **{
                "intermediate__dense__weight": (FFW, WIDTH),
                "output__dense__weight": (WIDTH, FFW),
                "output__LayerNorm__weight": (WIDTH,),
            },
        )
        tensors = {f"embeddings.{name}": value for name, value in tables.items()}
        return tensors | {f"encoder.layer.{i}.{name}": value + i for i in range(2) for name, value in layer.items()}
    head = METADATA[architecture].get("attention.key_length", HEAD)
    norms = ["input_layernorm", "post_attention_layernorm"]
    norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"] if "gemma" in architecture else []
    heads = ["self_attn__q_norm", "self_attn__k_norm"] if architecture in ("qwen3", "gemma3") else []
    layer = make(
        **{f"{norm}__weight": (WIDTH,) for norm in norms},
        **{f"{norm}__weight": (head,) for norm in heads},
        **{"self_attn__q_proj__weight": (HEADS * head, WIDTH), "self_attn__o_proj__weight": (WIDTH, HEADS * head)},
        **{f"self_attn__{part}_proj__weight": (KV_HEADS * head, WIDTH) for part in "kv"},
        **({f"self_attn__{part}_proj__bias": (KV_HEADS * head,) for part in "kv"} if architecture == "qwen2" else {}),
        **{f"mlp__{part}_proj__weight": (FFW, WIDTH) for part in ("gate", "up")},
        **{"mlp__down_proj__weight": (WIDTH, FFW)},
    )
    tensors = make(embed_tokens__weight=(VOCAB, WIDTH), norm__weight=(WIDTH,))
    tensors |= {f"layers.{i}.{name}": value + i for i in range(2) for name, value in layer.items()}
    return {f"model.{name}": value for name, value in tensors.items()}


STEMS = {
    **{"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "transformer.wte": "token_embd"},
    **{"transformer.wpe": "position_embd", "transformer.ln_f": "output_norm", "embeddings.word_embeddings": "token_embd"},
    **{"embeddings.position_embeddings": "position_embd", "embeddings.token_type_embeddings": "token_types"},
    **{"embeddings.LayerNorm": "token_embd_norm", "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q"},
    **{"self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output"},
    **{
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
    },
    **{
        "mlp.down_proj": "ffn_down",
        "ln_1": "attn_norm",
        "ln_2": "ffn_norm",
        "attn.c_attn": "attn_qkv",
        "attn.c_proj": "attn_output",
    },
    **{"mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down", "attention.self.query": "attn_q", "attention.self.key": "attn_k"},
    **{"attention.self.value": "attn_v", "attention.output.dense": "attn_output", "intermediate.dense": "ffn_up"},
    **{"attention.output.LayerNorm": "attn_output_norm", "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm"},
    **{"post_attention_layernorm": "ffn_norm"},
}
GEMMA = {
    **{"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm"},
    **{"post_feedforward_layernorm": "post_ffw_norm"},
}


def to_gguf(architecture: str, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names and tensors as llama.cpp's converter writes them."""
    stems, changed = STEMS | (GEMMA if "gemma" in architecture else {}), {}
    for name, value in tensors.items():
        stem, ending = name.rsplit(".", 1)
        parts = stem.split(".")
        layer = next((part for part in parts if part.isdigit()), None)
        new = stems[stem if layer is None else ".".join(parts[parts.index(layer) + 1 :])]
        if architecture == "llama" and new in ("attn_q", "attn_k"):
            value = rows_to_pairs(value, HEADS if new == "attn_q" else KV_HEADS)
        if architecture == "gpt2" and ".c_" in name and ending == "weight":
            value = value.T
        if "gemma" in architecture and new.endswith("norm"):
            value = value + np.float32(1)
        changed[f"{new if layer is None else f'blk.{layer}.{new}'}.{ending}"] = value
    return changed


def write(folder: Path, architecture: str, tensors: dict, **more: object) -> Path:
    metadata = {"general.architecture": architecture} | {f"{architecture}.{k}": v for k, v in METADATA[architecture].items()}
    metadata["tokenizer.ggml.model"] = "bert" if architecture == "bert" else "gpt2"
    return write_gguf(folder / f"{architecture}.gguf", metadata | more, tensors)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tensors_are_as_they_were_published(tmp_path: Path, architecture: str):
    expected = published(architecture)
    source = published_tensors(open_gguf(write(tmp_path, architecture, to_gguf(architecture, expected))))
    assert isinstance(source, TensorSource)
    assert set(source.names) == set(expected)
    for name, value in expected.items():
        assert source.shape(name) == value.shape and source.dtype(name) == np.float32
        tolerance = 1e-6 if "gemma" in architecture else 0  # 1 + scale loses bits in the file
        whole = tuple(slice(0, size) for size in value.shape)
        part = tuple(slice(size // 4, size - 1) for size in value.shape)
        np.testing.assert_allclose(source.read(name, whole), value, rtol=0, atol=tolerance)
        np.testing.assert_allclose(source.read(name, part), value[part], rtol=0, atol=tolerance)
        assert architecture in source.where(name)


def test_quantized_rows_are_put_in_order(tmp_path: Path):
    blocks = GOLDEN["Q8_0/bytes"][:16, :34]
    tensors = to_gguf("llama", published("llama")) | {"blk.0.attn_k.weight": ("Q8_0", rows_to_pairs(blocks, KV_HEADS))}
    source = published_tensors(open_gguf(write(tmp_path, "llama", tensors)))
    read = source.read("model.layers.0.self_attn.k_proj.weight", (slice(3, 12), slice(1, 30)))
    np.testing.assert_array_equal(read, dequantize(blocks, "Q8_0")[3:12, 1:30])


COMMON = {"vocab_size": VOCAB, "bos_token_id": 1}
LLAMA = COMMON | {
    "hidden_size": WIDTH,
    "intermediate_size": FFW,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "rope_scaling": None,
    "tie_word_embeddings": True,
}
CONFIGS = {
    "llama": LLAMA | {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
    "qwen2": {k: v for k, v in LLAMA.items() if k != "head_dim"}
    | {"model_type": "qwen2", "hidden_act": "silu", "use_sliding_window": False},
    "qwen3": LLAMA | {"model_type": "qwen3", "head_dim": 16, "hidden_act": "silu", "use_sliding_window": False},
    "gemma2": LLAMA
    | {"model_type": "gemma2", "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 4, "query_pre_attn_scalar": 8}
    | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    "gemma3": LLAMA
    | {"model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 4, "query_pre_attn_scalar": 8}
    | {"attn_logit_softcapping": None, "final_logit_softcapping": None, "sliding_window_pattern": 6}
    | {"rope_theta": 1e6, "rope_local_base_freq": 10_000.0},
    "gpt2": COMMON
    | {"model_type": "gpt2", "n_embd": WIDTH, "n_inner": FFW, "n_layer": 2, "n_head": HEADS, "n_positions": CONTEXT}
    | {"layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "tie_word_embeddings": True},
    "bert": COMMON
    | {"model_type": "bert", "hidden_size": WIDTH, "intermediate_size": FFW, "num_hidden_layers": 2, "hidden_act": "gelu"}
    | {"num_attention_heads": HEADS, "max_position_embeddings": CONTEXT, "type_vocab_size": 2, "layer_norm_eps": 1e-12},
}
CLASSES = {
    **{"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "gemma2": "Gemma2ForCausalLM"},
    **{"gemma3": "Gemma3ForCausalLM", "gpt2": "GPT2LMHeadModel", "bert": "BertModel"},
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_config_is_the_published_one(tmp_path: Path, architecture: str):
    path = write(tmp_path, architecture, to_gguf(architecture, published(architecture)), **{"tokenizer.ggml.bos_token_id": 1})
    assert read_gguf_config(open_gguf(path)) == CONFIGS[architecture] | {"architectures": [CLASSES[architecture]]}


def test_output_matrix_of_its_own(tmp_path: Path):
    tensors = to_gguf("llama", published("llama"))
    for output, tied in ((tensors["token_embd.weight"], True), (tensors["token_embd.weight"] + 1, False)):
        file = open_gguf(write(tmp_path, "llama", tensors | {"output.weight": output}))
        assert read_gguf_config(file)["tie_word_embeddings"] is tied
        assert ("lm_head.weight" in published_tensors(file).names) is not tied


def test_rope_scaling(tmp_path: Path):
    tensors = to_gguf("llama", published("llama"))
    linear = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    assert read_gguf_config(open_gguf(write(tmp_path, "llama", tensors, **linear)))["rope_scaling"] == {
        "rope_type": "linear",
        "factor": 4.0,
    }
    yarn = {
        "llama.rope.scaling.type": "yarn",
        "llama.rope.scaling.factor": 4.0,
        "llama.rope.scaling.original_context_length": 8,
    }
    expected = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}
    assert read_gguf_config(open_gguf(write(tmp_path, "llama", tensors, **yarn)))["rope_scaling"] == expected
    with pytest.raises(ValueError, match="rope.scaling.type in .* must be one of 'none', 'linear', 'yarn' .*got 'longrope'"):
        read_gguf_config(open_gguf(write(tmp_path, "llama", tensors, **{"llama.rope.scaling.type": "longrope"})))


def test_llama3_scaling_is_found_in_its_frequencies(tmp_path: Path):
    """The numbers are those that llama.cpp writes for Llama 3.2 with heads of eight, one at a time as it does."""
    divisors = []
    for i in range(HEAD // 2):
        wavelength = 2 * np.pi * 500_000.0 ** (2 * i / HEAD)
        smooth = (8192 / wavelength - 1.0) / (4.0 - 1.0)
        between = 1 / ((1 - smooth) / 32.0 + smooth)
        divisors.append(1.0 if wavelength < 8192 / 4 else 32.0 if wavelength > 8192 else between)
    tensors = to_gguf("llama", published("llama")) | {"rope_freqs.weight": np.array(divisors)}
    path = write(tmp_path, "llama", tensors, **{"llama.rope.freq_base": 500_000.0})
    config = read_gguf_config(open_gguf(path))
    expected = {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    assert config["rope_scaling"] == {"rope_type": "llama3"} | expected
    assert "rope_freqs" not in str(published_tensors(open_gguf(path)).names)
    path = write(tmp_path, "llama", tensors | {"rope_freqs.weight": np.linspace(1, 3, 4)})
    with pytest.raises(ValueError, match="rope_freqs.weight in .* must be the scaling of Llama 3"):
        read_gguf_config(open_gguf(path))


def test_what_would_change_the_numbers_is_refused(tmp_path: Path):
    tensors = to_gguf("llama", published("llama"))
    for more, message in [
        ({"general.architecture": "rwkv6"}, "must be one of llama, qwen2, .*: .*llama.gguf has 'rwkv6'"),
        ({"llama.expert_count": 8}, "fields that may change the numbers and are not known here: expert_count=8"),
        ({"llama.attention.head_count": np.array([4, 2], np.int32)}, "must be one number for all layers"),
        ({"llama.rope.dimension_count": 4}, "rope.dimension_count in .* must be 8 .*got 4"),
        ({"split.count": 3}, "is one of 3 parts; put them together"),
        ({"general.type": "adapter"}, "is a file of the type 'adapter'"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_gguf_config(open_gguf(write(tmp_path, "llama", tensors, **more)))
    with pytest.raises(ValueError, match="has no token_embd.weight, only a vocabulary"):
        read_gguf_config(open_gguf(write(tmp_path, "llama", {})))
    path = write_gguf(tmp_path / "a.gguf", {"general.architecture": "llama"}, tensors)
    with pytest.raises(ValueError, match=r"a.gguf \(llama.\*\) must have a value for attention.head_count: it has none"):
        read_gguf_config(open_gguf(path))


def test_tensors_without_a_place_are_named(tmp_path: Path):
    tensors = to_gguf("llama", published("llama"))
    path = write(tmp_path, "llama", tensors | {"blk.0.ffn_gate_exps.weight": np.zeros((2, 2))})
    with pytest.raises(ValueError, match="tensors that a llama model has no place for: blk.0.ffn_gate_exps.weight"):
        published_tensors(open_gguf(path))
    path = write(tmp_path, "llama", tensors | {"blk.1.ffn_up.weight": ("Q3_K", np.zeros((2, 256), np.float32))})
    with pytest.raises(ValueError, match=r"holds Q3_K \(blk.1.ffn_up.weight\)"):
        published_tensors(open_gguf(path))


def test_a_load_reads_the_header_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Config, tensors, tokenizer and pooling come from one reading of the file."""
    opened = []

    def counted(path):
        opened.append(path)
        return open_gguf(path)

    monkeypatch.setattr("jaxllm.interchange.open.open_gguf", counted)
    tokenizer = {f"tokenizer.ggml.{name}": value for name, value in byte_level().items()}
    path = write(tmp_path, "llama", to_gguf("llama", published("llama")), **tokenizer)
    assert jaxllm.load(path).tokenizer is not None and opened == [path]
