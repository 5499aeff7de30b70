"""The config in a GGUF file, as the fields that the model's config.json has.

GGUF names architectures and sizes in its own way ("llama.attention.head_count") and leaves out what llama.cpp knows by heart,
such as activations: that is added here. A key that is not known is refused, since it may change the numbers.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxllm.interchange.config_reader import ConfigReader
from jaxllm.interchange.gguf_file import GgufFile
from jaxllm.interchange.sentence import SentenceConfig


def read_gguf_config(file: GgufFile) -> dict[str, Any]:
    """The config.json of a model.

        read_gguf_config(open_gguf("SmolLM2-135M-Instruct.Q4_1.gguf"))["hidden_size"]        # 576

    Raises:
      ValueError: an architecture that is not known, keys that are missing or not known, a part of a model.
    """
    architecture = find_architecture(file)
    names = {
        key.removeprefix(f"{architecture}."): value
        for key, value in file.metadata.items()
        if key.startswith(f"{architecture}.")
    }
    reader = ConfigReader({name: _plain(value) for name, value in names.items()}, f"{file.path} ({architecture}.*)")
    reader.ignore("vocab_size", "tensor_data_layout", "pooling_type", "mm_tokens_per_image", "rope.scaling.finetuned")
    fields = ARCHITECTURES[architecture](file, reader)
    reader.finish()
    fields |= {"vocab_size": file.tensors["token_embd.weight"].shape[0]}
    for role, name in {"bos": "bos", "eos": "eos", "pad": "padding"}.items():
        token_id = file.metadata.get(f"tokenizer.ggml.{name}_token_id")
        fields |= {} if token_id is None else {f"{role}_token_id": token_id}
    turn = file.metadata.get("tokenizer.ggml.eot_token_id")  # ends a chat's answer
    if turn is not None and turn != fields.get("eos_token_id"):
        fields["eos_token_id"] = [*([fields["eos_token_id"]] if "eos_token_id" in fields else []), turn]
    return fields


def read_gguf_pooling(file: GgufFile) -> SentenceConfig | None:
    """How an encoder makes one vector of a text, where the file says so.

    Raises:
      ValueError: a way that is not known.
    """
    kind = file.metadata.get(f"{find_architecture(file)}.pooling_type", 0)
    if kind not in (0, 1, 2):
        raise ValueError(f"{file.path} must pool by mean (1) or first token (2): got pooling_type={kind}")
    return SentenceConfig(pooling="mean" if kind == 1 else "first") if kind else None


def find_architecture(file: GgufFile) -> str:
    """What general.architecture says, if it is known and the file holds the weights of a whole model."""
    architecture = file.metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"general.architecture must be one of {', '.join(ARCHITECTURES)}: {file.path} has {architecture!r}; take the model "
            "in the Hugging Face layout"
        )
    kind, parts = file.metadata.get("general.type", "model"), file.metadata.get("split.count", 1)
    if kind != "model" or parts > 1:
        what = (
            f"a file of the type {kind!r}"
            if kind != "model"
            else f"one of {parts} parts; put them together with llama-gguf-split"
        )
        raise ValueError(f"a GGUF file must hold a whole model: {file.path} is {what}")
    if "token_embd.weight" not in file.tensors:
        raise ValueError(
            f"a GGUF file must hold a whole model: {file.path} has no token_embd.weight, only a vocabulary or a part"
        )
    return architecture


def is_tied(file: GgufFile) -> bool:
    """Whether the output matrix is the embedding table: there is no other, or it has the same bytes."""
    if "output.weight" not in file.tensors:
        return True
    table, output = (file.tensors[name] for name in ("token_embd.weight", "output.weight"))
    same_form = (table.kind, table.shape) == (output.kind, output.shape)
    return same_form and np.array_equal(file.raw(table.name), file.raw(output.name))


def _decoder(file: GgufFile, reader: ConfigReader) -> dict[str, Any]:
    """The fields that Llama and its relatives share."""
    heads, width = reader.read("attention.head_count"), reader.read("embedding_length")
    if not isinstance(heads, int):
        raise ValueError(f"attention.head_count in {reader.source} must be one number for all layers: got {heads!r}")
    head_dim = reader.read("attention.key_length", width // heads)
    reader.must_be("attention.value_length", head_dim)
    reader.must_be("rope.dimension_count", head_dim)
    return {
        "hidden_size": width,
        "intermediate_size": reader.read("feed_forward_length"),
        "num_hidden_layers": reader.read("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": reader.read("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": reader.read("context_length"),
        "rms_norm_eps": reader.read("attention.layer_norm_rms_epsilon"),
        "rope_theta": reader.read("rope.freq_base", 10_000.0),
        "rope_scaling": _rope_scaling(file, reader, head_dim),
        "tie_word_embeddings": is_tied(file),
    }


def _rope_scaling(file: GgufFile, reader: ConfigReader, head_dim: int) -> dict[str, Any] | None:
    kind = reader.must_be("rope.scaling.type", "none", "linear", "yarn")
    factor, trained = reader.read("rope.scaling.factor", None), reader.read("rope.scaling.original_context_length", None)
    if "rope_freqs.weight" in file.tensors:
        theta = reader.read("rope.freq_base", 10_000.0)
        return _llama3_scaling(file.read("rope_freqs.weight"), theta, head_dim, reader.source)
    if kind == "none" or factor is None:
        return None
    return {"rope_type": kind, "factor": factor} | ({"original_max_position_embeddings": trained} if kind == "yarn" else {})


def _llama3_scaling(divisors: np.ndarray, theta: float, head_dim: int, source: str) -> dict[str, Any]:
    """Llama 3's scaling is stored as what each frequency is divided by; the numbers that it came from are always the same."""
    low, high, trained, factor = 1.0, 4.0, 8192, float(divisors.max())
    wavelengths = 2 * np.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    share = np.clip((trained / wavelengths - low) / (high - low), 0, 1)
    if divisors.shape != share.shape or not np.allclose(divisors, 1 / ((1 - share) / factor + share), rtol=1e-4):
        raise ValueError(
            f"rope_freqs.weight in {source} must be the scaling of Llama 3: it is another; take the Hugging Face layout"
        )
    numbers = {"factor": factor, "low_freq_factor": low, "high_freq_factor": high}
    return {"rope_type": "llama3", "original_max_position_embeddings": trained} | numbers


def _llama(file: GgufFile, reader: ConfigReader) -> dict[str, Any]:
    fields = _decoder(file, reader)
    fields |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu"}
    biases = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"}
    return fields | {name: tensor in file.tensors for name, tensor in biases.items()}


def _qwen2(file: GgufFile, reader: ConfigReader) -> dict[str, Any]:
    fields = _decoder(file, reader)
    del fields["head_dim"]  # its config.json has none
    return fields | {
        **{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "use_sliding_window": False}
    }


def _qwen3(file: GgufFile, reader: ConfigReader) -> dict[str, Any]:
    more = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu", "use_sliding_window": False}
    return _decoder(file, reader) | more


def _gemma2(file: GgufFile, reader: ConfigReader) -> dict[str, Any]:
    fields = _decoder(file, reader)
    return fields | {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": reader.read("attention.sliding_window", 4096),
        "attn_logit_softcapping": reader.read("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": reader.read("final_logit_softcapping", 30.0),
        "query_pre_attn_scalar": _query_scalar(fields, large=46),
    }


def _gemma3(file: GgufFile, reader: ConfigReader) -> dict[str, Any]:
    fields = _decoder(file, reader)
    return fields | {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": reader.read("attention.sliding_window"),
        "sliding_window_pattern": reader.must_be("attention.sliding_window_pattern", 6),
        "rope_theta": reader.read("rope.freq_base", 1_000_000.0),
        "rope_local_base_freq": reader.read("rope.freq_base_swa", 10_000.0),
        "final_logit_softcapping": reader.read("final_logit_softcapping", None),
        "attn_logit_softcapping": None,
        "query_pre_attn_scalar": _query_scalar(fields, large=62),
    }


def _query_scalar(fields: dict[str, Any], *, large: int) -> int:
    """Not in the file: the largest model of each generation, known by its layers, scales by width, the others by head_dim."""
    is_large = fields["num_hidden_layers"] == large
    return fields["hidden_size"] // fields["num_attention_heads"] if is_large else fields["head_dim"]


def _gpt2(file: GgufFile, reader: ConfigReader) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": reader.read("embedding_length"),
        "n_inner": reader.read("feed_forward_length"),
        "n_layer": reader.read("block_count"),
        "n_head": reader.read("attention.head_count"),
        "n_positions": reader.read("context_length"),
        "layer_norm_epsilon": reader.read("attention.layer_norm_epsilon"),
        "activation_function": "gelu_new",
        "tie_word_embeddings": is_tied(file),
    }


def _bert(file: GgufFile, reader: ConfigReader) -> dict[str, Any]:
    """The encoder without a head: llama.cpp keeps neither BERT's pooler nor its masked-LM head."""
    reader.must_be("attention.causal", False)
    kind = file.metadata.get("tokenizer.ggml.model")
    if kind != "bert":  # RoBERTa has this architecture, too, with positions that are counted in another way
        raise ValueError(f"tokenizer.ggml.model must be bert for general.architecture bert: {file.path} has {kind!r}")
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": reader.read("embedding_length"),
        "intermediate_size": reader.read("feed_forward_length"),
        "num_hidden_layers": reader.read("block_count"),
        "num_attention_heads": reader.read("attention.head_count"),
        "max_position_embeddings": reader.read("context_length"),
        "type_vocab_size": file.tensors["token_types.weight"].shape[0],
        "layer_norm_eps": reader.read("attention.layer_norm_epsilon"),
        "hidden_act": "gelu",
    }


def _plain(value: Any) -> Any:
    """A float of 32 bits as the decimal number that it was written as: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


ARCHITECTURES: dict[str, Callable[[GgufFile, ConfigReader], dict[str, Any]]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "gpt2": _gpt2,
    "bert": _bert,
}
"""What general.architecture may be. Mistral, SmolLM and others of Llama's form are called llama."""
