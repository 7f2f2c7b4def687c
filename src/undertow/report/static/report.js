"use strict";
(() => {
  const root = document.documentElement;
  const find = (selector, within = document) => [...within.querySelectorAll(selector)];
  const held = (id) => JSON.parse(document.getElementById(id).textContent);
  const config = held("config");

  // Theme: what the reader chose, else what the system says; a page may have no storage.
  const recall = () => { try { return localStorage.getItem("undertow-theme"); } catch { return null; } };
  const keep = (theme) => { try { localStorage.setItem("undertow-theme", theme); } catch { /* not kept */ } };
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const chosen = recall();
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
  const button = document.getElementById("theme");
  const tell = () => {
    button.setAttribute("aria-pressed", String(isDark()));
    button.textContent = isDark() ? "Light" : "Dark";
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    keep(root.dataset.theme);
    tell();
    redraw();
  });
  system.addEventListener("change", () => { tell(); redraw(); });
  tell();

  // Figures: drawn when they come in sight, in the ink of the theme.
  const drawn = new Map();
  const inked = (figure, width) => {
    const style = getComputedStyle(root);
    const ink = (name) => style.getPropertyValue(name).trim();
    const dark = printing ? false : isDark();
    const layout = structuredClone(figure.layout);
    layout.font = { ...layout.font, color: printing ? "#222" : ink("--soft") };
    layout.hoverlabel = {
      bgcolor: ink("--panel"), bordercolor: ink("--line"), align: "left",
      font: { color: ink("--ink"), size: 12 }, namelength: -1,
    };
    layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: ink("--soft"), activecolor: ink("--link") };
    for (const [name, axis] of Object.entries(layout)) {
      if (/^[xy]axis\d*$/.test(name)) axis.gridcolor = printing ? "#ddd" : ink("--grid");
    }
    const colors = layout.meta?.[dark ? "dark" : "light"];
    if (colors && layout.coloraxis) layout.coloraxis.colorscale = colors;
    if (width) Object.assign(layout, { width, height: Math.round(layout.height * 0.8) });
    return layout;
  };
  let printing = false;
  const draw = (place, width) => {
    try {
      const figure = drawn.get(place) ?? held(place.dataset.figure);
      if (!drawn.has(place)) place.replaceChildren();
      drawn.set(place, figure);
      const layout = inked(figure, width);
      Plotly.react(place, figure.data, layout, { ...config, responsive: !width, staticPlot: printing });
      place.style.minHeight = `${layout.height}px`;
    } catch (error) {
      const words = document.createElement("p");
      words.className = "empty";
      words.textContent = "This figure could not be drawn; its numbers are in the tables below.";
      place.replaceChildren(words);
      console.warn(error);
    }
  };
  const redraw = () => { for (const place of drawn.keys()) draw(place); };
  const watch = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting && !drawn.has(target)) draw(target);
    }
  }, { rootMargin: "600px" });
  const places = find("[data-figure]");
  places.forEach((place) => watch.observe(place));

  // Pages: the hash says where the reader is, so that back and forward work.
  const pages = find("[data-page]");
  const links = find("nav a");
  const named = (hash) => {
    try { return document.getElementById(decodeURIComponent(hash.slice(1)) || "glance"); } catch { return null; }
  };
  const show = () => {
    const found = named(location.hash);
    const target = found ?? pages[0];
    document.getElementById("lost").hidden = found !== null;
    if (target.id === "main") return;
    const page = target.closest("[data-page]") ?? pages[0];
    for (const each of pages) {
      if (each === page) each.removeAttribute("hidden");
      else each.setAttribute("hidden", "until-found");  // the browser's own search opens it
    }
    for (const link of links) {
      const here = found !== null && link.getAttribute("href") === `#${target.id}`;
      if (here) link.setAttribute("aria-current", "location");
      else link.removeAttribute("aria-current");
    }
    for (let fold = target; fold; fold = fold.parentElement?.closest("details")) {
      if (fold.tagName === "DETAILS") fold.open = true;
    }
    if (target === page) scrollTo(0, 0);
    else target.scrollIntoView();
  };
  addEventListener("hashchange", show);
  for (const page of pages) {
    page.addEventListener("beforematch", () => { history.pushState(null, "", `#${page.id}`); show(); });
  }
  show();

  // Print: every page, every figure, on white and as wide as the paper; of what is folded that
  // which stands nowhere else.
  let closed = [];
  addEventListener("beforeprint", () => {
    printing = true;
    closed = find("details.printed:not([open])");
    for (const fold of closed) fold.open = true;
    for (const page of pages) page.removeAttribute("hidden");
    for (const place of places) draw(place, 660);
  });
  addEventListener("afterprint", () => {
    printing = false;
    for (const fold of closed) fold.open = false;
    show();
    redraw();
  });

  // Downloads: the page holds each table once, as CSV; JSON is made of it.
  const records = (text) => {
    const rows = [[]];
    let value = "", quoted = false, was = false;
    for (let i = 0; i < text.length; i += 1) {
      const c = text[i];
      if (quoted) {
        if (c !== '"') value += c;
        else if (text[i + 1] === '"') { value += c; i += 1; }
        else quoted = false;
      } else if (c === '"') { quoted = true; was = true; }
      else if (c === "," || c === "\n") {
        rows.at(-1).push(value === "" && !was ? null : value);
        value = ""; was = false;
        if (c === "\n") rows.push([]);
      } else value += c;
    }
    return rows.filter((row) => row.length);
  };
  const typed = (value, kind) => {
    if (value === null || kind === "text") return value;
    if (kind === "flag") return value === "true";
    return Number.isFinite(Number(value)) ? Number(value) : null;
  };
  const json = ({ csv, kinds }) => {
    const [head, ...rows] = records(csv);
    const plain = rows.map((row) => Object.fromEntries(row.map((v, i) => [head[i], typed(v, kinds[i])])));
    return JSON.stringify(plain, null, 1);
  };
  document.addEventListener("click", (event) => {
    const from = event.target.closest?.("[data-from]");
    if (!from) return;
    const table = held(from.dataset.from);
    const kind = from.dataset.as;
    const text = kind === "csv" ? table.csv : json(table);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: kind === "csv" ? "text/csv" : "application/json" }));
    link.download = `${from.dataset.name.replace(/[^\w.-]+/g, "-")}.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
})();
