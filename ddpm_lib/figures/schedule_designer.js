const { width, height, channels } = data, strip = 8;
const image = Float64Array.from(unpack(data.image, Uint8Array), level => level / 127.5 - 1);

// Normal noise from a seed (mulberry32, Box and Muller): the same picture each time, and no bytes to load.
const noise = new Float64Array(image.length);
let seed = 1;
const uniform = () => {
  let z = seed = (seed + 0x6D2B79F5) | 0;
  z = Math.imul(z ^ (z >>> 15), z | 1);
  z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
  return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
};
for (let i = 0; i < noise.length; i++) {
  const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
  noise[i] = radius * Math.cos(2 * Math.PI * uniform());
}

// Tables of T + 1 entries, entry 0 the clean image, as in ddpm_lib.chain.
const between = (T, first, last) => t => first + (last - first) * (t - 1) / (T - 1);
const fromBeta = (T, beta) => {
  const bar = [1];
  for (let t = 1; t <= T; t++) bar.push(bar[t - 1] * (1 - beta(t)));
  return bar;
};
const fromBar = (bar, largest) =>
  fromBeta(bar.length - 1, t => Math.min(Math.max(1 - bar[t] / bar[t - 1], 1e-12), largest));
const sigmoid = x => 1 / (1 + Math.exp(-x));
const families = {
  linear: {
    text: "linear", inputs: ["first", "last"],
    bar: (T, { first, last }) => fromBeta(T, between(T, first, last)),
  },
  scaled: {
    text: "scaled linear", inputs: ["first", "last"],
    bar: (T, { first, last }) => {
      const root = between(T, Math.sqrt(first), Math.sqrt(last));
      return fromBeta(T, t => root(t) ** 2);
    },
  },
  cosine: {
    text: "cosine", inputs: ["offset"],
    bar: (T, { offset }) => {
      const f = t => Math.cos((t / T + offset) / (1 + offset) * Math.PI / 2) ** 2;
      return fromBar(Array.from({ length: T + 1 }, (_, t) => f(t) / f(0)), 0.999);
    },
  },
  sigmoid: {
    text: "sigmoid", inputs: ["start", "end"],
    bar: (T, { start: from, end }) => {
      const f = t => sigmoid(t / T * (end - from) + from);
      return fromBar(Array.from({ length: T + 1 }, (_, t) => (f(T) - f(t)) / (f(T) - f(0))), 0.999);
    },
  },
};
const rescaled = bar => {
  const signal = bar.map(Math.sqrt), first = signal[1], last = signal[signal.length - 1];
  return fromBar(signal.map((a, t) => t ? ((a - last) * first / (first - last)) ** 2 : 1), 1);
};

const nice = (from, to) => {
  const values = [];
  for (let power = from; power < to; power++) for (const m of [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8]) values.push(+`${m}e${power}`);
  return values;
};
const firsts = nice(-5, -1), lasts = nice(-3, 0).filter(beta => beta <= 0.5), lengths = nice(1, 3).concat(1000).filter(T => T % 2 === 0);
const listed = (label, name, values, value) => ({
  values, ...slider(label, name, 0, values.length - 1, 1, values.indexOf(value), i => [values[i], String(values[i])]),
});
const inputs = {
  T: listed("steps T", "T", lengths, 1000),
  first: listed("first β", "first", firsts, 1e-4),
  last: listed("last β", "last", lasts, 0.02),
  offset: slider("offset s", "offset", 0, 0.1, 0.001, 0.008),
  start: slider("start", "start", -6, -0.5, 0.1, -3),
  end: slider("end", "end", 0.5, 6, 0.1, 3),
};
const valueOf = ({ values, input }) => values ? values[+input.value] : +input.value;
const state = { family: "linear", rescale: false };

// Two curves against t / T.
const [W, H, left, bottom] = [320, 190, 40, 24];
const px = share => left + share * (W - left - 8);
const plot = (title, low, high, ticks, paint) => {
  const py = y => 8 + (high - Math.min(high, Math.max(low, y))) / (high - low) * (H - 8 - bottom);
  const grid = ticks.flatMap(y => [
    s("line", { x1: left, x2: W - 8, y1: py(y), y2: py(y), stroke: "currentColor", opacity: 0.18 }),
    s("text", { x: left - 6, y: py(y) + 4, "text-anchor": "end" }, String(y).replace("-", "−")),
  ]).concat([0, 0.5, 1].map(x => s("text", { x: px(x), y: H - 6, "text-anchor": "middle" }, x ? x === 1 ? "T" : "T/2" : "0")));
  const line = (attributes) => s("path", { fill: "none", stroke: "var(--data)", "stroke-width": 2.5, ...attributes });
  const other = line({ stroke: "currentColor", "stroke-width": 1.2, "stroke-dasharray": "4 4", opacity: 0.6 }), curve = line({});
  const dots = Array.from({ length: strip }, () => s("circle", { r: 3.5, fill: "var(--noise)" }));
  const drawn = bar => bar.map((value, t) => `${t ? "L" : "M"}${px(t / (bar.length - 1)).toFixed(2)} ${py(paint(value)).toFixed(2)}`).join("");
  return {
    node: h("div", { class: "df-plot" }, h("div", {}, title), s("svg", { viewBox: `0 0 ${W} ${H}`, "aria-hidden": "true" }, ...grid, other, curve, ...dots)),
    show: (bar, stops, reference) => {
      move(curve, { d: drawn(bar) });
      move(other, { d: drawn(reference) });
      dots.forEach((dot, i) => move(dot, { cx: px(stops[i] / (bar.length - 1)), cy: py(paint(bar[stops[i]])) }));
    },
  };
};
const logsnr = bar => Math.log(bar) - Math.log1p(-bar);
const reference = families.linear.bar(1000, { first: 1e-4, last: 0.02 });
const plots = [
  plot("ᾱ, the image's share of the variance", 0, 1, [0, 0.5, 1], bar => bar),
  plot("log-SNR", -12, 12, [-10, -5, 0, 5, 10], logsnr),
];

const pictures = Array.from({ length: strip }, (_, i) => {
  const canvas = h("canvas", { width, height, "data-picture": i, "aria-hidden": "true" }), label = h("div", {});
  return { canvas, label, node: h("div", {}, canvas, label) };
});
const paint = ({ canvas, label }, t, bar) => {
  const context = canvas.getContext("2d"), pixels = context.createImageData(width, height);
  const a = Math.sqrt(bar), b = Math.sqrt(1 - bar);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) {
      const from = i * channels + (channels === 3 ? c : 0);
      pixels.data[4 * i + c] = Math.round((a * image[from] + b * noise[from] + 1) * 127.5);
    }
    pixels.data[4 * i + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
  label.textContent = `t = ${t}`;
};

const numbers = Object.fromEntries(["signal at T", "SNR at T", "log-SNR at T/2"].map(name => [name, number(name)]));
const verdict = h("span", { "data-name": "verdict" });
const show = () => {
  for (const [name, { input, box }] of Object.entries(inputs)) {
    box.hidden = name !== "T" && !families[state.family].inputs.includes(name);
    input.refresh();
  }
  const options = Object.fromEntries(Object.entries(inputs).map(([name, one]) => [name, valueOf(one)])), T = options.T;
  let bar = families[state.family].bar(T, options);
  if (state.rescale) bar = rescaled(bar);
  const stops = pictures.map((_, i) => Math.round(i * T / (strip - 1)));
  for (const one of plots) one.show(bar, stops, reference);
  pictures.forEach((picture, i) => paint(picture, stops[i], bar[stops[i]]));
  const signal = Math.sqrt(bar[T]), percent = short(100 * signal, 2) + " %";
  numbers["signal at T"].show(signal);
  numbers["SNR at T"].show(bar[T] / (1 - bar[T]));
  numbers["log-SNR at T/2"].show(logsnr(bar[T / 2]));
  verdict.textContent = signal === 0 ? "Nothing of the image is left at T." : `${percent} of the image's amplitude is left at T.`;
  verdict.classList.toggle("df-warn", signal > 0.01);
  say(verdict.textContent);
};
for (const { input } of Object.values(inputs)) input.oninput = show;

start([
  h("div", { class: "df-row" }, radios("schedule", "family", Object.entries(families).map(([name, { text }]) => [name, text]), "linear",
    name => { state.family = name; show(); })),
  h("div", { class: "df-sliders" }, ...Object.values(inputs).map(({ box }) => box)),
  h("div", { class: "df-row" }, tick("rescale to zero terminal SNR", "rescale", on => { state.rescale = on; show(); })),
  h("div", { class: "df-plots" }, ...plots.map(({ node }) => node)),
  h("div", { class: "df-faint df-small" }, "Dashed: linear, T = 1000, β from 0.0001 to 0.02. Dots: the pictures below, all with the same noise."),
  h("div", { class: "df-strip" }, ...pictures.map(({ node }) => node)),
  h("div", { class: "df-row" }, ...Object.entries(numbers).map(([name, node]) => h("span", {}, name + " ", node))),
  h("div", {}, verdict),
], show);
