/* Where the boxes and edges of a drawing lie: pure JavaScript on plain data, for the page and (by QuickJS) for SVG.

   layout(drawing, opened) -> { width, height, boxes, edges }, in pixels from the top left.
     drawing  the JSON form of drawing.py; what is absent has its default
     opened   ids of the boxes that are shown open; the root always is
     boxes    { id, x, y, w, h, port, open, parent, texts: [{ x, y, role, text }] }, a parent before its children;
              port is the x where the line comes in and goes out
     edges    { source, target, parent, points: [[x, y], ...], path (SVG data), shape, times, mark, skip,
                label: null | { x, y, w, text, same } }: y is a baseline,
              same says that the box before gave the shape that it was given

   From Python: scripts.layout_script(). The way, container by container, from the inside out (alike ones once):
     1. an edge beside a longer way is a skip: it leaves the layout and gets a lane at the right of what it passes
     2. the rest is cut where a single box carries everything; between two cuts lies one box below the other,
        or something parallel, which dagre ranks and orders
     3. all cuts stand on one spine, through open boxes too, so that the main way is a straight line. */
"use strict";

var layout = (() => {
  const { PAD } = ranks;
  const HEADER = 34, MARGIN = 24;
  const CORNER = 7; // of lanes
  const EVEN = 72; // a container that leans less than this is made even
  const COLUMN = 260; // closed boxes up to this width share one

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
      const size = texts.closedSize(box);
      return { ...size, port: size.w / 2, open, key: numbered(`${size.w} ${size.h} ${size.fixed}`) };
    }
    const inside = box.boxes.map((child) => frameOf(child, opened, false));
    const links = flow.linksOf(box);
    const drawn = links.map((link) => `${link.from}>${link.to} ${flow.said(link)}`);
    const look = JSON.stringify([root, root ? 0 : texts.widthOf(texts.heading(box)), inside.map((frame) => frame.key), box.boxes.map((child) => child.role), drawn]);
    const key = numbered(look);
    if (!frames.has(key)) frames.set(key, framed(box, inside, links, root));
    return { ...frames.get(key), open, key, inside };
  }

  function framed(box, inside, links, root) {
    const nodes = nodesOf(box, inside);
    const { main, rest, aside } = flow.parted(nodes, links);
    for (const each of aside) each.host.beside = each.node.w + ranks.besideGap(each);
    flow.markSkips(main.length, rest, root);
    for (const link of rest) if (link.skip) main[link.from].lane = true;
    for (const link of rest) if (link.skip && main[link.to].end) main[link.to].lane = true;
    reserve(main, rest);
    ranks.place(main, rest);
    ranks.placeAside(aside);
    lanes.labels(main, rest);
    const lane = lanes.route(main, rest, aside.map(({ node }) => node));
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
      return { w, h: frame.h, left, right: w - left, beside: 0, open: frame.open, role: box.boxes[index].role || "module", end: false };
    });
    const end = () => ({ w: 0, h: 0, left: 0, right: 0, beside: 0, role: "", end: true });
    return [end(), ...boxes, end()];
  }

  /** Keep room beside a box for the shape written at its line. */
  function reserve(nodes, links) {
    for (const link of links) {
      if (!link.label || link.skip) continue;
      const node = nodes[link.shared ? link.from : link.to];
      node.right = Math.max(node.right, texts.width(link.label, "shape") + 10);
    }
  }

  function sized(box, nodes, links, low, high, root) {
    const pad = root ? 0 : PAD;
    if (Math.abs(high + low) < EVEN) [low, high] = [Math.min(low, -high), Math.max(high, -low)];
    const lack = root ? 0 : Math.max(0, texts.widthOf(texts.heading(box)) + 52 - (high - low + 2 * pad));
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
      const lines = texts.textsOf(box, w, frame.open).map((text) => ({ ...text, x: round(text.x + x), y: round(text.y + y) }));
      picture.boxes.push({ id: box.id, x: round(x), y: round(y), w: round(w), h: round(frame.h), port: round(x + (frame.open ? frame.port : w / 2)), open: frame.open, parent, texts: lines });
    }
    if (!frame.open) return;
    flow.linksOf(box).forEach((link, index) => picture.edges.push(moved(link.edge, frame.edges[index], box.id, x, y)));
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
