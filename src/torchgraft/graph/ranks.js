/* Where the nodes of one container lie, x from its spine, y from its top, and the points of what joins them.
   Runs after dagre and flow.js, before layout.js. */
"use strict";

var ranks = (() => {
  const { cutsOf, runsOf } = flow;
  const STEP = 20, LABELLED = 28, LOOSE = 12; // between two boxes of a chain: plain, with a label, without an edge
  const STEM = 16, RANK = 50; // in a parallel part lines are upright so far from a box; between two ranks
  const PAD = 16, LANE = 13, BESIDE = 24; // at the border of a container; between two lanes; beside a constant

  /** A parallel part between two cuts: dagre ranks and orders its runs. */
  function parallel(first, last, nodes, links) {
    const inner = links.filter((link) => !link.skip && link.from >= first && link.to <= last);
    const runs = runsOf(first, last, inner, links.filter((link) => link.skip));
    const within = new Set(runs.flatMap((run) => run.links));
    const outer = inner.filter((link) => !within.has(link));
    const graph = new dagre.graphlib.Graph({ multigraph: true });
    graph.setGraph({ nodesep: 22, edgesep: 16, ranksep: RANK });
    const runOf = new Map();
    runs.forEach((run, index) => {
      run.h = stack(run, nodes);
      const half = Math.max(...run.nodes.flatMap((node) => [nodes[node].left + nodes[node].beside, nodes[node].right]));
      graph.setNode(String(index), { width: 2 * half, height: run.h });
      for (const node of run.nodes) runOf.set(node, index);
    });
    outer.forEach((link, index) => {
      const ends = [String(runOf.get(link.from)), String(runOf.get(link.to))];
      graph.setEdge(...ends, { weight: link.from === first ? 4 : 1 }, String(index)); // as early as may be
      link.ends = [...ends, String(index)];
    });
    tie(graph, runs, nodes);
    dagre.layout(graph);
    return read(graph, runs, outer);
  }

  /** Stack a run from 0 down; gives its height. */
  function stack(run, nodes) {
    nodes[run.nodes[0]].down = 0;
    run.links.forEach((link) => {
      nodes[link.to].down = nodes[link.from].down + nodes[link.from].h + (link.label ? LABELLED : STEP);
    });
    const end = nodes[run.nodes[run.nodes.length - 1]];
    return end.down + end.h;
  }

  /** Hold what nothing leads to below the first run, and what leads nowhere above the last. */
  function tie(graph, runs, nodes) {
    const last = String(runs.length - 1);
    runs.slice(1, -1).forEach((run, index) => {
      const name = String(index + 1);
      const roles = run.nodes.map((node) => nodes[node].role);
      if (!graph.inEdges(name).length) graph.setEdge("0", name, { weight: roles.includes("input") ? 9 : 0 }, "tie");
      if (!graph.outEdges(name).length) graph.setEdge(name, last, { weight: roles.includes("output") ? 9 : 0 }, "tie");
    });
  }

  /** What dagre found: x and y of each run, the bands of its ranks, and by which ranks a link goes. */
  function read(graph, runs, outer) {
    const flip = backward(graph, runs.length) ? -1 : 1;
    const bands = new Map();
    let low = Infinity, high = -Infinity;
    runs.forEach((run, index) => {
      const { x, y, width, height } = graph.node(String(index));
      Object.assign(run, { x: x * flip, middle: y });
      const band = bands.get(y) || { top: y, bottom: y };
      bands.set(y, { top: Math.min(band.top, y - height / 2), bottom: Math.max(band.bottom, y + height / 2) });
      if (index && index < runs.length - 1) [low, high] = [Math.min(low, run.x - width / 2), Math.max(high, run.x + width / 2)];
    });
    for (const link of outer) {
      const [from, to] = link.ends.map((name) => graph.node(name));
      link.way = graph.edge(...link.ends).points.slice(1, -1).map((point) => ({ x: point.x * flip, y: point.y }))
        .filter(({ y }) => bands.has(y) && y > from.y && y < to.y);
      for (const { x } of link.way) [low, high] = [Math.min(low, x), Math.max(high, x)];
    }
    return { runs, outer, bands, middle: (low + high) / 2 }; // the ends are alone in their ranks and so may stand there
  }

  /** Whether more neighbours stand against the order of the pass than with it. */
  function backward(graph, count) {
    const rows = new Map();
    for (let index = 0; index < count; index++) {
      const { x, y } = graph.node(String(index));
      rows.set(y, [...(rows.get(y) || []), x]);
    }
    let balance = 0;
    for (const xs of rows.values()) xs.slice(1).forEach((x, index) => (balance += Math.sign(x - xs[index])));
    return balance < 0;
  }

  /** Put all nodes in place: nodes[i].x, y (its top), band; gives the links' points and the height. */
  function place(nodes, links) {
    const cuts = cutsOf(nodes, links);
    const beside = new Map();
    for (const link of links) if (!link.skip && link.to === link.from + 1) beside.set(link.from, [...(beside.get(link.from) || []), link]);
    Object.assign(nodes[0], { x: 0, y: 0, band: { top: 0, bottom: 0 } });
    for (let index = 1; index < cuts.length; index++) {
      const [first, last] = [cuts[index - 1], cuts[index]];
      if (last === first + 1) chain(nodes, first, beside.get(first) || []);
      else branches(nodes, first, last, links);
    }
  }

  function chain(nodes, first, between) {
    const [above, below] = [nodes[first], nodes[first + 1]];
    let gap = between.length ? (between.some((link) => link.label) ? LABELLED : STEP) : LOOSE;
    if (!between.length && (above.end || below.end)) gap = above.end && below.end ? 0 : PAD;
    if (between.length && [above, below].some((node) => node.end && node.lane)) gap += LANE;
    const top = above.y + above.h + gap;
    Object.assign(below, { x: 0, y: top, band: { top, bottom: top + below.h } });
    for (const link of between) link.points = [[0, above.y + above.h], [0, top]];
  }

  function branches(nodes, first, last, links) {
    const { runs, outer, bands, middle } = parallel(first, last, nodes, links);
    const used = (node) => !nodes[node].end || outer.some((link) => link.from === node || link.to === node);
    const rise = nodes[first].y - (runs[0].middle - nodes[first].h / 2) - (used(first) ? 0 : RANK - PAD);
    for (const run of runs.slice(1)) {
      const band = bands.get(run.middle);
      const x = run === runs[runs.length - 1] ? 0 : run.x - middle;
      const input = nodes[run.nodes[0]].role === "input";
      for (const node of run.nodes) {
        const y = (input ? band.top : run.middle - run.h / 2) + nodes[node].down + rise;
        Object.assign(nodes[node], { x, y, band: { top: band.top + rise, bottom: band.bottom + rise } });
      }
      for (const link of run.links) link.points = bent(nodes[link.from], nodes[link.to], []);
    }
    if (!used(last)) nodes[last].y -= RANK - PAD;
    for (const link of outer) {
      const stops = link.way.map(({ x, y }) => [x - middle, bands.get(y).top + rise, bands.get(y).bottom + rise]);
      link.points = bent(nodes[link.from], nodes[link.to], stops);
    }
  }

  /** A constant says its shape itself; others have it written at their line. */
  function besideGap({ node, reader, host, link }) {
    const label = node.role === "constant" || !flow.said(link) ? 0 : texts.width(flow.said(link), "shape");
    if (!label) return BESIDE;
    return host === reader ? BESIDE + label : Math.max(BESIDE, label + 30 - node.right);
  }

  /** What begins by itself lies at the left of what reads it, or of what stands above that. */
  function placeAside(aside) {
    for (const each of aside) {
      const { node, reader, host, link } = each;
      const gap = besideGap(each);
      const written = node.role === "constant" || !flow.said(link) ? null : { w: texts.width(flow.said(link), "shape"), text: flow.said(link), same: false };
      const x = host.x - host.left - gap - node.right;
      const y = host === reader ? reader.y + Math.min(reader.h, 34) / 2 : host.y + host.h - node.h / 2;
      Object.assign(node, { x, y: y - node.h / 2, band: host.band });
      const end = x + node.right, low = y + node.h / 2;
      const border = reader.x - reader.left, entry = Math.max(x, border + 18);
      link.points = host === reader ? [[end, y], [border, y]] : [[x, low], [entry, reader.y]];
      if (written && host === reader) link.at = { ...written, x: end + 8, y: y - 5 };
      else if (written && entry + written.w + 14 < host.x) link.at = { ...written, x: entry + 6, y: low + 13 };
      link.skip = false;
    }
  }

  /** Upright through every rank, across between two ranks. */
  function bent(from, to, stops) {
    const points = [[from.x, from.y + from.h]];
    let [x, bottom] = [from.x, from.band.bottom];
    for (const [next, top, under] of [...stops, [to.x, to.band.top, 0]]) {
      if (next !== x) points.push([x, bottom + STEM], [next, top - 10]);
      [x, bottom] = [next, under];
    }
    points.push([to.x, to.y]);
    return points;
  }

  return { place, placeAside, besideGap, PAD, LANE, LABELLED, RANK };
})();
