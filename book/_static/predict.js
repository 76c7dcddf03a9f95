// "Predict first": the answers to choose from become buttons. What a reader chose stays in this browser, and nowhere else.
(() => {
const STORE = "book-predictions";
const read = () => { try { return JSON.parse(localStorage.getItem(STORE)) ?? {}; } catch { return {}; } };
const write = all => { try { localStorage.setItem(STORE, JSON.stringify(all)); } catch { /* remembered until the page is left */ } };
const h = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const page = location.pathname.split("/").pop().replace(/\.html$/, "");
const hash = text => [...text].reduce((sum, letter) => (Math.imul(sum, 31) + letter.codePointAt(0)) >>> 0, 7).toString(36);
const letterOf = node => node.textContent.trim().match(/^\(([a-z])\)/)?.[1];

// Choices (a), (b) and so on, and the answer that begins with one of these letters.
const questionOf = heading => {
  const parts = [...heading.parentElement.children];
  const answer = parts.find(part => part.matches(".admonition.dropdown") && part.querySelector(".admonition-title")?.textContent.trim().startsWith("Our answer"));
  const right = answer && letterOf(answer.querySelector(":scope > p:not(.admonition-title)") ?? answer);
  const list = parts.slice(0, parts.indexOf(answer)).reverse().find(part =>
    part.matches("ul") && part.children.length > 1 && [...part.children].every((item, i) => letterOf(item) === "abcdefgh"[i]));
  return right && list && [...list.children].some(item => letterOf(item) === right) ? { list, answer, right } : null;
};

const ask = ({ list, answer, right }, number) => {
  const key = `${page}/${hash(list.textContent)}`;
  const items = [...list.children].map((item, i) => {
    const letter = letterOf(item), text = item.querySelector("p") ?? item, name = `predict-${number}-${letter}`;
    const first = document.createTreeWalker(text, NodeFilter.SHOW_TEXT).nextNode();
    first.data = first.data.trimStart().slice(3).trimStart();
    const button = h("button", { type: "button", class: "predict-letter", id: `${name}-button`, "aria-pressed": "false", "aria-labelledby": `${name}-button ${name}` }, `(${letter})`);
    const body = h("span", { class: "predict-text", id: name });
    body.append(...text.childNodes);
    const verdict = h("span", { class: "predict-verdict" });
    text.append(button, body, verdict);
    item.classList.add("predict-choice");
    // A click anywhere on the choice is one on its letter; links in it stay links.
    item.addEventListener("click", event => { if (!event.target.closest("a, button")) button.click(); });
    button.addEventListener("click", () => choose(letter));
    return { item, letter, button, verdict };
  });
  list.classList.add("predict-choices");
  const note = h("p", { class: "predict-note" }), said = h("span", { role: "status" });
  const forget = h("button", { type: "button", class: "predict-forget" }, "Forget my prediction");
  note.append(said, " ", forget);
  list.after(note);

  const unfold = () => answer.querySelector("button.toggle-button-hidden")?.click();
  const fold = () => { if (!answer.classList.contains("toggle-hidden")) answer.querySelector("button.toggle-button")?.click(); };
  let chosen = null;
  const show = () => {
    note.hidden = !chosen;
    list.classList.toggle("predict-done", Boolean(chosen));
    for (const { item, letter, button, verdict } of items) {
      const mine = letter === chosen, is = letter === right;
      item.classList.toggle("predict-mine", mine);
      item.classList.toggle("predict-right", Boolean(chosen) && is);
      button.setAttribute("aria-pressed", mine);
      if (chosen) button.setAttribute("aria-disabled", "true"); else button.removeAttribute("aria-disabled");
      verdict.textContent = !chosen ? "" : mine && is ? "✓ you saw it coming" : mine ? "your prediction" : is ? "✓ what happens" : "";
    }
  };
  const told = () => chosen === right ? `You chose (${chosen}), and so it is. You can read why below.`
    : `You chose (${chosen}), and it turns out to be (${right}). You can read why below.`;
  const choose = letter => {
    if (chosen) return;
    chosen = letter;
    write({ ...read(), [key]: { choice: letter, right: letter === right } });
    show();
    said.textContent = told();
    unfold();
  };
  forget.addEventListener("click", () => {
    const { [key]: _, ...others } = read();
    write(others);
    chosen = null;
    said.textContent = "";
    show();
    fold();
    items[0].button.focus();
  });
  const kept = read()[key]?.choice;
  if (items.some(({ letter }) => letter === kept)) {
    chosen = kept;
    said.textContent = told();
    // The theme folds answers when the page is ready.
    addEventListener("load", unfold);
  }
  show();
};

[...document.querySelectorAll("article :is(h2, h3, h4)")].filter(heading => heading.textContent.trim().startsWith("Predict first"))
  .map(questionOf).filter(Boolean).forEach(ask);
})();
