import jax.numpy as jnp
import pytest

from jaxllm.hardware import ProfileConfig, ProfileWindow


def traced_steps(config: ProfileConfig, folder, steps: range) -> list[int]:
    """The steps at whose end a trace was stopped."""
    window, stopped = ProfileWindow(config, folder), []
    for step in steps:
        window.before(step)
        if window.after(step, jnp.ones(3) + step):
            stopped.append(step)
    window.close()
    return stopped


def test_traces_the_window(tmp_path):
    assert traced_steps(ProfileConfig(steps=(2, 3)), tmp_path, range(1, 6)) == [3]
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == 1


def test_a_run_that_ends_inside_its_window_still_writes_the_trace(tmp_path):
    assert traced_steps(ProfileConfig(steps=(4, 9)), tmp_path, range(1, 6)) == []
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == 1


def test_no_window_no_trace(tmp_path):
    assert traced_steps(ProfileConfig(), tmp_path, range(1, 4)) == []
    assert traced_steps(ProfileConfig(steps=(7, 8)), tmp_path, range(1, 4)) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("steps", [(3, 2), (0, 2)])
def test_a_window_must_be_a_range_of_steps(steps):
    with pytest.raises(ValueError, match=f"first <= last, from 1 up: got {steps[0]} {steps[1]}"):
        ProfileConfig(steps=steps)
