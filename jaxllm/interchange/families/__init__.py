"""One small file a family of published models; each has a `FAMILIES`, and nothing else needs to know of it."""
