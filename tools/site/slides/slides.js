// Packs the chapter's blocks onto slides, by their measured heights, and hands them to reveal.js.
const WIDTH = 1280, HEIGHT = 720, LINE = WIDTH - 128, ROOM = HEIGHT - 92, GAP = 14;
// A slide may be filled beyond its room by this much; it is then made smaller as a whole.
const SOFT = 1.2;
// Longer code and higher tables go on on the next slide, rather than become too small to read.
const LINES = 24, HIGH = ROOM - 60;
// What is lower than this does not get a slide of its own if the one before can take it.
const LITTLE = 130;

// A figure is a picture until its script comes; it must be whole before it is measured.
const awake = figure => new Promise(done => {
  const script = document.createElement("script");
  script.onload = script.onerror = done;
  script.src = figure.dataset.script;
  figure.append(script);
});

async function ready() {
  await new Promise(done => document.readyState === "complete" ? done() : addEventListener("load", done));
  await document.fonts.ready;
  await Promise.all([...document.querySelectorAll("#source [data-script]")].map(awake));
  const pictures = [...document.querySelectorAll("#source img")];
  for (const each of pictures) each.loading = "eager";
  await Promise.all(pictures.map(each => each.decode().catch(() => {})));
}

const isHeading = block => /^H[1-4]$/.test(block.firstElementChild?.tagName ?? "");
const isOutput = block => block.firstElementChild?.matches(".output");
const isCode = block => block?.firstElementChild?.matches(".cell_input");

// The block goes on after its first part: a copy of it with the rest.
function goOn(block, inner, first, rest) {
  const next = block.cloneNode(true), path = [...block.querySelectorAll("*")].indexOf(inner);
  inner.replaceChildren(...first);
  next.querySelectorAll("*")[path].replaceChildren(...rest);
  next.querySelector(":scope > .note")?.remove();
  block.after(next);
  return next;
}

// Between two parts that a blank line separates, if there is one.
function splitCode(block) {
  const pre = block.querySelector(".highlight pre");
  const lines = pre?.innerHTML.replace(/\n+$/, "").split(/\n/) ?? [];
  if (lines.length <= LINES + 4) return;
  const blank = lines.findLastIndex((line, i) => 8 <= i && i <= LINES && !line.replace(/<[^>]*>/g, "").trim());
  const parts = blank < 0 ? [lines.slice(0, LINES), lines.slice(LINES)] : [lines.slice(0, blank), lines.slice(blank)];
  const [first, rest] = parts.map(part => {
    const holder = document.createElement("pre");
    holder.innerHTML = part.join("\n").replace(/^\s*\n/, "").trimEnd();
    return [...holder.childNodes];
  });
  splitCode(goOn(block, pre, first, rest));
}

function splitTable(block) {
  const body = block.querySelector("table > tbody");
  const rows = body ? [...body.rows] : [], bottom = block.getBoundingClientRect().top + HIGH;
  const at = rows.findIndex(row => row.getBoundingClientRect().bottom > bottom);
  if (at > 0 && block.getBoundingClientRect().height > SOFT * HIGH) splitTable(goOn(block, body, rows.slice(0, at), rows.slice(at)));
}

// What is wider than a line, or taller than a slide, is made smaller.
function fit(block, room) {
  const content = block.querySelector(":scope > :not(.note)");
  const wide = Math.max(...[content, ...content.querySelectorAll("pre, table, math, img, svg, canvas")].map(
    each => Math.max(each.scrollWidth || 0, each.getBoundingClientRect().width)));
  const scale = Math.min(1, LINE / wide, room / block.getBoundingClientRect().height);
  if (scale < 1) block.style.zoom = scale;
}

function sheet(column, heading) {
  const section = document.createElement("section"), body = document.createElement("div"), notes = document.createElement("aside");
  body.className = "body";
  notes.className = "notes";
  section.append(body, notes);
  column.append(section);
  if (heading) {
    const again = heading.cloneNode(true);
    again.classList.add("again");
    for (const each of again.querySelectorAll("[id]")) each.removeAttribute("id");
    body.append(again);
  }
  return { section, body, notes, empty: true };
}

// What belongs together: a lead and its formula, what finishes the sentence after it, code and what it prints.
function together(blocks, at) {
  let end = at + 1;
  while (end < blocks.length && !isHeading(blocks[end]) && !("begins" in blocks[end].dataset)
         && ("leads" in blocks[end - 1].dataset || "follows" in blocks[end].dataset || isOutput(blocks[end]) && isCode(blocks[end - 1]))) end++;
  return blocks[end - 1].getBoundingClientRect().bottom - blocks[at].getBoundingClientRect().top;
}

function pack(column) {
  for (const block of [...column.children]) { splitCode(block); splitTable(block); }
  const blocks = [...column.children], first = blocks.find(isHeading), sheets = [];
  let heading = null, now = null, full = false;
  const turn = again => {
    now = sheet(column, again);
    sheets.push(now);
  };
  blocks.forEach((block, at) => {
    if (isHeading(block)) {
      full = false;
      if (!now?.empty) turn(null);
      else heading.classList.add("again");
      now.body.append(block);
      now.fresh = true;
      heading = block;
      return;
    }
    if (full || now === null || "begins" in block.dataset && !now.empty) turn(heading);
    const whole = together(blocks, at);
    if (!now.empty && whole <= SOFT * HIGH && now.body.offsetHeight + whole + GAP > SOFT * ROOM) turn(heading);
    fit(block, ROOM - GAP - (now.empty ? now.body.offsetHeight : 60));
    if (!now.empty && now.body.offsetHeight + block.getBoundingClientRect().height + GAP > SOFT * ROOM) turn(heading);
    const note = block.querySelector(":scope > .note");
    if (note) {
      now.notes.append(...note.childNodes);
      note.remove();
    }
    now.body.append(block);
    now.empty = false;
    // an answer ends what its heading, "Predict first", is about
    full = "alone" in block.dataset;
    now.kept ||= full || "begins" in block.dataset;
    if (full) heading = first;
  });
  sheets.forEach((last, i) => {
    const before = sheets[i - 1], said = [...last.body.children].filter(each => !each.classList.contains("again"));
    const height = said.reduce((sum, each) => sum + each.getBoundingClientRect().height + GAP, 0);
    if (!before || before.kept || last.kept || last.fresh || height > LITTLE || before.body.offsetHeight + height > 1.35 * ROOM) return;
    before.body.append(...said);
    before.notes.append(...last.notes.childNodes);
    last.section.remove();
    sheets[i] = before;
  });
  for (const body of column.querySelectorAll(".body")) {
    body.style.zoom = Math.min(1, ROOM / body.getBoundingClientRect().height);
  }
  const stack = document.createElement("section");
  stack.append(...column.children);
  document.querySelector(".slides").append(stack);
}

// Keys belong to a figure while it has the focus. Escape gives them back, and the keys of a pointer always turn slides.
const inFigure = () => document.activeElement?.closest("figure");
addEventListener("keydown", event => {
  if (!inFigure() || !["Escape", "PageDown", "PageUp"].includes(event.key)) return;
  document.activeElement.blur();
  if (event.key === "Escape") event.stopImmediatePropagation();
}, true);

ready().then(() => {
  document.querySelectorAll("#source > .column").forEach(pack);
  document.getElementById("source").remove();
  Reveal.on("slidechanged", () => inFigure() && document.activeElement.blur());
  return Reveal.initialize({ width: WIDTH, height: HEIGHT, margin: 0, center: false, hash: true, slideNumber: "c/t",
                             transition: "none", controls: false, keyboardCondition: () => !inFigure(), plugins: [RevealNotes] });
}).then(() => document.documentElement.dataset.ready = "yes");
