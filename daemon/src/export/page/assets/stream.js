// The event stream: comes back by itself after a restart of jouled, is closed in a tab that nobody sees, and gives way to
// single questions where a proxy keeps the stream back.
const AWAY = 20_000;
const PATIENCE = 6_000;
let source = null;
let mark = "";
let waits = null;
let held = 0;
let hiddenSince = null;
const remember = (event) => {
  if (event.lastEventId) mark = event.lastEventId;
};
const close = () => {
  clearTimeout(waits);
  if (source) source.close();
  source = null;
};
const later = (ms) => {
  close();
  waits = setTimeout(connect, ms);
};
const connect = () => {
  close();
  if (document.hidden && hiddenSince !== null) return;
  if (held >= 2) return poll();
  source = new EventSource(`/v1/events${mark ? `?after=${encodeURIComponent(mark)}` : ""}`);
  const own = source;
  let any = false;
  source.addEventListener("full", (event) => {
    [any, held] = [true, 0];
    remember(event);
    takeFull(JSON.parse(event.data));
  });
  source.onmessage = (event) => {
    [any, held] = [true, 0];
    remember(event);
    takeTick(JSON.parse(event.data));
  };
  source.onerror = () => {
    if (source !== own) return;
    // A refusal ends an EventSource for good; it is tried again here.
    if (own.readyState === EventSource.CLOSED) later(3_000);
    listeners.forEach((listener) => listener(false));
  };
  waits = setTimeout(() => {
    // A proxy may keep even the head of the answer; where jouled is gone, single questions come back by themselves.
    if (source === own && !any && own.readyState !== EventSource.CLOSED) {
      held += 1;
      connect();
    }
  }, Math.max(PATIENCE, 3000 * (state.all?.interval ?? 1)));
};
// Begins again with everything.
const again = () => {
  mark = "";
  connect();
};
const poll = async (asked = 1) => {
  let next = 5_000;
  try {
    const answer = await fetch("/v1/events?once=1");
    const text = await answer.text();
    const data = text.split("\n").find((one) => one.startsWith("data: "));
    if (answer.ok && data) takeFull(JSON.parse(data.slice(6)));
  } catch {
    next = 10_000;
  }
  // Now and then the stream is tried again.
  held = asked < 12 ? 2 : 1;
  waits = setTimeout(() => (held < 2 ? connect() : poll(asked + 1)), next);
};
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    hiddenSince = performance.now();
    setTimeout(() => document.hidden && close(), AWAY);
  } else {
    hiddenSince = null;
    if (!source) connect();
  }
});
// A tab that slept does not know how long: its timers stood still.
const age = () => (performance.now() - state.heard) / 1000;
const isOld = () => age() > 3 * (state.all?.interval ?? 1) + 4;
let silence = 20;
setInterval(() => {
  if (!document.hidden && source && source.readyState === EventSource.OPEN && age() > silence) {
    // A stream that is open and silent: it is opened again, each time with more patience.
    silence = age() + 20 + 3 * (state.all?.interval ?? 1);
    connect();
  }
  if (!isOld()) silence = 20 + 3 * (state.all?.interval ?? 1);
  listeners.forEach((listener) => listener(false, true));
}, 1_000);
