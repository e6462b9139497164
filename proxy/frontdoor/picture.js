// The pictures of the console: the network with its circuits, and the traffic of the last two minutes.

const svg = "http://www.w3.org/2000/svg";
const maxRelays = 28; // more would be a cloud: those in use, then the first others
const maxTargets = 7;
const machine = [64, 190], centre = [470, 180], radius = [255, 135], targetsX = 800;

function shape(name, attributes, ...inside) {
  const e = document.createElementNS(svg, name);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  e.append(...inside);
  return e;
}

const hue = id => `c${Number(id) % 6 || 0}`;
const host = target => target.replace(/:\d+$/, "");
const cut = (s, n) => s.length > n ? s.slice(0, n - 1) + "\u2026" : s;
const byName = new Intl.Collator("en", { numeric: true });

// chosen returns the relays to draw: those of circuits first.
function chosen(state) {
  const used = new Set([...state.circuits.values()].flatMap(c => c.hops.map(h => h.id)));
  const all = [...state.relays.values()].sort((a, b) => byName.compare(a.nickname, b.nickname));
  const kept = new Set([...all.filter(r => used.has(r.id)), ...all].slice(0, maxRelays).map(r => r.id));
  return [all.filter(r => kept.has(r.id)), used];
}

// places gives each relay a place on an ellipse, each destination one at the right.
function places(relays, targets) {
  const at = new Map();
  relays.forEach((r, i) => {
    const angle = Math.PI + 2 * Math.PI * (i + .5) / relays.length;
    at.set(r.id, [centre[0] + radius[0] * Math.cos(angle), centre[1] + radius[1] * Math.sin(angle)]);
  });
  targets.forEach((t, i) => at.set(`to ${t}`, [targetsX, 190 + (i - (targets.length - 1) / 2) * 44]));
  return at;
}

// curve is a smooth line through points, bent by an amount that keeps circuits apart.
function curve(points, bend) {
  let d = `M${points[0].map(n => n.toFixed(1))}`;
  for (let i = 1; i < points.length; i++) {
    const [a, b] = [points[i - 1], points[i]];
    const middle = [(a[0] + b[0]) / 2 - (b[1] - a[1]) * bend, (a[1] + b[1]) / 2 + (b[0] - a[0]) * bend];
    d += `Q${middle.map(n => n.toFixed(1))} ${b.map(n => n.toFixed(1))}`;
  }
  return d;
}

function drawCircuit(c, at, i) {
  const hops = c.hops.map(h => at.get(h.id)).filter(Boolean);
  const ends = [...new Set(c.streams.map(s => host(s.target)))].map(t => at.get(`to ${t}`)).filter(Boolean);
  const bend = .06 + .03 * (i % 4);
  const lines = (ends.length ? ends : [null]).map(end => curve(end ? [machine, ...hops, end] : [machine, ...hops], bend));
  const busy = c.streams.length ? " busy" : "";
  return shape("path", { d: lines.join(""), class: `circuit ${hue(c.id)} ${c.state}${busy}`, "data-id": c.id },
    shape("title", {}, `Circuit ${c.id}: this machine, ${c.hops.map(h => h.nickname).join(", ")}${ends.length ? ", " + c.streams.map(s => s.target).join(", ") : ""}`));
}

function drawRelay(r, [x, y], used) {
  const exit = r.flags.includes("Exit");
  const parts = [shape("title", {}, `${r.nickname}, ${r.address}${r.running ? "" : ", stopped"}`)];
  if (exit) parts.push(shape("circle", { cx: x, cy: y, r: 11, class: "exit" }));
  parts.push(shape("circle", { cx: x, cy: y, r: 7, class: `relay${used ? " used" : ""}${r.running ? "" : " down"}` }));
  parts.push(shape("text", { x, y: y + (y < centre[1] ? -17 : 26), "text-anchor": "middle", class: used ? "" : "soft" }, cut(r.nickname, 14)));
  return shape("g", {}, ...parts);
}

function drawMachine() {
  const [x, y] = machine;
  return shape("g", {}, shape("rect", { x: x - 22, y: y - 17, width: 44, height: 28, rx: 3, class: "machine" }),
    shape("path", { d: `M${x - 30} ${y + 18}h60`, class: "machine" }),
    shape("text", { x, y: y + 40, "text-anchor": "middle" }, "this machine"));
}

function drawTarget(t, [x, y]) {
  return shape("g", {}, shape("title", {}, t), shape("rect", { x: x - 5, y: y - 5, width: 10, height: 10, class: "machine" }),
    shape("text", { x: x + 13, y: y + 4 }, cut(t, 20)));
}

// draw brings the picture up to date. It is made anew only when what it shows has another shape.
export function draw(picture, state) {
  const circuits = [...state.circuits.values()].sort((a, b) => a.streams.length - b.streams.length);
  const targets = [...new Set(circuits.flatMap(c => c.streams.map(s => host(s.target))))].slice(0, maxTargets);
  const [relays, used] = chosen(state);
  const now = JSON.stringify([circuits.map(c => [c.id, c.state, c.hops.map(h => h.id), c.streams.map(s => s.target)]), relays.map(r => [r.id, r.running, r.flags]), targets]);
  if (picture.dataset.shape !== now) {
    picture.dataset.shape = now;
    const at = places(relays, targets);
    const busy = circuits.filter(c => c.streams.length).length;
    const title = shape("title", { id: "picture-title" },
      `${circuits.length} circuits, ${busy} of them in use, through ${state.relays.size} relays to ${targets.length} destinations`);
    picture.replaceChildren(title, ...circuits.map((c, i) => drawCircuit(c, at, i)), ...relays.map(r => drawRelay(r, at.get(r.id), used.has(r.id))),
      ...targets.map(t => drawTarget(t, at.get(`to ${t}`))), drawMachine());
  }
  for (const line of picture.querySelectorAll(".circuit")) {
    const c = state.circuits.get(line.dataset.id);
    line.classList.toggle("flowing", Boolean(c && c.moved));
  }
}

// light makes one circuit stand out; null none.
export function light(id) {
  for (const line of document.querySelectorAll(".circuit")) line.classList.toggle("lit", line.dataset.id === id);
}

// Traffic: one sample a second.

const kept = 120;
const samples = [];
let last = null;

// plot takes in how many bytes there have been in all and returns the rates of the last second.
export function plot(picture, total) {
  const now = performance.now();
  const seconds = last ? Math.max((now - last.now) / 1000, .2) : 1;
  const rates = last ? { in: Math.max(0, total.bytes_in - last.in) / seconds, out: Math.max(0, total.bytes_out - last.out) / seconds } : { in: 0, out: 0 };
  last = { now, in: total.bytes_in, out: total.bytes_out };
  samples.push({ at: now, ...rates });
  while (samples.length > 1 && now - samples[0].at > kept * 1000) samples.shift();
  const top = Math.max(1024, ...samples.map(s => Math.max(s.in, s.out)));
  const line = way => samples.map(s => `${(600 - (now - s.at) / (kept * 1000) * 600).toFixed(1)},${(86 - s[way] / top * 80).toFixed(1)}`).join(" ");
  picture.replaceChildren(picture.querySelector("title"),
    ...[6, 46, 86].map(y => shape("line", { x1: 0, x2: 600, y1: y, y2: y, class: "grid" })),
    shape("polyline", { points: line("out"), class: "line-out" }), shape("polyline", { points: line("in"), class: "line-in" }));
  return rates;
}
