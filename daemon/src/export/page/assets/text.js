// Elements, quantities and times. Names of strangers go into text nodes only.
const el = (tag, of = {}, ...within) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(of)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...within.flat(9).filter((one) => one !== null && one !== undefined && one !== false && one !== ""));
  return node;
};
const SVG = "http://www.w3.org/2000/svg";
const svg = (tag, of = {}, ...within) => {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(of)) node.setAttribute(name, value);
  node.append(...within);
  return node;
};
const setText = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};
// What acts without being seen is shown by its code; jouled has done so already, this is for what it has not.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb]/g;
const safe = (text) => {
  const shown = String(text).replace(HIDDEN, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
  return shown.length > 520 ? `${shown.slice(0, 519)}…` : shown;
};

// An id of a container in a name: its first letters say which one it is.
const brief = (text) => text.replace(/[0-9a-f]{32,}/g, (id) => `${id.slice(0, 12)}…`);
const ago = (seconds) => (seconds === null || seconds === undefined ? "never" : seconds < 1.5 ? "now" : `${span(seconds)}${NBSP}ago`);

// Three significant digits with the prefix that fits, as joulectl writes them.
const PREFIXES = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"]];
const parts = (value, unit) => {
  const fits = PREFIXES.find(([scale]) => value >= scale * 0.9995);
  if (!fits) return ["0", unit];
  const scaled = value / fits[0];
  return [scaled.toFixed(scaled < 9.995 ? 2 : scaled < 99.95 ? 1 : 0), fits[1] + unit];
};
const NBSP = "\u00a0";
const watts = (micro) => (micro === null || micro === undefined ? "–" : parts(micro / 1e6, "W").join(NBSP));
// Joules up to a megajoule, then kilowatt hours.
const energy = (micro) => {
  if (micro === null || micro === undefined) return "–";
  return (micro < 3.6e12 ? parts(micro / 1e6, "J") : parts(micro / 3.6e9, "Wh")).join(NBSP);
};
const marked = (text, estimated) => (estimated && text !== "–" ? `≈${NBSP}${text}` : text);
const share = (part, whole) => (whole > 0 ? `${((part / whole) * 100).toFixed(1)}${NBSP}%` : "–");
// Both ends of an interval, with one unit where it is the same.
const interval = (bounds) => {
  if (!bounds) return "";
  const [low, high] = bounds.map((end) => parts(end / 1e6, "W"));
  return `${low[1] === high[1] ? low[0] : low.join(NBSP)}${NBSP}to${NBSP}${high.join(NBSP)}`;
};
const small = (text) => (text ? el("small", {}, ` ${text}`) : null);
const without = (names) => (names.length ? `without ${safe(names.join(", "))}: no value now` : "");
const span = (seconds) => {
  if (seconds === null || seconds === undefined) return "never";
  if (seconds < 10) return `${seconds.toFixed(1)}${NBSP}s`;
  if (seconds < 60) return `${Math.floor(seconds)}${NBSP}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}${NBSP}min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)}${NBSP}h ${Math.floor((seconds / 60) % 60)}${NBSP}min`;
  return `${Math.floor(seconds / 86400)}${NBSP}d ${Math.floor((seconds / 3600) % 24)}${NBSP}h`;
};
const clock = (ms, seconds = true) =>
  new Date(ms).toLocaleTimeString(undefined, seconds ? {} : { hour: "2-digit", minute: "2-digit" });
const dateTime = (ms) => new Date(ms).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
const MANY = { unit: "Units", container: "Containers", pod: "Pods", vm: "VMs", user: "Users", job: "Jobs", "job-step": "Job steps", tenant: "Tenants", process: "Processes", "user-unit": "User units", slice: "Slices", session: "Sessions" };
const ONE = { "job-step": "Job step", "user-unit": "User unit", vm: "VM" };
const many = (kind) => MANY[kind] ?? kind;
const one = (kind) => ONE[kind] ?? kind[0].toUpperCase() + kind.slice(1);
// A reason, with a link to the row of the troubleshooting page that explains it.
const reason = (why, row) =>
  !why ? null : row ? el("a", { href: `/troubleshooting#${row}` }, safe(why)) : el("span", {}, safe(why));
const table = (heads, rows, label) =>
  el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": label },
    el("table", { class: "data" },
      el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col", class: head[0] === ">" ? "n" : null }, head.replace(/^>/, ""))))),
      el("tbody", {}, rows.map((cells) =>
        el("tr", {}, cells.map((cell, at) =>
          at === 0 ? el("th", { scope: "row" }, cell ?? "–") : el("td", { class: heads[at][0] === ">" ? "n" : null }, cell ?? "–")))))));
