"""How does a trained model continue a text?

`generate` takes prompts and gives completions; `SamplingConfig` says how tokens are drawn. Below it, `stream_tokens`
works on token ids, and `decode_params` prepares parameters once for many calls. `embed` makes a vector of a text.
"""

from jaxllm.inference.beam import beam_search
from jaxllm.inference.embed import embed
from jaxllm.inference.generate import encode_sources, generate, stream_tokens
from jaxllm.inference.sampling import Drawing, SamplingConfig, make_drawing, sample
from jaxllm.inference.stream import TextStream
from jaxllm.inference.writer import DecodeParams, Writer, decode_params

__all__ = [
    "DecodeParams",
    "Drawing",
    "SamplingConfig",
    "TextStream",
    "Writer",
    "beam_search",
    "decode_params",
    "embed",
    "encode_sources",
    "generate",
    "make_drawing",
    "sample",
    "stream_tokens",
]
