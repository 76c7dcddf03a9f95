// Each quantity is y = p x0 + q ε; with x_t = a x0 + s ε, y and x_t give both unless det = a q - s p is 0.
const names = Object.keys(data.quantities), error = 0.1;
const state = { chosen: names[0], value: -0.5 };
const middle = Math.floor(data.times.length / 2);
const time = slider("t", "t", 0, data.times.length - 1, 1, middle, i => [data.times[i], `t = ${data.times[i]}`]);
const noisy = slider("x_t", "x_t", -3, 3, 0.01, 0.2);
const value = slider("ε", "value", -1, 1, "any", 0, () => [state.value, short(state.value)]);
const numbers = { signal: number("signal"), noise: number("noise") };
const note = h("div", { class: "df-note", "data-name": "note" });

const world = () => {
  const i = +time.input.value, a = data.signal[i], b = data.noise[i];
  const pair = name => [data.quantities[name].p[i], data.quantities[name].q[i]];
  const det = name => { const [p, q] = pair(name); return a * q - b * p; };
  return { a, b, pair, det, reach: name => name === "score" ? 3 / b : name === "flow" ? 5 : 3 };
};
// All five, given x_t and the chosen one. Without signal, x_t is all noise and x0 is anybody's guess.
const solve = ({ a, b, pair, det }) => {
  const x = +noisy.input.value, [p, q] = pair(state.chosen), blind = Math.abs(det(state.chosen)) < 1e-12;
  const x0 = blind ? NaN : (q * x - b * state.value) / det(state.chosen);
  const eps = blind ? x / b : (a * state.value - p * x) / det(state.chosen);
  const all = Object.fromEntries(names.map(name => {
    const [pj, qj] = pair(name);
    return [name, (pj === 0 ? 0 : pj * x0) + (qj === 0 ? 0 : qj * eps)];
  }));
  return { all, blind };
};

const rows = Object.fromEntries(names.map(name => {
  const { symbol, text, colour } = data.quantities[name];
  const marker = h("i", { class: "df-marker" }), band = h("i", { class: "df-band" }), ends = [h("span", { class: "df-end" }), h("span", { class: "df-end" })];
  const line = h("div", { class: "df-line", "aria-hidden": "true" }, ...(name === "x0" ? [h("i", { class: "df-home" })] : []), band, marker, ...ends);
  for (const part of [marker, band]) part.style.background = colour;
  const shown = number(name), grown = number("error " + name);
  const box = h("div", { class: "df-quantity", "data-quantity": name },
    h("b", {}, symbol), h("span", { class: "df-faint df-small" }, text), line, h("span", { class: "df-figure" }, shown), h("span", { class: "df-figure" }, grown));
  return [name, { marker, band, ends, shown, grown, box }];
}));

const show = () => {
  const now = world(), { all, blind } = solve(now);
  if (blind) state.value = all[state.chosen];
  const reach = now.reach(state.chosen);
  move(value.input, { min: -reach, max: reach, "aria-label": data.quantities[state.chosen].symbol });
  value.input.value = state.value;
  value.input.disabled = blind;
  value.box.firstChild.textContent = data.quantities[state.chosen].symbol;
  for (const { input } of [time, noisy, value]) input.refresh();
  numbers.signal.show(now.a);
  numbers.noise.show(now.b);
  for (const [name, { marker, band, ends, shown, grown, box }] of Object.entries(rows)) {
    const lost = Number.isNaN(all[name]), limit = now.reach(name), at = y => 50 + 50 * Math.max(-1, Math.min(1, y / limit));
    const growth = blind ? (lost ? Infinity : NaN) : Math.abs(now.det(name) / now.det(state.chosen)) * error;
    shown.show(all[name], lost ? "undefined: signal is 0" : short(all[name]));
    grown.show(growth, lost ? "∞" : blind ? "set by x_t" : "± " + short(growth, 3));
    box.classList.toggle("df-chosen", name === state.chosen);
    box.classList.toggle("df-lost", lost);
    ends.forEach((end, i) => { end.textContent = (i ? "" : "−") + +limit.toPrecision(2); });
    marker.hidden = band.hidden = lost;
    if (lost) continue;
    marker.style.left = at(all[name]) + "%";
    marker.classList.toggle("df-off", Math.abs(all[name]) > limit);
    const [from, to] = blind ? [0, 0] : [at(all[name] - growth), at(all[name] + growth)];
    Object.assign(band.style, { left: from + "%", width: to - from + "%" });
  }
  note.textContent = blind ? "The signal is 0: x_t is pure noise, so this quantity is known already, and says nothing about the image."
    : Math.abs(all.x0) > 1 + 1e-9 ? "x₀ is outside [−1, 1]: no pixel has this value, so this answer is wrong somewhere." : "";
  say(names.map(name => `${data.quantities[name].symbol} ${rows[name].shown.textContent}`).join(", "));
};
time.input.oninput = noisy.input.oninput = show;
value.input.oninput = () => { state.value = +value.input.value; show(); };

start([
  h("div", { class: "df-row" }, radios("the network says", "chosen", names.map(name => [name, data.quantities[name].symbol]), state.chosen, name => {
    const { all } = solve(world());
    state.chosen = name;
    state.value = Number.isFinite(all[name]) ? all[name] : 0;
    show();
  })),
  h("div", { class: "df-row" }, value.box, noisy.box, time.box),
  h("div", { class: "df-row" }, h("span", {}, "signal a ", numbers.signal), h("span", {}, "noise s ", numbers.noise)),
  h("div", { class: "df-quantities" },
    h("div", { class: "df-quantity df-heads df-faint" }, h("span"), h("span"), h("span"), h("span", {}, "value"), h("span", {}, `error of ${error} becomes`)),
    ...Object.values(rows).map(({ box }) => box)),
  note,
], show);
