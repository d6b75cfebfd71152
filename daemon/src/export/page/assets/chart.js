// Curves and bars as SVG. A gap is a gap.
const unpack = ([most, text]) =>
  Array.from(atob(text), (c) => {
    const byte = c.charCodeAt(0);
    return byte === 0 ? null : ((byte - 1) / 254) * most;
  });
const line = (points, width, height, most) => {
  const step = width / Math.max(1, points.length - 1);
  let path = "";
  let on = false;
  points.forEach((point, at) => {
    if (point !== null) {
      const alone = !on && (points[at + 1] ?? null) === null;
      const y = (height - (most > 0 ? (point / most) * height : 0)).toFixed(1);
      path += `${on ? "L" : "M"}${(at * step).toFixed(1)} ${y}`;
      if (alone) path += "h1";
    }
    on = point !== null;
  });
  return path;
};
const area = (points, width, height, most) => {
  const step = width / Math.max(1, points.length - 1);
  let path = "";
  let first = null;
  points.forEach((point, at) => {
    const x = (at * step).toFixed(1);
    if (point !== null) {
      const y = (height - (most > 0 ? (point / most) * height : 0)).toFixed(1);
      if (first === null) {
        first = x;
        path += `M${x} ${height}`;
      }
      path += `L${x} ${y}`;
    }
    if (first !== null && (point === null || at === points.length - 1)) {
      path += `L${(point === null ? (at - 1) * step : at * step).toFixed(1)} ${height}Z`;
      first = null;
    }
  });
  return path;
};
const largest = (points) => points.reduce((most, point) => Math.max(most, point ?? 0), 0);
// A round number not below `value`, for the end of an axis.
const round = (value) => {
  if (value <= 0) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((step) => step * unit >= value) * unit;
};
const WIDTH = 600;
const HEIGHT = 132;
// A large curve with its idle part: returns the element and what draws it again.
const bigCurve = (label) => {
  const grid = svg("path", { class: "grid", d: `M0 0H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}M0 ${HEIGHT}H${WIDTH}`, fill: "none" });
  const [under, idle, top] = [svg("path", { class: "area" }), svg("path", { class: "idle" }), svg("path", { class: "line" })];
  const drawing = svg("svg", { class: "curve", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" }, grid, under, idle, top);
  const [from, scale, to] = [el("span"), el("span"), el("span")];
  const node = el("div", { class: "chart" }, el("span", { class: "top", "aria-hidden": "true" }, scale), drawing, el("div", { class: "axis", "aria-hidden": "true" }, from, to));
  const draw = (points, idles, start, end) => {
    const most = round(largest(points) * 1.02);
    top.setAttribute("d", line(points, WIDTH, HEIGHT, most));
    under.setAttribute("d", area(points, WIDTH, HEIGHT, most));
    idle.setAttribute("d", idles ? area(idles, WIDTH, HEIGHT, most) : "");
    drawing.setAttribute("aria-label", `${label}: up to ${watts(largest(points))}, from ${start} to ${end}`);
    setText(from, start);
    setText(scale, largest(points) > 0 ? watts(most) : "");
    setText(to, end);
  };
  return { node, draw };
};
const spark = () => {
  const path = svg("path", { class: "line" });
  const node = svg("svg", { class: "spark", viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" }, path);
  const draw = (points) => {
    const d = points ? line(points, 100, 22, largest(points)) : "";
    if (path.getAttribute("d") !== d) path.setAttribute("d", d);
  };
  path.setAttribute("transform", "translate(0 1)");
  return { node, draw };
};
// Parts of a whole, beside each other.
const stack = (label, pieces) => {
  const whole = pieces.reduce((sum, piece) => sum + piece.value, 0);
  let at = 0;
  const rects = pieces.map((piece, index) => {
    const width = whole > 0 ? (piece.value / whole) * 1000 : 0;
    const rect = svg("rect", { class: `z${piece.color ?? Math.min(index, 5)}`, x: at.toFixed(2), y: 0, height: 16, width: Math.max(0, width - 2).toFixed(2) });
    at += width;
    return rect;
  });
  const words = pieces.map((piece) => `${piece.name} ${watts(piece.value)}`).join(", ");
  return svg("svg", { class: "stack", viewBox: "0 0 1000 16", preserveAspectRatio: "none", role: "img", "aria-label": `${label}: ${words}` }, ...rects);
};
const key = (index) => svg("svg", { class: "key", viewBox: "0 0 10 10", "aria-hidden": "true" }, svg("rect", { class: `z${Math.min(index, 5)}`, width: 10, height: 10 }));
