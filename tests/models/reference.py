"""The decoder in plain NumPy, float64, written from the papers and not from the package: one loop for each sum."""

import math

import numpy as np


def normalize(x, p, config, rms=False):
    if rms or config.norm == "rms_norm":
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.norm_epsilon) * p["scale"]
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + config.norm_epsilon) * p["scale"]
    return y + p.get("bias", 0.0)


def activate(x, name):
    if name in ("gelu", "geglu"):
        return np.vectorize(lambda z: z * 0.5 * (1 + math.erf(z / math.sqrt(2))))(x)
    if name in ("gelu_tanh", "geglu_tanh"):
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return np.maximum(x, 0) if name == "relu" else x / (1 + np.exp(-x))


def rotate(x, theta):
    out = np.empty_like(x)
    half = x.shape[-1] // 2
    for t in range(x.shape[0]):
        for i in range(half):
            angle = t * theta ** (-2 * i / x.shape[-1])
            a, b = x[t, :, i], x[t, :, i + half]
            out[t, :, i] = a * math.cos(angle) - b * math.sin(angle)
            out[t, :, i + half] = b * math.cos(angle) + a * math.sin(angle)
    return out


def attention(x, p, config):
    q, k, v = (np.einsum("td,dnh->tnh", x, p[n]["kernel"]) + p[n].get("bias", 0.0) for n in ("query", "key", "value"))
    if config.qk_norm:
        q, k = normalize(q, p["query_norm"], config, rms=True), normalize(k, p["key_norm"], config, rms=True)
    if config.position == "rotary":
        q, k = rotate(q, config.rope_theta), rotate(k, config.rope_theta)
    T, N, H = q.shape
    out = np.zeros_like(q)
    for n in range(N):
        kv = n // (N // k.shape[1])
        for t in range(T):
            first = 0 if config.window is None else max(0, t - config.window + 1)
            logits = k[first : t + 1, kv] @ q[t, n] / math.sqrt(H)
            if config.attention_softcap:
                logits = config.attention_softcap * np.tanh(logits / config.attention_softcap)
            if config.position == "alibi":
                logits = logits - 2.0 ** (-8 * (n + 1) / N) * (t - np.arange(first, t + 1))
            weights = np.exp(logits - logits.max())
            out[t, n] = weights / weights.sum() @ v[first : t + 1, kv]
    return np.einsum("tnh,nhd->td", out, p["output"]["kernel"]) + p["output"].get("bias", 0.0)


def feed_forward(x, p, config):
    up = x @ p["up"]["kernel"] + p["up"].get("bias", 0.0)
    if "gate" in p:
        up = activate(x @ p["gate"]["kernel"] + p["gate"].get("bias", 0.0), config.activation) * up
    else:
        up = activate(up, config.activation)
    return up @ p["down"]["kernel"] + p["down"].get("bias", 0.0)


def logits(tokens, params, config):
    """Logits [T, V] of one row of tokens."""
    D = config.embed_dim
    x = params["embed"]["table"][tokens]
    if config.position == "learned":
        x = x + params["position"]["table"][: len(tokens)]
    if config.position == "sinusoidal":
        for t in range(len(tokens)):
            for i in range(D):
                angle = t / 10_000 ** (2 * (i // 2) / D)
                x[t, i] += math.cos(angle) if i % 2 else math.sin(angle)
    for layer in range(config.num_layers):
        p = _layer(params["layers"], layer)
        if config.parallel_block:
            y = normalize(x, p["attention_norm"], config)
            x = x + attention(y, p["attention"], config) + feed_forward(y, p["ffw"], config)
            continue
        for name, sublayer in (("attention", attention), ("ffw", feed_forward)):
            if config.norm_placement == "post":
                x = normalize(x + sublayer(x, p[name], config), p[f"{name}_norm"], config)
                continue
            y = sublayer(normalize(x, p[f"{name}_norm"], config), p[name], config)
            x = x + (normalize(y, p[f"{name}_post_norm"], config) if config.norm_placement == "sandwich" else y)
    if config.norm_placement != "post":
        x = normalize(x, params["final_norm"], config)
    out = x @ (params["embed"]["table"].T if config.tie_embeddings else params["unembed"]["kernel"])
    return config.logit_softcap * np.tanh(out / config.logit_softcap) if config.logit_softcap else out


def _layer(tree, index):
    return {k: _layer(v, index) if isinstance(v, dict) else v[index] for k, v in tree.items()}
