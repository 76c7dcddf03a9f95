// An interactive figure is its picture until it is about to come into view.
const near = new IntersectionObserver(entries => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    target.append(Object.assign(document.createElement("script"), { src: target.dataset.script }));
  }
}, { rootMargin: "400px" });
for (const figure of document.querySelectorAll("[data-script]")) near.observe(figure);

// What scrolls in its own box can be reached by keyboard. What lies in a fold gets its size when that is opened; the theme,
// which knows only lines of code, does not look again then.
const sized = new ResizeObserver(entries => {
  for (const { target: box } of entries)
    box.tabIndex = box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1 ? 0 : -1;
});
const BOXES = "div.math, .bd-article .pst-scrollable-table-container, .bd-article table, .bd-article pre, figure.align-default";
for (const box of document.querySelectorAll(BOXES)) sized.observe(box);

// The film of the landing page: all frames one below the other in one picture, its last one in the page.
const HOLD = 22, PACE = 110;
const play = figure => {
  const still = figure.querySelector("img"), frames = +figure.dataset.frames;
  const [width, height] = ["width", "height"].map(name => +still.getAttribute(name));
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", still.alt);
  const button = Object.assign(document.createElement("button"), { type: "button" });
  const pen = canvas.getContext("2d"), sheet = new Image();
  let at = 0, timer = null;
  const draw = () => at < frames - 1 ? pen.drawImage(sheet, 0, -height * at) : pen.drawImage(still, 0, 0, width, height);
  const turn = on => {
    clearInterval(timer);
    timer = on ? setInterval(() => { at = (at + 1) % (frames + HOLD); draw(); }, PACE) : null;
    button.textContent = on ? "❚❚ pause" : "▶ play";
    figure.dataset.playing = on;
  };
  button.onclick = () => {
    if (!timer && at >= frames - 1) at = 0;
    turn(!timer);
  };
  sheet.onload = () => {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    at = calm ? frames - 1 : 0;
    draw();
    still.after(canvas, button);
    still.classList.add("printed");
    turn(!calm);
  };
  sheet.src = figure.dataset.film;
};
document.querySelectorAll("[data-film]").forEach(play);

// Paper is white, whatever the screen is.
const page = document.documentElement;
let theme;
addEventListener("beforeprint", () => { theme = page.dataset.theme; page.dataset.theme = "light"; });
addEventListener("afterprint", () => { page.dataset.theme = theme; });

// A link to another place of the page leads there, and the drawer that it was found in closes.
for (const drawer of document.querySelectorAll("dialog[id$=sidebar-modal]"))
  drawer.addEventListener("click", event => { if (event.target.closest("a[href^='#']")) drawer.close(); });
