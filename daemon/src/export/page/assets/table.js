// The table of a kind: sortable, filtered by name, and only the rows in view exist.
const ROW = 40;
const COLUMNS = [
  { key: "name", title: "Name", text: (row) => row.name },
  { key: "", title: "Minutes" },
  { key: "power", title: "Power", n: true },
  { key: "share", title: "Share", n: true, by: "power" },
  { key: "energy", title: "Energy", n: true },
];
// What of a kind has no row here.
const remark = (kind) => {
  const [cut, rest] = state.others[kind] ?? [0, 0];
  const words = cut > 0 ? [`${cut.toLocaleString()} more, with less energy, are not shown here: joulectl list ${kind} and /metrics have them.`] : [];
  if (rest > 0) words.push(`${many(kind)} without a row of their own draw ${marked(watts(rest), state.head.estimated)} together.`);
  return words.join(" ");
};
const kindTable = (choice, live) => {
  const heads = COLUMNS.map((column) => {
    const attributes = { role: "columnheader", class: column.n ? "n" : null };
    if (!column.key) return el("div", attributes, el("small", {}, column.title));
    return el("div", attributes, el("button", { type: "button", onclick: () => sortBy(column.by ?? column.key) }, column.title));
  });
  const head = el("div", { class: "gridhead", role: "row" }, heads);
  const body = el("div", { class: "grid", role: "rowgroup" });
  const grid = el("div", { role: "table", "aria-label": many(choice.kind) }, el("div", { role: "rowgroup" }, head), body);
  const view = el("div", { class: "viewport", tabindex: "0", role: "region", "aria-label": `${many(choice.kind)}, scrolls` }, grid);
  const empty = el("p", { class: "empty" });
  const more = el("p", { class: "note" });
  const node = el("div", {}, view, empty, more);
  const shown = new Map();
  let rows = [];
  const sortBy = (by) => {
    choice.up = choice.by === by ? !choice.up : by === "name";
    choice.by = by;
    update(true);
    live(`sorted by ${by}, ${choice.up ? "ascending" : "descending"}`);
  };
  const make = (row) => {
    const curve = spark();
    const link = el("a", { href: linkTo(row) });
    const note = el("small");
    const [power, between] = [el("span"), el("small")];
    const numbers = [el("div", { role: "cell", class: "n" }, power, between), ...[0, 1].map(() => el("div", { role: "cell", class: "n" }))];
    const line = el("div", { class: "gridrow", role: "row" },
      el("div", { role: "rowheader", class: "name" }, link, note), el("div", { role: "cell" }, curve.node), numbers);
    return { line, link, note, curve, power, between, numbers };
  };
  const fill = (made, row, at) => {
    setText(made.link, row.ended ? `${brief(row.shown)} (ended)` : brief(row.shown));
    setText(made.note, row.note);
    made.link.title = row.note ? `${row.name} · ${row.note}` : row.name;
    made.line.className = row.ended ? "gridrow ended" : "gridrow";
    made.line.style.top = `${at * ROW}px`;
    made.line.setAttribute("aria-rowindex", at + 2);
    const estimated = state.head.estimated;
    setText(made.power, marked(watts(row.power), estimated));
    setText(made.between, interval(row.bounds));
    setText(made.numbers[1], share(row.power, state.head.power ?? 0));
    setText(made.numbers[2], marked(energy(row.energy), estimated));
    wantCurve(row);
    made.curve.draw(row.curve);
  };
  const compare = (a, b) => {
    const way = choice.up ? 1 : -1;
    if (choice.by === "name") return way * a.name.localeCompare(b.name, undefined, { numeric: true });
    return way * (a[choice.by] - b[choice.by]) || b.energy - a.energy || a.id - b.id;
  };
  const draw = () => {
    const own = view.scrollHeight > view.clientHeight + 2 && getComputedStyle(view).overflowY !== "visible";
    const top = own ? view.scrollTop - head.offsetHeight : -body.getBoundingClientRect().top;
    const height = own ? view.clientHeight : innerHeight;
    const first = Math.max(0, Math.floor(top / ROW) - 6);
    const last = Math.min(rows.length, Math.ceil((top + height) / ROW) + 6);
    const here = new Set();
    for (let at = first; at < last; at++) {
      const row = rows[at];
      here.add(row.id);
      let made = shown.get(row.id);
      if (!made) {
        made = make(row);
        shown.set(row.id, made);
        body.append(made.line);
      }
      fill(made, row, at);
    }
    for (const [id, made] of shown) {
      if (!here.has(id) && !made.line.contains(document.activeElement)) {
        made.line.remove();
        shown.delete(id);
      }
    }
  };
  // A row that has the keyboard's or the mouse's attention does not jump away.
  let sorted = 0;
  const update = (now = false) => {
    const find = choice.find.trim().toLowerCase();
    const calm = !now && (view.matches(":hover") || view.contains(document.activeElement)) && performance.now() - sorted < 5_000;
    if (calm) {
      rows = rows.filter((row) => state.rows.get(row.id) === row);
    } else {
      rows = ofKind(choice.kind).filter((row) => !find || row.find.includes(find)).sort(compare);
      sorted = performance.now();
    }
    body.style.height = `${rows.length * ROW}px`;
    grid.setAttribute("aria-rowcount", rows.length + 1);
    COLUMNS.forEach((column, at) => {
      if (!column.key) return;
      const is = choice.by === column.key;
      heads[at].setAttribute("aria-sort", is ? (choice.up ? "ascending" : "descending") : "none");
    });
    setText(empty, rows.length ? "" : find ? "No name has these letters." : "Nothing is charged here yet.");
    empty.hidden = rows.length > 0;
    view.hidden = rows.length === 0;
    setText(more, remark(choice.kind));
    more.hidden = more.textContent === "";
    draw();
  };
  view.addEventListener("scroll", draw, { passive: true });
  addEventListener("scroll", draw, { passive: true });
  addEventListener("resize", draw);
  const end = () => {
    removeEventListener("scroll", draw);
    removeEventListener("resize", draw);
  };
  return { node, update, end };
};
