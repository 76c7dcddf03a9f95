const { lines } = data;
let shown = 1;
const agree = (left, right) => Math.abs(left - right) <= 1e-6 * Math.max(Math.abs(left), Math.abs(right));
const items = lines.map(({ math, words, left, right }, i) => {
  const item = h("li", { "data-line": i }, h("div", { class: "math" }), h("div", { class: "words" }));
  item.children[0].innerHTML = math;
  item.children[1].innerHTML = words;
  if (left !== undefined) {
    const [one, other] = [number("left", 6), number("right", 6)], same = agree(left, right);
    one.show(left, short(left, 6));
    other.show(right, short(right, 6));
    item.append(h("div", { class: same ? "check" : "check wrong" }, "left side ", one, ", right side ", other, ", ",
      h("strong", { "data-name": "verdict" }, same ? "agree ✓" : "DISAGREE ✗")));
  }
  return item;
});
const list = h("ol", { class: "lines" }, ...items);
const count = h("output", { "data-name": "line", "aria-live": "off" });
const button = (text, name, act) => {
  const node = h("button", { type: "button", "data-input": name }, text);
  node.onclick = act;
  return node;
};
const go = to => {
  shown = Math.max(1, Math.min(lines.length, to));
  show();
  const item = items[shown - 1];
  say(`line ${shown} of ${lines.length}: ${item.children[1].textContent} ${item.children[2]?.textContent ?? ""}`);
};
const back = button("◀ back", "back", () => go(shown - 1));
const next = button("next ▶", "next", () => go(shown + 1));
const all = button("all", "all", () => go(shown < lines.length ? lines.length : 1));
const show = () => {
  items.forEach((item, i) => { item.hidden = i >= shown; item.classList.toggle("now", i === shown - 1); });
  count.textContent = `line ${shown} of ${lines.length}`;
  count.dataset.value = shown;
  back.disabled = shown === 1;
  next.disabled = shown === lines.length;
  all.textContent = shown < lines.length ? "all lines" : "start again";
};
stage.onkeydown = event => {
  const way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!way) return;
  event.preventDefault();
  event.stopPropagation();
  go(shown + way);
};
start([h("div", { class: "row" }, back, next, all, count), list], show);
