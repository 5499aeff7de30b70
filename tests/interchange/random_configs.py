"""Random small configs of published classes, as hypothesis draws them: fields of config.json."""

from typing import Any

from hypothesis import strategies as st

VOCAB_SIZE = 37
CONTEXT_LEN = 32
Fields = dict[str, Any]

epsilon = st.sampled_from([1e-6, 1e-5, 1e-2])
theta = st.sampled_from([50.0, 10_000.0, 500_000.0])
window = st.none() | st.integers(1, 10)
ffw_dim = st.sampled_from([16, 33, 48])
num_layers = st.integers(1, 4)


def activation(first: str) -> st.SearchStrategy[str]:
    return st.sampled_from([first, "gelu", "gelu_pytorch_tanh", "relu", "silu"])


@st.composite
def attention_shape(draw: st.DrawFn, head_dim: bool = True) -> Fields:
    """Heads, key/value heads and widths; with `head_dim` the heads' width is free of the model's."""
    num_kv_heads, group, width = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([4, 6, 8]))
    num_heads = num_kv_heads * group
    shape = {"num_attention_heads": num_heads, "num_key_value_heads": num_kv_heads, "hidden_size": num_heads * width}
    return shape | ({"head_dim": draw(st.sampled_from([4, 6, 10, 16]))} if head_dim else {})


@st.composite
def rope_scaling(draw: st.DrawFn) -> Fields:
    """The group of fields; empty where nothing is changed."""
    kind = draw(st.sampled_from(["default", "linear", "llama3", "yarn"]))
    if kind == "default":
        return {}
    group = {"rope_type": kind, "factor": draw(st.sampled_from([1.0, 2.0, 8.0]))}
    if kind == "linear":
        return group
    group["original_max_position_embeddings"] = draw(st.sampled_from([8, 16, 64]))
    if kind == "llama3":
        return group | {"low_freq_factor": 1.0, "high_freq_factor": draw(st.sampled_from([2.0, 4.0]))}
    betas = {"beta_fast": draw(st.sampled_from([2.0, 32.0])), "beta_slow": draw(st.sampled_from([0.5, 1.0]))}
    return group | draw(st.sampled_from([{}, betas, {"attention_factor": 1.2}]))


@st.composite
def rope(draw: st.DrawFn, scaled: bool = True) -> Fields:
    """Rotary positions in the new spelling or the old one."""
    base, scaling = draw(theta), draw(rope_scaling()) if scaled else {}
    if draw(st.booleans()):
        return {"rope_parameters": {"rope_type": "default", "rope_theta": base} | scaling}
    return {"rope_theta": base, "rope_scaling": scaling or None}


@st.composite
def turned_part(draw: st.DrawFn, head_dim: int) -> float:
    """The share of a head that is turned: a whole number of pairs."""
    return 2 * draw(st.integers(1, head_dim // 2)) / head_dim


@st.composite
def llama_like(draw: st.DrawFn, model_type: str, *, head_dim: bool = True, **more: Any) -> Fields:
    """Fields that Llama and its kin share; a strategy in `more` takes the place of one of them, None leaves it out."""
    fields = {"vocab_size": VOCAB_SIZE, "max_position_embeddings": CONTEXT_LEN, "model_type": model_type}
    parts: dict[str, Any] = {
        "num_hidden_layers": num_layers,
        "intermediate_size": ffw_dim,
        "hidden_act": activation("silu"),
        "rms_norm_eps": epsilon,
        "tie_word_embeddings": st.booleans(),
    }
    for name, strategy in (parts | more).items():
        if strategy is not None:
            fields[name] = draw(strategy)
    fields |= draw(attention_shape(head_dim=head_dim))
    return fields | (draw(rope()) if "rope_parameters" not in fields else {})


@st.composite
def qwen(draw: st.DrawFn, model_type: str, **more: Any) -> Fields:
    fields = draw(llama_like(model_type, **more))
    layers = fields["num_hidden_layers"]
    used = {"use_sliding_window": True, "sliding_window": draw(st.integers(1, 10))}
    return fields | draw(st.sampled_from([{}, used])) | {"max_window_layers": draw(st.integers(0, layers))}


@st.composite
def gemma(draw: st.DrawFn, model_type: str) -> Fields:
    """Layers with and without a window in any order."""
    fields = draw(llama_like(model_type, attention_bias=st.booleans()))
    fields["hidden_activation"] = fields.pop("hidden_act")
    kinds = st.sampled_from(["full_attention", "sliding_attention"])
    layers = fields["num_hidden_layers"]
    cap = st.none() | st.sampled_from([1.0, 5.0, 30.0])
    fields |= {
        "layer_types": draw(st.lists(kinds, min_size=layers, max_size=layers)),
        "sliding_window": draw(st.integers(1, 10)),
        "query_pre_attn_scalar": draw(st.sampled_from([4, 9, 16, 24])),
        "final_logit_softcapping": draw(cap),
    }
    if model_type == "gemma2":
        return fields | {"attn_logit_softcapping": draw(cap)}
    for name in ("rope_parameters", "rope_theta", "rope_scaling"):
        fields.pop(name, None)
    base, local, scaling = draw(theta), draw(theta), draw(rope_scaling())
    if draw(st.booleans()):
        return fields | {"rope_theta": base, "rope_local_base_freq": local, "rope_scaling": scaling or None}
    full = {"rope_type": "default", "rope_theta": base} | scaling
    return fields | {"rope_parameters": {"full_attention": full, "sliding_attention": {"rope_theta": local}}}


@st.composite
def experts(draw: st.DrawFn, model_type: str) -> Fields:
    count = draw(st.integers(1, 6))
    fields = draw(llama_like(model_type)) | {"num_experts_per_tok": draw(st.integers(1, count))}
    if model_type == "mixtral":
        return fields | {"num_local_experts": count, "sliding_window": draw(window)}
    name = draw(st.sampled_from(["num_experts", "num_local_experts"]))
    more = {name: count, "moe_intermediate_size": draw(ffw_dim), "norm_topk_prob": draw(st.booleans())}
    return fields | more | {"attention_bias": draw(st.booleans())}


@st.composite
def phi(draw: st.DrawFn) -> Fields:
    fields = draw(llama_like("phi", rms_norm_eps=None, layer_norm_eps=epsilon, hidden_act=activation("gelu_new")))
    partial = draw(turned_part(fields["head_dim"]))
    if "rope_parameters" in fields:
        fields["rope_parameters"]["partial_rotary_factor"] = partial
        return fields
    return fields | {"partial_rotary_factor": partial}


@st.composite
def phi3(draw: st.DrawFn) -> Fields:
    fields = draw(llama_like("phi3", sliding_window=window, rope_parameters=st.just({"rope_type": "default"})))
    fields["rope_parameters"] |= {"rope_theta": draw(theta), "partial_rotary_factor": draw(turned_part(fields["head_dim"]))}
    return fields


@st.composite
def gpt_neox(draw: st.DrawFn) -> Fields:
    more: dict[str, Any] = {"use_parallel_residual": st.booleans(), "attention_bias": st.booleans()}
    fields = draw(
        llama_like(
            "gpt_neox", head_dim=False, rms_norm_eps=None, layer_norm_eps=epsilon, hidden_act=activation("gelu_new"), **more
        )
    )
    del fields["num_key_value_heads"]
    partial = draw(turned_part(fields["hidden_size"] // fields["num_attention_heads"]))
    if "rope_parameters" in fields:
        fields["rope_parameters"]["partial_rotary_factor"] = partial
        return fields
    return fields | {"rotary_pct": partial, "rotary_emb_base": fields.pop("rope_theta")}


@st.composite
def gpt2(draw: st.DrawFn) -> Fields:
    heads = draw(st.integers(1, 6))
    return {
        "model_type": "gpt2",
        "vocab_size": VOCAB_SIZE,
        "n_positions": CONTEXT_LEN,
        "n_layer": draw(num_layers),
        "n_head": heads,
        "n_embd": heads * draw(st.integers(1, 9)),
        "n_inner": draw(st.none() | ffw_dim),
        "activation_function": draw(activation("gelu_new")),
        "layer_norm_epsilon": draw(epsilon),
        "tie_word_embeddings": draw(st.booleans()),
    }


bias: dict[str, Any] = {"attention_bias": st.booleans()}
DECODERS: dict[str, st.SearchStrategy[Fields]] = {
    "GPT2LMHeadModel": gpt2(),
    "GPTNeoXForCausalLM": gpt_neox(),
    "LlamaForCausalLM": llama_like("llama", mlp_bias=st.booleans(), **bias),
    "MistralForCausalLM": llama_like("mistral", sliding_window=window),
    "Qwen2ForCausalLM": qwen("qwen2"),
    "Qwen3ForCausalLM": qwen("qwen3", **bias),
    "Gemma2ForCausalLM": gemma("gemma2"),
    "Gemma3ForCausalLM": gemma("gemma3_text"),
    "PhiForCausalLM": phi(),
    "Phi3ForCausalLM": phi3(),
    "MixtralForCausalLM": experts("mixtral"),
    "Qwen3MoeForCausalLM": experts("qwen3_moe"),
    "OlmoForCausalLM": llama_like("olmo", rms_norm_eps=None, clip_qkv=st.none() | st.sampled_from([0.5, 2.0]), **bias),
    "Olmo2ForCausalLM": llama_like("olmo2", **bias),
}


@st.composite
def t5(draw: st.DrawFn) -> Fields:
    ties = draw(st.sampled_from([{}, {"tie_word_embeddings": False}, {"scale_decoder_outputs": False}]))
    functions = ["relu", "gelu", "gelu_new", "silu", "gated-gelu", "gated-silu", "gated-relu"]
    return ties | {
        "model_type": "t5",
        "vocab_size": VOCAB_SIZE,
        "d_model": draw(st.integers(8, 48)),
        "d_kv": draw(st.integers(3, 16)),
        "num_heads": draw(st.integers(1, 6)),
        "d_ff": draw(ffw_dim),
        "num_layers": draw(num_layers),
        "num_decoder_layers": draw(st.none() | num_layers),
        "feed_forward_proj": draw(st.sampled_from(functions)),
        "layer_norm_epsilon": draw(epsilon),
        "relative_attention_num_buckets": draw(st.sampled_from([4, 8, 32])),
        "relative_attention_max_distance": draw(st.sampled_from([18, 128])),
        "decoder_start_token_id": 0,
        "use_cache": False,
    }


@st.composite
def bart(draw: st.DrawFn, model_type: str) -> Fields:
    fields = {
        "model_type": model_type,
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": CONTEXT_LEN,
        "d_model": draw(st.sampled_from([12, 15, 24, 48])),
        "activation_function": draw(activation("gelu_new")),
        "scale_embedding": draw(st.booleans()),
        "decoder_start_token_id": 2,
        "use_cache": False,
    }
    for stack in ("encoder", "decoder"):
        fields |= {f"{stack}_layers": draw(num_layers), f"{stack}_ffn_dim": draw(ffw_dim)}
        fields[f"{stack}_attention_heads"] = draw(st.sampled_from([1, 3]))
    if model_type == "marian" and not draw(st.booleans()):
        fields |= {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": draw(st.booleans())}
        fields["decoder_vocab_size"] = draw(st.none() | st.integers(20, 50))
    return fields


ENCODER_DECODERS: dict[str, st.SearchStrategy[Fields]] = {
    "T5ForConditionalGeneration": t5(),
    "BartForConditionalGeneration": bart("bart"),
    "BartModel": bart("bart"),
    "MarianMTModel": bart("marian"),
}
