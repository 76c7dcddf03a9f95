// Pictures chosen by one or two axes; each number as text, and as a curve over the first axis.
const [first, second] = data.axes, names = Object.keys(data.numbers);
const wide = second ? second.labels.length : 1;
const isNumber = axis => axis.labels.every(label => typeof label === "number");
const text = label => typeof label === "number" ? short(label, 6).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "") : label;
const told = axis => i => [typeof axis.labels[i] === "number" ? axis.labels[i] : i, text(axis.labels[i])];
const stepper = (axis, at) => slider(axis.name, axis.name, 0, axis.labels.length - 1, 1, at, told(axis));

const image = h("img", { alt: "", class: "df-picture", "data-name": "picture" });
const across = stepper(first, data.at[0]);
const steps = second && isNumber(second) ? stepper(second, data.at[1]) : null;
const state = { column: second ? data.at[1] : 0 };
const here = () => +across.input.value * wide + state.column;

// Curves
const WIDTH = 260, HEIGHT = 84, PAD = 8;
const places = isNumber(first) && first.labels.every((label, i) => !i || label > first.labels[i - 1])
  ? first.labels.map(label => (label - first.labels[0]) / (first.labels.at(-1) - first.labels[0] || 1))
  : first.labels.map((_, i) => i / Math.max(1, first.labels.length - 1));
const curves = Object.fromEntries(names.map(name => {
  const values = data.numbers[name], finite = values.filter(value => value !== null);
  const low = Math.min(...finite), high = Math.max(...finite);
  const x = i => PAD + places[i] * (WIDTH - 2 * PAD), y = value => HEIGHT - PAD - (value - low) / (high - low || 1) * (HEIGHT - 2 * PAD);
  const lines = Array.from({ length: wide }, (_, column) => {
    let d = "", drawing = false;
    first.labels.forEach((_, i) => {
      const value = values[i * wide + column];
      if (value !== null) d += `${drawing ? "L" : "M"}${x(i).toFixed(2)} ${y(value).toFixed(2)}`;
      drawing = value !== null;
    });
    return s("path", { d, fill: "none", stroke: "currentColor", "stroke-width": 1.2 });
  });
  const marker = s("circle", { r: 4.5, fill: "var(--prediction)", "data-marker": name });
  const plot = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" },
    ...lines, marker);
  // The nearest place on the first axis.
  const jump = event => {
    const box = plot.getBoundingClientRect(), share = ((event.clientX - box.left) / box.width * WIDTH - PAD) / (WIDTH - 2 * PAD);
    const near = places.map((place, i) => [Math.abs(place - share), i]).sort((a, b) => a[0] - b[0])[0][1];
    stop();
    across.input.value = near;
    show();
  };
  plot.addEventListener("pointerdown", jump);
  plot.addEventListener("pointermove", event => { if (event.buttons) jump(event); });
  const shown = number(name);
  const ends = finite.length ? `from ${short(low, 3)} to ${short(high, 3)}` : "";
  const box = h("div", { class: "df-plot" }, h("div", {}, `${name} `, shown), plot, h("div", { class: "df-faint df-small" }, ends));
  return [name, { values, lines, marker, shown, x, y, box }];
}));

const show = () => {
  across.input.refresh();
  if (steps) { state.column = +steps.input.value; steps.input.refresh(); }
  image.src = data.pictures[here()];
  const i = +across.input.value;
  for (const [name, { values, lines, marker, shown, x, y }] of Object.entries(curves)) {
    const value = values[here()];
    shown.show(value ?? NaN, value === null ? "not measured" : short(value, 3));
    lines.forEach((line, column) => move(line, column === state.column
      ? { stroke: "var(--data)", "stroke-width": 2.5, opacity: 1 } : { stroke: "currentColor", "stroke-width": 1.2, opacity: 0.4 }));
    marker.toggleAttribute("hidden", value === null);
    if (value !== null) move(marker, { cx: x(i), cy: y(value) });
  }
  const place = [`${first.name} ${text(first.labels[i])}`, ...(second ? [`${second.name} ${text(second.labels[state.column])}`] : [])];
  say([...place, ...names.map(name => `${name} ${curves[name].shown.textContent}`)].join(", "));
};
const { play, stop } = player(across.input, show);
across.input.oninput = () => { stop(); show(); };
if (steps) steps.input.oninput = show;

const choice = second && !steps
  ? radios(second.name, second.name, second.labels.map((label, i) => [`${i}`, label]), `${state.column}`, value => { state.column = +value; show(); }) : null;
start([
  image,
  h("div", { class: "df-row" }, play, across.box, ...(steps ? [steps.box] : [])),
  ...(choice ? [h("div", { class: "df-row df-centre" }, choice)] : []),
  ...(names.length ? [h("div", { class: "df-plots" }, ...Object.values(curves).map(({ box }) => box))] : []),
], show);
