/* Where the boxes and edges of a drawing lie: pure JavaScript on plain data, for the page and (by QuickJS) for SVG.

   layout(drawing, opened) -> { width, height, boxes, edges }, in pixels from the top left.
     drawing  the JSON form of drawing.py; what is absent has its default
     opened   ids of the boxes that are shown open; the root always is
     boxes    { id, x, y, w, h, open, parent, texts: [{ x, y, role, text, align }] }, a parent before its children
     edges    { source, target, parent, points: [[x, y], ...], path (SVG data), shape, times, mark, skip,
                label: null | { x, y, w, text } }, where y is a baseline

   The way, container by container, from the inside out (alike ones once):
     1. an edge beside a longer way is a skip: it leaves the layout and gets a lane at the right of what it passes
     2. the rest is cut where a single box carries everything; between two cuts lies one box below the other,
        or something parallel, which dagre ranks and orders
     3. all cuts stand on one spine, through open boxes too, so that the main way is a straight line. */
"use strict";

var layout = (() => {
  const PAD = 16, HEADER = 34, MARGIN = 24;
  const STEP = 20, LABELLED = 32, LOOSE = 12; // between two boxes of a chain: plain, with a label, without an edge
  const STEM = 16, RANK = 50; // in a parallel part lines are upright so far from a box; between two ranks
  const LANE = 13, CORNER = 7, SIDE = 40; // between lanes, of their corners; lanes meet a box within so much
  const WIDEST = 300, COLUMN = 210;
  const SIZES = { label: 13, kind: 11, detail: 10.5, times: 11, shape: 10 };

  // Advance widths of DejaVu Sans from space to ~, in hundredths of the size; it is the widest of the usual fonts.
  const PLAIN = [32,40,46,84,64,95,78,27,39,39,50,84,32,36,32,34,64,64,64,64,64,64,64,64,64,64,34,34,84,84,84,53,100,68,69,70,77,63,58,77,75,29,29,66,56,86,75,79,60,79,69,63,61,73,68,99,69,61,69,39,34,39,84,50,50,61,63,55,63,62,35,63,63,28,28,58,28,97,63,61,63,63,41,52,39,63,59,82,59,59,52,64,34,64,84];
  const BOLD = [35,46,52,84,70,100,87,31,46,46,52,84,38,42,38,37,70,70,70,70,70,70,70,70,70,70,40,40,84,84,84,58,100,77,76,73,83,68,68,82,84,37,37,77,64,100,84,85,73,85,77,72,68,81,77,110,77,72,73,46,37,46,84,50,50,67,72,59,72,68,44,72,71,34,34,67,34,104,71,69,72,72,49,60,48,71,65,92,65,65,58,71,37,71,84];
  const OTHER = { "×": 84, "→": 84, "−": 84, "·": 38, "…": 100 };

  function textWidth(text, role) {
    const table = role === "label" ? BOLD : PLAIN;
    let sum = 0;
    for (const letter of text) {
      const code = letter.codePointAt(0);
      sum += table[code - 32] || OTHER[letter] || (code > 0x2e7f ? 100 : 70);
    }
    return (sum * SIZES[role]) / 100;
  }

  function trimmed(text, role, most) {
    if (textWidth(text, role) <= most) return text;
    let end = text.length - 1;
    while (end > 1 && textWidth(text.slice(0, end) + "…", role) > most) end -= 1;
    return text.slice(0, end).trimEnd() + "…";
  }

  // ---- closed boxes: their lines of text and so their sizes -------------------------------------------------

  /** The first line of a box: name, class and how often, one beside the other. */
  function heading(box) {
    const times = (box.times || 1) > 1 ? "× " + box.times : "";
    const calls = (box.calls || 1) > 1 ? `call ${box.call || 1} of ${box.calls}` : "";
    const words = [
      ["label", trimmed(box.label || box.kind || "", "label", 200)],
      ["kind", box.kind && box.kind !== box.label ? trimmed(box.kind, "kind", 160) : ""],
      ["times", times],
      ["kind", calls],
    ];
    return words.filter(([, text]) => text);
  }

  function widthOf(words) {
    return words.reduce((sum, [role, text]) => sum + textWidth(text, role) + 7, -7);
  }

  function closedSize(box) {
    const first = widthOf(heading(box));
    if (box.role && box.role !== "module") return { w: Math.max(46, Math.ceil(first) + 24), h: 26, fixed: true };
    const second = box.detail ? textWidth(trimmed(box.detail, "detail", WIDEST), "detail") : 0;
    return { w: Math.max(96, Math.ceil(Math.max(first, second)) + 24), h: box.detail ? 44 : 30, fixed: false };
  }

  /** Texts of a box of width w, relative to its corner: centred when closed, at the left of its header when open. */
  function textsOf(box, w, open) {
    const words = heading(box);
    let x = open ? 12 : (w - widthOf(words)) / 2;
    const texts = words.map(([role, text]) => {
      const placed = { x, y: open ? 21 : !box.role || box.role === "module" ? 19 : 17, role, text };
      x += textWidth(text, role) + 7;
      return placed;
    });
    if (!open && box.detail && (!box.role || box.role === "module")) {
      const text = trimmed(box.detail, "detail", WIDEST);
      texts.push({ x: (w - textWidth(text, "detail")) / 2, y: 35, role: "detail", text });
    }
    return texts;
  }

  // ---- a container as a graph: nodes 0 (in), 1..n (boxes), n + 1 (out) ---------------------------------------

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
  function markSkips(count, links) {
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
    for (const out of leaving) nameShapes(out);
  }

  function nameShapes(out) {
    const near = out.filter((link) => !link.skip);
    const same = near.every((link) => said(link) === said(near[0]));
    const named = new Set();
    for (const link of [...near, ...out.filter((each) => each.skip)]) {
      link.shared = same;
      if (named.has(said(link))) continue;
      named.add(said(link));
      link.label = said(link);
    }
  }

  function said(link) {
    const shape = link.edge.shape || "";
    return shape && (link.edge.times || 1) > 1 ? `${shape} × ${link.edge.times}` : shape;
  }

  /** The nodes over which no edge jumps, the two ends included. */
  function cutsOf(count, links) {
    const cuts = [];
    const reach = new Array(count).fill(0);
    for (const link of links) if (!link.skip) reach[link.from] = Math.max(reach[link.from], link.to);
    let farthest = 0;
    for (let node = 0; node < count; node++) {
      if (farthest <= node) cuts.push(node);
      farthest = Math.max(farthest, reach[node]);
    }
    return cuts;
  }

  // ---- placing the nodes of a container; x is from the spine -------------------------------------------------

  /** A parallel part between two cuts by dagre. Gives x, y (from the bottom of `first`) and the ways of its links. */
  function parallel(first, last, nodes, links) {
    const graph = new dagre.graphlib.Graph({ multigraph: true });
    graph.setGraph({ nodesep: 22, edgesep: 16, ranksep: RANK });
    for (let node = first; node <= last; node++) {
      const { left, right, h } = nodes[node];
      graph.setNode(String(node), { width: 2 * Math.max(left, right), height: h });
    }
    const inner = links.filter((link) => !link.skip && link.from >= first && link.to <= last);
    inner.forEach((link, index) => graph.setEdge(String(link.from), String(link.to), { weight: 2 }, String(index)));
    tie(graph, first, last, nodes, inner);
    dagre.layout(graph);
    return { inner, ...read(graph, first, last, inner) };
  }

  /** Hold what nothing leads to below the first node, and what leads nowhere above the last. */
  function tie(graph, first, last, nodes, inner) {
    const entered = new Set(inner.map((link) => link.to)), left = new Set(inner.map((link) => link.from));
    for (let node = first + 1; node < last; node++) {
      if (!entered.has(node)) graph.setEdge(String(first), String(node), { weight: nodes[node].role === "input" ? 9 : 0 }, "tie");
      if (!left.has(node)) graph.setEdge(String(node), String(last), { weight: nodes[node].role === "output" ? 9 : 0 }, "tie");
    }
  }

  function read(graph, first, last, inner) {
    const at = new Map();
    const bands = new Map();
    let low = Infinity, high = -Infinity;
    for (let node = first; node <= last; node++) {
      const { x, y, width, height } = graph.node(String(node));
      at.set(node, { x, y });
      const band = bands.get(y) || { top: y, bottom: y };
      bands.set(y, { top: Math.min(band.top, y - height / 2), bottom: Math.max(band.bottom, y + height / 2) });
      if (node > first && node < last) [low, high] = [Math.min(low, x - width / 2), Math.max(high, x + width / 2)];
    }
    const ways = inner.map((link, index) =>
      graph.edge(String(link.from), String(link.to), String(index)).points.slice(1, -1)
        .filter((point) => bands.has(point.y) && point.y > at.get(link.from).y && point.y < at.get(link.to).y),
    );
    for (const way of ways) for (const { x } of way) [low, high] = [Math.min(low, x), Math.max(high, x)];
    const middle = (low + high) / 2; // the cuts are alone in their ranks and so may stand in the middle
    return { at, bands, ways, middle };
  }

  /** Put all nodes in place: nodes[i].x, y (its top), band; gives the links' points and the height. */
  function place(nodes, links) {
    const cuts = cutsOf(nodes.length, links);
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
    const top = above.y + above.h + gap;
    Object.assign(below, { x: 0, y: top, band: { top, bottom: top + below.h } });
    for (const link of between) link.points = [[0, above.y + above.h], [0, top]];
  }

  function branches(nodes, first, last, links) {
    const { inner, at, bands, ways, middle } = parallel(first, last, nodes, links);
    const used = (node) => !nodes[node].end || inner.some((link) => link.from === node || link.to === node);
    const rise = nodes[first].y - (at.get(first).y - nodes[first].h / 2) - (used(first) ? 0 : RANK - PAD);
    for (let node = first + 1; node <= last; node++) {
      const { x, y } = at.get(node);
      const band = bands.get(y);
      Object.assign(nodes[node], {
        x: node === last ? 0 : x - middle,
        y: y - nodes[node].h / 2 + rise,
        band: { top: band.top + rise, bottom: band.bottom + rise },
      });
    }
    if (!used(last)) nodes[last].y -= RANK - PAD;
    inner.forEach((link, index) => {
      const stops = ways[index].map(({ x, y }) => [x - middle, bands.get(y).top + rise, bands.get(y).bottom + rise]);
      link.points = bent(nodes[link.from], nodes[link.to], stops);
    });
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

  // ---- labels and lanes --------------------------------------------------------------------------------------

  /** At the right of the line, just below the box that gives the tensor; where ways part, above the one that gets it. */
  function labelOf(link, nodes, inDegree) {
    if (!link.label) return null;
    const w = textWidth(link.label, "shape");
    const straight = link.to === link.from + 1 && link.points.length === 2;
    const [x, y] = link.points[0];
    if (straight) return { x: x + 6, y: (y + link.points[1][1]) / 2 + 2.5, w, text: link.label };
    if (link.shared) return { x: x + 6, y: y + 13, w, text: link.label };
    const [endX, endY] = link.points[link.points.length - 1];
    return inDegree[link.to] === 1 ? { x: endX + 6, y: endY - 8, w, text: link.label } : null;
  }

  function labels(nodes, links) {
    const inDegree = new Array(nodes.length).fill(0);
    for (const link of links) if (!link.skip) inDegree[link.to] += 1;
    for (const link of links) if (!link.skip) link.at = labelOf(link, nodes, inDegree);
  }

  /** Everything that a lane has to pass, as [top, bottom, left, right]. */
  function obstacles(nodes, links) {
    const solid = nodes.filter((node) => !node.end).map((node) => [node.y, node.y + node.h, node.x - node.left, node.x + node.w - node.left]);
    const texts = links.filter((link) => link.at).map(({ at }) => [at.y - 9, at.y + 3, at.x, at.x + at.w]);
    const lines = [];
    for (const link of links) {
      if (!link.skip) link.points.slice(1).forEach(([x, y], index) => {
        const [fromX, fromY] = link.points[index];
        lines.push([fromY, y, Math.min(x, fromX), Math.max(x, fromX)]);
      });
    }
    return { solid: [...solid, ...texts], all: [...solid, ...texts, ...lines] };
  }

  /** Skips with one source share a lane; short ones lie inside of long ones. */
  function lanes(nodes, links) {
    const buses = new Map();
    for (const link of links) if (link.skip) buses.set(link.from, [...(buses.get(link.from) || []), link]);
    if (!buses.size) return 0;
    const { solid, all } = obstacles(nodes, links);
    const entries = new Map();
    const spans = [...buses.entries()].map(([from, group]) => {
      const ys = [nodes[from].y + nodes[from].h / 2, ...group.map((link) => nodes[link.to].y)];
      return { from, group, top: Math.min(...ys), bottom: Math.max(...ys) };
    });
    spans.sort((one, other) => one.bottom - one.top - (other.bottom - other.top));
    let widest = 0;
    for (const span of spans) {
      const leave = gate(nodes[span.from], null, solid, 0);
      const arrive = span.group.map((link) => gate(nodes[link.to], entries, solid, link.to));
      const ys = [leave.y, ...arrive.map((each) => each.y)];
      const [top, bottom] = [Math.min(...ys), Math.max(...ys)];
      const passed = all.filter((each) => each[0] < bottom + 4 && each[1] > top - 4).map((each) => each[3]);
      const x = Math.max(...passed, leave.points[leave.points.length - 1][0]) + LANE;
      let right = x;
      span.group.forEach((link, index) => {
        link.points = [...leave.points, [x, leave.y], [x, arrive[index].y], ...arrive[index].points];
        if (!link.label) return;
        link.at = { x: x + 5, y: leave.y + 16, w: textWidth(link.label, "shape"), text: link.label };
        right = Math.max(right, x + 5 + link.at.w);
      });
      all.push([top, bottom, x, right]);
      widest = Math.max(widest, right);
    }
    return widest;
  }

  /** Where a lane leaves a node (entries is null) or enters it: at its right side, or if that is blocked by the gap. */
  function gate(node, entries, solid, key) {
    if (node.end) {
      const y = node.y + (entries ? -11 : 11);
      return { y, points: entries ? [[node.x, y], [node.x, node.y]] : [[node.x, node.y], [node.x, y]] };
    }
    const right = node.x + node.w - node.left;
    const reach = Math.min(node.h, SIDE);
    const nth = entries ? (entries.get(key) || 0) + 1 : 0;
    if (entries) entries.set(key, nth);
    const y = entries ? node.y + reach * (1 - 0.5 ** nth) * (reach < node.h ? 0.85 : 0.7) : node.y + node.h - reach * 0.3;
    const blocked = solid.some((each) => each[0] < y && each[1] > y && each[2] >= right);
    if (!blocked) return { y, points: [[right, y]] };
    const gap = entries ? node.band.top - 22 : node.band.bottom + 27;
    const end = entries ? node.y : node.y + node.h;
    return { y: gap, points: entries ? [[node.x, gap], [node.x, end]] : [[node.x, end], [node.x, gap]] };
  }

  // ---- paths -------------------------------------------------------------------------------------------------

  const round = (number) => Math.round(number * 10) / 10;

  /** Straight where upright, an S between two columns. */
  function smooth(points) {
    let path = `M${round(points[0][0])} ${round(points[0][1])}`;
    for (let index = 1; index < points.length; index++) {
      const [x, y] = points[index], [fromX, fromY] = points[index - 1];
      const half = round((fromY + y) / 2);
      if (x === fromX) path += `L${round(x)} ${round(y)}`;
      else path += `C${round(fromX)} ${half} ${round(x)} ${half} ${round(x)} ${round(y)}`;
    }
    return path;
  }

  /** Straight with round corners. */
  function rounded(points) {
    let path = `M${round(points[0][0])} ${round(points[0][1])}`;
    for (let index = 1; index < points.length - 1; index++) {
      const [before, corner, after] = [points[index - 1], points[index], points[index + 1]];
      const radius = Math.min(CORNER, gone(before, corner) / 2, gone(corner, after) / 2);
      const [a, b] = [toward(corner, before, radius), toward(corner, after, radius)];
      path += `L${a}Q${round(corner[0])} ${round(corner[1])} ${b}`;
    }
    const [x, y] = points[points.length - 1];
    return `${path}L${round(x)} ${round(y)}`;
  }

  const gone = (one, other) => Math.abs(one[0] - other[0]) + Math.abs(one[1] - other[1]);

  function toward(point, other, far) {
    const length = gone(point, other) || 1;
    return [0, 1].map((axis) => round(point[axis] + ((other[axis] - point[axis]) * far) / length)).join(" ");
  }

  // ---- containers, each kind of them once --------------------------------------------------------------------

  const known = new Map(); // what a box looks like -> its number
  const frames = new Map(); // that number -> its frame

  function numbered(look) {
    if (!known.has(look)) known.set(look, known.size);
    return known.get(look);
  }

  /** Give the frame of a box: w, h, port (the spine's x), and of an open one where its insides lie. */
  function frameOf(box, opened, root) {
    const open = root || (opened.has(box.id) && (box.boxes || []).length > 0);
    if (!open) {
      const size = closedSize(box);
      return { ...size, port: size.w / 2, open, key: numbered(`${size.w} ${size.h} ${size.fixed}`) };
    }
    const inside = box.boxes.map((child) => frameOf(child, opened, false));
    const links = linksOf(box);
    const drawn = links.map((link) => `${link.from}>${link.to} ${said(link)}`);
    const look = JSON.stringify([root, root ? 0 : widthOf(heading(box)), inside.map((frame) => frame.key), box.boxes.map((child) => child.role), drawn]);
    const key = numbered(look);
    if (!frames.has(key)) frames.set(key, framed(box, inside, links, root));
    return { ...frames.get(key), open, key, inside };
  }

  function framed(box, inside, links, root) {
    const nodes = nodesOf(box, inside);
    markSkips(nodes.length, links);
    reserve(nodes, links);
    place(nodes, links);
    labels(nodes, links);
    const lane = lanes(nodes, links);
    const rights = [...nodes.map((node) => node.x + node.w - node.left), ...links.filter((link) => link.at).map(({ at }) => at.x + at.w), lane];
    for (const link of links) for (const [x] of link.points || []) rights.push(x);
    const lefts = [...nodes.map((node) => node.x - node.left), ...links.flatMap((link) => (link.points || []).map(([x]) => x))];
    return sized(box, nodes, links, Math.min(...lefts), Math.max(...rights), root);
  }

  /** Nodes with their sizes: closed modules of one container share a width, so that a column is a column. */
  function nodesOf(box, inside) {
    const column = Math.max(0, ...inside.filter((frame) => !frame.open && !frame.fixed && frame.w <= COLUMN).map((frame) => frame.w));
    const boxes = inside.map((frame, index) => {
      const w = frame.open || frame.fixed ? frame.w : Math.max(frame.w, column);
      const left = frame.open ? frame.port : w / 2;
      return { w, h: frame.h, left, right: w - left, role: box.boxes[index].role || "module", end: false };
    });
    const end = () => ({ w: 0, h: 0, left: 0, right: 0, role: "", end: true });
    return [end(), ...boxes, end()];
  }

  /** Keep room beside a box for the shape written at its line. */
  function reserve(nodes, links) {
    for (const link of links) {
      if (!link.label || link.skip) continue;
      const node = nodes[link.shared ? link.from : link.to];
      node.right = Math.max(node.right, textWidth(link.label, "shape") + 10);
    }
  }

  function sized(box, nodes, links, low, high, root) {
    const pad = root ? 0 : PAD;
    const lack = root ? 0 : Math.max(0, widthOf(heading(box)) + 24 - (high - low + 2 * pad));
    const port = pad - low + lack / 2;
    const down = root ? 0 : HEADER;
    const shift = ([x, y]) => [round(x + port), round(y + down)];
    const edges = links.map((link) => {
      const points = link.points.map(shift);
      const label = link.at ? { ...link.at, x: round(link.at.x + port), y: round(link.at.y + down) } : null;
      return { points, label, skip: link.skip, path: "" };
    });
    return {
      w: Math.ceil(high - low + 2 * pad + lack), h: nodes[nodes.length - 1].y + down, port, edges,
      places: nodes.slice(1, -1).map((node) => ({ x: node.x - node.left + port, y: node.y + down, w: node.w })),
    };
  }

  // ---- the whole picture ---------------------------------------------------------------------------------------

  function put(picture, box, frame, x, y, parent, w) {
    if (parent !== null) {
      const texts = textsOf(box, w, frame.open).map((text) => ({ ...text, x: round(text.x + x), y: round(text.y + y) }));
      picture.boxes.push({ id: box.id, x: round(x), y: round(y), w: round(w), h: round(frame.h), open: frame.open, parent, texts });
    }
    if (!frame.open) return;
    linksOf(box).forEach((link, index) => picture.edges.push(moved(link.edge, frame.edges[index], box.id, x, y)));
    box.boxes.forEach((child, index) => {
      const spot = frame.places[index];
      put(picture, child, frame.inside[index], x + spot.x, y + spot.y, box.id, spot.w);
    });
  }

  function moved(edge, drawn, parent, x, y) {
    const points = drawn.points.map((point) => [round(point[0] + x), round(point[1] + y)]);
    const label = drawn.label && { ...drawn.label, x: round(drawn.label.x + x), y: round(drawn.label.y + y) };
    return {
      source: edge.source, target: edge.target, parent, points, path: (drawn.skip ? rounded : smooth)(points),
      shape: edge.shape || "", times: edge.times || 1, mark: edge.mark || "", skip: drawn.skip, label,
    };
  }

  return (drawing, opened) => {
    const frame = frameOf(drawing.root, new Set(opened), true);
    const picture = { width: frame.w + 2 * MARGIN, height: frame.h + 2 * MARGIN, boxes: [], edges: [] };
    put(picture, drawing.root, frame, MARGIN, MARGIN, null, frame.w);
    return picture;
  };
})();
