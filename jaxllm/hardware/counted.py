"""A number with its noun, for messages."""


def counted(count: int, noun: str) -> str:
    """ "1 document", "2,000 documents", "3 processes"."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"
