import json

import pytest

from jaxllm.hardware import cpu_probe
from jaxllm.hardware.cpu_probe import Candidate, ProbeResult, cached_probe, candidates, forget_probe, probe, probe_path


def row(seconds: float | None, devices: int = 2, loss: float | None = 3.0) -> Candidate:
    return Candidate(num_devices=devices, flags="", step_seconds=seconds, loss=loss)


def test_the_fastest_wins_but_only_by_a_margin():
    assert ProbeResult(candidates=(row(0.060, 1), row(0.040), row(0.030, 3))).best() == row(0.030, 3)
    assert ProbeResult(candidates=(row(0.0300, 1), row(0.0295))).best() == row(0.0300, 1)


def test_failed_candidates_are_passed_over():
    assert ProbeResult(candidates=(row(None), row(0.1, 4), row(None))).best() == row(0.1, 4)
    assert ProbeResult(candidates=(row(None),)).best() is None


def test_a_candidate_that_computes_something_else_is_refused():
    result = cpu_probe._agreeing((row(0.04, loss=3.4341545), row(0.03, loss=3.4341559), row(0.01, loss=3.5)))
    assert [found.error is None for found in result.candidates] == [True, True, False]
    assert result.best() == row(0.03, loss=3.4341559)


def test_candidates_start_with_jax_as_it_comes_and_repeat_nothing():
    for cores in (1, 2, 16):
        settings = [(found.num_devices, found.flags) for found in candidates(cores)]
        assert settings[0] == (1, "")
        assert len(set(settings)) == len(settings)
        assert {devices for devices, _ in settings} <= {1, cores}


@pytest.fixture
def short_probe(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXLLM_CACHE", str(tmp_path))
    monkeypatch.setattr(cpu_probe, "ROUNDS", 2)
    tried = (Candidate(num_devices=1, flags=""), Candidate(num_devices=2, flags="--xla_no_such_flag=true"))
    monkeypatch.setattr(cpu_probe, "candidates", lambda cores: tried)


def test_measures_once_and_survives_an_unknown_flag(short_probe, capfd):
    plain, unknown = probe(2).candidates
    assert plain.step_seconds is not None and 0 < plain.step_seconds < 30 and plain.loss is not None
    assert unknown.step_seconds is None and "xla_no_such_flag" in str(unknown.error)
    assert "finding this CPU's fastest setting" in capfd.readouterr().err
    assert cached_probe(2) == ProbeResult(candidates=(plain, unknown))
    assert probe(2) == cached_probe(2)
    assert "finding" not in capfd.readouterr().err


def test_the_cached_result_can_be_forgotten_and_damaged(short_probe):
    assert cached_probe(2) is None
    probe_path(2).write_text(json.dumps({"candidates": [{"num_devices": 2, "flags": "", "no_such_field": 1}]}))
    assert cached_probe(2) is None
    probe_path(2).write_text(json.dumps({"candidates": [{"num_devices": 2, "flags": ""}]}))
    assert cached_probe(2) is not None
    forget_probe(2)
    assert cached_probe(2) is None
