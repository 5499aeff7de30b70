"""What seqeval reports of random tags: tests/evaluate/golden/entities.json.

Run with an environment that has seqeval:  python scripts/oracle/entity_report.py tests/evaluate/golden/entities.json
"""

import json
import sys
import warnings

import numpy as np
from seqeval.metrics import classification_report  # type: ignore[import-not-found]

TAGS = ("O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-MISC", "I-MISC")


def main(path: str) -> None:
    random = np.random.default_rng(0)
    wanted = [random.choice(TAGS[: 6 if row % 2 else None], random.integers(1, 9)).tolist() for row in range(30)]
    found = [[tag if random.random() < 0.6 else str(random.choice(TAGS[:6])) for tag in tags] for tags in wanted]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = classification_report(wanted, found, output_dict=True)
    report = {name: {key: float(value) for key, value in line.items()} for name, line in report.items()}
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"wanted": wanted, "found": found, "report": report}, file)
        file.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
