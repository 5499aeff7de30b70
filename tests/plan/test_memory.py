"""What the compiler says of memory, also when it refuses."""

import pytest

from jaxllm.plan.memory import GIB, Memory, advice, refused_memory

KNOWN = dict(parameters=3 * GIB, optimizer=6 * GIB, gradients=3 * GIB, cache=0, batch=GIB)
OOM = "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO temporaries "
OLD = "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 26.84G of 15.75G hbm. "


@pytest.mark.parametrize(
    "said", [OOM + "(26.84G) exceeds available HBM (15.75G). HLO module: jit_step.", OLD + "Exceeded by 11.09G."]
)
def test_a_refusal_says_what_was_needed(said):
    memory = refused_memory(RuntimeError(said), 16 * GIB, **KNOWN)
    assert memory is not None and memory.fits is False
    assert memory.peak == pytest.approx(26.84 * GIB, abs=2) and memory.capacity == 15.75 * GIB
    assert memory.arguments == 10 * GIB and memory.temporaries == pytest.approx(16.84 * GIB, abs=2)


def test_another_error_is_none_of_memory():
    assert refused_memory(RuntimeError("INTERNAL: Mosaic failed to compile TPU kernel"), None, **KNOWN) is None


def memory(**changes):
    sizes = dict(parameters=1, optimizer=2, gradients=1, cache=0, batch=0, temporaries=2, outputs=0, aliased=0, capacity=4)
    sizes |= changes
    return Memory(**sizes, arguments=sizes["parameters"] + sizes["optimizer"] + sizes["cache"])


def test_advice_names_the_larger_share_first():
    assert "--mesh.fsdp" in advice(memory())[0] and "--model.remat block" in advice(memory(temporaries=50))[0]
    serving = dict(optimizer=0, gradients=0)
    assert "--mesh.tensor" in advice(memory(**serving, parameters=9))[0]
    assert "--length" in advice(memory(**serving, cache=9))[0]


def test_the_peak_is_made_of_its_parts():
    whole = memory(temporaries=9)
    assert whole.peak == 12 == whole.parameters + whole.optimizer + whole.gradients + whole.activations
