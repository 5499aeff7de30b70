import sys

import pytest

from jaxllm.data.clean import STEPS, CleanConfig, Cleaner

STORY = "once upon a time there was a small girl who lived in a house near the dark forest with her dog "


def clean(texts: list[str], **config: object) -> tuple[list[str], Cleaner]:
    cleaner = Cleaner(CleanConfig(**config))
    return [text for _, text in cleaner.clean((str(i), text) for i, text in enumerate(texts))], cleaner


@pytest.mark.parametrize(
    ("config", "step", "texts", "kept", "removed", "changed", "characters"),
    [
        ({}, "empty", ["a", " \n", ""], ["a"], 2, 0, 2),
        ({"control_characters": True}, "control characters", ["a\x00b\u200b", "c\td\n"], ["ab", "c\td\n"], 0, 1, 2),
        ({"repeated_lines": True}, "repeated lines", ["x\n\ny\nx\n\n"], ["x\n\ny\n\n"], 0, 1, 2),
        ({"min_chars": 3}, "too short", [" ab ", "abc"], ["abc"], 1, 0, 4),
        ({"exact_duplicates": True}, "exact duplicates", ["a", "b", "a\n", "a"], ["a", "b"], 2, 0, 3),
    ],
)  # fmt: skip
def test_step(config: dict, step: str, texts: list, kept: list, removed: int, changed: int, characters: int):
    result, cleaner = clean(texts, **config)
    assert result == kept
    count = cleaner.counts.steps[step]
    assert (count.documents_removed, count.documents_changed, count.characters_removed) == (removed, changed, characters)
    assert (cleaner.counts.documents_read, cleaner.counts.documents_kept) == (len(texts), len(kept))
    assert cleaner.counts.characters_kept == sum(map(len, kept))


def test_near_duplicates():
    other = "the quick brown fox jumps over the lazy dog and then sleeps for a week without a single dream at all"
    chinese = "床前明月光疑是地上霜举头望明月低头思故乡" * 2
    texts = [STORY * 5, other, STORY * 5 + "and a cat", chinese, chinese + "好"]
    result, cleaner = clean(texts, near_duplicates=0.7)
    assert result == [texts[0], texts[1], texts[3]]
    assert cleaner.counts.steps["near duplicates"].documents_removed == 2


def test_language():
    texts = [STORY, "Der kleine Hund lief schnell durch den dunklen Wald nach Hause zu seiner Mutter."]
    result, cleaner = clean(texts, languages=("en",))
    assert result == [STORY]
    assert cleaner.counts.steps["language"].documents_removed == 1
    with pytest.raises(ValueError, match="got xx"):
        clean(texts, languages=("xx",))


def test_steps_run_in_the_documented_order():
    config = dict(control_characters=True, repeated_lines=True, min_chars=2, languages=("en",),
                  exact_duplicates=True, near_duplicates=0.9)  # fmt: skip
    assert tuple(clean([], **config)[1].counts.steps) == STEPS
    assert clean(["\x01", "a\x01\na\x01"], **config)[1].counts.steps["empty"].documents_removed == 1


@pytest.mark.parametrize(
    ("package", "config"), [("datasketch", {"near_duplicates": 0.8}), ("py3langid", {"languages": ("en",)})]
)
def test_missing_package_is_named(package: str, config: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"needs the package {package}: it is not installed; pip install 'jaxllm\[clean\]'"):
        clean([], **config)


@pytest.mark.parametrize("config", [{"min_chars": 0}, {"near_duplicates": 1.5}, {"languages": ("English",)}])
def test_impossible_config(config: dict):
    with pytest.raises(ValueError, match="got"):
        CleanConfig(**config)
