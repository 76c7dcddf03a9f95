// The search: its index is fetched when a reader begins to search; results come while the words are typed.
(() => {
const root = new URL("..", document.currentScript.src).href;
const dialog = document.getElementById("pst-search-dialog");
const h = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

// Words

const GREEK = Object.fromEntries("α alpha β beta γ gamma δ delta ε epsilon ϵ epsilon ζ zeta η eta θ theta κ kappa λ lambda μ mu ν nu ξ xi π pi ρ rho σ sigma τ tau φ phi ϕ phi χ chi ψ psi ω omega Σ sigma Δ delta Θ theta Φ phi"
  .split(" ").flatMap((name, i, all) => i % 2 ? [] : [[name, all[i + 1]]]));
const LETTERS = Object.values(GREEK).join("|"), MARKS = { "\u0304": "bar", "\u0302": "hat", "\u0303": "tilde" };
// What the book calls by another name.
const OTHER_WORDS = {
  cfg: ["guidance"], image: ["picture"], photo: ["picture"], photograph: ["picture"], ema: ["average"], lr: ["learning", "rate"],
  kl: ["divergence"], vlb: ["bound"], inference: ["sampling"], generate: ["draw", "sample"], generation: ["drawing", "sampling"],
  fréchet: ["fid"], unet: ["u-net"], gpu: ["device"], sampler: ["ddim", "ddpm"],
};
// Letters with their marks as words, so that "alpha bar", alpha_bar and ᾱ are one.
const plain = text => text.normalize("NFKD")
  .replace(/([Α-ωϕϵ])([\u0302-\u0304]?)/g, (_, letter, mark) => GREEK[letter] ? ` ${GREEK[letter]}${MARKS[mark] ?? ""} ` : " ")
  .replace(/[\u0300-\u036f]/g, "").toLowerCase()
  .replace(new RegExp(`\\b(${LETTERS})[ _-](bar|hat|tilde)\\b`, "g"), "$1$2");
// The words of a text, compound ones whole and in parts.
const joined = word => word.replace(/[-_]/g, "");
const split = text => [...plain(text).matchAll(/[a-z0-9]+(?:['’][a-z]+)?(?:[-_][a-z0-9]+)*/g)].map(({ 0: word }) => word.replace(/['’]s?\b/g, ""));
const wordsAt = text => split(text).flatMap(word => /[-_]/.test(word) ? [joined(word), ...word.split(/[-_]/)] : [word]);

let stem = word => word;
const stems = text => wordsAt(text).map(stem);

// The index

// A word counts as often as it is said, in a heading as much as five times, in code less; of many times the later count little.
const HEADING = 5, TITLE = 1.5, IN_CODE = 0.3, SATURATION = 1.2;
const CODE = ">";
// Sections that name much and explain little; and words with which one asks.
const LESSER = /^(References|Exercises)$/, ASKING = "how why what when where which who do does did can could should i my me we our you your about from many much use using".split(" ");
let index;
const build = ({ stemmer, common, pages }) => {
  const known = new Map(), sections = [], places = new Map();
  stem = word => {
    if (!known.has(word)) known.set(word, /^[a-z]{3,}$/.test(word) ? stemmer.stemWord(word) : word);
    return known.get(word);
  };
  for (const [address, weight, called, parts] of pages) {
    const page = { address, weight, title: parts[0][1] };
    const titled = new Set(stems(page.title));
    for (const [anchor, heading, passages] of parts) {
      const first = anchor === parts[0][0], counts = new Map();
      const section = { page, anchor, heading, passages, length: 0, called: first ? called.split(", ") : [], weight: weight * (LESSER.test(heading) ? 0.5 : 1) };
      const count = (word, by) => counts.set(word, (counts.get(word) ?? 0) + by);
      for (const word of stems(heading)) count(word, HEADING);
      for (const word of new Set(section.called.flatMap(stems))) count(word, HEADING);
      for (const passage of passages) {
        const code = passage[0] === CODE;
        for (const word of stems(passage)) { count(word, code ? IN_CODE : 1); section.length += code ? IN_CODE : 1; }
      }
      for (const word of titled) if (first || counts.has(word)) count(word, TITLE);
      for (const [word, times] of counts) {
        if (!places.has(word)) places.set(word, []);
        places.get(word).push([sections.length, times]);
      }
      sections.push(section);
    }
  }
  const length = sections.reduce((sum, section) => sum + section.length, 0) / sections.length;
  return { sections, places, length, common: new Set([...common, ...ASKING]), vocabulary: [...places.keys()] };
};
let fetching;
const fetched = () => fetching ??= new Promise((resolve, reject) => {
  const script = h("script", { src: `${root}_static/search_passages.js` });
  script.onload = () => resolve(index = build(bookSearch));
  script.onerror = () => { fetching = null; script.remove(); reject(new Error("the index did not come")); };
  document.head.append(script);
});

// What is meant by a word

const near = (a, b, most) => {
  if (Math.abs(a.length - b.length) > most) return false;
  let before = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) row.push(Math.min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a[i - 1] !== b[j - 1])));
    if (Math.min(...row) > most) return false;
    before = row;
  }
  return before.at(-1) <= most;
};
// Stems, with how far each is what was asked for. A word that is still being typed may go on.
const meant = (word, typing) => {
  const exact = stem(word), found = new Map();
  const add = (one, share) => index.places.has(one) && share > (found.get(one) ?? 0) && found.set(one, share);
  add(exact, 1);
  for (const other of OTHER_WORDS[word] ?? []) for (const one of stems(other)) add(one, 0.7);
  if (word.length > (typing ? 1 : 4)) for (const one of index.vocabulary)
    if (one.startsWith(word) || one.startsWith(exact)) add(one, typing ? 0.8 * Math.min(1, (word.length + 2) / one.length) : 0.5);
  if (!found.size && word.length > 3) for (const one of index.vocabulary) if (near(word, one, word.length > 7 ? 2 : 1)) add(one, 0.5);
  return found;
};

// Searching

const search = query => {
  let words = [...new Set(wordsAt(query))];
  const said = words.filter(word => !index.common.has(word));
  if (said.length) words = said;
  // A compound word is found by its parts, too, so that it need not be there itself.
  const optional = new Set(split(query).filter(word => /[-_]/.test(word)).map(joined));
  const scores = new Map(), { sections, places, length } = index;
  const asked = words.map((word, i) => ({ word, found: meant(word, i === words.length - 1 && !/\s$/.test(query)), needed: !optional.has(word) }));
  let whole = 0;
  for (const { found, needed } of asked) {
    const best = new Map();
    let rarity = 0;
    for (const [one, share] of found) {
      const at = places.get(one), rare = Math.log(1 + sections.length / at.length);
      rarity = Math.max(rarity, share * rare);
      for (const [i, times] of at) {
        const score = share * rare * times * (1 + SATURATION) / (times + SATURATION * (0.4 + 0.6 * sections[i].length / length));
        if (score > (best.get(i)?.score ?? 0)) best.set(i, { score, one });
      }
    }
    if (needed) whole += rarity || 3;
    for (const [i, { score, one }] of best) {
      const sum = scores.get(i) ?? { score: 0, covered: 0, marks: new Set() };
      sum.score += score;
      if (needed) sum.covered += rarity;
      for (const other of found.keys()) sum.marks.add(other);
      scores.set(i, sum);
    }
  }
  const library = /[_.()]/.test(query.trim()) ? 3 : 1, phrase = words.map(stem);
  const hits = [...scores].map(([i, { score, covered, marks }]) => {
    const section = sections[i], weight = Math.min(1.2, section.weight * (section.anchor.includes("ddpm_lib.") ? library : 1));
    return { section, marks, score: score * weight * (whole ? Math.min(1, covered / whole) ** 1.5 : 1) };
  }).sort((a, b) => b.score - a.score).slice(0, 60);
  if (phrase.length > 1) for (const hit of hits) {
    if ([hit.section.heading, ...hit.section.called].some(text => together(text, phrase))) hit.score *= 2;
    else if (hit.section.passages.some(passage => together(passage, phrase))) hit.score *= 1.6;
  }
  const pages = new Map();
  for (const hit of hits.sort((a, b) => b.score - a.score)) {
    if (!pages.has(hit.section.page)) pages.set(hit.section.page, []);
    pages.get(hit.section.page).push(hit);
  }
  // A page that says much about it comes before one that says a little.
  const worth = hits => hits.slice(0, 4).reduce((sum, { score }, i) => sum + score / 2 ** i, 0);
  return [...pages].map(([page, hits]) => ({ page, hits, worth: worth(hits) })).sort((a, b) => b.worth - a.worth);
};
const together = (text, phrase) => {
  const all = stems(text);
  return all.some((_, i) => phrase.every((word, j) => all[i + j] === word));
};

// Results

const WIDTH = 190;
// The words of a text as they stand there: [from, to, stems].
const standing = text => [...text.matchAll(/[\p{L}\p{N}\p{M}]+(?:[-_’'][\p{L}\p{N}\p{M}]+)*/gu)].map(({ 0: word, index: from }) => [from, from + word.length, stems(word)]);
// Two words of a pair such as "alpha hat" are one in the index.
const matching = (text, marks) => {
  const all = standing(text);
  return all.filter(([from, to, own], i) => own.some(one => marks.has(one))
    || [all[i - 1], all[i + 1]].some(other => other && stems(text.slice(Math.min(from, other[0]), Math.max(to, other[1]))).some(one => marks.has(one) && !other[2].includes(one) && /(bar|hat|tilde)$/.test(one))));
};
const passageOf = ({ section, marks }) => {
  let best = { worth: -1, text: section.passages[0] ?? "", found: [] };
  for (const text of section.passages) {
    const found = matching(text, marks), kinds = new Set(found.map(([from, to]) => stem(text.slice(from, to).toLowerCase())));
    const worth = kinds.size * (text[0] === CODE ? 0.4 : 1) + Math.min(found.length, 5) / 20;
    if (found.length && worth > best.worth) best = { worth, text, found };
  }
  return best;
};
const marked = (text, found, from, to) => {
  const parts = [];
  let at = from;
  for (const [begin, end] of found) if (begin >= at && end <= to) {
    parts.push(text.slice(at, begin), h("mark", {}, text.slice(begin, end)));
    at = end;
  }
  return [...parts, text.slice(at, to)];
};
const excerpt = ({ text, found }) => {
  const code = text[0] === CODE, first = found[0]?.[0] ?? 0;
  // From the beginning of the sentence or line, if that is near; a word is not cut.
  let from = first < 90 ? Number(code) : Math.max(text.lastIndexOf(". ", first) + 2, text.lastIndexOf("\n", first) + 1, 1);
  if (first - from > 90) from = text.indexOf(" ", first - 80) + 1;
  let to = from + WIDTH < text.length ? text.lastIndexOf(" ", from + WIDTH) : text.length;
  if (to <= first) to = text.length;
  const parts = [...(from > Number(code) ? ["… "] : []), ...marked(text, found, from, to), ...(to < text.length ? [" …"] : [])];
  return code ? h("code", {}, ...parts) : h("span", {}, ...parts);
};
// The words to mark on the page go with the address; letters of formulas are not marked there.
const addressOf = ({ section }, { text, found }) => {
  const words = [...new Set(found.map(([from, to]) => text.slice(from, to).toLowerCase()))].filter(word => !/[Α-ωϕϵ]/.test(word)).slice(0, 8);
  const marks = words.length ? `?${new URLSearchParams({ marks: words.join(" ") })}` : "";
  return `${root}${section.page.address}${marks}#${section.anchor}`;
};
const PAGES = 8, PASSAGES = 3;
const draw = (list, results) => {
  const strongest = results[0]?.hits[0].score ?? 0;
  list.replaceChildren(...results.slice(0, PAGES).map(({ page, hits }, i) => {
    const strong = hits.filter(({ score }, j) => !j || score > 0.3 * strongest).map(hit => ({ hit, passage: passageOf(hit) }));
    // A chapter that is about it, but has the word elsewhere, is shown by the places that have it.
    const saying = strong.filter(({ hit, passage }) => passage.found.length || matching(hit.section.heading, hit.marks).length);
    const shown = (saying.length ? saying : strong).slice(0, i < 3 ? PASSAGES : 1);
    return h("li", {}, h("p", { class: "found-page" }, page.title), h("ul", {}, ...shown.map(({ hit, passage }) => {
      const heading = hit.section.heading === page.title ? [] : [h("strong", {}, ...marked(hit.section.heading, matching(hit.section.heading, hit.marks), 0, hit.section.heading.length))];
      return h("li", {}, h("a", { href: addressOf(hit, passage) }, ...heading, excerpt(passage)));
    })));
  }));
};

// The field, in its dialog or on the page of its own

const attach = form => {
  const input = form.querySelector("input"), found = form.parentElement.querySelector(".found");
  const status = found.querySelector("[role=status]"), list = found.querySelector("ol");
  const own = !dialog?.contains(form);
  const links = () => [...list.querySelectorAll("a")];
  let asked = null;
  const show = async () => {
    const query = input.value;
    if (asked === query) return;
    asked = query;
    if (own) history.replaceState(null, "", `?${new URLSearchParams({ q: query })}`);
    if (!query.trim()) { list.replaceChildren(); status.textContent = ""; return; }
    if (!index) status.textContent = "Fetching the index …";
    try { await fetched(); } catch {
      asked = null;
      status.textContent = "The index of the search did not come. Type on to try again.";
      return;
    }
    if (asked !== query) return;
    const results = search(query);
    draw(list, results);
    list.scrollTop = 0;
    const count = results.length;
    status.textContent = count ? `Found on ${count === 1 ? "one page" : `${count} pages`}${count > PAGES ? `; here are the ${PAGES} that say most` : ""}.`
      : "Nothing found. Try another word, or fewer.";
  };
  form.onsubmit = async event => {
    event.preventDefault();
    await show();
    links()[0]?.click();
  };
  input.oninput = show;
  if (!own) input.onfocus = () => fetched().catch(() => {});
  form.parentElement.addEventListener("keydown", event => {
    // A script of Sphinx's keeps the browser from closing it.
    if (event.key === "Escape" && !own) { event.preventDefault(); event.stopPropagation(); dialog.close(); }
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const all = [input, ...links()], at = all.indexOf(document.activeElement);
    if (at < 0) return;
    event.preventDefault();
    all[Math.max(0, Math.min(all.length - 1, at + (event.key === "ArrowDown" ? 1 : -1)))].focus();
  });
  // Another place of the same page needs no loading, but the dialog would stay.
  list.addEventListener("click", event => { if (event.target.closest("a") && !own) dialog.close(); });
  if (own) {
    input.value = new URLSearchParams(location.search).get("q") ?? "";
    show();
    input.focus();
    input.select();
  }
};
document.querySelectorAll("form.bd-search").forEach(attach);

// Ctrl-K is the theme's; beside it /, wherever one does not write.
addEventListener("keydown", event => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, textarea, select, [contenteditable]")) return;
  if (document.querySelector("dialog[open]")) return;
  event.preventDefault();
  const own = document.querySelector("main form.bd-search input");
  own ? own.focus() : dialog?.showModal();
});

// Where a result leads: the passage with most of the words, unfolded, in view, and only in it the words marked.

const PASSAGE = "p, li, td, th, tr, pre, figcaption, dd, dt, h1, h2, h3, h4";
const arrive = () => {
  const address = new URL(location.href), words = (address.searchParams.get("marks") ?? "").split(" ").filter(Boolean);
  if (!words.length) return;
  address.searchParams.delete("marks");
  history.replaceState(null, "", address);
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  const section = target.closest("section, dl, .citation") ?? target;
  const next = target.matches("dt") ? target.nextElementSibling : null;
  const whole = new RegExp(`(?<![\\p{L}\\p{N}])(?:${words.map(word => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})(?![\\p{L}\\p{N}])`, "giu");
  let best = null, most = 0;
  for (const block of (next ? [target, next] : [section]).flatMap(part => [part, ...part.querySelectorAll(PASSAGE)])) {
    if (!block.matches(PASSAGE) || block.matches("tr, li, dd") && block.querySelector("p, td")) continue;
    const kinds = new Set([...block.textContent.toLowerCase().matchAll(whole)].map(([word]) => word)).size;
    if (kinds > most) [best, most] = [block, kinds];
  }
  if (!best) return;
  for (let fold = best.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  best.closest(".admonition.toggle-hidden")?.querySelector("button.toggle-button")?.click();
  const texts = document.createTreeWalker(best, NodeFilter.SHOW_TEXT, node => node.parentElement.closest("math, script, style, .headerlink") ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT);
  const nodes = [];
  while (texts.nextNode()) nodes.push(texts.currentNode);
  for (const node of nodes) {
    const found = [...node.data.matchAll(whole)].map(({ 0: word, index: from }) => [from, from + word.length]);
    if (found.length) node.replaceWith(...marked(node.data, found, 0, node.data.length).map(part => part.classList?.add("found-word") ?? part));
  }
  best.scrollIntoView({ block: "center", behavior: "instant" });
};
// After the theme has made its folds.
addEventListener("load", arrive);

window.bookSearching = { fetched, search };
})();
