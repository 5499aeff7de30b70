"""The networks in plain NumPy, float64, written from the papers and not from the package: one row, one loop for each sum."""

import math

import numpy as np


def normalize(x, p, c, rms=False, axis=-1):
    if c.norm == "layer_norm" and not rms:
        x = x - x.mean(axis, keepdims=True)
    y = x / np.sqrt((x**2).mean(axis, keepdims=True) + c.norm_epsilon)
    if not c.norm_scale:
        assert not p
        return y
    with_bias = c.norm_bias and c.norm == "layer_norm" and not rms
    return y * (p["scale"] + (1 if c.norm_unit_offset else 0)) + bias_of(p, with_bias)


def activate(x, name):
    if name in ("gelu", "geglu"):
        return np.vectorize(lambda z: z * 0.5 * (1 + math.erf(z / math.sqrt(2))))(x)
    if name in ("gelu_tanh", "geglu_tanh"):
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return np.maximum(x, 0) if name in ("relu", "reglu") else x / (1 + np.exp(-x))


def softmax(x):
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def bias_of(p, wanted):
    """The bias, which is there exactly where the config wants it."""
    assert ("bias" in p) == wanted
    return p["bias"] if wanted else 0.0


def dense(x, p, bias=True):
    return x @ p["kernel"] + bias_of(p, bias)


def frequencies(width, theta, scaling):
    """Radians a position of each pair of dimensions, and the factor on sine and cosine."""
    plain = [theta ** (-2 * i / width) for i in range(width // 2)]
    if scaling is None:
        return plain, 1.0
    slow = [f / scaling.factor for f in plain]
    if scaling.kind == "linear":
        return slow, 1.0
    turns = [scaling.original_context_len * f / (2 * math.pi) for f in plain]
    if scaling.kind == "llama3":
        low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
        keep = [1 if n > high else 0 if n < low else (n - low) / (high - low) for n in turns]
        factor = 1.0
    else:  # a ramp over whole dimensions, between the last that turns fast and the first that turns slowly
        all_turns = [scaling.original_context_len * theta ** (-2 * i / width) / (2 * math.pi) for i in range(width)]
        first = max([0] + [i for i in range(width) if all_turns[i] >= scaling.beta_fast])
        last = min([width - 1] + [i for i in range(width) if all_turns[i] <= scaling.beta_slow])
        keep = [1 - min(max((i - first) / (last - first), 0), 1) for i in range(width // 2)]
        factor = scaling.attention_factor or 0.1 * math.log(scaling.factor) + 1
    return [k * f + (1 - k) * s for k, f, s in zip(keep, plain, slow, strict=True)], factor


def rotate(x, turn):
    (angles, factor), out = turn, x.copy()
    half = len(angles)
    for t in range(x.shape[0]):
        for i, angle in enumerate(angles):
            cos, sin = factor * math.cos(t * angle), factor * math.sin(t * angle)
            a, b = x[t, :, i], x[t, :, i + half]
            out[t, :, i], out[t, :, i + half] = a * cos - b * sin, b * cos + a * sin
    return out


def bucket(distance, buckets, furthest, causal):
    """Of key position - query position."""
    first = 0
    if not causal:
        buckets //= 2
        first = buckets if distance > 0 else 0
    steps = max(-distance, 0) if causal else abs(distance)
    exact = buckets // 2
    if steps < exact:
        return first + steps
    return first + min(buckets - 1, exact + int(math.log(steps / exact) / math.log(furthest / exact) * (buckets - exact)))


def attention(x, source, p, c, see, bias=None, turn=None, head_mask=None):
    q, k, v = (
        np.einsum("td,dnh->tnh", s, p[n]["kernel"]) + bias_of(p[n], c.bias if c.qkv_bias is None else c.qkv_bias)
        for n, s in (("query", x), ("key", source), ("value", source))
    )
    if c.qkv_clip:
        q, k, v = (np.clip(z, -c.qkv_clip, c.qkv_clip) for z in (q, k, v))
    if c.qk_norm:
        axis = -1 if c.qk_norm == "head" else (-2, -1)
        q, k = (normalize(z, p.get(f"{n}_norm", {}), c, rms=True, axis=axis) for n, z in (("query", q), ("key", k)))
    if turn is not None:
        q, k = rotate(q, turn), rotate(k, turn)
    T, N, H = q.shape
    scale = c.attention_scale or 1 / math.sqrt(H)
    out = np.zeros_like(q)
    for n in range(N):
        key = k[:, n // (N // k.shape[1])]
        logits = scale * q[:, n] @ key.T
        if c.attention_softcap:
            logits = c.attention_softcap * np.tanh(logits / c.attention_softcap)
        if c.position in ("relative_key", "relative_key_query") and source is x:
            for t, s in np.ndindex(T, len(source)):
                r = p["distance"][t - s + c.context_len - 1]
                logits[t, s] += scale * (q[t, n] @ r + (key[s] @ r if c.position == "relative_key_query" else 0))
        weights = softmax(np.where(see, logits + (0 if bias is None else bias[n]), -np.inf))
        out[:, n] = weights @ v[:, n // (N // k.shape[1])] * (1 if head_mask is None else head_mask[n])
    with_bias = c.bias if c.attention_output_bias is None else c.attention_output_bias
    return np.einsum("tnh,nhd->td", out, p["output"]["kernel"]) + bias_of(p["output"], with_bias)


def feed_forward(x, p, c, bias):
    up = dense(x, p["up"], bias)
    if c.activation in ("swiglu", "geglu", "geglu_tanh", "reglu"):
        return dense(activate(dense(x, p["gate"], bias), c.activation) * up, p["down"], bias)
    return dense(activate(up, c.activation), p["down"], bias)


def experts(x, p, c):
    y = np.zeros_like(x)
    for t, probabilities in enumerate(softmax(dense(x, p["router"], bias=False))):
        best = sorted(range(c.experts.num_experts), key=lambda e: -probabilities[e])[: c.experts.top_k]
        total = sum(probabilities[e] for e in best) if c.experts.normalize else 1
        for e in best:
            own = {name: {"kernel": p[name][e]} for name in ("gate", "up", "down") if name in p}
            y[t] += probabilities[e] / total * feed_forward(x[t], own, c, bias=False)
    return y


def visible(c, layer, T, prefix):
    """Which keys each query of this layer sees."""
    see = np.ones((T, T), bool)
    for t, s in np.ndindex(T, T):
        if c.causal:
            see[t, s] = s <= t or prefix is not None and prefix[s]
        if c.window is not None and layer not in c.full_attention_layers:
            see[t, s] &= abs(t - s) < c.window
    return see


def biases(c, params, T):
    """What is added to attention logits, [N, T, T]."""
    N, out = c.num_heads, np.zeros((c.num_heads, T, T))
    for n, t, s in np.ndindex(N, T, T):
        if c.position == "alibi":
            out[n, t, s] = -(2.0 ** (-8 * (n + 1) / N)) * abs(t - s)
        elif c.position == "relative":
            out[n, t, s] = params["relative_bias"][bucket(s - t, c.relative_buckets, c.relative_max_distance, c.causal), n]
    return out


def blocks(x, params, c, prefix=None, head_mask=None, memory=None):
    """The last hidden state [T, D] of one row."""
    T, bias = len(x), biases(c, params, len(x))
    for layer in range(c.num_layers):
        p = _layer(params["layers"], layer)
        see, turn = visible(c, layer, T, prefix), None
        if c.position == "rotary":
            local = c.local_rope_theta is not None and c.window is not None and layer not in c.full_attention_layers
            width = c.rotary_dim or p["attention"]["query"]["kernel"].shape[-1]
            turn = frequencies(width, *((c.local_rope_theta, None) if local else (c.rope_theta, c.rope_scaling)))
        mask = None if head_mask is None else head_mask[layer]

        def attend(y, p=p, see=see, turn=turn, mask=mask):
            return attention(y, y, p["attention"], c, see, bias, turn, mask)

        def attend_memory(y, p=p):
            return attention(y, memory, p["cross_attention"], c, np.ones((T, len(memory)), bool))

        def widen(y, p=p):
            if c.experts is None:
                return feed_forward(y, p["ffw"], c, c.bias)
            shared = feed_forward(y, p["shared_expert"], c, c.bias) if c.experts.shared_ffw_dim else 0.0
            return experts(y, p["experts"], c) + shared

        if c.parallel_block:
            y = normalize(x, p.get("attention_norm", {}), c)
            x = x + attend(y) + widen(normalize(x, p["ffw_norm"], c) if c.parallel_norms == "separate" else y)
            continue
        sublayers = [("attention", attend), ("cross_attention", attend_memory), ("ffw", widen)]
        for name, sublayer in sublayers if c.cross_attention else [sublayers[0], sublayers[2]]:
            before, after = p.get(f"{name}_norm", {}), p.get(f"{name}_post_norm", {})
            if c.norm_placement == "post":
                x = normalize(x + sublayer(x), before, c)
                continue
            skipped = name == "attention" and layer == 0 and not c.first_attention_norm
            y = sublayer(x if skipped or c.norm_placement == "output" else normalize(x, before, c))
            x = x + (y if c.norm_placement == "pre" else normalize(y, after, c))
    final = c.norm_placement != "post" if c.final_norm is None else c.final_norm
    return normalize(x, params.get("final_norm", {}), c) if final else x


def sinusoid(t, i, D, layout):
    if layout == "interleaved":
        angle = t / 10_000 ** (2 * (i // 2) / D)
        return math.cos(angle) if i % 2 else math.sin(angle)
    pair, pairs = i % (D // 2), D // 2
    angle = t / 10_000 ** (pair / (pairs - 1 if layout == "tensor2tensor" else pairs))
    return math.sin(angle) if i < pairs else math.cos(angle)


def embed(tokens, params, c, types=None, table=None):
    x = (params["embed"]["table"] if table is None else table)[tokens] * (c.embed_scale or 1.0)
    for t in range(len(tokens)):
        place = t + c.position_offset
        if c.position == "learned":
            x[t] += params["position"]["table"][place]
        if c.position == "sinusoidal":
            x[t] += [sinusoid(place, i, c.embed_dim, c.sinusoids) for i in range(c.embed_dim)]
        if c.token_types:
            x[t] += params["token_type"]["table"][0 if types is None else types[t]]
    return normalize(x, params["embed_norm"], c) if c.embed_norm else x


def read(x, params, c, table=None):
    """What the head makes of the last hidden state: its logits, and the pooler's result."""
    pooled = np.tanh(dense(x[0], params["head"]["pooler"])) if c.head.pooler else None
    if c.head.kind == "none":
        return None, pooled
    if c.head.kind != "vocabulary":
        first = x[0] if pooled is None else pooled
        return dense(first if c.head.kind == "sequence" else x, params["head"]["classifier"]), pooled
    own = params.get("unembed", {})
    if c.head.transform:
        x = dense(x, own["transform"], c.head.transform_bias)
        x = normalize(activate(x, c.head.transform_activation), own.get("norm", {}), c)
    table = params["embed"]["table"] if table is None and c.tie_embeddings else table
    out = (x * (c.unembed_scale or 1.0)) @ (table.T if c.tie_embeddings else own["kernel"]) + bias_of(own, c.head.bias)
    return (c.logit_softcap * np.tanh(out / c.logit_softcap) if c.logit_softcap else out), None


def transformer(tokens, params, c, types=None, **given):
    """Logits, last hidden state and pooled token of one row of tokens."""
    hidden = blocks(embed(tokens, params, c, types), params, c, **given)
    logits, pooled = read(hidden, params, c)
    return logits, hidden, pooled


def encoder_decoder(tokens, decoder_tokens, params, c):
    """Logits of one pair of rows."""
    memory = transformer(tokens, params["encoder"], c.encoder)[1]
    table = params["encoder"]["embed"]["table"] if c.share_embeddings else None
    x = embed(decoder_tokens, params["decoder"], c.decoder, table=table)
    return read(blocks(x, params["decoder"], c.decoder, memory=memory), params["decoder"], c.decoder, table)[0]


def vision(image, params, c):
    """Logits and last hidden state of one image [height, width, channels]."""
    P, tokens = c.patch_size, [params["class_token"]]
    if c.distillation_token:
        tokens.append(params["distillation_token"])
    for top in range(0, c.image_size, P):
        for left in range(0, c.image_size, P):
            tokens.append(dense(image[top : top + P, left : left + P].ravel(), params["patch"]))
    hidden = blocks(np.stack(tokens) + params["position"], params, c.encoder)
    return (dense(hidden[0], params["classifier"]) if c.num_labels else None), hidden


def _layer(tree, index):
    return {k: _layer(v, index) if isinstance(v, dict) else v[index] for k, v in tree.items()}
