const { counts, sets, looks } = data;
const state = { look: Object.keys(looks)[0], other: sets[1] };
const measured = (set, i) => looks[state.look][set][i];
const spread = values => {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return [mean, Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1))];
};
// In what share of all pairs is b below a?
const below = (b, a) => b.reduce((sum, one) => sum + a.filter(other => one < other).length, 0) / (a.length * b.length);

const listed = (label, name) =>
  slider(label, name, 0, counts.length - 1, 1, Math.floor(counts.length / 2), i => [counts[i], `n = ${counts[i]}`]);
const sizes = { A: listed("n of A", "n of A"), B: listed("n of B", "n of B") };

// Both axes are logarithmic.
const [W, H, left, bottom] = [420, 250, 48, 38];
const px = n => left + 8 + Math.log(n / counts[0]) / Math.log(counts[counts.length - 1] / counts[0]) * (W - left - 30);
const plot = s("g"), svg = s("svg", { viewBox: `0 0 ${W} ${H}`, style: "width:100%", "aria-hidden": "true" }, plot);
const paint = () => {
  const all = sets.flatMap(set => looks[state.look][set].flat());
  const low = Math.floor(Math.log10(Math.min(...all))), high = Math.ceil(Math.log10(Math.max(...all)));
  const py = value => 8 + (high - Math.max(low, Math.log10(Math.max(value, 1e-12)))) / (high - low) * (H - 8 - bottom);
  const grid = Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i)).flatMap(value => [
    s("line", { x1: left, x2: W - 8, y1: py(value), y2: py(value), stroke: "currentColor", opacity: 0.18 }),
    s("text", { x: left - 6, y: py(value) + 4, "text-anchor": "end" }, short(value, 1)),
  ]).concat(counts.map(n => s("text", { x: px(n), y: H - bottom + 16, "text-anchor": "middle" }, String(n))),
    s("text", { x: (left + W) / 2, y: H - 4, "text-anchor": "middle" }, "number of pictures n"));
  const parts = [["A", sets[0], "data", {}], ["B", state.other, "noise", { "stroke-dasharray": "7 4" }]].flatMap(([name, set, tint, dashes]) => {
    const stroke = `var(--${tint})`, rows = counts.map((n, i) => [px(n), ...spread(measured(set, i))]);
    const line = points => points.map(([x, value]) => `${x.toFixed(2)} ${py(value).toFixed(2)}`).join("L");
    const upper = rows.map(([x, mean, sd]) => [x, mean + 2 * sd]), lower = rows.map(([x, mean, sd]) => [x, mean - 2 * sd]).reverse();
    const [x, mean, sd] = rows[+sizes[name].input.value], size = 6;
    const marker = name === "A" ? s("circle", { cx: x, cy: py(mean), r: size, fill: stroke })
      : s("rect", { x: x - size, y: py(mean) - size, width: 2 * size, height: 2 * size, fill: stroke });
    return [
      s("path", { d: `M${line(upper)}L${line(lower)}Z`, fill: stroke, opacity: 0.22 }),
      s("path", { d: `M${line(rows)}`, fill: "none", stroke, "stroke-width": 2.2, ...dashes }),
      s("line", { x1: x, x2: x, y1: py(mean + 2 * sd), y2: py(mean - 2 * sd), stroke, "stroke-width": 3 }),
      s("line", { x1: left, x2: x, y1: py(mean), y2: py(mean), stroke, "stroke-dasharray": "1 4", "stroke-width": 1.5 }),
      marker,
    ];
  });
  plot.replaceChildren(...grid, ...parts);
};

const facts = Object.fromEntries(["A", "B"].map(name => [name, { value: number(`value ${name}`, 3), spread: number(`spread ${name}`, 3) }]));
const wrong = number("wrong", 3), verdict = h("div", { "data-name": "verdict" });
const show = () => {
  const values = { A: measured(sets[0], +sizes.A.input.value), B: measured(state.other, +sizes.B.input.value) };
  for (const [name, { value, spread: about }] of Object.entries(facts)) {
    sizes[name].input.refresh();
    const [mean, sd] = spread(values[name]);
    value.show(mean);
    about.show(2 * sd);
  }
  const share = 100 * below(values.B, values.A), same = sizes.A.input.value === sizes.B.input.value;
  wrong.show(share);
  verdict.textContent = share > 50 ? `B looks better than A${same ? "" : ", and the two have different n"}.`
    : share > 5 ? "You cannot tell them apart." : same ? "A is better than B, and you can see it." : "A looks better than B, and the two have different n.";
  verdict.classList.toggle("df-warn", share > 5 || !same);
  paint();
  say(verdict.textContent);
};
for (const { input } of Object.values(sizes)) input.oninput = show;

const described = (name, ...parts) => h("div", { class: "df-row" }, h("strong", {}, name), ...parts);
const reading = (mark, name) => h("span", {}, `${mark} ${name}: `, facts[name].value, " ± ", facts[name].spread);
start([
  h("div", { class: "df-row" }, radios("features", "look", Object.keys(looks).map(name => [name, name]), state.look,
    name => { state.look = name; show(); })),
  described("●", h("span", {}, `A: ${sets[0]}`), sizes.A.box),
  described("■", radios("B", "other", sets.slice(1).map(name => [name, name]), state.other, name => { state.other = name; show(); }), sizes.B.box),
  h("div", { style: "max-width:36rem;margin:.4em auto" }, svg),
  h("div", { class: "df-row" }, reading("●", "A"), reading("■", "B"), h("span", {}, "B is measured below A in ", wrong, " % of all pairs of draws.")),
  verdict,
], show);
