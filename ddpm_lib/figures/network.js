// A network part by part: a row for each grid, a column for each part in the order in which data pass it.
const { parts, sizes, skips, rows } = data;
const state = { part: data.first, size: data.start, shade: "macs" };
const hue = kind => ({ attention: "var(--noise)", down: "var(--prediction)", up: "var(--prediction)" })[kind] ?? "var(--data)";
const value = (part, quantity) => quantity === "macs" ? part.macs[state.size] : part.parameters;
const total = quantity => parts.reduce((sum, part) => sum + value(part, quantity), 0);
const many = count => count < 1e4 ? `${count}` : count < 1e6 ? `${short(count / 1e3, 3)} thousand`
  : count < 1e9 ? `${short(count / 1e6, 3)} million` : `${short(count / 1e9, 3)} billion`;
const shape = (numbers, none) => numbers.length === 0 ? none : numbers.length === 1 ? `${numbers[0]} numbers` : numbers.join(" × ");
const corners = path => path.map(([x, y], i) => `${i ? "L" : "M"}${x} ${y}`).join("");

const drawn = parts.map(part => {
  const [x, y, width, height] = part.box, at = { x, y, width, height, rx: 4 }, middle = y + height / 2 + 4.5;
  const fill = s("rect", { ...at, fill: hue(part.kind) }), edge = s("rect", { ...at, fill: "none", stroke: hue(part.kind) });
  const text = { told: "time and label, told to every block", attention: width < 24 ? "a" : "att" }[part.kind] ?? `${part.made[0][0]}`;
  const label = s("text", { x: x + width / 2, y: middle, "text-anchor": "middle" }, text);
  // In a narrow box the number stands on its side.
  if (width < 24 && part.kind !== "attention") move(label, { transform: `rotate(-90 ${x + width / 2} ${middle - 4.5})` });
  return { fill, edge, node: s("g", { class: "df-part", "data-part": part.name }, s("rect", { ...at, fill: "var(--halo)" }), fill, edge, label) };
});
const main = parts.filter(part => !["told", "attention"].includes(part.kind)).map(({ box: [x, y, w, h] }) => [x + w / 2, y + h / 2]);
const way = s("path", { d: corners(main), fill: "none", stroke: "currentColor", opacity: 0.45 });
const arcs = skips.map(skip => ({ ...skip, node: s("path", { d: corners(skip.path), fill: "none", stroke: "var(--data)" }) }));
const grids = rows.map(row => ({ ...row, node: s("text", { x: 2, y: row.y + 4, class: "df-grid" }) }));
const plane = s("svg", {
  class: "df-network", viewBox: `0 0 ${data.width} ${data.height}`, tabindex: 0, role: "slider", "data-input": "part",
  "aria-label": "part of the network, in the order in which data pass it", "aria-valuemin": 1, "aria-valuemax": parts.length,
}, way, ...arcs.map(({ node }) => node), ...grids.map(({ node }) => node), ...drawn.map(({ node }) => node));

const place = number("part"), words = h("span", { "data-name": "words" });
const shapes = Object.fromEntries(["given", "made"].map(name => [name, h("output", { "data-name": name, "aria-live": "off" })]));
const quantities = { parameters: "parameters", macs: "multiply-adds" };
const counts = Object.fromEntries(Object.keys(quantities).map(name => [name, number(name)]));
const shares = Object.fromEntries(Object.keys(quantities).map(name => [name, number(`share of ${name}`)]));
const totals = Object.fromEntries(Object.keys(quantities).map(name => [name, number(`all ${name}`)]));

const show = () => {
  const part = parts[state.part], most = Math.max(...parts.map(one => value(one, state.shade)));
  drawn.forEach(({ fill, edge }, i) => {
    move(fill, { "fill-opacity": (0.06 + 0.5 * Math.sqrt(value(parts[i], state.shade) / most)).toFixed(3) });
    move(edge, i === state.part ? { stroke: "currentColor", "stroke-width": 3.5 } : { stroke: hue(parts[i].kind), "stroke-width": 1 });
  });
  for (const { node, from, to } of arcs) {
    const on = from === part.name || to === part.name;
    move(node, { "stroke-width": on ? 3.5 : 1.3, opacity: on ? 1 : 0.6 });
  }
  for (const { node, sides } of grids) node.textContent = `${sides[state.size]} × ${sides[state.size]}`;
  place.show(state.part + 1, `${state.part + 1} of ${parts.length}`);
  words.textContent = part.words;
  shapes.given.textContent = shape(part.given[state.size], "log-SNR and label");
  shapes.made.textContent = shape(part.made[state.size]);
  for (const name of Object.keys(quantities)) {
    const own = value(part, name), all = total(name);
    counts[name].show(own, many(own));
    shares[name].show(100 * own / all, `${short(100 * own / all, 3)} %`);
    totals[name].show(all, many(all));
  }
  move(plane, { "aria-valuenow": state.part + 1, "aria-valuetext": `${place.textContent}, ${part.words}` });
  say(`${part.words}: ${shapes.given.textContent} to ${shapes.made.textContent}, ${counts.parameters.textContent} parameters, ${counts.macs.textContent} multiply-adds`);
};
const go = index => { state.part = Math.max(0, Math.min(parts.length - 1, index)); show(); };
plane.onkeydown = event => {
  const to = { ArrowRight: state.part + 1, ArrowDown: state.part + 1, ArrowLeft: state.part - 1, ArrowUp: state.part - 1, Home: 0, End: parts.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  go(to);
};
// The nearest box: on a phone they are small.
plane.onclick = event => {
  const frame = plane.getBoundingClientRect(), scale = data.width / frame.width;
  const x = (event.clientX - frame.left) * scale, y = (event.clientY - frame.top) * scale;
  const away = ({ box: [left, top, width, height] }) =>
    Math.hypot(Math.max(left - x, 0, x - left - width), Math.max(top - y, 0, y - top - height));
  go(parts.map((part, i) => [away(part), i]).sort((a, b) => a[0] - b[0])[0][1]);
};

const fact = (name, ...shown) => [h("span", {}, name), h("span", {}, ...shown)];
start([
  h("div", { class: "df-row" },
    radios("pictures of", "size", sizes.map((size, i) => [`${i}`, `${size} × ${size}`]), `${state.size}`, choice => { state.size = +choice; show(); }),
    radios("darker: more", "shade", Object.entries(quantities), state.shade, choice => { state.shade = choice; show(); })),
  plane,
  h("div", { class: "df-row" }, h("b", {}, "part ", place), words),
  h("div", { class: "df-counts" },
    ...fact("goes in", shapes.given), ...fact("comes out", shapes.made),
    ...Object.entries(quantities).flatMap(([name, text]) => fact(text, counts[name], " ", h("span", { class: "df-faint" }, "(", shares[name], " of ", totals[name], ")")))),
], show);
