"""What a caller gives in Python and nothing can be done with: a sentence of ours, not one of NumPy.

In a process of its own, since the type checks that tests run with would refuse it before.
"""

import json
import subprocess
import sys

import pytest

TAKES = "a text, a list of texts, or a chat such as"
TYPED = {
    'm("hello")': "ValueError: tokens must be rows of token ids, all of one length, such as [[1, 2, 3]]: got 'hello'",
    "m([1, 2])": "ValueError: tokens must be rows of token ids, all of one length, such as [[1, 2, 3]]: got list of shape [2]",
    "m([[1], [1, 2]])": "got rows of different lengths; m.tokenizer.encode(text) makes the ids of a text, and a mask marks",
    "m([[0.5]])": "ValueError: tokens must be rows of token ids",
    "m.embed(3)": "ValueError: embed takes a text or a list of texts: got int",
    "m.embed(None)": "ValueError: embed takes a text or a list of texts: got NoneType",
    "m.embed([1, 2])": "ValueError: embed takes a text or a list of texts: got int in a list",
    "t5.embed('a')": "ValueError: embed needs an encoder or a decoder alone: t5 has an encoder-decoder",
    "vit.embed('a')": "ValueError: embed needs a model of text: vit has one of images",
    "vit.generate('a')": "ValueError: generate needs a model of text: vit has one of images",
    "m.generate(5)": f"ValueError: generate takes {TAKES}",
    "m.generate([1, 2])": "got int in a list",
    "m.generate({'role': 'user', 'content': 'hi'})": f"ValueError: generate takes {TAKES}",
    "m.generate('a', temperature='hot')": "ValueError: temperature must be a number: got 'hot'",
    "m.generate('a', temperature=None)": "ValueError: temperature must be a number: got None",
    "m.generate('a', num_beams='4')": "ValueError: num_beams must be a whole number: got '4'",
    "m.generate('a', max_tokens=2.5)": "ValueError: max_tokens must be a whole number: got 2.5",
    "m.generate('a', stop='b')": "ValueError: stop must be a list of texts: got 'b'; write ['b']",
    "m.generate('a', max_length=5)": "ValueError: generate has no option max_length: did you mean max_tokens?",
    "m.generate('a', temprature=5)": "ValueError: generate has no option temprature: did you mean temperature?",
    "m.generate('a', xyz=5)": "ValueError: generate has no option xyz: there are max_tokens, ",
    "bert.generate('a')": "ValueError: generate needs a model that writes, such as GPT or T5: got one that only reads",
    "m.classify('cat.png')": "ValueError: classify needs a model of text with a 'sequence' head: m has a 'vocabulary' head",
    "vit.classify(3)": "ValueError: images must be paths, Pillow images or arrays, one or a list of them: got int",
    "vit.classify('absent.png')": "FileNotFoundError: there is no picture absent.png: give the path of a file",
    "jaxllm.load(3)": "ValueError: a model must be named by the path of a run, a folder or a GGUF file, or by its name on",
    "jaxllm.load('absent.gguf')": "FileNotFoundError: there is no GGUF file absent.gguf: give the path of one",
}

CODE = """if True:
    import dataclasses, json, sys
    import jaxllm
    from jaxllm.data.image_input import ImageInput
    from jaxllm.data.tokenizer import CharacterTokenizer
    from jaxllm.models import EncoderDecoderConfig, HeadConfig, TransformerConfig, VisionConfig, make_model
    from jaxllm.recipe import Loaded

    small = dict(num_layers=1, embed_dim=16, num_heads=2)
    text = TransformerConfig(vocab_size=2, context_len=8, **small)
    reads = TransformerConfig(vocab_size=2, context_len=8, causal=False, head=HeadConfig(kind="none"), **small)
    image = TransformerConfig(causal=False, position="none", **small)
    configs = {
        "m": text,
        "bert": reads,
        "t5": EncoderDecoderConfig(encoder=reads, decoder=dataclasses.replace(text, cross_attention=True)),
        "vit": VisionConfig(image_size=8, patch_size=4, num_labels=2, encoder=image),
    }
    models = {}
    for name, config in configs.items():
        given = dict(tokenizer=None if name == "vit" else CharacterTokenizer("ab"), image_input=ImageInput(size=(8, 8)))
        models[name] = Loaded(model=make_model(config), params={}, source=name, **given)
    said = {}
    for typed in json.loads(sys.argv[1]):
        try:
            said[typed] = eval(typed, {"jaxllm": jaxllm, **models})
        except Exception as error:
            said[typed] = f"{type(error).__name__}: {error}"
    print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said():
    done = subprocess.run([sys.executable, "-c", CODE, json.dumps(list(TYPED))], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("typed", TYPED)
def test_what_cannot_be_used_is_refused_in_plain_words(said, typed):
    assert TYPED[typed] in said[typed] and "\n" not in said[typed]
