"""What `launch` does as machines come and go."""

import pytest


@pytest.fixture
def machine(tool):
    return tool("machine").Machine(name="mine", type="v5e-16", zone="us-west4-a", bucket="gs://bucket/jaxllm", spot=True)


@pytest.fixture
def launch(tool, google, machine):
    module = tool("launch")
    run = module.Run(name="mine", options=["configs/x.py"])
    return lambda **options: module.launch(google, machine, run, **{"restarts": 2, "detach": False} | options)


def becomes(google, *workers, state="READY"):
    def happen():
        google.workers, google.state = list(workers * (4 // len(workers))), state

    return happen


def later(google, seconds):
    def happen():
        google.seconds += seconds

    return happen


BEGIN = ["describe", "create", "describe", "report", "scp", "install", "start"]


def test_a_run_from_nothing_to_its_end(google, launch):
    google.events = [lambda: None, becomes(google, "ended mine 0"), lambda: None]
    launch()
    assert google.calls == [*BEGIN, "report", "report", "describe"]
    assert "mine is finished; its folder is gs://bucket/jaxllm/runs/mine" in google.said[-1]


def test_a_preempted_machine_is_made_again_and_the_run_goes_on(google, launch):
    lost = becomes(google, "", state="PREEMPTED")
    google.events = [lambda: None, lost, lambda: None, becomes(google, "ended mine 0"), lambda: None]
    launch()
    again = ["describe", "describe", "delete", "describe", "create", "describe", "report", "scp", "install", "start"]
    assert google.calls == [*BEGIN, "report", "report", "describe", *again, "report", "describe"]
    assert any("starting again from the newest checkpoint (1 of 2)" in words for words in google.said)


def test_a_run_that_the_cloud_stopped_goes_on_on_the_same_machine(google, launch):
    """Its machine is ready again, after maintenance: only exit code 0 is the end."""
    google.events = [becomes(google, "ended mine 75"), lambda: None, becomes(google, "ended mine 0"), lambda: None]
    launch()
    assert google.calls.count("start") == 2 and google.calls.count("create") == 1
    assert "mine is finished" in google.said[-1]


def test_a_run_that_ends_in_order_because_its_machine_goes_is_not_finished(google, launch):
    google.events = [
        becomes(google, "ended mine 0"),
        becomes(google, "", state="PREEMPTED"),
        lambda: None,
        becomes(google, "ended mine 0"),
        lambda: None,
    ]
    launch()
    assert google.calls.count("start") == 2


def test_a_run_that_fails_at_once_is_not_started_again(tool, google, launch):
    google.events = [becomes(google, "ended mine 2")]
    with pytest.raises(tool("gcloud").CommandFailed, match="(?s)would again: mine failed.*the last line"):
        launch()
    assert google.calls.count("start") == 1


def test_a_run_that_is_given_up_leaves_nothing_running(tool, google, launch):
    google.events = [becomes(google, "ended mine 2", "running mine", "running mine", "running mine")] * 5
    with pytest.raises(tool("gcloud").CommandFailed, match="would again"):
        launch()
    assert google.calls[-1] == "end"


def test_a_run_that_fails_later_is_started_again_as_often_as_allowed(tool, google, launch):
    fails = [later(google, 3600), becomes(google, "ended mine 1", "ended mine 0"), lambda: None]
    google.events = fails * 3
    with pytest.raises(tool("gcloud").CommandFailed, match="started again 2 times already"):
        launch()
    assert google.calls.count("start") == 3 and google.calls.count("create") == 1


def test_workers_that_hang_after_another_failed_are_ended(google, launch):
    hangs = becomes(google, "ended mine 1", "running mine", "running mine", "running mine")
    google.events = [later(google, 3600), *[hangs] * 5, lambda: None, becomes(google, "ended mine 0"), lambda: None]
    launch()
    assert google.calls.count("end") == 1 and google.calls.index("end") > google.calls.index("start")
    assert google.calls.count("start") == 2


def test_a_machine_that_is_there_but_not_heard_is_never_deleted(google, launch):
    silent, unknown = becomes(google, ""), lambda: google.refuses.update(describe="no network")
    google.events = [silent, unknown, google.refuses.clear, becomes(google, "ended mine 0"), lambda: None]
    launch()
    assert "delete" not in google.calls and google.calls.count("start") == 1
    assert any("unknown (gcloud could not describe mine: no network)" in words for words in google.said)


def test_a_stop_by_the_user_ends_the_watch(google, launch):
    google.events = [becomes(google, "ended mine 0", "stopped mine")]
    launch()
    assert "mine is stopped" in google.said[-1]


def test_a_run_that_is_there_is_watched_and_not_started(google, launch):
    google.state, google.workers = "READY", ["running mine"] * 4
    google.events = [becomes(google, "ended mine 0"), lambda: None]
    launch()
    assert google.calls == ["describe", "report", "report", "describe"]


def test_a_part_that_runs_alone_is_ended_first(google, launch):
    google.state, google.workers = "READY", ["running mine", "interrupted mine", "running mine", "running mine"]
    launch(detach=True)
    assert google.calls == ["describe", "report", "end", "scp", "install", "start"]


def test_a_machine_with_another_run_is_left_alone(tool, google, launch):
    google.state, google.workers = "READY", ["running yours"] * 4
    with pytest.raises(tool("gcloud").CommandFailed, match="mine must be free: yours runs there"):
        launch()
    assert "scp" not in google.calls


def test_a_restart_that_finds_no_machine_counts_and_is_tried_again(google, launch):
    google.events = [
        becomes(google, "", state="ABSENT"),
        lambda: google.refuses.update(create="no capacity"),
        google.refuses.clear,
        becomes(google, "ended mine 0"),
        lambda: None,
    ]
    launch()
    assert google.calls.count("create") == 3 and any("did not start: " in words for words in google.said)


def test_another_machine_of_that_name_is_refused(tool, google, launch):
    google.state, google.type = "READY", "v5litepod-8"
    with pytest.raises(tool("gcloud").CommandFailed, match="mine must be a v5litepod-16: there is one that is a v5litepod-8"):
        launch()


def test_a_stopped_machine_is_not_deleted(tool, google, launch):
    google.state = "STOPPED"
    with pytest.raises(tool("gcloud").CommandFailed, match="mine must be ready: it is STOPPED"):
        launch()
    assert google.calls == ["describe"]


def test_a_worker_that_could_not_install_is_said(tool, google, launch):
    google.refuses = {"install": "ERROR: pip: no network"}
    with pytest.raises(tool("gcloud").CommandFailed, match="0 of 4 workers installed: ERROR: pip: no network"):
        launch()
    assert "start" not in google.calls


def test_create_waits_in_the_queue_and_says_why_it_failed(tool, google):
    queued = tool("machine").Machine(name="mine", type="v5e-16", zone="us-west4-a", bucket="gs://bucket", queued=True)
    google.state = "WAITING_FOR_RESOURCES"
    google.events = [lambda: None, becomes(google, "idle", state="PROVISIONING"), becomes(google, "idle")]
    tool("launch").create(google, queued)
    assert google.said == [
        "mine is WAITING_FOR_RESOURCES; waiting, Ctrl-C leaves it as it is",
        "mine is PROVISIONING; waiting, Ctrl-C leaves it as it is",
        "mine is ready",
    ]


def test_no_capacity_points_at_the_queue(tool, google, launch):
    google.refuses = {"create": "no capacity"}
    with pytest.raises(tool("gcloud").CommandFailed, match="queued = true waits for it"):
        launch()


def test_delete_twice_is_no_error(tool, google, machine):
    google.state = "READY"
    tool("launch").delete(google, machine)
    tool("launch").delete(google, machine)
    assert google.calls == ["describe", "delete", "describe"] and google.said == ["mine is deleted", "there is no mine"]
