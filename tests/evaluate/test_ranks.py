"""The ranks that AdaLoRA logs, drawn."""

import json
import re

from jaxllm.evaluate.ranks import ranks_section, read_ranks


def test_ranks_are_drawn(tmp_path):
    assert read_ranks(tmp_path) == [] and ranks_section([]) == ""
    paths = [f"layers/{layer}/{name}" for layer in (0, 10, 9) for name in ("attention/query", "ffw/up")]
    lines = [
        {"step": step, "budget": 60 - step, "ranks": dict(zip(paths, (8, 4, 0, 2, 6, 1), strict=True))} for step in (0, 5, 30)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "ranks.jsonl").write_text(text + '{"step": 31, "bud')  # a kill cut it short
    assert read_ranks(tmp_path) == lines
    page = ranks_section(read_ranks(tmp_path))
    rows = re.findall(r"<tr><th>(.*?)</th>(.*)</tr>", page)
    cells = {name: re.findall(r"--share: ([\d.]+)\".*?>(\d+)</td>", row) for name, row in rows}
    assert cells == {
        "layer 0": [("1.000", "8"), ("0.500", "4")],
        "layer 9": [("0.750", "6"), ("0.125", "1")],
        "layer 10": [("0.000", "0"), ("0.250", "2")],
    }
    assert "<th>attention query</th><th>ffw up</th>" in page and "<svg" in page
    assert "At step 30: 21 ranks over 6 matrices." in page
