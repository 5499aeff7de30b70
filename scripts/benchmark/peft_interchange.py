"""Adapters of Hugging Face PEFT read here, and ours read there: the largest differences, case by case.

    python scripts/oracle/peft_methods.py CASES                      # a Python with torch, transformers and peft
    python scripts/benchmark/peft_interchange.py CASES --peft-python PYTHON

Of every case: logits here of the adapter that PEFT wrote, against PEFT's; merged weights against `merge_and_unload`; ids
written by greedy search and a beam search of 4 behind a prefix or a prompt. Then the adapter, and the same with every number
that learns moved at random, go out as PEFT's files, and PEFT's logits and ids of them are compared with ours.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
from record import write_named_record

from jaxllm.inference import SamplingConfig, beam_search, encode_sources, stream_tokens
from jaxllm.models import path_of
from jaxllm.recipe import Loaded, load, load_adapter, save_adapter

NAMES = {"tokens": "tokens", "mask": "segment_ids", "positions": "positions", "token_types": "token_types",
         "decoder_tokens": "decoder_tokens"}  # fmt: skip
"""In the files, and as our models are called."""
NEW_TOKENS = 7
FAST_TO_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
SOFT = ("prefix", "prompt", "ptuning")
"""How the names of cases begin whose adapters write texts."""
CHECK = """
import os, sys, traceback
sys.path.insert(0, sys.argv[1])
import peft_check
for folder in sys.argv[2:]:
    if os.path.exists(folder + "/found.npz"):
        continue
    sys.argv[1:] = [folder, folder + "/found.npz"]
    try:
        peft_check.main()
    except Exception:
        traceback.print_exc()
"""


def compiled(function: Any) -> Any:
    return jax.jit(function, compiler_options=FAST_TO_COMPILE)


def leaves(tree: Any) -> dict[str, np.ndarray]:
    return {path_of(keys): np.asarray(leaf) for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def make_forward(m: Loaded, expected: dict[str, np.ndarray]) -> Any:
    """`f(params)`: logits of all batches."""
    model: Any = m.model
    run = compiled(lambda params, given: model.apply({"params": params}, **given).logits)
    batches = {ours: expected[theirs] for theirs, ours in NAMES.items() if theirs in expected}
    return lambda params: np.stack([run(params, {name: x[number] for name, x in batches.items()}) for number in range(3)])


def apart(ours: np.ndarray, theirs: np.ndarray, mask: np.ndarray) -> float:
    """The largest difference, where there is text; virtual tokens of theirs have logits, too."""
    if ours.ndim == 4:
        theirs = theirs[:, :, -ours.shape[2] :]
    if ours.ndim == 4 and ours.shape[2] == mask.shape[2]:
        ours, theirs = ours[mask != 0], theirs[mask != 0]
    return float(np.abs(ours - theirs).max())


def written(m: Loaded, params: Any, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Ids behind rows of equal length."""
    prompts, given = rows.tolist(), {}
    if m.reads_prompt:
        given["memory"], prompts = encode_sources(m.model, params, prompts), [[0]] * len(rows)  # type: ignore[arg-type]
    sampling = SamplingConfig(max_tokens=NEW_TOKENS, temperature=0.0)
    greedy = np.concatenate(list(stream_tokens(m.model, params, prompts, sampling, **given))).T  # type: ignore[arg-type]
    sampling = SamplingConfig(max_tokens=NEW_TOKENS, num_beams=4, temperature=0.0)
    return {"greedy": greedy, "beam": np.asarray(beam_search(m.model, params, prompts, sampling, **given))}  # type: ignore[arg-type]


def moved(m: Loaded, seed: int) -> Any:
    """The parameters with every number that learns moved, but for the zeros of ranks that are not there."""
    rng, method = np.random.default_rng(seed), m.model.method  # type: ignore[union-attr]

    def change(keys: Any, leaf: Any) -> Any:
        path, array = path_of(keys), np.asarray(leaf)
        if not method.learns(path):
            return leaf
        keeps_zeros = path.endswith(("/lora/a", "/adalora/e", "/lora/magnitude", "/vera/lambda_b"))
        return array + (0.05 * rng.standard_normal(array.shape)).astype(array.dtype) * (array != 0 if keeps_zeros else 1)

    return jax.tree_util.tree_map_with_path(change, m.params)


def unused_ranks(params: Any) -> Any:
    """B is 0, too, where A is."""

    def settle(node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        node = {name: settle(value) for name, value in node.items()}
        if "lora" in node:
            own = dict(node["lora"])
            scale = np.asarray(own["scale"])
            a = np.asarray(own["a"])
            used = np.any(a != 0, axis=tuple(range(scale.ndim, a.ndim - 1)))
            own["b"] = own["b"] * used.reshape(*used.shape, *(1,) * (np.ndim(own["b"]) - used.ndim))
            node["lora"] = own
        return node

    return settle(params)


def read_case(folder: Path, out: Path) -> tuple[dict[str, Any], dict[Path, dict[str, Any]]]:
    """What is measured here, and by folder for PEFT to read what we make of the adapter in it."""
    name, kind = folder.name.split("--")
    with np.load(folder / "expected.npz") as stored:
        expected = {key: stored[key] for key in stored.files}
    base = load(folder / "base")
    m = load_adapter(base, folder / "adapter")
    forward, writes = make_forward(m, expected), name.startswith(SOFT) and kind != "bert"
    ours = {"logits": forward(m.params)}
    found: dict[str, Any] = {"logits_apart": apart(ours["logits"], expected["logits"], expected["mask"])}
    found["moved_by_the_adapter"] = apart(ours["logits"], expected["base_logits"], expected["mask"])
    if (folder / "merged").is_dir():
        mine, theirs = leaves(compiled(m.model.method.merge)(m.params)), leaves(load(folder / "merged").params)  # type: ignore
        assert mine.keys() == theirs.keys()
        relative = {path: float(np.abs(mine[path] - theirs[path]).max() / np.abs(theirs[path]).max()) for path in mine}
        found["merged_apart_relative"] = max(relative.values())
    if writes:
        ours |= written(m, m.params, expected["full"])
        found["same_ids"] = all(np.array_equal(ours[search], expected[f"full_{search}"]) for search in ("greedy", "beam"))
    checks = {out / f"{folder.name}--again": ours}
    again: dict[Path, Any] = {out / f"{folder.name}--again": m.params}
    other = unused_ranks(moved(m, len(name)))
    again[out / f"{folder.name}--moved"] = other
    checks[out / f"{folder.name}--moved"] = {"logits": forward(other)}
    for place, params in again.items():
        place.mkdir(parents=True)
        (place / "base").symlink_to((folder / "base").absolute())
        inputs = {key: expected[key] for key in NAMES if key in expected}
        if writes:
            inputs |= {"prompt": expected["full"], "prompt_mask": np.ones_like(expected["full"])}
        np.savez(place / "inputs.npz", **inputs)
        one = Loaded(**{**vars(m), "params": params})
        try:
            save_adapter(one, place / "adapter", to="peft")
        except ValueError as error:
            found[f"{place.name.rpartition('--')[2]}_refused"] = str(error)
            del checks[place]
            continue
    return found, checks


def compare(place: Path, ours: dict[str, Any]) -> dict[str, Any]:
    """What PEFT found in a folder of ours, against what we make of the same."""
    word = place.name.rpartition("--")[2]
    if not (place / "found.npz").is_file():
        return {f"{word}_failed": True}
    with np.load(place / "found.npz") as theirs, np.load(place / "inputs.npz") as inputs:
        found: dict[str, Any] = {f"{word}_logits_apart": apart(ours["logits"], theirs["logits"], inputs["mask"])}
        if "greedy" in ours:
            found[f"{word}_same_ids"] = all(np.array_equal(ours[search], theirs[search]) for search in ("greedy", "beam"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="PEFT's adapters here, ours there.")
    parser.add_argument("cases", type=Path, help="the folder that scripts/oracle/peft_methods.py has written")
    parser.add_argument("names", nargs="*", help="cases such as lora--llama (default: all, and a record of them)")
    parser.add_argument("--peft-python", required=True, help="a Python with torch, transformers and peft")
    parser.add_argument("--keep", type=Path, help="where adapters go that PEFT reads (default: they are removed)")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    oracle, results = Path(__file__).parents[1] / "oracle", {}
    with tempfile.TemporaryDirectory() as temporary:
        out = args.keep or Path(temporary)
        checks: dict[Path, dict[str, Any]] = {}
        for folder in sorted(args.cases.iterdir()):
            if args.names and folder.name not in args.names:
                continue
            begin = time.perf_counter()
            try:
                results[folder.name], more = read_case(folder, out)
                checks |= more
            except ValueError as error:
                results[folder.name] = {"refused": str(error).replace(f"{args.cases}/", "")}
            print(folder.name, results[folder.name], f"{time.perf_counter() - begin:.0f} s", flush=True)
        given = [str(place) for place in checks]
        if given:
            subprocess.run([args.peft_python, "-c", CHECK, str(oracle), *given], check=True)
        for place, ours in checks.items():
            found = compare(place, ours)
            results[place.name.rpartition("--")[0]] |= found
            print(place.name, found, flush=True)
    if not args.names:
        summary = {"cases": len(results), "refused": sum("refused" in found for found in results.values())}
        for key in ("logits_apart", "merged_apart_relative", "again_logits_apart", "moved_logits_apart"):
            summary[f"largest_{key}"] = max(found[key] for found in results.values() if key in found)
        notes = (
            "Adapters of every method that PEFT has, on a Llama, GPT-2, BERT and T5 of two layers: the largest difference of "
            "any logit from PEFT's, read here (logits_apart), written again and read by PEFT (again), and with every learnt "
            "number moved (moved); merged weights relative to the largest of each; ids of greedy search and a beam search of 4."
        )
        print(
            write_named_record("peft_interchange", "tiny", {"cases": sorted(results)}, {**summary, "by_case": results}, notes)
        )


if __name__ == "__main__":
    sys.exit(main())
