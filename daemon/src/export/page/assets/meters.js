// What is measured by what, what is believed and why; the state of each source; guests.
const asker = (path, fill, every = 1) => {
  let last = -1;
  return async () => {
    if (state.tick - last < every && last >= 0 && state.tick >= last) return;
    last = state.tick;
    try {
      const answer = await fetch(path);
      if (answer.ok) fill(await answer.json());
    } catch {
      last = -1;
    }
  };
};
const pill = (word) => el("span", { class: `state ${String(word).split(" ")[0]}` }, word);
const metersView = () => {
  const node = el("div", {}, el("h1", { class: "title" }, "Meters"), el("p", { class: "note" }, "Reading …"));
  let was = "";
  const fill = (said) => {
    const is = JSON.stringify([said.domains.map((one) => [one.power, one.why, one.use]), said.sources.map((one) => [one.state, one.why]), Math.floor(said.ticks / 5)]);
    if (is === was || node.contains(document.activeElement)) return;
    was = is;
    const domains = said.domains.map((one) => [
      [el("div", {}, safe(one.domain)), el("small", {}, safe(one.source))], safe(one.sees), safe(one.contains), safe(one.use),
      [marked(watts(one.power), one.quality === "estimated"), small(interval(one.bounds))],
      one.floor === null ? "–" : [`${watts(one.floor)}${one.floorError ? ` ± ${watts(one.floorError)}` : ""} `, el("small", {}, one.guess ? "guess" : one.floorFrom)],
      [one.verdict ? pill(one.verdict) : "–", one.why ? " " : "", reason(one.why, one.row)],
      safe(one.accuracy), ago(one.age)]);
    const sources = said.sources.map((one) => [
      [el("div", {}, safe(one.source)), el("small", {}, one.role)], pill(one.state),
      [safe(one.detail), one.detail && one.why ? "; " : "", reason(one.why, one.row)], one.age === null ? "–" : ago(one.age)]);
    const counted = ["cycles", "instructions", "cache misses"].filter((_, at) => said.counted[at]);
    const factors = said.factors ?? [];
    node.replaceChildren(el("h1", { class: "title" }, "Meters"),
      said.domains.length ? table(["Domain", "Sees", "Contains", "Used for", ">Power", "Idle floor", "Verdict", "Accuracy", "Last read"], domains, "Energy domains")
        : el("p", { class: "warning" }, "No meter works on this machine."),
      el("p", { class: "note" }, safe(said.platform)),
      ...said.comparisons.map((one) => el("p", { class: one.agrees ? "note" : "warning" }, safe(one.says))),
      ...said.unmetered.map((gpu) => el("p", { class: "note" }, `GPU ${safe(gpu)} is passed through to a VM and has no meter: its energy is in other.`)),
      el("h2", {}, "Sources"), table(["Source", "State", "What, why", "Last read"], sources, "Sources"),
      el("h2", {}, "jouled itself"),
      factsOf([["Ticks", said.ticks.toLocaleString()], ["One every", span(said.interval)], ["CPU time", span(said.ownCpu)], ["Share of a core", `${((said.ownCpu / Math.max(1, said.ticks * said.interval)) * 100).toFixed(2)}${NBSP}%`],
        ["CPU time lost", span(said.lostCpu)], ["Overflows", String(said.overflows)], ["Idle energy", said.idlePolicy], ["Counted", ["CPU time", ...counted].join(", ")]]),
      factors.length ? el("h2", {}, "Carbon and price") : "",
      factors.length ? table(["What", ">By kWh", "From"], factors.map((one) => [safe(one.measure), one.per_kwh === null ? "–" : `${(one.per_kwh / 1e6).toLocaleString()} ${safe(one.unit)}`, [safe(one.source), one.why ? el("small", {}, ` ${safe(one.why)}`) : null]]), "Factors") : "");
  };
  const update = asker("/v1/page/meters", fill);
  return { title: "Meters", node, update, end: () => {} };
};
const guestsView = () => {
  const node = el("div", {}, el("h1", { class: "title" }, "Guests"), el("p", { class: "note" }, "Reading …"));
  const fill = (said) => {
    if (node.contains(document.activeElement)) return;
    const host = said.domains.filter((one) => one.byHost || one.source.startsWith("vsock"));
    const vms = ofKind("vm").map((row) => [row, said.guests.find((guest) => row.note.includes(guest.vm_id))]);
    vms.sort(([a], [b]) => b.power - a.power);
    const hosts = said.sources.filter((one) => one.source === "vsock" || one.source === "serial");
    node.replaceChildren(el("h1", { class: "title" }, "Guests"),
      vms.length ? table(["VM", ">Power", ">Share", ">Energy", "Channel", "Profile", "Last read", ">Requests", ">Refused"], vms.map(([row, guest]) => [
        el("a", { href: linkTo(row) }, row.name), [marked(watts(row.power), state.head.estimated), small(interval(row.bounds))], share(row.power, state.head.power ?? 0), marked(energy(row.energy), state.head.estimated),
        guest?.channel ? `${safe(guest.channel)} ${safe(guest.peer)}` : "none", guest ? pill(guest.profile) : "–",
        ago(guest?.served_seconds_ago), guest ? guest.requests.toLocaleString() : "–", guest ? String(guest.refused) : "–"]), "VMs")
        : said.byHost ? "" : el("p", { class: "note" }, "No VM runs on this machine."),
      said.byHost || hosts.some((one) => one.state !== "unsupported") ? el("section", {}, el("h2", {}, "This machine is a guest"),
        table(["Host", "State", "What, why", "Last report"], hosts.map((one) => [safe(one.source), pill(one.state), [safe(one.detail), one.why ? " " : "", reason(one.why, one.row)], ago(one.age)]), "Host"),
        table(["Domain", ">Power", "Last report"], host.map((one) => [safe(one.domain), watts(one.power), ago(one.age)]), "Domains of the host")) : "");
  };
  return { title: "Guests", node, update: asker("/v1/page/meters", fill), end: () => {} };
};
