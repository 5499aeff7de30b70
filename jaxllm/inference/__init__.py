"""How does a trained model continue a text?

`generate` takes prompts and gives completions; `SamplingConfig` says how tokens are drawn. Below it, `stream_tokens`
works on token ids, and `decode_params` prepares parameters once for many calls.
"""

from jaxllm.inference.decode import decode_params
from jaxllm.inference.generate import generate, stream_tokens
from jaxllm.inference.sampling import Drawing, SamplingConfig, make_drawing, sample
from jaxllm.inference.stream import TextStream

__all__ = [
    "Drawing",
    "SamplingConfig",
    "TextStream",
    "decode_params",
    "generate",
    "make_drawing",
    "sample",
    "stream_tokens",
]
