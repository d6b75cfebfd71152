// The address of a row is its kind and name: numbers of rows are others after a restart of jouled. Of rows with the same
// name the note tells which.
const linkTo = (row) => `#/row/${row.kind}/${encodeURIComponent(safe(row.name))}${row.note ? `/${encodeURIComponent(safe(row.note))}` : ""}`;
const decoded = (word) => {
  try {
    return decodeURIComponent(word ?? "");
  } catch {
    return word;
  }
};
const rowAt = (hash) => {
  const [, , kind, ...words] = hash.split("/");
  const [name, note] = words.map(decoded);
  const all = ofKind(kind).filter((row) => row.name === name);
  return all.find((row) => row.note === note && !row.ended) ?? all.find((row) => row.note === note) ?? all.find((row) => !row.ended) ?? all[0];
};
// One row's own page: curve, zones and modes, since when, what it belongs to and what belongs to it.
const rowView = (hash) => {
  const node = el("div", {});
  const curve = bigCurve("Power");
  const figure = el("p", { class: "big" });
  const [title, kind, sub, lack, rest] = [el("h1", { class: "title" }), el("p", { class: "kind" }), el("p", { class: "sub" }), el("p", { class: "lack" }), el("div")];
  const exact = el("code", { class: "exact", hidden: true });
  let asked = -1;
  const shell = [el("p", { class: "crumbs" }, el("a", { href: "#/" }, "← All")), title, exact,
    el("section", { class: "hero" }, el("div", { class: "figure" }, kind, figure, sub), el("div", {}, curve.node, lack)), rest];
  const none = el("p", { class: "note" }, "This is not among the rows now: it ended some time ago, or has drawn no energy since jouled was started.");
  node.append(...shell, none);
  const list = (heading, rows, more = 0) =>
    rows.length === 0 ? "" : el("section", {}, el("h2", {}, heading), table(["Kind", "Name", ">Power", ">Energy"], rows.map((row) => [
      one(row.kind), row.id === null ? brief(safe(row.shown ?? row.name)) : el("a", { href: linkTo(row) }, brief(safe(row.shown ?? row.name))),
      [marked(watts(row.power), state.head.estimated), small(interval(row.bounds))], marked(energy(row.energy), state.head.estimated)]), heading),
      more > 0 ? el("p", { class: "note" }, `${more.toLocaleString()} more with less power.`) : "");
  const fill = (said) => {
    const estimated = state.head.estimated;
    const zones = said.zones.filter((zone) => zone.power + zone.idle + zone.energy + zone.idleEnergy > 0 || zone.billed);
    const has = (field) => zones.some((zone) => zone[field] > 0);
    const heads = ["Zone", ">Own work", has("idle") ? ">Idle part" : null, zones.some((zone) => zone.bounds) ? ">Interval" : null, ">Energy of own work", has("idleEnergy") ? ">Idle energy" : null, "Quality"];
    const cell = (zone) => {
      const guess = zone.quality === "estimated";
      return [zone.billed ? zone.zone : `${zone.zone} (not in the sum)`, marked(watts(zone.power), guess), marked(watts(zone.idle), guess),
        interval(zone.bounds), marked(energy(zone.energy), guess), marked(energy(zone.idleEnergy), guess), zone.quality];
    };
    const kept = heads.map((head) => head !== null);
    const keep = (cells) => cells.filter((_, at) => kept[at]);
    const used = [["CPU time", span(said.cpu)], said.cycles !== null && ["Cycles", said.cycles.toLocaleString()],
      said.instructions !== null && ["Instructions", said.instructions.toLocaleString()], said.misses !== null && ["Cache misses", said.misses.toLocaleString()]];
    const between = interval(said.bounds);
    setText(sub, `${between ? `${between} · ` : ""}${marked(energy(said.energy), estimated)} since ${dateTime(said.since)}${said.ended ? ", ended" : ""}`);
    const guest = said.guest;
    rest.replaceChildren(
      el("h2", {}, "By zone"), table(keep(heads), zones.map((zone) => keep(cell(zone))), "Zones"),
      factsOf(used),
      guest ? el("section", {}, el("h2", {}, "Guest channel"), factsOf([["Channel", guest.channel || "none"], ["Profile", guest.profile], ["Last read", ago(guest.served_seconds_ago)], ["Requests", guest.requests.toLocaleString()], ["Refused", String(guest.refused)]])) : "",
      list("Belongs to", said.in), list("Contains", said.of, said.more),
      el("h2", {}, "Labels"), table(["Label", "Value"], [...said.labels, ...said.details].map(([name, value]) => [safe(name), safe(value)]), "Labels"));
  };
  const ask = async (id) => {
    // The lists below may have the keyboard's attention or a selection: they are then left as they are.
    if (state.tick - asked < 3 && asked >= 0 && state.tick >= asked) return;
    if (rest.contains(document.activeElement) || (!getSelection().isCollapsed && rest.contains(getSelection().anchorNode))) return;
    asked = state.tick;
    try {
      const answer = await fetch(`/v1/page/row?life=${state.all.life}&id=${id}`);
      if (answer.ok) fill(await answer.json());
    } catch {
      asked = -1;
    }
  };
  const update = () => {
    const row = rowAt(hash);
    shell[3].hidden = shell[4].hidden = !row;
    setText(lack, lackOf());
    lack.hidden = !state.lack;
    none.hidden = row !== undefined;
    if (!row) return setText(title, decoded(hash.split("/")[3]).slice(0, 520));
    setText(title, brief(row.shown));
    setText(exact, row.shown === row.name ? "" : row.name);
    exact.hidden = row.shown === row.name;
    setText(kind, row.ended ? `${one(row.kind)}, which has ended` : `${one(row.kind)} draws`);
    figure.replaceChildren(...big(row.power, state.head.estimated));
    wantCurve(row);
    if (row.curve) curve.draw(row.curve, null, clock(state.at - state.all.points * state.all.step * 1000), clock(state.at));
    ask(row.id);
  };
  return { title: safe(decoded(hash.split("/")[3])), node, update, end: () => {} };
};
