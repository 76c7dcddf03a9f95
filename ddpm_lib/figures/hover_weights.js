const flat = unpack(data.points, Float32Array), count = flat.length / 2, { limit } = data;
const probe = [...data.probe];
let held = false;

const time = slider("t", "t", 0, data.times.length - 1, 1, data.first, i => [data.times[i], `t = ${data.times[i]}`]);
const size = 400, px = x => size / 2 * (1 + x / limit), py = y => size / 2 * (1 - y / limit);
const points = Array.from({ length: count }, (_, i) => s("circle", { cx: px(flat[2 * i]), cy: py(flat[2 * i + 1]), fill: "var(--data)" }));
const shrunk = Array.from({ length: count }, () => s("circle", { r: 1, fill: "currentColor", opacity: 0.35 }));
const reach = s("circle", { fill: "var(--noise)", "fill-opacity": 0.07, stroke: "var(--noise)", "stroke-opacity": 0.5, "stroke-dasharray": "3 4" });
const joint = s("line", { stroke: "var(--prediction)", "stroke-width": 2.5 });
const mean = s("path", { d: "M0 -6.5L6.5 0L0 6.5L-6.5 0Z", fill: "var(--prediction)", stroke: "var(--halo)", "stroke-width": 1.5 });
const mark = s("circle", { r: 8, fill: "var(--noise)", "fill-opacity": 0.25, stroke: "var(--noise)", "stroke-width": 3 });
const plane = s("svg", {
  class: "df-plane", viewBox: `0 0 ${size} ${size}`, tabindex: 0, role: "application", "data-input": "probe",
  "aria-label": "Plane with the probe. Arrow keys move it, with Shift in small steps.",
}, reach, ...shrunk, ...points, joint, mark, mean);

const names = ["effective points", "largest weight", "mean x", "mean y", "probe x", "probe y", "signal", "noise"];
const numbers = Object.fromEntries(names.map(name => [name, number(name)]));
const hold = h("button", { type: "button", "data-input": "hold" });

const show = () => {
  time.input.refresh();
  const a = data.signal[+time.input.value], sigma = data.noise[+time.input.value];
  // The largest exponent is taken out first, so that exp never sees a large number; s = 0 leaves the nearest point.
  const variance = Math.max(sigma * sigma, 1e-30), exponents = new Float64Array(count);
  let top = -Infinity, total = 0;
  for (let i = 0; i < count; i++) {
    exponents[i] = -((probe[0] - a * flat[2 * i]) ** 2 + (probe[1] - a * flat[2 * i + 1]) ** 2) / (2 * variance);
    top = Math.max(top, exponents[i]);
  }
  const weights = exponents.map(exponent => Math.exp(exponent - top));
  for (const weight of weights) total += weight;
  let x = 0, y = 0, entropy = 0, largest = 0;
  weights.forEach((raw, i) => {
    const weight = raw / total;
    x += weight * flat[2 * i];
    y += weight * flat[2 * i + 1];
    if (weight > 0) entropy -= weight * Math.log(weight);
    largest = Math.max(largest, weight);
    move(points[i], { r: (2.2 + 9 * Math.sqrt(weight)).toFixed(2), opacity: (0.2 + 0.8 * Math.sqrt(raw)).toFixed(3), "data-weight": weight });
    move(shrunk[i], { cx: px(a * flat[2 * i]).toFixed(2), cy: py(a * flat[2 * i + 1]).toFixed(2) });
  });
  move(reach, { cx: px(probe[0]), cy: py(probe[1]), r: sigma * size / 2 / limit });
  move(joint, { x1: px(probe[0]), y1: py(probe[1]), x2: px(x), y2: py(y) });
  move(mean, { transform: `translate(${px(x)} ${py(y)})` });
  move(mark, { cx: px(probe[0]), cy: py(probe[1]) });
  const values = [Math.exp(entropy), largest, x, y, ...probe, a, sigma];
  names.forEach((name, i) => numbers[name].show(values[i]));
  hold.textContent = held ? "let the probe go" : "hold the probe";
  hold.setAttribute("aria-pressed", held);
  say(`probe at ${short(probe[0], 3)}, ${short(probe[1], 3)}: ${short(values[0], 3)} effective points, mean ${short(x, 3)}, ${short(y, 3)}`);
};
const put = (x, y) => {
  [x, y].forEach((value, i) => { probe[i] = Math.max(-limit, Math.min(limit, Math.round(value * 100) / 100)); });
  show();
};
const follow = event => {
  const box = plane.getBoundingClientRect();
  put(limit * (2 * (event.clientX - box.left) / box.width - 1), limit * (1 - 2 * (event.clientY - box.top) / box.height));
};
plane.onpointermove = event => { if (!held || event.buttons) follow(event); };
plane.onpointerdown = event => { follow(event); held = event.pointerType === "mouse" ? !held : held; show(); };
plane.onkeydown = event => {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
  if (!way) return;
  event.preventDefault();
  event.stopPropagation();
  const step = event.shiftKey ? 0.01 : 0.1;
  put(probe[0] + step * way[0], probe[1] + step * way[1]);
};
hold.onclick = () => { held = !held; show(); };
time.input.oninput = show;

const tinted = (sign, name, text) => h("span", {}, h("span", { style: `color: var(--${name})`, "aria-hidden": "true" }, sign), text);
const row = (text, ...shown) => h("div", {}, h("span", { class: "df-faint" }, text), h("span", {}, ...shown));
start([
  h("div", { class: "df-beside" }, h("div", { class: "df-main" }, plane, time.box), h("div", { class: "df-facts" },
    row("effective number of points", numbers["effective points"]),
    row("largest weight", numbers["largest weight"]),
    row(tinted("◆", "prediction", " posterior mean"), "(", numbers["mean x"], ", ", numbers["mean y"], ")"),
    row(tinted("◉", "noise", " probe"), "(", numbers["probe x"], ", ", numbers["probe y"], ")"),
    row("signal a", numbers.signal),
    row("noise s (dashed circle)", numbers.noise),
    hold,
    h("div", { class: "df-faint df-small" }, "Blue: the data, as large as their weights. Small grey dots: the data times a. A click holds the probe."))),
], show);
