// The model in the page. Nothing is fetched before play is pressed; then a worker runs the network, and the
// samplers of sampling.js ask it. Where that cannot be, the stored film plays instead.
(() => {
const here = new URL(".", document.currentScript.src);

const h = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const megabytes = bytes => (bytes / 1e6).toFixed(1);
// Without a sign where nothing but noughts is left.
const signed = (value, digits) => {
  const text = value.toFixed(digits);
  return text.replace("-", +text ? "−" : "");
};
// What another try cannot mend.
const never = reason => Object.assign(new Error(reason), { never: true });
// Two significant digits, such as 0.083 or 1.2.
const brief = seconds => seconds < 10 ? `${+seconds.toPrecision(2)}` : seconds.toFixed(0);

// One network for all figures of a page.
const network = {
  // One question at a time: a drawing that was stopped may still wait for an answer.
  send(message) {
    const turn = (this.before ?? Promise.resolve()).then(() => new Promise((resolve, reject) => {
      this.waiting = { resolve, reject };
      this.worker.postMessage(message);
    }));
    this.before = turn.catch(() => {});
    return turn;
  },
  load(files, heard) {
    this.heard = heard;
    return this.loading ??= this.start(files);
  },
  async start(files) {
    if (typeof WebAssembly !== "object") throw never("WebAssembly is switched off in this browser");
    if (typeof DecompressionStream !== "function") throw never("this browser is too old to unpack it");
    if (location.protocol === "file:") throw never("browsers load it from a web server only, not from a file");
    this.worker = new Worker(new URL("worker.js", here), { type: "module" });
    this.worker.onerror = () => this.waiting?.reject(new Error("its program did not start"));
    this.worker.onmessage = ({ data }) => {
      if ("loaded" in data) return this.heard(data.loaded);
      "failed" in data ? this.waiting.reject(new Error(data.failed)) : this.waiting.resolve(data.answer);
    };
    const table = await this.send({ load: files });
    // log-SNR is infinite at the clean end, which JSON cannot say.
    this.knots = JSON.parse(table, (key, value) => value?.a ? { logsnr: Infinity, ...value } : value);
    this.ready = true;
  },
  ask: (x, logsnr, labels) => network.send({ ask: { x, logsnr, labels } }),
  close() {
    this.worker?.terminate();
    this.waiting?.reject(new Error("it was stopped"));
    this.worker = this.waiting = this.before = this.loading = null;
    this.ready = false;
  },
};

const start = root => {
  const about = JSON.parse(root.dataset.about), whole = root.dataset.form === "whole";
  const { size, classes } = about, pixels = size * size;
  const chosen = { ...about.settings, digit: "each", count: classes.length, seed: 1, show: "x" };
  let frames = [], steps = chosen.steps, run = null, film = null;

  // The pictures.
  const tiles = h("div", { class: "lm-tiles", role: "img" });
  const position = h("input", { type: "range", min: 0, max: 1, value: 0, "aria-label": "step", "data-input": "step", disabled: "" });
  const status = h("p", { class: "lm-status" });
  const heard = h("div", { class: "lm-heard", "aria-live": "polite" });
  const tell = text => { status.textContent = text; };
  const say = text => { tell(text); heard.textContent = text; };
  const asked = () => Array.from({ length: chosen.count }, (_, i) =>
    chosen.digit === "each" ? i % classes.length : chosen.digit === "any" ? -1 : +chosen.digit);
  const named = labels => labels.map(label => label < 0 ? "any" : classes[label]);

  const lay = labels => {
    const count = labels.length, rows = count > 5 && (whole || count > 10) ? 2 : 1;
    tiles.style.setProperty("--columns", Math.ceil(count / rows));
    tiles.style.setProperty("--narrow", count > 10 ? Math.ceil(count / 3) : count > 4 ? Math.ceil(count / 2) : count);
    tiles.replaceChildren(...named(labels).map(name => h("div", { class: "lm-tile" },
      h("canvas", { width: size, height: size }), h("span", { "aria-hidden": "true" }, name))));
  };
  const shade = value => Math.round(127.5 * (Math.min(1, Math.max(-1, value)) + 1));
  const paint = (values, drawn) => [...tiles.querySelectorAll("canvas")].forEach((canvas, i) => {
    const context = canvas.getContext("2d");
    if (drawn) return context.drawImage(drawn.sheet, drawn.column * drawn.pitch, i * drawn.pitch, size, size, 0, 0, size, size);
    const image = context.createImageData(size, size), bytes = new Uint32Array(image.data.buffer);
    for (let at = 0; at < pixels; at++) bytes[at] = 0xff000000 | 0x010101 * shade(values[i * pixels + at]);
    context.putImageData(image, 0, 0);
  });
  const look = at => {
    const frame = frames[at];
    paint(frame[chosen.show] ?? frame.x, frame.film);
    position.value = at;
    const text = `step ${at} of ${steps}` + ("logsnr" in frame ? ` · log-SNR ${Number.isFinite(frame.logsnr) ? signed(frame.logsnr, 1) : "∞"}` : "");
    position.setAttribute("aria-valuetext", text);
    return text;
  };
  const describe = what => tiles.setAttribute("aria-label", `${what}: ${named(asked()).join(", ")}`);

  // Before play: the noise that this seed stands for.
  const noisy = () => ddpmSampling.noise(chosen.seed, chosen.count, pixels);
  const rest = () => {
    if (film) return;
    if (network.ready) stop(); // while it loads, the choice is still open
    lay(asked());
    frames = [{ x: noisy()() }];
    position.max = steps = chosen.steps;
    position.disabled = true;
    look(0);
    describe("Noise, to become");
    if (run) return;
    root.classList.add("lm-rest");
    tell(network.ready || !about.files ? "Noise. Press Draw."
      : `The book’s own network, in your browser. Draw fetches ${megabytes(about.bytes)} MB from this site, once.`);
  };

  // Drawing.
  const play = h("button", { type: "button", class: "lm-play", "data-input": "play" });
  const resting = () => {
    run = null;
    play.textContent = film ? "▶ Film" : "▶ Draw";
    play.classList.remove("lm-busy");
    again.hidden = !film || Boolean(film.error.never);
  };
  const stop = () => {
    if (!run) return;
    if (!network.ready) network.close();
    root.classList.toggle("lm-rest", frames.length < 2);
    // The way back begins at the last step that was drawn.
    position.max = Math.max(1, frames.length - 1);
    position.disabled = frames.length < 2;
    resting();
  };
  const draw = async mine => {
    if (!network.ready) {
      say(`Fetching the model, ${megabytes(about.bytes)} MB …`);
      await network.load(about.files, bytes => {
        if (run === mine) tell(bytes < 0.98 * about.bytes ? `Fetching the model: ${megabytes(bytes)} of ${megabytes(about.bytes)} MB` : "Starting it …");
      });
      if (run !== mine) return;
    }
    const labels = asked(), settings = { ...chosen };
    const randn = noisy(), x = randn(), knots = network.knots[settings.steps];
    const denoise = ddpmSampling.clipped(ddpmSampling.guided(ddpmSampling.denoiser(network.ask), labels, settings.scale));
    frames = [{ x, x0: x, logsnr: knots[0].logsnr }];
    position.max = steps = settings.steps;
    position.disabled = true;
    describe("Being drawn");
    heard.textContent = `Drawing ${labels.length} pictures`;
    tell(look(0));
    const began = performance.now(), seconds = () => (performance.now() - began) / 1000;
    for await (const step of ddpmSampling.sample(settings.sampler, denoise, x, knots, randn)) {
      if (run !== mine) return;
      frames.push({ x: step.x, x0: step.x0, logsnr: step.knot.logsnr });
      tell(`${look(step.index)} · ${brief(seconds() / step.index)} s a step`);
    }
    position.disabled = false;
    describe("Drawn");
    say(`Done in ${brief(seconds())} s. ${named(labels).join(" ")}`);
    resting();
  };

  // The film, where the model cannot run. What a network or a memory refused once it may give the next time.
  const again = h("button", { type: "button", class: "lm-again", "data-input": "again", hidden: "" }, "Try the model again");
  const controls = () => root.querySelectorAll("fieldset, .lm-settings input, .lm-settings button");
  const project = async (mine, error) => {
    if (!film) {
      network.close();
      const sheet = new Image(), kept = { digit: chosen.digit, count: chosen.count, show: chosen.show };
      sheet.src = new URL(about.film.file, here);
      try { await sheet.decode(); } catch {
        if (run !== mine) return;
        say(`The model cannot run here: ${error.message}. Its film did not come either.`);
        return resting();
      }
      if (run !== mine) return;
      film = { sheet, error, kept };
      for (const node of controls()) node.disabled = true;
      Object.assign(chosen, { digit: "each", count: classes.length, show: "x" });
      lay(asked());
      frames = Array.from({ length: about.film.steps + 1 }, (_, column) => ({ film: { sheet, column, pitch: about.film.pitch } }));
      position.max = steps = about.film.steps;
    }
    root.dataset.film = "";
    position.disabled = true;
    for (let at = 0; at < frames.length; at++) {
      if (run !== mine) return;
      tell(`A stored film · ${look(at)}`);
      await new Promise(resolve => setTimeout(resolve, 160));
    }
    if (run !== mine) return;
    position.disabled = false;
    describe("A film of the model drawing");
    const made = about.film;
    say(`This was a stored film (${made.sampler}, ${made.steps} steps, scale ${made.scale}). The model itself cannot run here: ${film.error.message}.`);
    resting();
  };
  const unroll = () => {
    Object.assign(chosen, film.kept);
    film = null;
    delete root.dataset.film;
    for (const node of controls()) node.disabled = false;
    rest();
  };

  play.onclick = async () => {
    if (run) { stop(); return say("Stopped."); }
    const mine = run = {};
    root.classList.remove("lm-rest");
    play.textContent = "■ Stop";
    play.classList.add("lm-busy");
    try {
      if (film) return await project(mine);
      if (!about.files) throw never("this copy of the book was built without its engine");
      await draw(mine);
    } catch (error) {
      if (run === mine) await project(mine, error);
    }
  };
  again.onclick = () => {
    if (run) stop();
    unroll();
    resting();
    play.focus();
    play.click();
  };
  position.oninput = () => tell(look(+position.value));

  // Settings.
  const restart = (name, value) => { chosen[name] = value; rest(); };
  const pick = (legend, name, choices, changed = restart) => h("fieldset", { class: `lm-pick${choices.length > 2 ? " lm-wide" : ""}` }, h("legend", {}, legend),
    ...choices.map(([value, text]) => {
      const input = h("input", { type: "radio", name: `${name} ${root.id}`, value, "data-input": name });
      input.checked = value === `${chosen[name]}`;
      input.onchange = () => changed(name, Number.isNaN(+value) ? value : +value);
      return h("label", {}, input, h("span", {}, text));
    }));
  const slide = (label, name, min, max, step) => {
    const input = h("input", { type: "range", min, max, step, "data-input": name }), shown = h("output");
    const refresh = () => { shown.textContent = input.value; };
    input.value = chosen[name];
    input.oninput = () => { refresh(); restart(name, +input.value); };
    refresh();
    return h("label", { class: "lm-slide" }, h("span", {}, label), input, shown);
  };
  const digits = [["each", "each"], ["any", "any"], ...classes.map((name, i) => [`${i}`, name])];
  const seed = h("input", { type: "number", min: 0, max: 999999, step: 1, value: chosen.seed, "data-input": "seed" });
  seed.oninput = () => { if (seed.validity.valid && seed.value) restart("seed", +seed.value); };
  const other = h("button", { type: "button", "data-input": "other" }, "other noise");
  other.onclick = () => { seed.value = (chosen.seed + 1) % (+seed.max + 1); restart("seed", +seed.value); };
  const seeds = h("div", { class: "lm-seed" }, h("label", {}, h("span", {}, "seed"), seed), other);

  const settings = h("div", { class: "lm-settings" }, pick("digit", "digit", digits));
  if (whole) {
    settings.append(
      pick("sampler", "sampler", about.samplers.map(name => [name, name])),
      pick("steps", "steps", about.steps.map(steps => [`${steps}`, `${steps}`])),
      slide("guidance", "scale", 0, 6, 0.1),
      slide("pictures", "count", 1, 16, 1),
      seeds,
      pick("show", "show", [["x", "noisy picture"], ["x0", "clean guess"]], (name, value) => {
        chosen[name] = value;
        look(+position.value);
      }),
    );
  } else settings.append(other);

  const bar = h("div", { class: "lm-bar" }, play, position);
  root.replaceChildren(tiles, bar, status, again, settings, heard, root.querySelector(".lm-printed"));
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", "A model that draws digits");
  resting();
  rest();
};

document.querySelectorAll(".live-model").forEach((root, at) => { root.id ||= `live-model-${at + 1}`; start(root); });
})();
