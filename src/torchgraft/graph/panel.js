/* What there is to know of one box, at the side. */
"use strict";

function detailer(panel, graph, { go, shut, toggle }) {
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };

  const CROSS = "M5 5l10 10M15 5L5 15";
  const STATES = { frozen: "frozen", trainable: "trainable", partly: "partly frozen" };
  const MARKS = {
    new: "new", repaired: "put in by a repair", added: "added", removed: "removed", changed: "changed", broken: "the pass breaks off here",
  };

  function cross() {
    const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    drawing.setAttribute("viewBox", "0 0 20 20");
    path.setAttribute("d", CROSS);
    drawing.append(path);
    return drawing;
  }

  function show(entry, open) {
    const { box } = entry;
    const parts = [top(box), where(box), marks(box), numbers(entry), folded(entry), notes(box), opener(entry, open)];
    panel.replaceChildren(...[...parts, ...neighbours(entry)].filter(Boolean));
    panel.hidden = false;
    panel.scrollTop = 0;
  }

  function top(box) {
    const names = make("div", {}, make("h2", {}, box.label || box.path || box.kind), box.kind && box.kind !== box.label ? make("div", { class: "kind" }, box.kind) : null);
    return make("div", { class: "top" }, names, make("button", { class: "shut", type: "button", title: "Close (Esc)", "aria-label": "Close details", onclick: shut }, cross()));
  }

  function where(box) {
    if (!box.path) return null;
    const said = make("button", { type: "button", "aria-label": `Copy ${box.path}`, title: "Copy the path (y)" }, "Copy");
    said.addEventListener("click", () => copy(box.path, said));
    return make("div", { class: "path" }, make("code", {}, box.path), said);
  }

  async function copy(text, said) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const field = make("textarea", { class: "unseen" }, text);
      document.body.append(field);
      field.select();
      document.execCommand("copy"); // the older way, for browsers that keep the clipboard from files
      field.remove();
    }
    if (!said) return;
    said.textContent = "Copied";
    setTimeout(() => (said.textContent = "Copy"), 1500);
  }

  function marks(box) {
    const tags = [];
    if (STATES[box.state]) tags.push([STATES[box.state], box.state === "partly" ? "trainable" : box.state]);
    if (box.mark) tags.push([MARKS[box.mark], box.mark === "broken" ? "removed" : box.mark]);
    if (box.edit !== undefined && box.edit !== null) tags.push([`edit ${box.edit}`, box.mark || "accent"]);
    if ((box.calls || 1) > 1) tags.push([`call ${box.call || 1} of ${box.calls}`, "soft"]);
    if ((box.times || 1) > 1) tags.push([`× ${box.times}`, "accent"]);
    if (box.role && box.role !== "module") tags.push([box.role, "soft"]);
    if (!tags.length) return null;
    return make("ul", { class: "marks" }, ...tags.map(([text, tone]) => make("li", { style: `--tone: var(--${tone})` }, text)));
  }

  function numbers(entry) {
    const { box } = entry;
    const each = (box.times || 1) > 1 || entry.folded.length ? " each" : "";
    const rows = [
      ["Settings", box.detail],
      ["Takes", shapes(box.given)],
      ["Gives", shapes(box.gave)],
      ["Parameters", box.parameters ? counted(box.parameters, graph.total.parameters, each, split(box)) : null],
      ["MACs", box.macs ? counted(box.macs, graph.total.macs, each, box.macs >= 1e4 ? model.short(box.macs) : "") : null],
      ["Activations", box.bytes ? counted(box.bytes, graph.total.bytes, each, "", `${model.short(box.bytes)}B`) : null],
    ].filter(([, value]) => value);
    if (!rows.length) return null;
    return make("table", {}, make("tbody", {}, ...rows.map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, ...[value].flat())))));
  }

  function shapes(list) {
    if (!list || !list.length) return null;
    return list.map((shape) => make("code", { style: "display: block" }, shape));
  }

  function split(box) {
    const trained = box.trainable || 0;
    if (trained === box.parameters) return "all trainable";
    return trained ? `${model.exact(trained)} trainable, ${model.exact(box.parameters - trained)} frozen` : "all frozen";
  }

  function counted(number, whole, each, beside, written) {
    const share = model.share(number, whole);
    const lines = [written || model.exact(number), each];
    if (share && number !== whole) lines.push(make("span", { class: "share" }, make("i", { style: `width: ${Math.min(100, (100 * number) / whole)}%` })));
    const small = [beside, share && number !== whole ? `${share} of the model` : ""].filter(Boolean).join(" · ");
    return small ? [...lines, make("small", {}, small)] : lines;
  }

  function folded({ box }) {
    if (!(box.folded || []).length) return null;
    return make("section", {}, make("h3", {}, `Stands for ${box.folded.length} alike`), make("ul", { class: "list", tabindex: "0" }, ...box.folded.map((path) => make("li", {}, path))));
  }

  function notes(box) {
    if (!(box.notes || []).length) return null;
    return make("section", {}, make("h3", {}, "Notes"), make("ul", { class: "notes" }, ...box.notes.map((note) => make("li", {}, note))));
  }

  function opener(entry, open) {
    if (!model.isContainer(entry.box) || !entry.parent) return null;
    return make("button", { type: "button", class: "wide", onclick: () => toggle(entry) }, open ? "Close this module" : `Open: ${entry.box.boxes.length} inside`);
  }

  function neighbours(entry) {
    const inside = entry.parent ? [] : entry.box.boxes.map((box) => ({ entry: graph.byId.get(box.id), edge: {} }));
    const lists = [["Comes from", beyond(entry, "before")], ["Goes to", beyond(entry, "after")], ["Inside", inside]];
    return lists.filter(([, list]) => list.length).map(([title, list]) => make("section", {}, make("h3", {}, title), make("ul", { class: "links" }, ...list.map(link))));
  }

  /** Neighbours along the edges, through the borders of what the box lies in. */
  function beyond(entry, side) {
    const next = entry[side].flatMap((each) => (each.out ? beyond(each.entry, side).map((far) => ({ ...far, edge: each.edge })) : [each]));
    return next.filter((each, index) => next.findIndex((other) => other.entry === each.entry) === index);
  }

  function link({ entry, edge }) {
    const side = edge.shape || entry.box.kind || "";
    return make("li", {}, make("button", { type: "button", onclick: () => go(entry) }, make("b", {}, model.isModule(entry.box) ? entry.box.path : entry.box.label), make("span", {}, side)));
  }

  function hide() {
    panel.hidden = true;
  }

  return { show, hide, copy };
}
