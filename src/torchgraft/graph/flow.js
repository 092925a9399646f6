/* A container as a graph: nodes 0 (in), 1 to n (its boxes in the order of the pass), n + 1 (out). Runs before layout.js.

   link  { from, to, edge, skip, label, same, shared }: skip, it goes beside a longer way; label, the shape where it is
         to be written; same, the node before gave what it was given; shared, all that leave that node say alike. */
"use strict";

var flow = (() => {
  function linksOf(box) {
    const place = new Map(box.boxes.map((child, index) => [child.id, index + 1]));
    const links = [];
    for (const edge of box.edges || []) {
      const from = edge.source === "" ? 0 : place.get(edge.source);
      const to = edge.target === "" ? box.boxes.length + 1 : place.get(edge.target);
      if (from !== undefined && to !== undefined) links.push({ from, to, edge, skip: to <= from, label: "" });
    }
    return links;
  }

  /** Mark what a longer way goes beside, and say each tensor's shape once where it leaves its box. */
  function markSkips(count, links, root) {
    const leaving = Array.from({ length: count }, () => []);
    for (const link of links) if (!link.skip) leaving[link.from].push(link);
    for (let from = 0; from < count; from++) {
      if (leaving[from].length < 2) continue;
      const far = new Array(count).fill(0);
      for (const link of leaving[from]) far[link.to] = 1;
      for (let node = from + 1; node < count; node++) {
        if (far[node]) for (const link of leaving[node]) far[link.to] = Math.max(far[link.to], far[node] + 1);
      }
      for (const link of leaving[from]) link.skip = far[link.to] > 1;
    }
    for (const out of leaving) nameShapes(out, root, count - 1);
    markSame(count, links);
  }

  /** Write a shape once; not at the border of an inner container, since it stands outside of it as well. */
  function nameShapes(out, root, last) {
    const near = out.filter((link) => !link.skip);
    const same = near.every((link) => said(link) === said(near[0]));
    const named = new Set();
    for (const link of [...near, ...out.filter((each) => each.skip)]) {
      link.shared = same;
      if (named.has(said(link)) || (!root && (link.from === 0 || link.to === last))) continue;
      named.add(said(link));
      link.label = said(link);
    }
  }

  /** A shape that a box gives as it was given is worth less ink. */
  function markSame(count, links) {
    const given = Array.from({ length: count }, () => new Set());
    for (const link of links) given[link.to].add(link.edge.shape);
    for (const link of links) link.same = given[link.from].size === 1 && given[link.from].has(link.edge.shape);
  }

  function said(link) {
    const shape = link.edge.shape || "";
    return shape && (link.edge.times || 1) > 1 ? `${shape} × ${link.edge.times}` : shape;
  }

  /** Take out what begins by itself and stands beside its only reader, as a constant or an embedding of positions
      does: the main way then stays straight. Beside an open box it would take too much room, so it stands beside the
      box before that. Gives the other nodes and their links, renumbered, and { node, reader, host, link } for each
      taken out; it stands beside its host. */
  function parted(nodes, links) {
    const aside = [], served = new Set();
    let begun = links.some((link) => link.from === 0) || nodes.some((node) => node.role === "input");
    nodes.forEach((node, index) => {
      const out = links.filter((link) => link.from === index);
      if (node.end || node.open || node.role === "input" || out.length !== 1) return;
      if (links.some((link) => link.to === index)) return;
      if (!begun && node.role !== "constant") return void (begun = true); // where nothing comes in, the way begins here
      const reader = nodes[out[0].to], host = reader.open ? before(nodes, links, out[0].to) : reader;
      if (!host || host.end || served.has(host)) return;
      served.add(host);
      aside.push({ node, reader, host, link: out[0] });
    });
    const gone = new Set(aside.map(({ node }) => node));
    const main = nodes.filter((node) => !gone.has(node));
    const place = new Map(main.map((node, index) => [node, index]));
    const rest = links.filter((link) => !gone.has(nodes[link.from]));
    for (const link of rest) [link.from, link.to] = [place.get(nodes[link.from]), place.get(nodes[link.to])];
    return { main, rest, aside };
  }

  /** The closed box right above, if it is alone in leading here. */
  function before(nodes, links, index) {
    const above = links.filter((link) => link.to === index && !link.skip).map((link) => link.from);
    const others = above.filter((from) => links.some((link) => link.to === from));
    const host = others.length === 1 ? nodes[others[0]] : null;
    return host && !host.open && links.filter((link) => link.from === others[0]).length === 1 ? host : null;
  }

  /** The nodes over which no edge jumps, the two ends included. */
  function cutsOf(nodes, links) {
    const cuts = [];
    const reach = nodes.map((node, index) => (node.role === "output" ? nodes.length - 1 : index));
    reach[0] = Math.max(0, ...nodes.map((node, index) => (node.role === "input" ? index : 0)));
    for (const link of links) if (!link.skip) reach[link.from] = Math.max(reach[link.from], link.to);
    let farthest = 0;
    nodes.forEach((_, node) => {
      if (farthest <= node) cuts.push(node);
      farthest = Math.max(farthest, reach[node]);
    });
    return cuts;
  }

  /** Nodes in a row, each the only way from the one before, make one run; the two ends are runs by themselves,
      and no skip leaves or enters within a run. */
  function runsOf(first, last, inner, skips) {
    const out = new Map(), into = new Map();
    for (const link of inner) {
      out.set(link.from, [...(out.get(link.from) || []), link]);
      into.set(link.to, [...(into.get(link.to) || []), link]);
    }
    const left = new Set(skips.map((link) => link.from)), entered = new Set(skips.map((link) => link.to));
    const runs = [];
    const taken = new Set();
    for (let node = first; node <= last; node++) {
      if (taken.has(node)) continue;
      const run = { nodes: [node], links: [] };
      for (let end = node; node > first && node < last; ) {
        const next = (out.get(end) || []).length === 1 && out.get(end)[0];
        if (!next || next.to === last || into.get(next.to).length > 1 || left.has(end) || entered.has(next.to)) break;
        run.nodes.push(next.to);
        run.links.push(next);
        taken.add((end = next.to));
      }
      runs.push(run);
    }
    return runs;
  }

  return { linksOf, parted, markSkips, said, cutsOf, runsOf };
})();
