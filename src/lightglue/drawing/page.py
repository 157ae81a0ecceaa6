"""How a report looks: its colours and its style sheet, for light and dark, for narrow and wide."""

from __future__ import annotations

__all__ = ["COLOURS", "STYLE"]

# Of lines and bars, light and dark: distinguished by eyes that confuse red and green (after Okabe and Ito 2008).
COLOURS = (
    ("#0068a8", "#5bb4f0"),
    ("#d55e00", "#ff9447"),
    ("#00805d", "#2fc79a"),
    ("#a8457f", "#ec9cc8"),
    ("#8a6d00", "#e8c547"),
    ("#5b5b66", "#b4b4c0"),
    ("#2a2f8f", "#a3a8ff"),
    ("#7a3b12", "#d8a27c"),
)

_LIGHT = "; ".join(f"--s{i}: {light}" for i, (light, _) in enumerate(COLOURS))
_DARK = "; ".join(f"--s{i}: {dark}" for i, (_, dark) in enumerate(COLOURS))

STYLE = (
    f""":root {{
  --paper: #fbfaf7; --sheet: #ffffff; --ink: #1d1d22; --soft: #5d5d68; --line: #e2dfd8; --grid: #e8e6e0;
  --accent: #0068a8; --wash: #eef4f9; --good: #00664a; --bad: #a83a00; --warn: #fff4e0; --warn-line: #d98a00;
  {_LIGHT};
}}
@media (prefers-color-scheme: dark) {{ :root {{
  --paper: #16171b; --sheet: #1d1f24; --ink: #ecebe6; --soft: #a5a5b0; --line: #34363e; --grid: #33353d;
  --accent: #5bb4f0; --wash: #20303c; --good: #4fd0a5; --bad: #ff9a5c; --warn: #33291a; --warn-line: #d98a00;
  {_DARK};
}} }}
"""
    + """
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 1.5rem; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.55; font-size: 1rem;
  font-family: system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "Noto Sans", Arial, sans-serif; }
header > div, .columns { max-width: 82rem; margin: 0 auto; padding: 0 2rem; }
header { border-bottom: 1px solid var(--line); background: var(--sheet); }
header > div { padding-top: 2.6rem; padding-bottom: 1.8rem; }
h1, h2 { font-family: Charter, "Iowan Old Style", "Source Serif 4", "Noto Serif", Georgia, serif; font-weight: 600;
  line-height: 1.2; letter-spacing: -0.01em; }
h1 { font-size: clamp(1.8rem, 4.5vw, 2.7rem); margin: 0; overflow-wrap: anywhere; }
header p { margin: 0.5rem 0 0; color: var(--soft); font-size: 1.05rem; overflow-wrap: anywhere; }
h2 { font-size: 1.55rem; margin: 0 0 1rem; }
h3 { font-size: 0.95rem; margin: 0 0 0.5rem; line-height: 1.35; overflow-wrap: anywhere; }
.columns { display: grid; grid-template-columns: 11.5rem minmax(0, 1fr); gap: 3rem; }
nav { position: sticky; top: 0; align-self: start; padding: 2.4rem 0; max-height: 100vh; overflow-y: auto; }
nav ul { list-style: none; margin: 0; padding: 0; border-left: 2px solid var(--line); }
nav a { display: block; padding: 0.28rem 0 0.28rem 0.9rem; color: var(--soft); text-decoration: none;
  font-size: 0.92rem; border-left: 2px solid transparent; margin-left: -2px; }
nav a:hover, nav a:focus-visible { color: var(--accent); border-left-color: var(--accent); }
main { padding: 2.4rem 0 4rem; min-width: 0; }
section { margin: 0 0 3.4rem; }
p { max-width: 44rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
p.note { color: var(--soft); font-size: 0.9rem; }
p.warning { background: var(--warn); border-left: 4px solid var(--warn-line); padding: 0.7rem 1rem;
  border-radius: 0 6px 6px 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 0.9rem; margin: 0 0 1.3rem; }
.cards div { background: var(--sheet); border: 1px solid var(--line); border-radius: 10px; padding: 0.9rem 1.1rem; }
.cards span, .cards small { display: block; color: var(--soft); font-size: 0.86rem; }
.cards strong { display: block; font-size: 1.95rem; line-height: 1.25; font-weight: 650; letter-spacing: -0.02em;
  font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; margin: 0 0 1.3rem; background: var(--sheet); border: 1px solid var(--line);
  border-radius: 10px; width: fit-content; min-width: min(100%, 30rem); max-width: 100%; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: 0.9rem; }
th, td { text-align: left; padding: 0.5rem 0.9rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; font-size: 0.82rem; vertical-align: bottom; }
tbody tr:last-child td { border-bottom: 0; }
tbody tr:hover td { background: var(--wash); }
td:first-child, th:first-child { min-width: 8rem; max-width: 27rem; overflow-wrap: anywhere; position: sticky; left: 0;
  background: var(--sheet); }
.n { text-align: right; font-variant-numeric: tabular-nums; }
td.n { white-space: nowrap; } th.n { min-width: 6.3rem; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
.quiet { color: var(--soft); }
.bar { display: block; height: 3px; border-radius: 2px; background: var(--grid); margin-top: 0.3rem; overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--accent); }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) minmax(0, 1fr); gap: 0.3rem 1.6rem;
  margin: 0 0 1.3rem; font-size: 0.92rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); gap: 1.2rem;
  margin: 0 0 1.3rem; }
figure { margin: 0 0 1.2rem; background: var(--sheet); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem 1.1rem; }
.charts figure { margin: 0; } .charts figure.wide { grid-column: 1 / -1; }
figure svg { display: block; width: 100%; height: auto; max-width: 34rem; } figure.wide svg { max-width: 52rem; }
figure svg text { font-family: system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "Noto Sans", Arial, sans-serif
  !important; }
figure ul { list-style: none; margin: 0 0 0.4rem; padding: 0; display: flex; flex-wrap: wrap; gap: 0.15rem 1.1rem;
  font-size: 0.83rem; }
figure li { display: flex; align-items: center; gap: 0.45rem; overflow-wrap: anywhere; }
figure li i { flex: none; width: 1.15rem; height: 0.26rem; border-radius: 2px; }
figcaption p { color: var(--soft); font-size: 0.85rem; margin: 0.5rem 0 0; max-width: none; }
.photo img { display: block; max-width: 100%; max-height: 40rem; height: auto; margin: 0 auto;
  border-radius: 4px; background: #fff; }
details { margin: 0 0 1.3rem; }
summary { cursor: pointer; color: var(--accent); font-size: 0.95rem; padding: 0.3rem 0; }
details[open] summary { margin-bottom: 0.6rem; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
@media (max-width: 62rem) {
  .columns { display: block; padding: 0 1.1rem; }
  header > div { padding: 1.6rem 1.1rem 1.2rem; }
  html { scroll-padding-top: 4rem; }
  nav { z-index: 1; padding: 0; margin: 0 -1.1rem; background: var(--paper); border-bottom: 1px solid var(--line);
    overflow-x: auto; }
  nav ul { display: flex; border: 0; padding: 0 0.6rem; white-space: nowrap; }
  nav a, nav a:hover { padding: 0.75rem 0.55rem; border: 0; margin: 0; }
  main { padding-top: 1.6rem; }
  section { margin-bottom: 2.4rem; }
  .cards { grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: 0.6rem; }
  .cards div { padding: 0.7rem 0.85rem; }
  .cards strong { font-size: 1.55rem; }
  th, td { padding: 0.45rem 0.65rem; }
  td:first-child, th:first-child { max-width: 11rem; }
}
@media (max-width: 30rem) {
  dl { display: block; } dd { margin: 0 0 0.6rem; }
  figure { padding: 0.8rem; }
}
@media print {
  nav { display: none; } .columns { display: block; } body { background: #fff; }
  figure, .cards div, tr { break-inside: avoid; } .scroll { overflow: visible; }
}
"""
)
