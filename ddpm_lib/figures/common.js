// What every figure uses. It stands, with `key`, `data` and one figure's own script, inside one function.
const find = `[data-ddpm-figure="${key}"]`;
// Notebooks re-create scripts, some of them outside the figure: then it is the first one not yet taken.
const root = document.currentScript?.closest(find)
  ?? [...document.querySelectorAll(find)].find(figure => !figure.ddpmTaken);
if (!root) return;
root.ddpmTaken = true;

const SVG = "http://www.w3.org/2000/svg";
const fill = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const move = (node, attributes) => fill(node, attributes, []);

// So many significant digits.
const short = (value, digits = 4) => {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "undefined" : value < 0 ? "−∞" : "∞";
  if (value === 0) return "0";
  const size = Math.abs(value), text = size < 1e-3 || size >= 1e5 ? value.toExponential(digits - 1)
    : value.toFixed(Math.max(0, digits - 1 - Math.floor(Math.log10(size))));
  return text.replace(/e([+-])(\d+)$/, (_, sign, power) => " × 10" + (sign + power).replace(/[+-]|\d/g, c =>
    c === "+" ? "" : c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).replace("-", "−");
};
// A number on show: short to read, with all its digits in data-value.
const number = (name, digits = 4) => {
  const node = h("output", { "data-name": name, "aria-live": "off" });
  node.show = (value, text = short(value, digits)) => { node.textContent = text; node.dataset.value = value; return text; };
  return node;
};
// x_t is written with a low t.
const titled = text => { const [base, low] = text.split("_"); return h("span", {}, base, ...(low ? [h("sub", {}, low)] : [])); };
// told: what a position of the slider means, [number, text].
const slider = (label, name, min, max, step, value, told = position => [position, `${position}`.replace("-", "−")]) => {
  const input = h("input", { type: "range", min, max, step, value, "aria-label": label, "data-input": name });
  const shown = number(name);
  input.refresh = () => input.setAttribute("aria-valuetext", shown.show(...told(+input.value)));
  input.refresh();
  return { input, box: h("label", { class: "df-slider" }, titled(label), input, shown) };
};
const radios = (legend, name, choices, chosen, changed) => {
  const group = "ddpm-" + Math.random();
  return h("fieldset", {}, h("legend", {}, legend), ...choices.map(([value, text]) => {
    const input = h("input", { type: "radio", name: group, value, "data-input": name });
    input.checked = value === chosen;
    input.onchange = () => changed(value);
    return h("label", {}, input, text);
  }));
};
const tick = (text, name, changed) => {
  const input = h("input", { type: "checkbox", "data-input": name });
  input.onchange = () => changed(input.checked);
  return h("label", {}, input, text);
};

const stage = h("div", { class: "ddpm-stage", role: "group", "aria-label": data.alt });
const heard = h("div", { class: "df-heard", "aria-live": "polite" });
let waiting;
// Spoken when the hand rests; not on loading, and not twice.
const say = text => {
  clearTimeout(waiting);
  if (text !== heard.textContent) waiting = setTimeout(() => { heard.textContent = text; }, 500);
};

// A button that walks a slider to its end; moved(): after each step.
const player = (input, moved) => {
  const play = h("button", { type: "button", "data-input": "play" });
  const frames = +input.max;
  let timer = null;
  const stop = () => { clearInterval(timer); timer = null; play.textContent = "▶ play"; };
  const advance = stride => {
    if (!root.isConnected || +input.value >= frames) return stop();
    input.value = +input.value + stride;
    moved();
  };
  play.onclick = () => {
    if (timer) return stop();
    if (+input.value >= frames) { input.value = 0; moved(); }
    // Who asked for less motion gets a few stills, one a second.
    timer = calm() ? setInterval(advance, 1000, Math.ceil((frames + 1) / 8)) : setInterval(advance, Math.max(60, Math.min(6000 / (frames + 1), 700)), 1);
    play.textContent = "❚❚ pause";
  };
  stop();
  return { play, stop };
};

const unpack = (text, Kind) => new Kind(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer);
const colour = name => getComputedStyle(root).getPropertyValue("--" + name).trim();
const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
const isDark = () => root.classList.contains("ddpm-dark");
// A canvas as sharp as the screen; draw(context, width, height) in CSS pixels.
const sharp = (canvas, draw) => {
  const redraw = () => {
    const width = canvas.clientWidth, height = canvas.clientHeight, ratio = devicePixelRatio || 1;
    if (!width) return;
    if (canvas.width !== Math.round(width * ratio)) [canvas.width, canvas.height] = [width * ratio, height * ratio].map(Math.round);
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    draw(context, width, height);
  };
  new ResizeObserver(redraw).observe(canvas);
  return redraw;
};
// Dark is where the page writes in light letters, whatever theme it calls that.
const ink = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const seeTheme = redraw => {
  const look = () => {
    ink.fillStyle = getComputedStyle(root.parentElement ?? root).color;
    ink.fillRect(0, 0, 1, 1);
    const [red, green, blue] = ink.getImageData(0, 0, 1, 1).data;
    root.classList.toggle("ddpm-dark", 0.3 * red + 0.6 * green + 0.1 * blue > 140);
    redraw();
  };
  const observer = new MutationObserver(() => setTimeout(look, 30));
  for (const node of [document.documentElement, document.body]) {
    observer.observe(node, { attributeFilter: ["data-theme", "class", "data-jp-theme-light", "theme", "data-mode"] });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", look);
  look();
};
const start = (parts, redraw) => {
  stage.append(...parts, heard);
  // In JupyterLab's command mode the arrow keys would move the notebook; it looks at the focused element alone.
  for (const node of stage.querySelectorAll("input, button, [tabindex]")) node.setAttribute("data-lm-suppress-shortcuts", "true");
  root.querySelector(":scope > .ddpm-stage")?.remove();
  root.querySelector(":scope > img")?.replaceWith(stage);
  if (!stage.isConnected) root.prepend(stage);
  seeTheme(redraw);
  clearTimeout(waiting);
};
