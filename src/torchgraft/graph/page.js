/* The page: what is open, what is chosen, and who is told of it. */
"use strict";

(() => {
  const $ = (id) => document.getElementById(id);
  const canvas = $("canvas");
  const graph = model.indexed(JSON.parse($("data").textContent));
  const painter_ = painter(canvas, graph.byId, () => changed());
  const search = searcher(graph);
  const preset = new Set(graph.drawing.opened.filter((id) => graph.byId.has(id) && graph.byId.get(id) !== graph.root));
  const marks = { selected: null, hovered: null, found: new Set() };
  const narrow = matchMedia("(max-width: 720px)");
  const HEAD = 34;
  let opened = new Set(preset), picture = null, spots = new Map(), hits = [], hit = -1, map = { across: 1, down: 1 };
  let asked = 0, saving = 0, toggledAt = -Infinity;

  const look = viewer(canvas, changed, { click, doubleClick, hover });
  const panel = detailer($("panel"), graph, { go: (entry) => choose(entry, { bring: true }), shut: () => choose(null), toggle });
  const { view } = look;

  // ---- drawing ---------------------------------------------------------------------------------------------------

  function changed() {
    if (!asked) asked = requestAnimationFrame(paint);
    clearTimeout(saving);
    saving = setTimeout(save, 250);
  }

  function paint() {
    asked = 0;
    painter_.draw(view, marks);
    frameMap();
  }

  function lay() {
    picture = layout(graph.drawing, [...opened]);
    spots = new Map(picture.boxes.map((spot) => [spot.id, spot]));
    painter_.use(picture);
    look.floor(wholeScale() * 0.7);
    drawMap();
    changed();
  }

  function room() {
    const { width, height } = canvas.getBoundingClientRect();
    const shown = !$("panel").hidden;
    if (!narrow.matches) return { width: width - (shown ? 340 : 0), height };
    return { width, height: height - (shown ? $("panel").offsetHeight : $("legend").offsetHeight) };
  }

  function wholeScale() {
    const { width, height } = room();
    return Math.min((width - 16) / picture.width, (height - 16) / picture.height);
  }

  /** All of it, where that can be read; else its upper part in full width. */
  function start(move) {
    const { width, height } = room();
    const whole = Math.min(wholeScale(), 1.15);
    if (whole >= 0.72) return middle(whole, move);
    const k = Math.min(1, Math.max(0.5, (width - 16) / picture.width));
    move((width - picture.width * k) / 2, picture.height * k < height ? (height - picture.height * k) / 2 : 0, k);
  }

  function middle(k, move) {
    const { width, height } = room();
    move((width - picture.width * k) / 2, (height - picture.height * k) / 2, k);
  }

  const fit = () => middle(Math.min(wholeScale(), 1.15), look.glide);

  function zoom(factor) {
    const { width, height } = room();
    look.zoom(factor, { x: width / 2, y: height / 2 });
  }

  // ---- the small map ---------------------------------------------------------------------------------------------

  function drawMap() {
    const [most, high] = narrow.matches ? [72, 140] : [150, 210];
    const scale = Math.min(most / picture.width, high / picture.height);
    map = { across: Math.max(scale, Math.min(most, 30) / picture.width), down: Math.max(scale, 20 / picture.height) };
    painter_.overview($("map").firstElementChild, map.across, map.down);
  }

  function frameMap() {
    const { width, height } = room();
    const all = picture.width * view.k <= width + 40 && picture.height * view.k <= height + 40;
    $("map").hidden = all || !$("panel").hidden;
    if (all) return;
    const [w, h] = [picture.width * map.across, picture.height * map.down];
    const clamp = (value, most) => Math.max(0, Math.min(most, value));
    const [left, top] = [clamp((-view.x / view.k) * map.across, w), clamp((-view.y / view.k) * map.down, h)];
    const [right, bottom] = [clamp(((width - view.x) / view.k) * map.across, w), clamp(((height - view.y) / view.k) * map.down, h)];
    Object.assign($("map").lastElementChild.style, { left: `${left}px`, top: `${top}px`, width: `${Math.max(4, right - left)}px`, height: `${Math.max(4, bottom - top)}px` });
  }

  function fromMap(event) {
    if (event.type === "pointermove" && !event.buttons) return;
    if (event.type === "pointerdown") $("map").setPointerCapture(event.pointerId);
    const frame = $("map").getBoundingClientRect();
    const { width, height } = room();
    look.stop();
    look.set(width / 2 - ((event.clientX - frame.left) / map.across) * view.k, height / 2 - ((event.clientY - frame.top) / map.down) * view.k, view.k);
  }

  // ---- opening and closing ---------------------------------------------------------------------------------------

  /** Open or close a box; it stays where it is on the screen. */
  function toggle(entry) {
    if (!model.isContainer(entry.box) || !entry.parent) return;
    const before = spots.get(entry.box.id);
    if (!opened.delete(entry.box.id)) opened.add(entry.box.id);
    toggledAt = performance.now();
    relay(before && { id: entry.box.id, x: view.x + before.port * view.k, y: view.y + before.y * view.k });
    if (marks.selected === entry.box.id && !$("panel").hidden) panel.show(entry, opened.has(entry.box.id));
    say(`${entry.box.label} ${opened.has(entry.box.id) ? "opened" : "closed"}`);
  }

  /** Lay out anew, with one box where it was; what is chosen may lie in a closed box now. */
  function relay(anchor) {
    lay();
    const spot = anchor && spots.get(anchor.id);
    if (spot) look.set(anchor.x - spot.port * view.k, anchor.y - spot.y * view.k, view.k);
    if (marks.selected !== null && !spots.has(marks.selected) && marks.selected !== graph.root.box.id) {
      choose(model.parentsOf(graph.byId.get(marks.selected)).find((each) => spots.has(each.box.id)) || null);
    }
  }

  function level(open) {
    const more = picture.boxes.filter((spot) => !spot.open && model.isContainer(graph.byId.get(spot.id).box));
    if (open && !more.length) return say("all is open");
    if (open) for (const spot of more) opened.add(spot.id);
    else opened = new Set();
    relay(null);
    start(look.glide);
    say(open ? "one more level opened" : "all closed");
  }

  function reveal(entry) {
    const closed = model.parentsOf(entry).filter((each) => each.parent && !opened.has(each.box.id));
    for (const each of closed) opened.add(each.box.id);
    if (closed.length) lay();
  }

  // ---- choosing --------------------------------------------------------------------------------------------------

  function choose(entry, { bring = false, quiet = false } = {}) {
    marks.selected = entry ? entry.box.id : null;
    if (!entry) {
      if ($("panel").contains(document.activeElement)) canvas.focus({ preventScroll: true });
      panel.hide();
    } else {
      reveal(entry);
      panel.show(entry, opened.has(entry.box.id));
      if (bring) see(entry);
      if (!quiet) say(model.spoken(entry.box));
    }
    changed();
  }

  /** Move as little as needed to see a box; a header is enough of a large one. */
  function see(entry) {
    const spot = spots.get(entry.box.id);
    if (!spot) return;
    const k = Math.max(view.k, 0.7);
    const { width, height } = room();
    const [w, h] = [spot.w * k, Math.min(spot.h, HEAD * 3) * k];
    let [x, y] = [view.x + spot.x * view.k, view.y + spot.y * view.k];
    if (k !== view.k) [x, y] = [(width - w) / 2, (height - h) / 2];
    x = w > width - 40 ? width / 2 - (spot.port - spot.x) * k : Math.min(Math.max(x, 20), width - 20 - w);
    y = Math.min(Math.max(y, 60), height - 60 - h);
    look.glide(x - spot.x * k, y - spot.y * k, k);
  }

  function say(text) {
    $("said").textContent = text;
  }

  // ---- mouse and fingers -----------------------------------------------------------------------------------------

  function at({ x, y }) {
    for (let index = picture.boxes.length - 1; index >= 0; index--) {
      const spot = picture.boxes[index];
      if (x >= spot.x && y >= spot.y && x <= spot.x + spot.w && y <= spot.y + spot.h) return spot;
    }
    return null;
  }

  /** The header of an open box and the arrow of a closed one open and close it. */
  function handle(spot, { x, y }) {
    if (!spot || !model.isContainer(graph.byId.get(spot.id).box)) return false;
    return spot.open ? y < spot.y + HEAD : x > spot.x + spot.w - 26;
  }

  function click(point, event) {
    if (event.detail > 1) return;
    const spot = at(point);
    const inside = spot && spot.open && !handle(spot, point);
    if (!spot || inside) return choose(null);
    const entry = graph.byId.get(spot.id);
    choose(entry);
    if (handle(spot, point)) toggle(entry);
  }

  function doubleClick(point) {
    const spot = at(point);
    if (spot && performance.now() - toggledAt > 500 && (!spot.open || handle(spot, point))) toggle(graph.byId.get(spot.id));
  }

  function hover(point, screen) {
    const spot = point && at(point);
    const over = spot && (!spot.open || handle(spot, point)) ? spot.id : null;
    canvas.classList.toggle("over", over !== null);
    tip(point && over === null ? edgeAt(point) : null, screen);
    if (over === marks.hovered) return;
    marks.hovered = over;
    changed();
  }

  function edgeAt(point) {
    const near = 6 / view.k;
    return picture.edges.find((edge) => edge.shape && edge.points.slice(1).some((end, index) => distance(point, edge.points[index], end) < near));
  }

  function distance(point, [x, y], [toX, toY]) {
    const [dx, dy] = [toX - x, toY - y];
    const part = Math.max(0, Math.min(1, ((point.x - x) * dx + (point.y - y) * dy) / (dx * dx + dy * dy || 1)));
    return Math.hypot(point.x - x - part * dx, point.y - y - part * dy);
  }

  function tip(edge, screen) {
    $("tip").hidden = !edge;
    if (!edge) return;
    const name = (id) => (id === "" ? "border" : graph.byId.get(id).box.label);
    $("tip").textContent = `${name(edge.source)} → ${name(edge.target)}   ${edge.shape}${edge.times > 1 ? ` × ${edge.times}` : ""}`;
    Object.assign($("tip").style, { left: `${Math.min(screen.x + 14, room().width - 260)}px`, top: `${screen.y + 14}px` });
  }

  // ---- keys ------------------------------------------------------------------------------------------------------

  const isOpen = (entry) => opened.has(entry.box.id) || !entry.parent;
  const child = (entry, last) => graph.byId.get(entry.box.boxes[last ? entry.box.boxes.length - 1 : 0].id);

  function down(entry) {
    if (isOpen(entry) && model.isContainer(entry.box)) return child(entry, false);
    for (let each = entry; each && each.parent; each = each.parent) {
      const next = each.after.find((one) => !one.out);
      if (next) return next.entry;
    }
    return null;
  }

  function up(entry) {
    const before = entry.before.find((one) => !one.out);
    if (!before) return entry.parent && entry.parent.parent ? entry.parent : null;
    let each = before.entry;
    while (isOpen(each) && model.isContainer(each.box)) each = child(each, true);
    return each;
  }

  /** The nearest box at one side, in the same container; else out of it (left) or into the box (right). */
  function aside(entry, side) {
    const here = spots.get(entry.box.id);
    const others = (entry.parent ? entry.parent.box.boxes : []).map((box) => spots.get(box.id)).filter((spot) => spot && spot !== here && (spot.port - here.port) * side > 1 && spot.y < here.y + here.h && spot.y + spot.h > here.y);
    others.sort((one, other) => Math.abs(one.port - here.port) - Math.abs(other.port - here.port));
    if (others.length) return graph.byId.get(others[0].id);
    if (side > 0) return isOpen(entry) && model.isContainer(entry.box) ? child(entry, false) : null;
    return entry.parent && entry.parent.parent ? entry.parent : null;
  }

  const moves = { ArrowDown: down, ArrowUp: up, ArrowRight: (entry) => aside(entry, 1), ArrowLeft: (entry) => aside(entry, -1) };

  function move(key) {
    const chosen = marks.selected === null ? null : graph.byId.get(marks.selected);
    const next = !chosen || !chosen.parent ? graph.byId.get(picture.boxes[0].id) : moves[key](chosen);
    if (next) choose(next, { bring: true });
  }

  const keys = {
    "/": () => $("query").focus(), "?": help, "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), "−": () => zoom(0.8),
    0: fit, f: fit, e: () => level(true), c: () => level(false), d: theme,
    y: () => marks.selected !== null && panel.copy(graph.byId.get(marks.selected).box.path).then(() => say("path copied")),
    Escape: escape,
    Enter: () => marks.selected !== null && toggle(graph.byId.get(marks.selected)),
  };

  function escape() {
    if ($("query").value) clear();
    else choose(null);
  }

  document.addEventListener("keydown", (event) => {
    const busy = event.target.closest && event.target.closest("input, dialog");
    if (busy || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" && event.target !== canvas && event.target !== document.body) return; // a button's own
    if (moves[event.key] && $("panel").contains(event.target)) return; // scrolls
    const action = moves[event.key] ? () => move(event.key) : keys[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });

  function help() {
    $("keys").showModal();
  }

  // ---- search ----------------------------------------------------------------------------------------------------

  const SHOWN = 60;

  function seek() {
    hits = search.find($("query").value);
    hit = -1;
    marks.found = new Set(hits.map((entry) => entry.box.id));
    const some = $("query").value.trim() !== "";
    $("found").textContent = some ? `${hits.length || "none"}` : "";
    list(some);
    changed();
  }

  function list(open) {
    const rows = hits.slice(0, SHOWN).map((entry, index) => {
      const row = document.createElement("li");
      const [path, kind] = [document.createElement("b"), document.createElement("span")];
      path.textContent = entry.box.path || entry.box.label;
      kind.textContent = model.isModule(entry.box) ? entry.box.kind || "" : entry.box.label;
      row.append(path, kind);
      Object.assign(row, { id: `hit-${index}`, role: "option" });
      row.setAttribute("aria-selected", String(index === hit));
      row.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        visit(index);
        list(false);
      });
      return row;
    });
    if (open && !rows.length) rows.push(Object.assign(document.createElement("li"), { className: "none", textContent: "Nothing has this path, class or shape." }));
    $("hits").replaceChildren(...rows);
    $("hits").hidden = !open;
    $("query").setAttribute("aria-expanded", String(open));
  }

  function visit(index) {
    if (!hits.length) return;
    hit = (index + hits.length) % hits.length;
    $("found").textContent = `${hit + 1} of ${hits.length}`;
    choose(hits[hit], { bring: true });
    [...$("hits").children].forEach((row, place) => row.setAttribute("aria-selected", String(place === hit)));
    const row = $(`hit-${hit}`);
    if (row) row.scrollIntoView({ block: "nearest" });
    $("query").setAttribute("aria-activedescendant", row ? row.id : "");
  }

  function clear() {
    $("query").value = "";
    seek();
  }

  $("query").addEventListener("input", seek);
  $("query").addEventListener("focus", () => $("query").value.trim() && list(true));
  $("query").addEventListener("blur", () => list(false));
  $("query").addEventListener("keydown", (event) => {
    const step = { Enter: event.shiftKey ? -1 : 1, ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) visit(hit < 0 && step < 0 ? -1 : hit + step);
    if (event.key === "Enter") list(false);
    if (event.key === "Escape") {
      clear();
      canvas.focus();
    }
    if (step || event.key === "Escape") event.preventDefault();
  });

  // ---- light and dark --------------------------------------------------------------------------------------------

  const dark = matchMedia("(prefers-color-scheme: dark)");

  function theme() {
    const now = document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
    document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("torchgraft-theme", document.documentElement.dataset.theme);
    } catch { /* a browser that keeps nothing for files */ }
    recolour();
  }

  function recolour() {
    painter_.colours();
    legend();
    drawMap();
    changed();
  }

  function legend() {
    const boxes = graph.list.slice(1).map((entry) => entry.box);
    const marked = new Set(graph.list.flatMap((entry) => (entry.box.edges || []).map((edge) => edge.mark)));
    const names = [
      ["state", "trainable", "trainable"], ["state", "frozen", "frozen"], ["state", "partly", "partly frozen"],
      ["mark", "new", "new"], ["mark", "repaired", "put in by a repair"], ["mark", "added", "added"], ["mark", "removed", "removed"],
      ["mark", "changed", "changed"], ["mark", "broken", "the pass breaks off"],
    ];
    const held = names.filter(([field, value]) => boxes.some((box) => box[field] === value) || (field === "mark" && marked.has(value)));
    $("legend").replaceChildren(...held.map(([field, value, text]) => {
      const entry = document.createElement("li"), sample = document.createElement("i");
      const box = { [field]: value };
      const { fill, rim } = painter_.tone(box, false);
      const [top, bottom] = painter_.stripes(box);
      for (const [name, colour] of Object.entries({ fill, rim, top, bottom: bottom || top })) if (colour) sample.style.setProperty(`--${name}`, colour);
      entry.className = field;
      entry.append(sample, text);
      return entry;
    }));
  }

  // ---- what the address keeps ------------------------------------------------------------------------------------

  const same = () => opened.size === preset.size && [...opened].every((id) => preset.has(id));

  /** `#open=1.4.k&at=x,y,zoom&box=4`: places in the list of boxes, to the base of 36. */
  function save() {
    const parts = [];
    if (!same()) parts.push(`open=${[...opened].map((id) => graph.byId.get(id).index.toString(36)).join(".")}`);
    parts.push(`at=${[view.x, view.y].map(Math.round).join(",")},${view.k.toFixed(3)}`);
    if (marks.selected !== null) parts.push(`box=${graph.byId.get(marks.selected).index.toString(36)}`);
    try {
      history.replaceState(null, "", `#${parts.join("&")}`);
    } catch { /* a frame without an address */ }
  }

  function restore() {
    const kept = new URLSearchParams(location.hash.slice(1));
    const entryOf = (text) => graph.list[parseInt(text, 36)];
    if (kept.has("open")) opened = new Set(kept.get("open").split(".").map(entryOf).filter((entry) => entry && entry.parent).map((entry) => entry.box.id));
    else opened = new Set(preset);
    lay();
    const chosen = kept.has("box") ? entryOf(kept.get("box")) : null;
    choose(chosen || null, { quiet: true });
    const [x, y, k] = (kept.get("at") || "").split(",").map(Number);
    if (k > 0 && Number.isFinite(x + y)) look.set(x, y, k);
    else start(look.set);
  }

  // ---- start -----------------------------------------------------------------------------------------------------

  function resized() {
    const { width, height } = canvas.getBoundingClientRect();
    painter_.resize(width, height);
    if (!picture) return;
    look.floor(wholeScale() * 0.7);
    drawMap();
    paint(); // at once: a canvas of a new size is empty
  }

  for (const [id, action] of Object.entries({ expand: () => level(true), collapse: () => level(false), in: () => zoom(1.25), out: () => zoom(0.8), fit, theme, help, model: () => choose(graph.root) })) $(id).addEventListener("click", action);
  for (const kind of ["pointerdown", "pointermove"]) $("map").addEventListener(kind, fromMap);
  dark.addEventListener("change", recolour);
  addEventListener("hashchange", restore);
  addEventListener("beforeprint", () => ($("print").innerHTML = painter_.svg()));

  try {
    const kept = localStorage.getItem("torchgraft-theme");
    if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
  } catch { /* as above */ }
  texts.measureWith(painter_.measure);
  painter_.colours();
  resized();
  legend();
  restore();
  new ResizeObserver(resized).observe(canvas);
  window.drawn = () => ({ view: { ...view }, boxes: picture.boxes, selected: marks.selected, opened: [...opened] });
  paint();
  performance.mark("drawn");
})();
