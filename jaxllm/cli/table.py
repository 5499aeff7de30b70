"""Plain tables on the terminal."""

_SHOWN_LABELS = 30


def print_table(rows: list[tuple[str, ...]]) -> None:
    """First column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        print("  " + "   ".join(cells))


def split_table(sizes: dict[str, int], labels: dict[str, dict[str, int]]) -> list[tuple[str, ...]]:
    """The examples of each split, and how often each label stands in it."""
    names = list(next(iter(labels.values()), {}))
    rows = [("split", *sizes), ("examples", *(f"{size:,}" for size in sizes.values()))]
    rows += [(f"  {name}", *(f"{labels[part][name]:,}" for part in sizes)) for name in names[:_SHOWN_LABELS]]
    more = len(names) - _SHOWN_LABELS
    return [*rows, (f"  and {more} more labels", *("" for _ in sizes))] if more > 0 else rows
