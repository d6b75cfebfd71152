// Over time: the machine's hours from memory; days, months and the report from the history where that is on.
const PERIODS = [["day", "Today", "hour"], ["week", "7 days", "day"], ["month", "30 days", "day"], ["year", "12 months", "month"]];
const past = { period: "week", by: "unit" };
// By the server's clock: the browser's may be wrong.
const beginOf = (period) => {
  const day = new Date(state.at);
  day.setHours(0, 0, 0, 0);
  if (period === "week") day.setDate(day.getDate() - 6);
  if (period === "month") day.setDate(day.getDate() - 29);
  if (period === "year") {
    day.setDate(1);
    day.setMonth(day.getMonth() - 11);
  }
  return Math.floor(day.getTime() / 1000);
};
const wattHours = (micro) => (micro < 0 ? "−" : "") + parts(Math.abs(micro) / 3.6e9, "Wh").join(NBSP);
const whole = (sum) => sum.dynamic + sum.idle;
const MEASURES = { co2e_location: "CO₂e (location)", co2e_market: "CO₂e (market)", cost: "Cost" };
const amount = (nano, unit) => {
  const value = nano / 1e9;
  return unit === "gCO2e" ? (Math.abs(value) < 1000 ? `${value.toFixed(value < 10 ? 2 : 0)}${NBSP}g` : `${(value / 1000).toFixed(2)}${NBSP}kg`)
    : `${value.toLocaleString(undefined, value !== 0 && Math.abs(value) < 0.01 ? { maximumSignificantDigits: 1 } : { minimumFractionDigits: 2, maximumFractionDigits: 2 })}${NBSP}${safe(unit)}`;
};
const nameOf = (labels, line) => {
  const of = Object.values(labels ?? {}).find((value) => typeof value === "object" && value !== null) ?? labels ?? {};
  return of.container_name || of.pod_name || of.vm_name || of.job_name || line.name;
};
const report = async (from, until, by, step, limit) => {
  const answer = await fetch(`/v1/report?from=${from}&until=${until}&by=${by}&limit=${limit}${step ? `&step=${step}` : ""}`);
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
};
const quoted = (cell) => {
  const text = String(cell);
  // A cell that begins as a formula would be one in a spreadsheet.
  const inert = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  return /[",\r\n]/.test(inert) ? `"${inert.replaceAll('"', '""')}"` : inert;
};
const SLOTS = { day: 24, week: 7, month: 30, year: 12 };
// The place of a part's bar. Parts of which nothing was kept keep their places free.
const slotOf = (part, from, step) => {
  const [begin, at] = [new Date(from * 1000), new Date(part.from * 1000)];
  if (step === "month") return (at.getFullYear() - begin.getFullYear()) * 12 + at.getMonth() - begin.getMonth();
  return Math.round((part.from - from) / (step === "hour" ? 3600 : 86400));
};
const dayChart = (parts, step, from) => {
  const most = round(parts.reduce((top, part) => Math.max(top, part.node.total), 0) / 3.6e9);
  const slots = SLOTS[past.period];
  const width = 1000 / slots;
  const label = (part) => new Date(part.from * 1000).toLocaleDateString(undefined, step === "month" ? { month: "short", year: "numeric" } : { month: "short", day: "numeric" });
  const name = (part) => (step === "hour" ? clock(part.from * 1000, false) : label(part));
  const rects = parts.map((part) => {
    const at = slotOf(part, from, step);
    const height = (part.node.total / 3.6e9 / most) * 180;
    const rect = svg("rect", { x: (at * width + width * 0.1).toFixed(1), y: (182 - height).toFixed(1), width: (width * 0.8).toFixed(1), height: Math.max(height, 0.5).toFixed(1), rx: 2 });
    rect.append(svg("title", {}, `${name(part)}: ${wattHours(part.node.total)}`));
    return rect;
  });
  const words = parts.map((part) => `${name(part)} ${wattHours(part.node.total)}`).join(", ");
  return el("div", { class: "chart" }, el("span", { class: "top", "aria-hidden": "true" }, wattHours(most * 3.6e9)),
    svg("svg", { class: "days", viewBox: "0 0 1000 182", preserveAspectRatio: "none", role: "img", "aria-label": `Energy: ${words}` }, ...rects),
    el("div", { class: "axis", "aria-hidden": "true" }, el("span", {}, name({ from })), el("span", {}, name({ from: Math.floor(state.at / 1000) }))));
};
const timeView = () => {
  const curve = bigCurve("Power of this machine in the last hours");
  const lack = el("p", { class: "lack" });
  const hours = el("section", {}, el("h2", {}, "Last 24 hours"), curve.node, lack);
  const days = el("section");
  const lines = el("section", { "aria-live": "polite" });
  const pick = (values, chosen, name, change) =>
    el("select", { "aria-label": name, onchange: (event) => change(event.target.value) }, values.map(([value, words]) => el("option", { value, selected: value === chosen }, words)));
  const kinds = state.all.kinds.filter((kind) => kind !== "process").map((kind) => [kind, many(kind)]);
  if (!kinds.some(([kind]) => kind === past.by)) past.by = kinds[0]?.[0] ?? "zone";
  const csv = el("button", { type: "button", class: "button" }, "CSV");
  const tools = el("div", { class: "tools" },
    pick(PERIODS, past.period, "Period", (period) => { past.period = period; load(); }),
    pick([...kinds, ["zone", "Zones"]], past.by, "By", (by) => { past.by = by; load(); }), csv);
  const node = el("div", {}, el("h1", { class: "title" }, "Over time"), hours, el("h2", {}, "Energy"), tools, days, lines);
  let loaded = 0;
  const load = async () => {
    const own = ++loaded;
    const [from, until, step] = [beginOf(past.period), Math.floor(state.at / 1000) + 1, PERIODS.find(([period]) => period === past.period)[2]];
    try {
      const [bars, all] = await Promise.all([report(from, until, "zone", step, 1), report(from, until, past.by, null, 500)]);
      if (own !== loaded) return;
      show(bars, all, step, from);
    } catch (error) {
      if (own !== loaded) return;
      csv.hidden = true;
      days.replaceChildren(el("p", { class: "note" }, safe(error.message)));
      lines.replaceChildren();
    }
  };
  const show = (bars, all, step, from) => {
    const part = all.parts[0];
    csv.hidden = !part;
    if (!part) {
      days.replaceChildren(el("p", { class: "note" }, "Nothing was kept of this time."));
      lines.replaceChildren();
      return;
    }
    const amounts = part.amounts ?? [];
    const estimated = part.node.estimated > 0;
    const portion = part.node.total > 0 ? part.node.estimated / part.node.total : 0;
    days.replaceChildren(dayChart(bars.parts, step, from), factsOf([
      ["Energy", `${estimated ? `≈${NBSP}` : ""}${wattHours(part.node.total)}`], ...amounts.map((one) => [MEASURES[one.measure] ?? safe(one.measure), amount(one.node, one.unit)]),
      ["Observed", span(part.observed_seconds)], estimated && ["Estimated", `${(portion * 100).toFixed(0)}${NBSP}%`], all.declared?.pue && ["PUE (not in these numbers)", String(all.declared.pue)]]),
      ...amounts.filter((one) => one.uncounted > 0).map((one) => el("p", { class: "note" }, `${MEASURES[one.measure]}: there was no factor for ${wattHours(one.uncounted)}.`)));
    const heads = [past.by === "zone" ? "Zone" : one(past.by), ">Energy", ">Share", ...amounts.map((of) => `>${MEASURES[of.measure] ?? of.measure}`)];
    const cells = (name, micro, values) => [name, wattHours(micro), share(micro, part.node.total), ...amounts.map((of, at) => (values[at] === undefined ? "–" : amount(values[at], of.unit)))];
    const rows = part.lines.map((line) => cells(brief(safe(nameOf(line.labels, line))), whole(line.energy), (line.amounts ?? []).map(whole)));
    const extra = [["(others)", whole(part.rest), amounts.map((of) => whole(of.rest))], part.outside && ["(outside)", whole(part.outside), amounts.map((of) => (of.outside ? whole(of.outside) : 0))],
      ["(idle)", part.idle, amounts.map((of) => of.idle)], ["(unattributed)", part.unattributed, amounts.map((of) => of.unattributed)]];
    const rest = past.by === "zone" ? [] : extra.filter((line) => line && line[1] !== 0).map((line) => cells(...line));
    lines.replaceChildren(table(heads, [...rows, ...rest], "Report"));
    csv.onclick = () => save(part, amounts, extra);
  };
  const save = (part, amounts, extra) => {
    const heads = ["from", "until", "kind", "name", "kwh", ...amounts.map((of) => `${of.measure}_${of.unit}`)];
    const [from, until] = [part.from, part.until].map((at) => new Date(at * 1000).toISOString());
    const row = (name, micro, values) => [from, until, past.by, name, (micro / 3.6e12).toFixed(9), ...values.map((value) => (value / 1e9).toFixed(9))];
    const all = [...part.lines.map((line) => row(nameOf(line.labels, line), whole(line.energy), (line.amounts ?? []).map(whole))), ...(past.by === "zone" ? [] : extra.filter(Boolean).map((line) => row(...line)))];
    const text = [heads, ...all].map((cells) => cells.map(quoted).join(",")).join("\r\n");
    const link = el("a", { href: URL.createObjectURL(new Blob([`${text}\r\n`], { type: "text/csv" })), download: `jouled-${past.by}-${from.slice(0, 10)}.csv` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  };
  const drawHours = asker("/v1/page/hours", (said) => {
    let [points, idle] = [said.power, said.idle].map(unpack);
    const first = points.findIndex((point) => point !== null);
    // A young daemon has minutes, not a day.
    const kept = Math.max(60, first < 0 ? 0 : points.length - first);
    [points, idle] = [points, idle].map((curve) => curve.slice(-kept));
    hours.firstChild.textContent = kept > 60 ? `Last ${Math.ceil(kept / 60)} hours` : "Last hour";
    setText(lack, lackOf());
    lack.hidden = !state.lack;
    curve.draw(points, idle, clock(state.at - points.length * said.step * 1000, false), clock(state.at, false));
  }, 30);
  load();
  return { title: "Over time", node, update: drawHours, end: () => {} };
};
