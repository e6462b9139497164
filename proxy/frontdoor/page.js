// The console: it follows /api/events and shows what they tell. Every element that can have the focus is
// made once and changed in place, so that a keyboard or a screen reader never loses its place.

import { draw, light, plot } from "/picture.js";

const state = { circuits: new Map(), relays: new Map(), links: new Map(), traffic: { bytes_in: 0, bytes_out: 0 } };
const $ = id => document.getElementById(id);

// element makes an element with text, or other elements, inside.
function element(name, className, ...inside) {
  const e = document.createElement(name);
  if (className) e.className = className;
  e.append(...inside);
  return e;
}

function setText(e, text) { if (e.textContent !== text) e.textContent = text; }

function button(text, label, act) {
  const b = element("button", "small", text);
  b.type = "button";
  b.setAttribute("aria-label", label);
  b.addEventListener("click", () => act(b));
  return b;
}

// region lets a keyboard scroll what is wider than the page.
function region(label, ...inside) {
  const e = element("div", "wide", ...inside);
  e.tabIndex = 0;
  e.setAttribute("role", "region");
  e.setAttribute("aria-label", label);
  return e;
}

function bytes(n) {
  if (n < 1024) return `${Math.round(n)} B`;
  let unit = -1;
  while (n >= 1024 && unit < 4) { n /= 1024; unit++; }
  return `${n.toFixed(1)} ${"KMGTP"[unit]}iB`;
}

// say tells a person what happened, also one who hears the page.
function say(text, bad) {
  $("said").classList.toggle("bad", Boolean(bad));
  setText($("said"), text);
}

// ask sends a request that changes something and says what came of it; without done, an event will. It returns
// whether it was done. The control does nothing meanwhile, but keeps the focus, which a disabled one would lose.
async function ask(control, method, path, body, done) {
  if (control.getAttribute("aria-disabled") === "true") return false;
  control.setAttribute("aria-disabled", "true");
  try {
    const options = { method };
    if (body !== undefined) options.body = JSON.stringify(body);
    const answer = await fetch(path, options);
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.error || `the answer was ${answer.status}`);
    if (done) say(done);
    return true;
  } catch (e) {
    say(`That did not work: ${e.message}`, true);
    return false;
  } finally {
    control.removeAttribute("aria-disabled");
  }
}

// keyed makes a list show items, with one element for each: make(item) makes it, show(element, item)
// brings it up to date. When the one with the focus goes, its section's heading gets that.
function keyed(list, items, key, make, show) {
  const old = new Map([...list.children].map(e => [e.dataset.key, e]));
  let before = null;
  for (const item of items) {
    let e = old.get(key(item));
    if (!e) {
      e = make(item);
      e.dataset.key = key(item);
    }
    old.delete(key(item));
    show(e, item);
    const next = before ? before.nextElementSibling : list.firstElementChild;
    if (next !== e) list.insertBefore(e, next);
    before = e;
  }
  for (const e of old.values()) {
    const focused = e.contains(document.activeElement);
    e.remove();
    if (focused) list.closest("section").querySelector("h2").focus();
  }
}

// Circuits

const hue = id => `c${Number(id) % 6 || 0}`;

function makeCircuit(c) {
  const li = element("li", hue(c.id),
    element("div", "head", element("h3", "", `Circuit ${c.id}`), element("span", "pill"), element("span", "soft facts"),
      button("Close", `Close circuit ${c.id}`, b => ask(b, "DELETE", `/api/circuits/${c.id}`, undefined, `Circuit ${c.id} is closed.`))),
    element("ol", "way"), element("ul", "streams"));
  for (const on of ["mouseenter", "focusin"]) li.addEventListener(on, () => light(c.id));
  for (const off of ["mouseleave", "focusout"]) li.addEventListener(off, () => light(null));
  return li;
}

const colours = { ready: "pill good", building: "pill wait", closing: "pill" };

function showCircuit(li, c) {
  const pill = li.querySelector(".pill");
  setText(pill, c.state);
  pill.className = colours[c.state] || "pill";
  const built = c.built_ms ? `, built in ${c.built_ms} ms` : "";
  setText(li.querySelector(".facts"), `${Math.round((Date.now() - c.began) / 1000)} s old${built}, ${bytes(c.bytes_in)} in, ${bytes(c.bytes_out)} out`);
  const way = [["this machine", ""], ...c.hops.map(h => [h.nickname, h.address]), [c.streams.length ? "destinations" : "not in use", ""]];
  const text = way.flat().join();
  const list = li.querySelector(".way");
  if (list.dataset.way !== text) {
    list.dataset.way = text;
    list.replaceChildren(...way.map(([name, address], i) => {
      const hop = element("li", i === 0 || i === way.length - 1 ? "end" : "", name);
      if (address) hop.append(" ", element("small", "", address));
      return hop;
    }));
  }
  keyed(li.querySelector(".streams"), c.streams, s => s.id, () => element("li", ""), (e, s) => {
    const opened = s.opened_ms ? `, opened in ${s.opened_ms} ms` : "";
    setText(e, `${s.target} (isolation ${s.isolation}${opened})`);
  });
}

// showCircuits lists those that carry something, and apart those that wait. A circuit stays where it was
// once it has been used.
function showCircuits() {
  const all = [...state.circuits.values()].sort((a, b) => Number(a.id) - Number(b.id));
  const inUse = c => c.streams.length > 0 || c.bytes_in + c.bytes_out > 0;
  const used = all.filter(inUse), spare = all.filter(c => !inUse(c));
  keyed($("circuit-list"), used, c => c.id, makeCircuit, showCircuit);
  keyed($("spare-list"), spare, c => c.id, makeCircuit, showCircuit);
  setText($("no-circuits"), all.length ? "None carries anything yet." : "None yet.");
  $("no-circuits").hidden = used.length > 0;
  setText($("spare-count"), spare.length === 1 ? "1 circuit stands ready" : `${spare.length} circuits stand ready`);
  $("spares").hidden = spare.length === 0;
}

// Relays

const shownRelays = 200;
const embedded = $("relay-list").dataset.embedded === "true";

function makeRelay(r) {
  const row = element("tr", "", ...["name", "mono address", "flags", "number weight", "running"].map(c => element("td", c)));
  row.querySelector(".name").title = r.id;
  if (embedded) {
    const steer = button("", "", b => {
      const now = state.relays.get(r.id);
      const what = now && now.running ? "stop" : "start";
      ask(b, "POST", `/api/relays/${r.id}/${what}`, undefined, what === "stop" ? `${r.nickname} is stopped.` : `${r.nickname} runs again.`);
    });
    row.append(element("td", "", steer));
  }
  return row;
}

function showRelay(row, r) {
  setText(row.querySelector(".name"), r.nickname);
  setText(row.querySelector(".address"), r.address);
  setText(row.querySelector(".flags"), r.flags.join(" "));
  setText(row.querySelector(".weight"), r.weight ? `${bytes(r.weight)}/s` : "-");
  const running = row.querySelector(".running");
  setText(running, r.running ? "running" : "stopped");
  running.className = r.running ? "running good" : "running bad";
  const steer = row.querySelector("button");
  if (steer) {
    setText(steer, r.running ? "Stop" : "Start");
    steer.setAttribute("aria-label", `${r.running ? "Stop" : "Start"} ${r.nickname}`);
  }
}

const byName = new Intl.Collator("en", { numeric: true });

function showRelays() {
  const wanted = $("relay-filter").value.trim().toLowerCase();
  const all = [...state.relays.values()].filter(r =>
    [r.nickname, r.address, r.id, ...r.flags].some(s => s.toLowerCase().includes(wanted)));
  all.sort((a, b) => byName.compare(a.nickname, b.nickname));
  keyed($("relay-list"), all.slice(0, shownRelays), r => r.id, makeRelay, showRelay);
  const running = [...state.relays.values()].filter(r => r.running).length;
  setText($("relay-count"), `${running} running`);
  $("more-relays").hidden = all.length <= shownRelays;
  setText($("more-relays"), `${all.length - shownRelays} more: find them by name, address or flag.`);
}

// Links that replies ask to open

function makeLink(l) {
  const url = element("code", "url");
  const at = l.url.indexOf("://") + 3;
  url.append(l.url.slice(0, at), element("b", "", l.host), l.url.slice(at + l.host.length));
  const li = element("li", "", element("div", "soft", `${l.from} asks to open:`), url, element("div", "row",
    button("Open through the proxy", `Open ${l.url} through the proxy`, b => ask(b, "POST", `/api/links/${l.id}`, { open: true })),
    button("Do not open", `Do not open ${l.url}`, b => ask(b, "POST", `/api/links/${l.id}`, { open: false }, "It is not opened."))),
    element("p", "outcome"));
  li.tabIndex = -1; // for the focus, when its buttons go
  return li;
}

// outcome is what has become of a link, in a sentence; "" of one that was refused.
function outcome(l) {
  switch (l.state) {
    case "waiting": return `${l.from} asks to open a page of ${l.host}.`;
    case "opening": return `A browser is being started for ${l.host}.`;
    case "opened": return `A browser has opened ${l.host}.`;
    case "failed": return `${l.host}: ${l.error}.`;
  }
  return "";
}

function showLink(li, l) {
  const row = li.querySelector(".row");
  if (l.state !== "waiting" && row.contains(document.activeElement)) li.focus();
  row.hidden = l.state !== "waiting";
  const p = li.querySelector(".outcome");
  setText(p, outcome(l));
  p.className = l.state === "failed" ? "outcome bad" : "outcome";
  p.hidden = l.state === "waiting";
}

// showLinks lists the links that wait, those that are being opened, and those that could not be.
function showLinks() {
  const shown = [...state.links.values()].filter(l => ["waiting", "opening", "failed"].includes(l.state));
  keyed($("link-list"), shown, l => l.id, makeLink, showLink);
  if (!shown.length && $("links").contains(document.activeElement)) $("said").focus();
  $("links").hidden = shown.length === 0;
}

const told = new Map(); // ID of a link to the state that was said last; a new connection says nothing twice
const since = Date.now();

// onLink keeps a link, and says what is new about it.
function onLink(l) {
  if (l.state === "gone") {
    state.links.delete(l.id);
    return;
  }
  state.links.set(l.id, l);
  const old = !told.has(l.id) && l.state !== "waiting" && Date.parse(l.asked) < since;
  const news = told.get(l.id) !== l.state && !old;
  told.set(l.id, l.state);
  if (news && outcome(l)) say(outcome(l), l.state === "failed");
}

// What became of connections

function whyItem(w) {
  const longest = Math.max(1, ...w.steps.map(s => s.took_ms));
  const steps = element("tbody", "", ...w.steps.map(s => {
    const bar = element("meter", "");
    bar.max = longest;
    bar.value = s.took_ms;
    bar.setAttribute("aria-label", `${s.took_ms} ms`);
    const who = s.hop === 0 ? "this machine" : `hop ${s.hop}${s.relay ? `, ${s.relay}` : ""}`;
    const circuit = s.circuit ? ` (circuit ${s.circuit})` : "";
    return element("tr", "", element("td", "", s.what + circuit), element("td", "", who),
      element("td", "number", `${s.took_ms} ms`), element("td", "", bar), element("td", "", s.result));
  }));
  const item = element("li", "", element("div", "head", element("h3", "mono", w.target),
    element("span", w.error ? "pill bad" : "pill good", w.outcome),
    element("span", "soft", `${new Date(w.began).toLocaleTimeString()}, ${w.took_ms} ms, isolation ${w.isolation}`)));
  if (w.error) item.append(element("p", "", w.error));
  if (w.steps.length) item.append(region(`Steps to ${w.target}`, element("table", "steps", steps)));
  return item;
}

async function showWhy() {
  const host = $("why-host").value.trim();
  try {
    const answer = await fetch(`/api/why?host=${encodeURIComponent(host)}`);
    const list = await answer.json();
    if (!answer.ok) throw new Error(list.error);
    $("why-list").replaceChildren(...list.slice(0, 20).map(whyItem));
    if (!list.length) say(host ? `Nothing is remembered of ${host}.` : "Nothing is remembered.");
  } catch (e) {
    say(`That did not work: ${e.message}`, true);
  }
}

// Drawing: at most once for each frame, however many events came.

let due = false;

function show() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    showCircuits();
    showRelays();
    showLinks();
    draw($("picture"), state);
  });
}

// Events

function follow(source, name, act) {
  source.addEventListener(name, e => { act(JSON.parse(e.data)); show(); });
}

function showBootstrap(b) {
  const ready = b.percent >= 100;
  setText($("state"), ready ? "ready" : `starting, ${b.percent} %`);
  $("state").className = ready ? "pill good" : "pill wait";
  setText($("summary"), b.summary);
  $("summary").hidden = b.summary === "ready";
}

function showConsensus(n) {
  if (n.valid_until) setText($("consensus"), `; the list of relays is valid until ${new Date(n.valid_until).toLocaleTimeString()}`);
}

function onStream(s) {
  const c = state.circuits.get(s.circuit);
  if (!c) return;
  c.streams = c.streams.filter(other => other.id !== s.id);
  if (s.state === "open") c.streams.push(s);
}

function onCircuit(c) {
  if (c.state === "closed") {
    state.circuits.delete(c.id);
    return;
  }
  c.moved = state.circuits.has(c.id) && c.bytes_in + c.bytes_out !== state.circuits.get(c.id).bytes_in + state.circuits.get(c.id).bytes_out;
  c.began = Date.now() - c.age_s * 1000;
  state.circuits.set(c.id, c);
}

const again = 5000; // ms until a page that was turned away asks again

function connect() {
  const source = new EventSource("/api/events");
  source.addEventListener("open", () => { if ($("said").classList.contains("bad")) say(""); });
  source.addEventListener("error", () => {
    say("torproxy does not answer: it has stopped, or too many pages of it are open. This page tries again by itself.", true);
    setText($("state"), "no answer");
    $("state").className = "pill bad";
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, again);
  });
  follow(source, "start", () => { for (const m of [state.circuits, state.relays, state.links]) m.clear(); });
  follow(source, "bootstrap", showBootstrap);
  follow(source, "consensus", showConsensus);
  follow(source, "relay", r => r.gone ? state.relays.delete(r.id) : state.relays.set(r.id, r));
  follow(source, "circuit", onCircuit);
  follow(source, "stream", onStream);
  follow(source, "link", onLink);
  source.addEventListener("traffic", e => { state.traffic = JSON.parse(e.data); });
}

// tick is called each second: the plot goes on, and circuits grow older, while nothing happens.
function tick() {
  show();
  const rates = plot($("plot"), state.traffic);
  setText($("rate-in"), `${bytes(rates.in)}/s`);
  setText($("rate-out"), `${bytes(rates.out)}/s`);
}

$("newnym").addEventListener("click", async e => {
  if (await ask(e.currentTarget, "POST", "/api/newnym", undefined, "New identity: later connections use new circuits.")) $("why-list").replaceChildren();
});
if ($("add-relay")) $("add-relay").addEventListener("click", e => ask(e.currentTarget, "POST", "/api/relays", undefined, "A relay was added; it is used when the next consensus lists it."));
$("relay-filter").addEventListener("input", show);
$("why").addEventListener("submit", e => { e.preventDefault(); showWhy(); });
setInterval(tick, 1000);
connect();
