"""Class reports: the numbers of scikit-learn and seqeval, and how a page draws them."""

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as theirs

from jaxllm.evaluate.class_page import class_section
from jaxllm.evaluate.class_report import class_report, entity_report, label_report, report_text

RANDOM = np.random.default_rng(3)
NAMES = ("bad", "so-so", "good", "never")
GOLDEN = Path(__file__).parent / "golden" / "entities.json"


def flat(tree):
    """Our report as scikit-learn names it."""
    named = {"macro": "macro avg", "weighted": "weighted avg", "micro": "micro avg", "samples": "samples avg"}
    lines = tree["classes"] | {named[name]: line for name, line in tree["averages"].items()}
    found = {f"{name} {key}": line[key] for name, line in lines.items() for key in ("precision", "recall", "f1", "support")}
    return found if tree["accuracy"] is None else found | {"accuracy": tree["accuracy"]}


def expected(report):
    found = {}
    for name, line in report.items():
        if isinstance(line, dict):
            found |= {f"{name} {key.replace('f1-score', 'f1')}": value for key, value in line.items()}
        else:
            found[name] = line
    return found


def quiet(*arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return theirs.classification_report(*arguments, output_dict=True, **options)


@pytest.mark.parametrize("found", ["mixed", "one class", "other"])
def test_classes(found):
    """The last class is neither wanted nor found, and with "other" one is found that is never wanted."""
    wanted = RANDOM.integers(0, 2 if found == "other" else 3, 200)
    given = {"mixed": np.where(RANDOM.random(200) < 0.6, wanted, RANDOM.integers(0, 3, 200)), "one class": wanted * 0 + 1}
    given["other"] = np.where(RANDOM.random(200) < 0.6, wanted, 2)
    report = class_report(wanted, given[found], NAMES)
    there = sorted({*wanted.tolist(), *given[found].tolist()})
    want = quiet(wanted, given[found], target_names=[NAMES[i] for i in there])
    assert flat(report.tree()) == pytest.approx(expected(want), abs=1e-12)
    np.testing.assert_array_equal(report.confusion, theirs.confusion_matrix(wanted, given[found]))


def test_several_labels():
    wanted = RANDOM.random((60, 4)) < [0.5, 0.2, 0.7, 0.0]
    found = wanted ^ (RANDOM.random((60, 4)) < 0.2)
    report = label_report(wanted, found, NAMES)
    assert report.confusion is None
    assert flat(report.tree()) == pytest.approx(expected(quiet(wanted, found, target_names=NAMES)), abs=1e-12)


def test_entities():
    golden = json.loads(GOLDEN.read_text())
    report = entity_report(golden["wanted"], golden["found"]).tree()
    assert flat(report) == pytest.approx(expected(golden["report"]), abs=1e-12)
    assert entity_report([["O"]], [["O"]]).tree()["classes"] == {}


def test_as_text():
    text = report_text(class_report(np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0]), ("bad", "good")).tree())
    assert "good                 1.0000  0.6667  0.8000        3" in text.splitlines()
    assert "accuracy                             0.7500        4" in text.splitlines()


def test_the_matrix_is_drawn():
    tree = class_report(np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0]), ("<b>", "good")).tree()
    page = class_section(tree)
    assert "<b>" not in page and page.count("&lt;b&gt;") >= 3
    assert '<td class="miss" style="--share: 0.333" title="good, taken for &lt;b&gt;: 1, 33.3%">1' in page
    assert (
        '<td style="--share: 1.000" title="&lt;b&gt;, taken for &lt;b&gt;: 1, 100.0%">1<br><small>100.0%</small></td>' in page
    )


def test_of_many_classes_the_pairs_are_listed():
    wanted = np.repeat(np.arange(25), 4)
    found = wanted.copy()
    found[:3], found[4] = 7, 2
    page = class_section(class_report(wanted, found, [f"c{i}" for i in range(25)]).tree())
    rows = re.findall(r"<tr><td>(c\d+)</td><td>(c\d+)</td><td>(\d+)</td><td>([\d.]+%)</td></tr>", page)
    assert rows == [("c0", "c7", "3", "75.0%"), ("c1", "c2", "1", "25.0%")]
    assert 'class="heat"' not in page
