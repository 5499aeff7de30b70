import json
import math
import re
from html.parser import HTMLParser

import pytest

from jaxllm.evaluate.report import write_report
from jaxllm.training.metrics_file import METRICS_FILE

NASTY = "<script>alert('hi')</script> & \"quotes\""


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "demo<&>"
    folder.mkdir()
    train = [
        {"step": step, "split": "train", "loss": 4 / step, "grad_norm": None, "learning_rate": 1e-3,
         "tokens_per_second": 1000.0 * step, "mfu": 0.25, "step_seconds": 0.05}
        for step in range(1, 31)
    ]  # fmt: skip
    validation = [{"step": step, "split": "validation", "loss": loss} for step, loss in ((10, 1.5), (30, 2.0))]
    (folder / METRICS_FILE).write_text("".join(json.dumps(r) + "\n" for r in train + validation))
    (folder / "environment.json").write_text(json.dumps({"versions": {"jax": NASTY}, "memory_bytes": 2**31}))
    (folder / "recipe.json").write_text(json.dumps({"name": NASTY}, indent=2))
    return folder


def rows(page):
    return dict(re.findall(r"<tr><th>(.*?)</th><td>(.*?)</td></tr>", page))


def test_it_is_one_file_with_nothing_to_fetch(run_dir):
    page = write_report(run_dir, command="jaxllm train demo").read_text()
    assert not re.search(r"https?:|//|@import|<link|<script|<img|src=", page)
    assert all(target.startswith("#") for target in re.findall(r"(?:href=\"|url\()([^\")]+)", page))


def test_text_is_escaped(run_dir):
    path = write_report(run_dir, command=NASTY, sample=NASTY, results={"checkpoint": NASTY})
    page = path.read_text()
    assert path == run_dir / "report.html"
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(") == 5  # command, sample, result, environment, recipe
    assert "<title>demo&lt;&amp;&gt;</title>" in page


def test_the_tags_are_balanced(run_dir):
    open_tags = []

    class Check(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag != "meta":
                open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Check().feed(write_report(run_dir, command="c", sample="s").read_text())
    assert open_tags == []


def test_the_numbers(run_dir):
    results = {"parameters": 804_096, "seconds": 131.2, "compile_seconds": 6.53, "train_loss": 0.5, "note": None}
    table = rows(write_report(run_dir, command="c", results=results).read_text())
    assert table["validation loss, nats"] == "2.0000"
    assert table["best validation loss"] == "1.5000"
    assert table["validation perplexity"] == f"{math.exp(2):.3f}"
    assert table["training loss, last step"] == "0.5000"  # the caller's number wins over the log's
    assert table["steps"] == "30"
    assert table["tokens per second, median"] == "15,500"
    assert table["model FLOPs utilization, median"] == "25.0%"
    assert table["step time, median"] == "50.0 ms"
    assert table["parameters"] == "804,096"
    assert table["training time"] == "2 min 11 s"
    assert table["compile time"] == "6.5 s"
    assert table["note"] == "unknown"
    assert table["memory"] == "2.0 GiB"


def test_a_curve_for_each_metric_that_has_values(run_dir):
    page = write_report(run_dir, command="c").read_text()
    titles = ("loss, nats, by step", "learning rate", "gradient norm", "tokens per second")
    assert [page.count(f">{title}</text>") for title in titles] == [1, 1, 0, 1]  # every gradient norm is null
    assert page.count("<svg") == 3
    assert "var(--train)" in page and not re.search(r"#0[1-4]0[1-4]0[1-4]", page)


def test_a_run_that_was_stopped_before_it_logged_anything(tmp_path):
    (tmp_path / METRICS_FILE).write_text("")
    page = write_report(tmp_path, command="c").read_text()
    assert "no recipe.json" in page and "no environment.json" in page and page.count("<svg") == 1


def test_a_folder_that_is_not_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="A run folder holds metrics.jsonl"):
        write_report(tmp_path, command="c")
