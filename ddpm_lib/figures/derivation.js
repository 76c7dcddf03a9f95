const { lines } = data;
let shown = 1;
const agree = (left, right) => Math.abs(left - right) <= 1e-6 * Math.max(Math.abs(left), Math.abs(right));
const items = lines.map(({ math, words, left, right }, i) => {
  const item = h("li", { "data-line": i }, h("div", { class: "df-math" }), h("div", { class: "df-words" }));
  item.children[0].innerHTML = math;
  item.children[1].innerHTML = words;
  if (left !== undefined) {
    const [one, other] = [number("left", 6), number("right", 6)], same = agree(left, right);
    one.show(left, short(left, 6));
    other.show(right, short(right, 6));
    item.append(h("div", { class: same ? "df-check" : "df-check df-wrong" }, "left side ", one, ", right side ", other, ", ",
      h("strong", { "data-name": "verdict" }, same ? "agree ✓" : "DISAGREE ✗")));
  }
  return item;
});
const list = h("ol", { class: "df-lines" }, ...items);
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
  items.forEach((item, i) => { item.hidden = i >= shown; item.classList.toggle("df-now", i === shown - 1); });
  count.textContent = `line ${shown} of ${lines.length}`;
  count.dataset.value = shown;
  fit();
  // Not disabled: a button that is loses the keyboard.
  back.setAttribute("aria-disabled", shown === 1);
  next.setAttribute("aria-disabled", shown === lines.length);
  all.textContent = shown < lines.length ? "all lines" : "start again";
};
stage.onkeydown = event => {
  const way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!way || event.target.closest(".df-math")) return;
  event.preventDefault();
  event.stopPropagation();
  go(shown + way);
};
// A formula wider than a phone is set smaller, to a point; then it scrolls.
const fit = () => {
  for (const box of list.querySelectorAll("li:not([hidden]) > .df-math")) {
    box.style.fontSize = "";
    const share = box.clientWidth / box.scrollWidth;
    if (share < 1) box.style.fontSize = `${Math.max(0.8, 1.12 * share)}em`;
  }
};
new ResizeObserver(fit).observe(list);
start([h("div", { class: "df-row" }, back, next, all, count), list], show);
