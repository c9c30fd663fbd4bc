// New results without a reload: the page asks for itself again, and takes over what is different. A page that was put
// to sleep, or whose server was away, just goes on asking.

const PAUSE = 3000;

export function startLive(changed) {
  const { tag: first, retry } = document.body.dataset;
  if (!location.protocol.startsWith("http") || (!first && !retry)) return;
  let tag = first;
  let timer = null;

  async function look() {
    clearTimeout(timer);
    if (document.hidden) return;
    try {
      const answer = await fetch(location.href, { headers: tag ? { "If-None-Match": `"${tag}"` } : {}, cache: "no-store" });
      if (answer.ok && retry) location.reload();
      else if (answer.ok) {
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        tag = fresh.body.dataset.tag;
        takeOver(fresh);
        changed();
      }
      tell(answer.ok || answer.status === 304 ? "" : "The store cannot be read at the moment");
    } catch {
      tell("No connection to the server");
    }
    clearTimeout(timer);
    timer = setTimeout(look, PAUSE);
  }

  document.addEventListener("visibilitychange", look);
  document.addEventListener("look", look);
  timer = setTimeout(look, PAUSE);
}

function tell(text) {
  const place = document.getElementById("live");
  place.textContent = text;
  place.hidden = !text;
}

// What a reader has opened, marked, scrolled to or begun to type stays; a chart that shows the same is not drawn again.
function takeOver(fresh) {
  const main = document.getElementById("main");
  const open = new Map([...main.querySelectorAll("details[id]")].map((one) => [one.id, one.open]));
  const marked = new Set([...main.querySelectorAll("[name=with]:checked")].map((box) => box.value));
  const scrolled = [...main.querySelectorAll(".scroll")].map((one) => [one.scrollLeft, one.scrollTop]);
  const charts = new Map([...main.querySelectorAll(".chart")].map((chart) => [dataOf(chart), chart]));
  const rows = new Map([...main.querySelectorAll(".entry")].map((row) => [row.dataset.id, row.textContent]));
  const focused = main.contains(document.activeElement) ? selectorOf(document.activeElement) : "";

  document.title = fresh.title;
  main.replaceChildren(...document.importNode(fresh.getElementById("main"), true).childNodes);

  for (const [id, isOpen] of open) {
    const details = document.getElementById(id);
    if (details) details.open = isOpen;
  }
  for (const box of main.querySelectorAll("[name=with]")) box.checked = marked.has(box.value);
  for (const chart of main.querySelectorAll(".chart")) {
    const same = charts.get(dataOf(chart));
    if (same) chart.replaceWith(same);
  }
  for (const row of main.querySelectorAll(".entry")) {
    row.classList.toggle("is-new", rows.get(row.dataset.id) !== row.textContent);
  }
  for (const [place, one] of [...main.querySelectorAll(".scroll")].entries()) {
    if (scrolled[place]) [one.scrollLeft, one.scrollTop] = scrolled[place];
  }
  if (focused) main.querySelector(focused)?.focus({ preventScroll: true });
}

function dataOf(chart) {
  return chart.dataset.source ?? chart.querySelector("script").textContent;
}

function selectorOf(element) {
  const [name, value] = [element.getAttribute("name"), element.getAttribute("value")];
  if (name) return `[name="${CSS.escape(name)}"]${value ? `[value="${CSS.escape(value)}"]` : ""}`;
  if (element.id) return `#${CSS.escape(element.id)}`;
  const head = element.closest("th[data-key]");
  if (head) return `th[data-key="${CSS.escape(head.dataset.key)}"] button`;
  const address = element.getAttribute("href");
  return address ? `a[href="${CSS.escape(address)}"]` : "";
}
