/* Shapes written beside their lines, and lanes for what skips boxes. Runs after texts.js and ranks.js, before layout.js. */
"use strict";

var lanes = (() => {
  const { LANE, LABELLED, RANK } = ranks;
  const SIDE = 40; // lanes meet a tall box within so much of its end

  /** At the right of the line, just below the box that gives the tensor; where ways part, above the one that gets it. */
  function labelOf(link, nodes, inDegree) {
    if (!link.label) return null;
    const w = texts.width(link.label, "shape");
    const [x, y] = link.points[0];
    const [endX, endY] = link.points[link.points.length - 1];
    const says = { x: x + 6, y: y + 13, w, text: link.label, same: link.same };
    if (nodes[link.from].end && nodes[link.from].lane && inDegree[link.to] === 1) return { ...says, x: endX + 6, y: endY - 9 };
    if (link.points.length === 2 && endY - y < RANK) return { ...says, y: y + (LABELLED - 1) / 2 + 4 };
    if (link.shared) return says;
    return inDegree[link.to] === 1 ? { ...says, x: endX + 6, y: endY - 8 } : null;
  }

  function labels(nodes, links) {
    const inDegree = new Array(nodes.length).fill(0);
    for (const link of links) if (!link.skip) inDegree[link.to] += 1;
    for (const link of links) if (!link.skip) link.at = labelOf(link, nodes, inDegree);
  }

  /** Everything that a lane has to pass, as [top, bottom, left, right]. */
  function obstacles(nodes, links, aside) {
    const solid = [...nodes.filter((node) => !node.end), ...aside].map((node) => [node.y, node.y + node.h, node.x - node.left, node.x + node.w - node.left]);
    const words = links.filter((link) => link.at).map(({ at }) => [at.y - 9, at.y + 3, at.x, at.x + at.w]);
    const lines = [];
    for (const link of links) {
      if (!link.skip) link.points.slice(1).forEach(([x, y], index) => {
        const [fromX, fromY] = link.points[index];
        lines.push([fromY, y, Math.min(x, fromX), Math.max(x, fromX)]);
      });
    }
    return { solid: [...solid, ...words], all: [...solid, ...words, ...lines] };
  }

  /** Skips with one source share a lane; short ones lie inside of long ones. Gives how far right they reach. */
  function route(nodes, links, aside) {
    const skips = links.filter((link) => link.skip);
    if (!skips.length) return 0;
    const { solid, all } = obstacles(nodes, links, aside);
    const entering = new Map();
    let widest = 0;
    for (const group of buses(nodes, skips)) {
      const leave = gate(nodes[group[0].from], solid, 0, 0);
      const arrive = group.map(({ to }) => {
        const nth = (entering.get(to) || 0) + 1;
        entering.set(to, nth);
        return gate(nodes[to], solid, nth, skips.filter((link) => link.to === to).length);
      });
      widest = Math.max(widest, lane(group, leave, arrive, all));
    }
    return widest;
  }

  function buses(nodes, skips) {
    const groups = new Map();
    for (const link of skips) groups.set(link.from, [...(groups.get(link.from) || []), link]);
    const length = (group) => Math.max(...group.map((link) => Math.abs(nodes[link.to].y - nodes[link.from].y)));
    return [...groups.values()].sort((one, other) => length(one) - length(other));
  }

  function lane(group, leave, arrive, all) {
    const ys = [leave.y, ...arrive.map((each) => each.y)];
    const [top, bottom] = [Math.min(...ys), Math.max(...ys)];
    const passed = all.filter((each) => each[0] < bottom + 4 && each[1] > top - 4).map((each) => each[3]);
    const x = Math.max(...passed, leave.points[leave.points.length - 1][0]) + LANE;
    let right = x, y = leave.y + 3;
    group.forEach((link, index) => {
      link.points = [...leave.points, [x, leave.y], [x, arrive[index].y], ...arrive[index].points];
      if (!link.label) return;
      link.at = { x: x + 5, y: (y += 13), w: texts.width(link.label, "shape"), text: link.label, same: link.same };
      right = Math.max(right, x + 5 + link.at.w);
    });
    all.push([top, bottom, x, right]);
    return right;
  }

  /** Where a lane leaves a node (nth is 0) or is the nth of so many to enter it: at its right side, or, if that is
      blocked, by the gap above or below. */
  function gate(node, solid, nth, many) {
    const enters = nth > 0;
    if (node.end) {
      const y = node.y + (enters ? -11 : 11);
      return { y, points: enters ? [[node.x, y], [node.x, node.y]] : [[node.x, node.y], [node.x, y]] };
    }
    const right = node.x + node.w - node.left;
    const reach = Math.min(node.h, SIDE);
    const share = node.lane ? 0.65 : 1;
    const y = enters ? node.y + (reach * share * nth) / (many + 1) : node.y + node.h - reach * 0.28;
    const blocked = solid.some((each) => each[0] < y && each[1] > y && each[2] >= right);
    if (!blocked) return { y, points: [[right, y]] };
    const gap = enters ? node.band.top - 22 : node.band.bottom + 27;
    const end = enters ? node.y : node.y + node.h;
    return { y: gap, points: enters ? [[node.x, gap], [node.x, end]] : [[node.x, end], [node.x, gap]] };
  }

  return { labels, route };
})();
