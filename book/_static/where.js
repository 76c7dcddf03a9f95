// Where the reader was last, and how many predictions were made: kept in this browser, told on the landing page.
(() => {
const PLACE = "book-where", PREDICTIONS = "book-predictions";
const read = name => { try { return JSON.parse(localStorage.getItem(name)); } catch { return null; } };
const h = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const page = location.pathname.split("/").pop();
const titled = heading => {
  const copy = heading.cloneNode(true);
  copy.querySelectorAll(".headerlink").forEach(link => link.remove());
  return copy.textContent.replace(/\s+/g, " ").trim();
};

const headings = [...document.querySelectorAll("article section[id] > :is(h2, h3)")];
const note = () => {
  const here = headings.filter(heading => heading.getBoundingClientRect().top < 0.4 * innerHeight).pop();
  const place = { page, title: titled(document.querySelector("article h1")) };
  if (here) Object.assign(place, { section: titled(here), id: here.parentElement.id });
  try { localStorage.setItem(PLACE, JSON.stringify(place)); } catch { /* then it is not told */ }
};

const tell = after => {
  const place = read(PLACE), predictions = Object.values(read(PREDICTIONS) ?? {});
  const box = h("div", { class: "where", role: "note", "aria-label": "Where you were" });
  if (place?.page && place.title) {
    const link = h("a", { href: place.page + (place.id ? `#${place.id}` : "") }, "Go on from there");
    box.append(h("p", {}, "Last time you stopped in ", h("strong", {}, place.title), ...(place.section ? [`, at “${place.section}”`] : []), ". ", link));
  }
  if (predictions.length) {
    const right = predictions.filter(one => one?.right).length, made = predictions.length;
    box.append(h("p", {}, `You have made ${made === 1 ? "one prediction" : `${made} predictions`}, and ${
      right === made ? made === 1 ? "it was right" : "all of them were right" : right === 0 ? made === 1 ? "it surprised you" : "all of them surprised you"
      : right === 1 ? "one was right" : `${right} were right`}.`));
  }
  if (!box.children.length) return;
  const forget = h("button", { type: "button" }, "Forget");
  forget.addEventListener("click", () => {
    for (const name of [PLACE, PREDICTIONS]) localStorage.removeItem(name);
    box.remove();
  });
  box.lastChild.append(" ", h("span", { class: "where-small" }, "Only this browser knows. ", forget));
  after.after(box);
};

if (/^\d\d_/.test(page)) {
  let waiting = null;
  addEventListener("scroll", () => { waiting ??= setTimeout(() => { waiting = null; note(); }, 400); }, { passive: true });
  addEventListener("load", note);
  addEventListener("pagehide", note);
}
const landing = document.querySelector(".first-screen");
if (landing) tell(landing);
})();
