"""The frame of `report.html`: its markup and style. Nothing in it points outside the file."""

from collections.abc import Iterable
from html import escape

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --card: #f6f7f9; --text: #1c2127; --ink: #5b6570; --faint: #dfe3e8;
  --train: #2f6fde; --validation: #d9622b; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1d2228; --text: #e4e8ec; --ink: #98a3ae;
  --faint: #333a42; --train: #6ea2ff; --validation: #f29559; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 60rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2.25rem 0 .75rem; }
.subtitle { color: var(--ink); margin: 0 0 1.5rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; }
.tile { background: var(--card); border-radius: .5rem; padding: .75rem 1rem; }
.tile b { display: block; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: var(--ink); font-size: .85rem; }
svg { display: block; width: 100%; height: auto; font-family: inherit; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1.25rem;
  margin-top: 1.25rem; }
pre { margin: 0; padding: .9rem 1rem; background: var(--card); border-radius: .5rem; overflow-x: auto;
  font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre.sample { white-space: pre-wrap; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; font-weight: normal; padding: .3rem 0; border-bottom: 1px solid var(--faint);
  vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--ink); width: 40%; padding-right: 1rem; }
summary { cursor: pointer; color: var(--ink); margin-bottom: .75rem; }
"""

FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p class="subtitle">{subtitle}</p>
<div class="tiles">
{tiles}
</div>
{body}
</body>
</html>
"""


def page(title: str, subtitle: str, tiles: Iterable[tuple[str, str]], body: str, *, more_style: str = "") -> str:
    """A whole page.

    Args:
      tiles: value and what it is, both plain text.
      body: markup.
    """
    shown = "\n".join(f'<div class="tile"><b>{escape(value)}</b><span>{name}</span></div>' for value, name in tiles)
    return FRAME.format(title=escape(title), subtitle=subtitle, style=STYLE + more_style, tiles=shown, body=body)


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Two columns, from plain text."""
    body = "\n".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows)
    return f"<table>\n{body}\n</table>"
