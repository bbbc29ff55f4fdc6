
"use strict";
(() => {
  // The page says everything without this script. It finds paths, and opens what a link leads to.
  const MOST = 100;
  const all = (selector, from = document) => Array.from(from.querySelectorAll(selector));
  let chosen = [];

  // Shows an element: opens what it is in, marks it and moves the focus to it.
  function show(element, nodes = []) {
    for (let up = element; up; up = up.parentElement) {
      if (up.tagName === "DETAILS") up.open = true;
    }
    chosen.forEach((old) => old.classList.remove("chosen"));
    chosen = [element, ...nodes];
    chosen.forEach((each) => each.classList.add("chosen"));
    element.tabIndex = -1;
    element.focus({ preventScroll: true });
    element.scrollIntoView({ block: element.tagName === "LI" ? "center" : "start" });
  }

  // A link to a task opens what the task changed.
  function follow(hash) {
    const task = hash.length > 1 && document.getElementById(decodeURIComponent(hash.slice(1)));
    if (!task || !task.matches("article.task")) return false;
    all("details.paths", task).slice(0, 1).forEach((paths) => { paths.open = true; });
    show(task, all("a.node").filter((node) => node.getAttribute("href") === hash));
    return true;
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    const hash = link && link.getAttribute("href");
    if (hash && follow(hash)) {
      event.preventDefault();
      history.replaceState(null, "", hash);
    }
  });
  window.addEventListener("hashchange", () => follow(location.hash));
  follow(location.hash);

  // Every path that the page lists, made when it is first asked for.
  let paths = null;
  function collect() {
    paths = [];
    const walk = (list, before, of) => {
      for (const item of list.children) {
        const code = item.querySelector(":scope > code, :scope > details > summary > code");
        if (!code) continue;
        const path = before + code.textContent;
        const what = code.nextElementSibling ? code.nextElementSibling.textContent : "";
        paths.push({ item, path, of, what, key: (path + " " + of).toLowerCase() });
        const inner = item.querySelector(":scope > details > ul");
        if (inner) walk(inner, path, of);
      }
    };
    all("ul.tree").forEach((tree) => walk(tree, "", tree.dataset.of));
  }

  const section = document.getElementById("search");
  if (!section) return;
  section.hidden = false;
  const query = document.getElementById("query");
  const found = document.getElementById("found");
  const results = document.getElementById("results");
  const isCut = all(".tree .more").length > 0;

  function search() {
    if (!paths) collect();
    const words = query.value.toLowerCase().split(/\s+/).filter((word) => word);
    results.replaceChildren();
    found.textContent = "";
    if (!words.length) return;
    const hits = paths.filter(({ key }) => words.every((word) => key.includes(word)));
    const first = hits.length > MOST ? ", the first " + MOST + " are shown" : "";
    const cut = isCut ? "; not every path is listed on this page" : "";
    found.textContent = (hits.length === 1 ? "1 path" : hits.length + " paths") + first + cut;
    results.append(...hits.slice(0, MOST).map((hit) => {
      const [item, link, path, what] = ["li", "a", "code", "span"].map((name) => document.createElement(name));
      link.href = "#";
      path.textContent = hit.path;
      what.textContent = hit.of + " · " + hit.what;
      link.append(path, what);
      link.addEventListener("click", (event) => {
        event.preventDefault();
        show(hit.item);
      });
      item.append(link);
      return item;
    }));
  }
  let timer = 0;
  query.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(search, 80);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && event.target !== query) {
      event.preventDefault();
      query.focus();
    }
  });
})();
