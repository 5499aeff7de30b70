from jaxllm.distributed import check_same, code_facts, from_first, gather, is_first
from jaxllm.distributed.same import differences, fingerprint
from jaxllm.recipe.serialize import to_tree
from tests.recipe import tiny


def test_differences_are_named():
    there, here = ({"recipe": to_tree(tiny.config(steps=steps, seed=seed))} for steps, seed in ((12, 0), (20, 1)))
    assert differences(there, here) == ["recipe.steps is 20 and not 12", "recipe.seed is 1 and not 0"]
    assert differences(there, there) == [] and fingerprint(there) == fingerprint(dict(reversed(there.items())))
    assert fingerprint(there) != fingerprint(here)


def test_many_differences_are_counted():
    there, here = {str(n): n for n in range(10)}, {str(n): n + 1 for n in range(9)}
    told = differences(there, here)
    assert told[0] == "0 is 1 and not 0" and told[-1] == "7 more differences"
    assert differences({"a": 1}, {}) == ["a is null and not 1"]


def test_the_code_is_compared_file_by_file():
    facts = code_facts()
    assert len(facts["jaxllm/distributed/same.py"]) == 12 and facts["jax"] and facts["python"]


def test_alone_there_is_nobody_to_ask():
    check_same({"steps": 1}, "")
    assert gather("x") == ["x"] and from_first(lambda: [1]) == [1] and is_first()
