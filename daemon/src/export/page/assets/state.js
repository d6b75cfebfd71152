// The machine and its rows, as of the last frame of the event stream; rows by their numbers.
const state = { all: null, head: null, rows: new Map(), lack: null, others: {}, at: 0, tick: 0, heard: 0, span: 0, machine: [[], []], sums: null };
const listeners = new Set();
const FIELDS = ["id", "kind", "name", "note", "since", "ended", "power", "energy"];
const readRow = (list, fresh) => {
  const known = state.rows.get(list[0]);
  // A row that begins while the page looks has no earlier points.
  const row = known ?? { curve: fresh ? null : Array(state.all.points).fill(null), sum: 0, count: 0 };
  FIELDS.forEach((field, at) => (row[field] = list[at]));
  row.kind = state.all.kinds[row.kind];
  row.name = safe(row.name);
  row.note = safe(row.note);
  row.bounds = list[9] ? [list[8], list[9]] : null;
  // A unit's name without systemd's escapes, where it has some.
  row.shown = list[10] ? safe(list[10]) : row.name;
  row.find = `${row.name} ${row.shown} ${row.note}`.toLowerCase();
  state.rows.set(row.id, row);
};
const shift = (curve, point, spans) => {
  for (let at = 0; at < spans; at++) curve.push(at === 0 ? point : null);
  curve.splice(0, curve.length - state.all.points);
};
const mean = (of) => (of.count > 0 ? of.sum / of.count : null);
// The points of the span that is over; the server cuts spans by its own clock.
const closeSpan = (spans) => {
  state.machine.forEach((curve, at) => shift(curve, mean(state.sums[at]), spans));
  state.sums = [{ sum: 0, count: 0 }, { sum: 0, count: 0 }];
  for (const row of state.rows.values()) {
    if (row.curve) shift(row.curve, mean(row), spans);
    [row.sum, row.count] = [0, 0];
  }
};
const addToSpan = (gap) => {
  [state.head.power, state.head.idle].forEach((power, at) => {
    if (!gap && power !== null) {
      state.sums[at].sum += power;
      state.sums[at].count += 1;
    }
  });
  if (gap) return;
  for (const row of state.rows.values()) {
    row.sum += row.power;
    row.count += 1;
  }
};
const heard = (message) => {
  [state.head, state.at, state.tick, state.heard] = [message.head, message.at, message.tick, performance.now()];
  [state.lack, state.others] = [message.lack, message.others];
};
const takeFull = (message) => {
  state.all = message;
  state.rows = new Map();
  state.span = message.span;
  heard(message);
  message.rows.forEach((row) => readRow(row, true));
  delete message.rows;
  state.machine = message.machine.map(unpack);
  state.sums = [{ sum: 0, count: 0 }, { sum: 0, count: 0 }];
  takeCurves(message.curves);
  if (!message.more) flat();
  addToSpan(message.gap);
  listeners.forEach((listener) => listener(true));
};
// Rows without a curve drew nothing in these minutes, from their begin on.
const flat = () => {
  const { points, step } = state.all;
  for (const row of state.rows.values()) {
    const known = Math.min(points, Math.max(0, Math.ceil((state.at / 1000 - row.since) / step)));
    row.curve ??= [...Array(points - known).fill(null), ...Array(known).fill(0)];
  }
};
const takeCurves = (curves) => {
  for (const [id, ...packed] of curves) {
    const row = state.rows.get(id);
    if (row) row.curve = unpack(packed);
  }
};
const takeTick = (message) => {
  if (!state.all || message.tick <= state.tick) return;
  // The curves are another sum now: those of before have to be asked for.
  if (JSON.stringify(message.lack) !== JSON.stringify(state.lack)) return again();
  if (message.span > state.span) {
    closeSpan(Math.min(message.span - state.span, state.all.points));
    state.span = message.span;
  }
  heard(message);
  message.gone.forEach((id) => state.rows.delete(id));
  message.rows.forEach((row) => readRow(row, false));
  const pairs = (list, field) => {
    for (let at = 0; at < list.length; at += 2) {
      const row = state.rows.get(list[at]);
      if (row) row[field] = list[at + 1];
    }
  };
  pairs(message.power, "power");
  pairs(message.energy, "energy");
  for (let at = 0; at < message.bounds.length; at += 3) {
    const [id, low, high] = message.bounds.slice(at, at + 3);
    const row = state.rows.get(id);
    if (row) row.bounds = high ? [low, high] : null;
  }
  addToSpan(message.gap);
  listeners.forEach((listener) => listener(false));
};
// Curves that no frame brought are asked for when their rows come into view.
const wanted = new Set();
let asking = false;
const wantCurve = (row) => {
  if (row.curve === null && row.asked !== state.all.life) {
    row.asked = state.all.life;
    wanted.add(row.id);
    if (!asking) {
      asking = true;
      setTimeout(askCurves, 60);
    }
  }
};
const askCurves = async () => {
  const ids = [...wanted].slice(0, 200);
  ids.forEach((id) => wanted.delete(id));
  try {
    const answer = await fetch(`/v1/page/curves?life=${state.all.life}&ids=${ids.join(".")}`);
    if (answer.ok) {
      const said = await answer.json();
      if (said.span === state.span) takeCurves(said.curves);
      else ids.forEach((id) => state.rows.has(id) && (state.rows.get(id).asked = null));
    }
  } catch {
    ids.forEach((id) => state.rows.has(id) && (state.rows.get(id).asked = null));
  }
  asking = wanted.size > 0;
  if (asking) setTimeout(askCurves, 60);
};
const ofKind = (kind) => [...state.rows.values()].filter((row) => row.kind === kind);
