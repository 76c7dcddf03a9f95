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

// Curves, with their axes
const WIDTH = 340, HEIGHT = 130, LEFT = 46, RIGHT = 12, TOP = 8, BOTTOM = 36;
const along = share => LEFT + share * (WIDTH - LEFT - RIGHT);
const places = isNumber(first) && first.labels.every((label, i) => !i || label > first.labels[i - 1])
  ? first.labels.map(label => (label - first.labels[0]) / (first.labels.at(-1) - first.labels[0] || 1))
  : first.labels.map((_, i) => i / Math.max(1, first.labels.length - 1));
const rule = attributes => s("line", { stroke: "currentColor", ...attributes });
// The first axis: a tick for each label; of two whose texts would meet, the second has none.
const below = () => {
  const y = HEIGHT - BOTTOM, marks = [rule({ x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y })];
  let free = -Infinity;
  first.labels.forEach((label, i) => {
    const x = along(places[i]), shown = text(label), half = 3.6 * shown.length;
    marks.push(rule({ x1: x, x2: x, y1: y, y2: y + 4 }));
    if (x - half < free) return;
    free = x + half + 6;
    marks.push(s("text", { x, y: y + 16, "text-anchor": "middle", "data-tick": "x" }, shown));
  });
  return [...marks, s("text", { x: along(0.5), y: HEIGHT - 4, "text-anchor": "middle" }, first.name)];
};
// Round numbers from low to high, two to four of them.
const round = (low, high) => {
  const size = 10 ** Math.floor(Math.log10((high - low) / 2 || 1)), step = size * ([5, 2].find(times => times * size <= (high - low) / 2) ?? 1);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(+(i * step).toPrecision(12));
  return found;
};
const curves = Object.fromEntries(names.map(name => {
  const values = data.numbers[name], finite = values.filter(value => value !== null);
  const low = Math.min(...finite), high = Math.max(...finite);
  const x = i => along(places[i]), y = value => HEIGHT - BOTTOM - (value - low) / (high - low || 1) * (HEIGHT - BOTTOM - TOP);
  const ticks = finite.length ? round(low, high).flatMap(value => [
    rule({ x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), opacity: 0.18 }),
    rule({ x1: LEFT - 4, x2: LEFT, y1: y(value), y2: y(value) }),
    s("text", { x: LEFT - 7, y: y(value) + 4, "text-anchor": "end", "data-tick": "y" }, text(value).replace("-", "−")),
  ]) : [];
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
  const plot = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, style: "max-width:28rem", "aria-hidden": "true" },
    rule({ x1: LEFT, x2: LEFT, y1: TOP, y2: HEIGHT - BOTTOM }), ...below(), ...ticks, ...lines, marker);
  // The nearest place on the first axis.
  const jump = event => {
    const box = plot.getBoundingClientRect(), share = ((event.clientX - box.left) / box.width * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT);
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
