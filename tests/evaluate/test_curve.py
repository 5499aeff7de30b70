import numpy as np

from jaxllm.evaluate.curve import MAX_POINTS, _smooth, _thinned


def test_a_long_curve_keeps_its_spikes():
    steps = np.arange(100_003.0)
    values = np.zeros_like(steps)
    values[[12_345, 100_002]] = 7.0, -3.0
    values[500:700] = np.nan
    thin_steps, thin_values = _thinned(steps, values)
    assert len(thin_steps) < 1.1 * MAX_POINTS
    assert {12_345.0, 100_002.0} <= set(thin_steps)
    assert (np.diff(thin_steps) > 0).all()
    np.testing.assert_array_equal(thin_values, values[thin_steps.astype(int)])


def test_smoothing_is_the_mean_of_a_window_without_the_gaps():
    values = np.random.default_rng(0).normal(size=400)
    values[100:103] = np.nan
    expected = [np.nanmean(values[max(i - 5, 0) : i + 6]) for i in range(400)]
    np.testing.assert_allclose(_smooth(values), expected, rtol=1e-12)
