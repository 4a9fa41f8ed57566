#include "eval/report/style.h"

namespace oryx::report {

// Every text colour has a contrast of at least 4.5 to 1 against its background in both themes. Blue and vermilion stay
// apart under the common kinds of colour blindness; markers, dashes and underlines repeat what colour says.
const std::string_view kStyle = R"css(:root {
  color-scheme: light dark;
  --page: #fdfdfc; --raised: #f4f4f1; --text: #1d1f23; --soft: #5a5f69; --rule: #dcdcd6; --grid: #e6e6e1;
  --attention: #b8470e; --recurrent: #1d63a8; --mixed: #2f7a4d; --other: #7a4a9e; --muted: #767b85;
  --attention-wash: #fbe9dd; --recurrent-wash: #e2edf8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15171b; --raised: #1e2127; --text: #e4e5e8; --soft: #a2a8b3; --rule: #363b44; --grid: #2a2e36;
    --attention: #f4995f; --recurrent: #74b3ee; --mixed: #7cc799; --other: #c79be8; --muted: #8f96a3;
    --attention-wash: #44291a; --recurrent-wash: #1b3450;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 1.0625rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
}
main { max-width: 50rem; margin: 0 auto; padding: 3.5rem 1.25rem 5rem; }
h1 { font-size: 2.1rem; line-height: 1.2; letter-spacing: -0.02em; margin: 0 0 0.75rem; }
h2 { font-size: 1.4rem; line-height: 1.3; letter-spacing: -0.01em; margin: 3.5rem 0 0.75rem; padding-top: 1.25rem;
  border-top: 1px solid var(--rule); }
h3 { font-size: 1.08rem; margin: 2.25rem 0 0.5rem; }
p { margin: 0.75rem 0; max-width: 44rem; }
.lead { font-size: 1.2rem; line-height: 1.5; color: var(--soft); }
a { color: var(--recurrent); }
code, pre, kbd { font-family: ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", monospace; font-size: 0.875em; }
pre { background: var(--raised); border: 1px solid var(--rule); border-radius: 6px; padding: 0.85rem 1rem; overflow-x: auto;
  line-height: 1.5; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: 0.25rem 2rem; margin: 2rem 0;
  padding: 1rem 1.25rem; background: var(--raised); border-radius: 8px; }
.facts div { padding: 0.25rem 0; }
.facts dt { font-size: 0.85rem; color: var(--soft); }
.facts dd { margin: 0; font-size: 1.3rem; font-weight: 600; line-height: 1.35; font-variant-numeric: tabular-nums; }
.facts dd small { font-size: 0.85rem; font-weight: 400; color: var(--soft); }
.scroll { overflow-x: auto; margin: 1.5rem 0; }
table { border-collapse: collapse; width: 100%; font-size: 0.95rem; line-height: 1.4; font-variant-numeric: tabular-nums; }
caption { text-align: left; caption-side: top; font-weight: 600; padding-bottom: 0.5rem; }
th, td { text-align: left; padding: 0.5rem 1.25rem 0.5rem 0; vertical-align: middle; font-weight: 400; }
th:last-child, td:last-child { padding-right: 0; }
thead th { font-size: 0.85rem; color: var(--soft); border-bottom: 1px solid var(--soft); vertical-align: bottom; }
tbody th, tbody td { border-bottom: 1px solid var(--rule); }
.number { text-align: right; white-space: nowrap; }
td strong { font-weight: 650; }
figure { margin: 2rem 0; }
figure .title { font-weight: 600; margin: 0 0 0.25rem; }
figcaption { font-size: 0.9rem; line-height: 1.5; color: var(--soft); max-width: 44rem; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0.15rem 1.4rem; margin: 0 0 0.5rem; padding: 0;
  font-size: 0.9rem; }
.legend li { display: flex; align-items: center; gap: 0.5rem; }
.legend svg { width: 30px; height: 12px; flex: none; }
.plot { overflow-x: auto; }
.plot > svg { display: block; width: 100%; min-width: 32rem; height: auto; font-size: 13px; font-family: inherit; }
svg text { fill: var(--text); }
.grid path { stroke: var(--grid); stroke-width: 1; }
.axis { stroke: var(--soft); stroke-width: 1; }
.ticks text, svg .label { fill: var(--soft); font-variant-numeric: tabular-nums; }
.line { fill: none; stroke: var(--muted); stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.line.dashed { stroke-dasharray: 6 5; }
.line.attention, .error.attention { stroke: var(--attention); }
.line.recurrent, .error.recurrent { stroke: var(--recurrent); }
.line.mixed, .error.mixed { stroke: var(--mixed); }
.line.other, .error.other { stroke: var(--other); }
.line.muted { stroke-width: 1; opacity: 0.55; }
.error { fill: none; stroke: var(--muted); stroke-width: 1.25; }
.mark { fill: var(--muted); stroke: var(--page); stroke-width: 1.25; paint-order: stroke; }
.mark.attention, .tip circle.attention { fill: var(--attention); }
.mark.recurrent, .tip circle.recurrent { fill: var(--recurrent); }
.mark.mixed, .tip circle.mixed { fill: var(--mixed); }
.mark.other, .tip circle.other { fill: var(--other); }
.tip circle.muted { fill: var(--muted); }
.hit { fill: transparent; }
.tip { visibility: hidden; pointer-events: none; }
.tips > g:hover .tip { visibility: visible; }
.tip .guide { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 3; }
.tip circle { stroke: var(--page); stroke-width: 1.5; }
.tip .box { fill: var(--page); stroke: var(--rule); }
.tip text { font-size: 12.5px; font-variant-numeric: tabular-nums; }
.tip text.attention { fill: var(--attention); }
.tip text.recurrent { fill: var(--recurrent); }
.tip text.mixed { fill: var(--mixed); }
.tip text.other { fill: var(--other); }
.tip text.muted { fill: var(--soft); }
details { margin-top: 0.5rem; font-size: 0.9rem; }
summary { cursor: pointer; color: var(--soft); width: fit-content; }
details .scroll { max-height: 22rem; overflow: auto; margin: 0.5rem 0; }
details caption { display: none; }
details table { font-size: 0.85rem; }
details th, details td { padding-top: 0.25rem; padding-bottom: 0.25rem; }
.strip { display: block; width: 9rem; height: 0.85rem; border-radius: 2px; }
.strip .attention { fill: var(--attention); }
.strip .recurrent { fill: var(--recurrent); }
.strip .separator { stroke: var(--page); }
.sample { background: var(--raised); border-radius: 8px; padding: 1.25rem 1.5rem; font-family: Charter, "Bitstream Charter",
  Cambria, Georgia, "DejaVu Serif", serif; font-size: 1.1rem; line-height: 1.95; white-space: pre-wrap; }
.by { padding: 0.12em 0; border-radius: 2px; -webkit-box-decoration-break: clone; box-decoration-break: clone; }
.by.attention { background: var(--attention-wash); border-bottom: 2px solid var(--attention); }
.by.recurrent { background: var(--recurrent-wash); border-bottom: 2px dotted var(--recurrent); }
.swatches { display: flex; flex-wrap: wrap; gap: 0.25rem 1.5rem; font-size: 0.9rem; margin: 0.75rem 0; }
.swatches .by { padding: 0.05em 0.45em; }
.soft { color: var(--soft); }
.small { font-size: 0.9rem; }
footer { margin-top: 4rem; padding-top: 1rem; border-top: 1px solid var(--rule); font-size: 0.9rem; color: var(--soft); }
:focus-visible { outline: 2px solid var(--recurrent); outline-offset: 2px; }
@media (max-width: 40rem) {
  main { padding-top: 2rem; }
  h1 { font-size: 1.7rem; }
  .sample { padding: 1rem; }
  .strip { width: 4.5rem; }
  th, td { padding-right: 0.9rem; }
}
@media print {
  main { max-width: none; padding: 0; }
  details, .tips { display: none; }
  figure, table, .sample { break-inside: avoid; }
}
)css";

}  // namespace oryx::report
