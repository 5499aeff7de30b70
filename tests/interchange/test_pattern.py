"""The language of patterns: sizes, both ways, and how little of a tensor is read for a part of ours."""

import itertools

import numpy as np
import pytest

from jaxllm.interchange.pattern import parse

PATTERNS = {
    "D -> D": (6,),
    "(N H) D -> D N H": (6, 4, 2),
    "D (P N H) -> P D N H": (3, 6, 4, 2),
    "(N P H) D -> P D N H": (3, 6, 4, 2),
    "(N P H) -> P N H": (3, 4, 2),
    "(N I 2) D -> D N (2 I)": (6, 4, 8),
    "1 1 D -> D": (6,),
    "D C 4 3 -> (4 3 C) D": (24, 5),
    "F D -> 1 D F": (1, 6, 4),
}
every_pattern = pytest.mark.parametrize("text", PATTERNS)


def case(text):
    pattern, ours = parse(text), np.arange(np.prod(PATTERNS[text])).reshape(PATTERNS[text])
    sizes = pattern.sizes(ours.shape)
    return pattern, ours, sizes, pattern.to_published(ours, sizes)


def test_to_published_is_what_the_letters_say():
    _, ours, _, published = case("(N P H) D -> P D N H")
    assert published.shape == (24, 6)
    for p, d, n, h in itertools.product(*map(range, ours.shape)):
        assert published[(n * 3 + p) * 2 + h, d] == ours[p, d, n, h]
    _, ours, _, published = case("(N I 2) D -> D N (2 I)")
    assert published[2 * 8 + 3 * 2 + 1, 5] == ours[5, 2, 1 * 4 + 3]


@every_pattern
def test_reading_all_is_the_inverse(text):
    pattern, ours, sizes, published = case(text)
    assert published.shape == pattern.published_shape(sizes)
    got = pattern.read([slice(0, size) for size in ours.shape], sizes, published.__getitem__)
    np.testing.assert_array_equal(got, ours)


@every_pattern
def test_reading_a_part_gives_that_part(text):
    pattern, ours, sizes, published = case(text)
    for axis, size in enumerate(ours.shape):
        for start, stop in itertools.combinations(range(size + 1), 2):
            wanted = [slice(0, other) for other in ours.shape]
            wanted[axis] = slice(start, stop)
            np.testing.assert_array_equal(pattern.read(wanted, sizes, published.__getitem__), ours[tuple(wanted)])


@pytest.mark.parametrize("text", [text for text in PATTERNS if "2 I" not in text and "4 3 C" not in text])
def test_a_part_is_read_and_nothing_else(text):
    """Where our axes are single letters, as many values are read as are wanted."""
    pattern, ours, sizes, published = case(text)
    read = []

    def counting(places):
        read.append(published[places].size)
        return published[places]

    wanted = tuple(slice(0, max(1, size // 2)) for size in ours.shape)
    pattern.read(wanted, sizes, counting)
    assert sum(read) == ours[wanted].size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(N H) D", "two sides"),
        ("(N H) D -> D N", "H is on the left only"),
        ("N D -> D N H", "H is on the right only"),
        ("(N H D -> D N H", "balanced"),
        ("N) H D -> D N H", "balanced"),
        ("((N H) D) -> D N H", "balanced"),
        ("N N -> N N", "N twice"),
        ("N, D -> D N", "got ','"),
        ("I J -> (I J)", "leaves sizes open: I and J"),
        ("2 D -> D 3", "left only|right only"),
    ],
)
def test_patterns_that_are_none(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="for arrays of 3 axes: got shape"):
        parse("(N H) D -> D N H").sizes((6, 8))
    with pytest.raises(ValueError, match="multiple of 2: got 7"):
        parse("(N I 2) D -> D N (2 I)").sizes((6, 4, 7))
    with pytest.raises(ValueError, match="an axis of 1: got 2"):
        parse("F D -> 1 D F").sizes((2, 6, 4))
