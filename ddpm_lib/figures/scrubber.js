const names = Object.keys(data.tracks);
const tracks = Object.fromEntries(names.map(name => [name, unpack(data.tracks[name], Int16Array)]));
const frames = data.steps.length, { count, scale, limit } = data;
const followed = Array.from({ length: Math.min(7, count) }, (_, i) => Math.floor((i + 0.5) * count / Math.min(7, count)));
const state = { name: names[0], paths: false };

const at = (frame, point, axis) => tracks[state.name][(frame * count + point) * 2 + axis] * scale;
const canvas = h("canvas", { class: "df-cloud", "aria-hidden": "true" });
const position = slider("step", "t", 0, frames - 1, 1, 0, i => [data.steps[i], `t = ${data.steps[i]}`]);
const meanSquare = number("mean square", 3);

// On a dark page, colours are mixed with white.
const tinted = hex => isDark() ? `rgb(${[1, 3, 5].map(i => Math.round(0.62 * parseInt(hex.slice(i, i + 2), 16) + 97))})` : hex;
const redraw = sharp(canvas, (context, width, height) => {
  const frame = +position.input.value, px = width / (2 * limit);
  const x = (i, f = frame) => width / 2 + at(f, i, 0) * px, y = (i, f = frame) => height / 2 - at(f, i, 1) * px;
  const tint = i => data.colours ? tinted(data.colours[i]) : colour("data");
  const size = Math.max(1.3, width / (count > 500 ? 260 : 190));
  for (let i = 0; i < count; i++) {
    context.globalAlpha = state.paths ? 0.3 : 1;
    context.fillStyle = tint(i);
    context.beginPath();
    context.arc(x(i), y(i), size, 0, 7);
    context.fill();
  }
  if (!state.paths) return;
  context.lineJoin = "round";
  for (const i of followed) {
    context.strokeStyle = context.fillStyle = tint(i);
    context.lineWidth = 1.4;
    // The older, the fainter.
    for (let f = 1; f <= frame; f++) {
      context.globalAlpha = 0.15 + 0.75 * (1 - (frame - f) / frames) ** 3;
      context.beginPath();
      context.moveTo(x(i, f - 1), y(i, f - 1));
      context.lineTo(x(i, f), y(i, f));
      context.stroke();
    }
    context.globalAlpha = 1;
    context.beginPath();
    context.arc(x(i), y(i), 2.2 * size, 0, 7);
    context.fill();
  }
});
const show = () => {
  position.input.refresh();
  const frame = +position.input.value;
  let sum = 0;
  for (let i = 0; i < count; i++) sum += at(frame, i, 0) ** 2 + at(frame, i, 1) ** 2;
  meanSquare.show(sum / (2 * count));
  redraw();
};

const { play, stop } = player(position.input, show);
position.input.oninput = () => { stop(); show(); };

const options = [tick("paths", "paths", on => { state.paths = on; redraw(); }), h("span", {}, "mean square ", meanSquare)];
if (names.length > 1) {
  const choice = radios("tracks", "track", names.map(name => [name, name]), names[0], name => { state.name = name; show(); });
  choice.firstChild.className = "df-heard";
  options.unshift(choice);
}
start([canvas, h("div", { class: "df-row" }, play, position.box), h("div", { class: "df-row df-centre" }, ...options)], show);
