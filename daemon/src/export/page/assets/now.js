// The first view: what the machine draws, what it is made of, and who is charged for it.
const choice = { kind: null, by: "power", up: false, find: "" };
const big = (micro, estimated) => {
  if (micro === null) return ["–"];
  const [number, unit] = parts(micro / 1e6, "W");
  return [`${estimated ? "≈" : ""}${number}`, el("span", { class: "u" }, unit)];
};
// What the curves lack, and since when.
const lackOf = () => (state.lack ? `From ${clock(state.lack.since, false)} on ${without(state.lack.what)}` : "");
const hero = () => {
  const curve = bigCurve("Power of this machine");
  const figure = el("p", { class: "big" });
  const sub = el("p", { class: "sub" });
  const lack = el("p", { class: "lack" });
  const node = el("section", { class: "hero", "aria-label": "This machine" },
    el("div", { class: "figure" }, el("h1", {}, "This machine draws"), figure, sub), el("div", {}, curve.node, lack));
  const update = () => {
    const { head, all } = state;
    figure.replaceChildren(...big(head.power, head.estimated));
    const missing = without(head.missing);
    const between = interval(head.bounds);
    setText(sub, `${head.words}${missing ? `, ${missing}` : ""} · ${head.quality ?? "not measured"}${between ? `, ${between}` : ""}`);
    setText(lack, lackOf());
    lack.hidden = !state.lack;
    const minutes = all.points * all.step;
    curve.draw(state.machine[0], state.machine[1], clock(state.at - minutes * 1000), clock(state.at));
  };
  return { node, update };
};
const factsOf = (pairs) => el("dl", { class: "facts" }, pairs.filter(Boolean).map(([name, value, index]) =>
  el("div", {}, el("dt", {}, index === undefined ? null : key(index), name), el("dd", {}, value))));
const makeup = () => {
  const node = el("div", {});
  let was = "";
  const update = () => {
    const { head } = state;
    const is = JSON.stringify(head);
    if (is === was) return;
    was = is;
    const zones = head.zones.filter((zone) => zone.billed && zone.power !== null);
    const amount = (power, bounds, estimated) => [marked(watts(power), estimated), small(interval(bounds))];
    const use = [["Charged", head.charged, 0, head.charged_bounds], ["Idle", head.idle, 4, head.idle_bounds], ["Unattributed", head.unattributed, 3, head.unattributed_bounds]];
    const known = use.filter(([, power]) => power !== null);
    node.replaceChildren(
      el("div", { class: "bars" },
        stack("Zones", zones.map((zone) => ({ name: zone.zone, value: zone.power }))),
        factsOf(zones.map((zone, at) => [zone.zone, amount(zone.power, zone.bounds, zone.quality === "estimated"), at]))),
      el("div", { class: "bars" },
        stack("Use", known.map(([name, value, color]) => ({ name, value, color }))),
        factsOf([...known.map(([name, power, color, bounds]) => [name, amount(power, bounds, head.estimated), color]),
          head.cpu !== null && ["CPUs busy", `${(head.cpu * 100).toFixed(0)}${NBSP}%`],
          ["Energy so far", marked(energy(head.energy[0]), head.estimated)]])),
      ...head.warnings.map((words) => el("p", { class: "warning" }, safe(words))),
      head.unwell > 0 ? el("p", { class: "note" }, el("a", { href: "#/meters" }, `${head.unwell} ${head.unwell > 1 ? "sources are" : "source is"} degraded or failed: see why`)) : "",
      el("p", { class: "note" }, safe(head.lacks)));
  };
  return { node, update };
};
const nowView = (live) => {
  const [top, parts2] = [hero(), makeup()];
  const tabs = el("div", { class: "tabs", role: "tablist", "aria-label": "Kinds" });
  const find = el("input", { type: "search", placeholder: "Filter by name", "aria-label": "Filter by name", value: choice.find });
  const panel = el("div", { role: "tabpanel", id: "panel", tabindex: "-1" });
  const node = el("div", {}, top.node, parts2.node, el("div", { class: "tools" }, tabs, find), panel);
  let rows = null;
  let made = "";
  const counts = new Map();
  const choose = (kind, focus) => {
    choice.kind = kind;
    if (rows) rows.end();
    rows = kindTable(choice, live);
    panel.replaceChildren(rows.node);
    panel.setAttribute("aria-label", many(kind));
    drawTabs(true);
    rows.update(true);
    if (focus) tabs.querySelector("[aria-selected=true]").focus();
  };
  const drawTabs = (anew) => {
    const kinds = state.all.kinds.filter((kind) => kind === choice.kind || counts.has(kind));
    const is = kinds.join() + choice.kind;
    if (anew || is !== made) {
      made = is;
      tabs.replaceChildren(...kinds.map((kind) =>
        el("button", { type: "button", role: "tab", class: "tab", "aria-controls": "panel", "data-kind": kind, "aria-selected": String(kind === choice.kind), tabindex: kind === choice.kind ? "0" : "-1", onclick: () => choose(kind, true) },
          many(kind), el("small"))));
    }
    for (const tab of tabs.children) setText(tab.lastChild, String(counts.get(tab.dataset.kind) ?? 0));
  };
  tabs.addEventListener("keydown", (event) => {
    const all = [...tabs.children];
    const at = all.findIndex((tab) => tab.dataset.kind === choice.kind);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(all[(to + all.length) % all.length].dataset.kind, true);
  });
  find.addEventListener("input", () => {
    choice.find = find.value;
    rows.update(true);
  });
  const update = (all) => {
    counts.clear();
    for (const row of state.rows.values()) counts.set(row.kind, (counts.get(row.kind) ?? 0) + 1);
    if (!state.all.kinds.includes(choice.kind)) choice.kind = null;
    top.update();
    parts2.update();
    if (!choice.kind || !rows) {
      const asked = new URLSearchParams(location.search).get("kind");
      const busy = ["tenant", "container", "vm", "unit", "process"].filter((kind) => counts.has(kind));
      const first = choice.kind ?? (state.all.kinds.includes(asked) ? asked : busy.includes("unit") || (!busy.length && state.all.kinds.includes("unit")) ? "unit" : busy[0] ?? state.all.kinds[0]);
      if (first) choose(first);
    } else {
      drawTabs(false);
      rows.update(all);
    }
  };
  return { title: "Now", node, update, end: () => rows?.end() };
};
