/* The drawing as the page looks things up in it: every box by its id, what it lies in, what it is joined to. */
"use strict";

var model = (() => {
  const SHORT = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];

  function indexed(drawing) {
    const list = [], byId = new Map();
    const add = (box, parent, depth) => {
      const entry = { box, parent, depth, index: list.length, before: [], after: [], folded: folder(box, parent) };
      list.push(entry);
      byId.set(box.id, entry);
      for (const child of box.boxes || []) add(child, entry, depth + 1);
      for (const edge of box.edges || []) join(byId, entry, edge);
    };
    add(drawing.root, null, 0);
    return { drawing, list, byId, root: list[0], total: drawing.root };
  }

  /** The folded blocks around a box, the nearest first: it stands for as many places. */
  function folder(box, parent) {
    const around = parent ? parent.folded : [];
    return (box.folded || []).length > 1 ? [box.folded, ...around] : around;
  }

  /** An edge from or to "" joins a box to its parent. */
  function join(byId, parent, edge) {
    const from = edge.source === "" ? parent : byId.get(edge.source);
    const to = edge.target === "" ? parent : byId.get(edge.target);
    if (!from || !to || from === to) return;
    if (from !== parent) from.after.push({ entry: to, edge, out: to === parent });
    if (to !== parent) to.before.push({ entry: from, edge, out: from === parent });
  }

  const isContainer = (box) => (box.boxes || []).length > 0;
  const isModule = (box) => !box.role || box.role === "module";

  function parentsOf(entry) {
    const parents = [];
    for (let each = entry.parent; each; each = each.parent) parents.push(each);
    return parents;
  }

  /** 11,689,512 is 11.7 M. */
  function short(number) {
    for (const [size, letter] of SHORT) if (number >= size * 0.9995) return `${(number / size).toPrecision(3)} ${letter}`;
    return String(number);
  }

  const exact = (number) => number.toLocaleString("en-GB");

  function share(part, whole) {
    if (!whole || !part) return null;
    const percent = (100 * part) / whole;
    if (part === whole) return "100 %";
    return percent < 0.1 ? "under 0.1 %" : `${Math.min(percent, 99.9).toFixed(1)} %`;
  }

  /** What a box is in one line, for those who hear it. */
  function spoken(box) {
    const state = { frozen: "frozen", trainable: "trainable", partly: "partly frozen" }[box.state];
    const gives = (box.gave || []).length ? `gives ${box.gave.join(", ")}` : "";
    return [box.path || box.label, box.kind, box.detail, (box.times || 1) > 1 ? `${box.times} times` : "", state, box.mark, gives].filter(Boolean).join(", ");
  }

  return { indexed, isContainer, isModule, parentsOf, short, exact, share, spoken };
})();
