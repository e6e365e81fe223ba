"""How pages look: dark or light as their reader likes it, on narrow and wide screens."""

from __future__ import annotations

#: Colours of words and of what they are on have a contrast of 4.5 at least (WCAG 2.2, 1.4.3).
STYLE = """
:root { color-scheme: light dark; --back: #f5f6f8; --card: #fff; --code: #f0f2f4;
  --text: #1b1f24; --muted: #545f6a; --line: #d3d9df; --link: #0a55a2; --focus: #0a55a2;
  --error: #9b1c12; --on-error: #fdeae8; --advice: #664700; --on-advice: #fff2cf; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14171a; --card: #1d2125; --code: #15181b;
    --text: #e6e9ec; --muted: #a8b2bc; --line: #3a424a; --link: #8cbaff; --focus: #8cbaff;
    --error: #ffb4ab; --on-error: #4a1d1a; --advice: #f5d98c; --on-advice: #403310; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1rem clamp(.75rem, 3vw, 2rem) 4rem; max-width: 64rem;
  background: var(--back); color: var(--text); overflow-wrap: anywhere;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1, h2, h3, h4 { line-height: 1.25; margin: 0 0 .5rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.25rem; }
h3 { font-size: 1rem; color: var(--muted); margin-top: 1.5rem; } h4 { font-size: 1.1rem; }
p { margin: .25rem 0; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; border-radius: 3px; }
.skip { position: absolute; left: -100vw; }
.skip:focus { position: static; }
nav ul, .entries, .points, .problems { list-style: none; padding: 0; margin: .5rem 0; }
nav > a { display: inline-block; margin-bottom: .75rem; }
nav li { padding: .1rem 0; }
article, .entries li, .points li, .failure { background: var(--card);
  border: 1px solid var(--line); border-radius: 8px; padding: 1rem; margin: .75rem 0; }
.entries a { font-weight: 600; }
.muted, .left-out, figcaption, caption { color: var(--muted); }
.left-out { font-style: italic; }
dl { display: grid; grid-template-columns: minmax(5.5rem, max-content) minmax(0, 1fr);
  gap: .15rem 1rem; margin: .5rem 0; }
dt { color: var(--muted); } dd { margin: 0; }
pre, code, .dialogue td { font: .85rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre { white-space: pre-wrap; background: var(--code); border-radius: 6px; padding: .75rem;
  margin: .5rem 0; tab-size: 8; }
pre.text { font: inherit; unicode-bidi: plaintext; }
.odd { background: var(--on-advice); color: var(--advice); border-radius: 3px;
  font-family: ui-monospace, monospace; unicode-bidi: isolate; }
details { border-top: 1px solid var(--line); margin-top: .5rem; padding-top: .25rem; }
summary { cursor: pointer; font-weight: 600; padding: .35rem 0; }
.frame { height: min(60vh, 28rem); min-height: 8rem; resize: vertical; overflow: hidden;
  border: 1px solid var(--line); border-radius: 6px; background: #fff; margin: .5rem 0; }
iframe { display: block; width: 100%; height: calc(100% - 12px); border: 0; background: #fff;
  color-scheme: light; }
.problems li { border-radius: 6px; padding: .4rem .75rem; margin: .35rem 0; }
.error { background: var(--on-error); color: var(--error); }
.advice { background: var(--on-advice); color: var(--advice); }
.files { padding-left: 1.25rem; margin: .5rem 0; }
.files img { display: block; max-width: 100%; max-height: 12rem; margin: .25rem 0;
  background: #fff; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; }
th, td { text-align: left; vertical-align: top; padding: .1rem .75rem .1rem 0; }
th { color: var(--muted); font-weight: normal; font-size: .85rem; }
.dialogue td:nth-child(-n+2), .dialogue th:nth-child(-n+2) { white-space: nowrap;
  color: var(--muted); overflow-wrap: normal; width: 1%; }
.dialogue td:last-child { white-space: pre-wrap; }
"""
