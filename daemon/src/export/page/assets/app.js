// Views by the address after #, the state of the connection, and the frame around both.
const main = document.getElementById("main");
const nav = document.getElementById("nav");
const live = document.getElementById("live");
const said = el("div", { class: "hidden", "aria-live": "polite" });
document.body.append(said);
const say = (words) => setText(said, words);
let view = null;
const views = () => {
  const links = [["#/", "Now"], ["#/time", "Over time"], ["#/meters", "Meters"]];
  const guest = state.all.kinds.includes("vm") && (ofKind("vm").length > 0 || state.head.zones.some((zone) => zone.byHost));
  if (guest || location.hash === "#/guests") links.push(["#/guests", "Guests"]);
  return links;
};
const open = () => {
  const hash = location.hash || "#/";
  const row = hash.startsWith("#/row/");
  view?.end();
  view = row ? rowView(hash) : hash === "#/meters" ? metersView() : hash === "#/guests" ? guestsView() : hash === "#/time" ? timeView() : nowView(say);
  main.replaceChildren(view.node);
  view.update(true);
  drawNav();
  document.title = `${view.title === "Now" ? "" : `${view.title.slice(0, 80)} · `}${safe(state.all.node)} · jouled`;
};
let drawn = "";
const drawNav = () => {
  const links = views();
  const here = location.hash.startsWith("#/") ? location.hash : "#/";
  const is = JSON.stringify([links, here]);
  if (is === drawn) return;
  drawn = is;
  nav.replaceChildren(...links.map(([href, words]) => el("a", { href, "aria-current": href === here ? "page" : null }, words)), el("a", { href: "/troubleshooting" }, "Help"));
};
live.replaceChildren(el("i"), el("span"));
live.removeAttribute("role");
let wasOld = false;
const drawLive = () => {
  const old = isOld();
  live.classList.toggle("old", old);
  const words = !state.all ? "connecting" : old ? `no news for ${span(age())}` : `live · ${clock(state.at)}`;
  setText(live.lastChild, words);
  live.dataset.at = state.at;
  if (old !== wasOld) say(old ? "jouled does not answer; the numbers are old" : "jouled answers again");
  wasOld = old;
};
let shownLife = null;
listeners.add((all, onlyClock) => {
  if (state.all && !onlyClock && !document.hidden) {
    if (state.all.life !== shownLife) {
      // After a restart of jouled rows have other numbers, and the page may be an older one.
      const restarted = shownLife !== null;
      shownLife = state.all.life;
      if (restarted && state.all.version !== version) return location.reload();
      version = state.all.version;
      open();
    } else {
      view.update(all);
      drawNav();
    }
  }
  if (state.all) drawLive();
});
let version = null;
// Where one was in the first view: going back from a row leads there.
let left = null;
main.addEventListener("click", (event) => {
  const link = event.target.closest?.(".name a");
  if (link) left = { hash: link.hash, top: scrollY, within: main.querySelector(".viewport")?.scrollTop ?? 0 };
});
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const find = main.querySelector("input[type=search]");
  if (event.key === "/" && find && !/^(INPUT|SELECT)$/.test(document.activeElement.tagName)) {
    event.preventDefault();
    find.focus();
  }
  if (event.key === "Escape" && location.hash.startsWith("#/row/")) location.hash = "#/";
});
addEventListener("hashchange", () => {
  if (!state.all) return;
  if (location.hash.startsWith("#/") || location.hash === "") {
    open();
    const back = left !== null && (location.hash === "#/" || location.hash === "") ? left : null;
    scrollTo(0, back?.top ?? 0);
    if (back) {
      main.querySelector(".viewport")?.scrollTo(0, back.within);
      view.update(true);
      left = null;
    }
    const link = back && [...main.querySelectorAll(".name a")].find((one) => one.hash === back.hash);
    (link ?? main).focus({ preventScroll: true });
  }
});
connect();
