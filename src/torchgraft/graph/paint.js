/* Drawing on a canvas: at 2,000 visible boxes it keeps 60 frames a second where the same as SVG elements gave 45.

   painter(canvas) -> { font, size, use(picture), colours(), draw(view, marks), svg(title) } */
"use strict";

function painter(canvas, byId) {
  const context = canvas.getContext("2d");
  const FAMILY = getComputedStyle(document.body).fontFamily;
  const SMALL = 3.6; // pixels; letters below that are not drawn
  const weights = { label: 650 };
  let colour = {}, picture = null, shapes = [], width = 0, height = 0;

  const font = (role) => `${weights[role] || 400} ${texts.SIZES[role]}px ${FAMILY}`;

  /** Widths of texts as this browser writes them. */
  function measure(text, role) {
    context.font = font(role);
    return context.measureText(text).width;
  }

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const names = "page paper cell group ink soft faint line edge accent frozen trainable new repaired added removed changed".split(" ");
    colour = Object.fromEntries(names.map((name) => [name, style.getPropertyValue("--" + name).trim()]));
    colour.broken = colour.removed;
    colour.tint = {};
    return colour;
  }

  function mixed(one, other, share) {
    const key = one + other + share;
    if (!colour.tint[key]) {
      const parts = [one, other].map((each) => [1, 3, 5].map((place) => parseInt(each.slice(place, place + 2), 16)));
      colour.tint[key] = `rgb(${parts[0].map((part, index) => Math.round(part * share + parts[1][index] * (1 - share))).join(",")})`;
    }
    return colour.tint[key];
  }

  function stripes(box) {
    return { frozen: [colour.frozen], trainable: [colour.trainable], partly: [colour.frozen, colour.trainable] }[box.state] || [];
  }

  /** Fill and rim of a box; a mark outdoes a state. */
  function tone(box, open, depth = 1) {
    const paper = open ? colour.page : colour.paper;
    if (box.role === "input" || box.role === "output") return { fill: colour.soft, rim: colour.soft };
    if (box.mark) return { fill: mixed(colour[box.mark], paper, open ? 0.06 : 0.13), rim: colour[box.mark] };
    const [first, second] = stripes(box);
    if (open) return { fill: mixed(colour.ink, colour.page, 0.028 * depth), rim: first ? mixed(second || first, colour.line, 0.3) : colour.line };
    if (!model.isModule(box)) return { fill: colour.cell, rim: colour.line };
    return { fill: first && !second ? mixed(first, paper, 0.09) : paper, rim: first ? mixed(second || first, colour.line, 0.45) : colour.line };
  }

  /** Take a new picture: what does not change from frame to frame is made once. */
  function use(next) {
    picture = next;
    shapes = picture.edges.map((edge) => {
      const xs = edge.points.map((point) => point[0]), ys = edge.points.map((point) => point[1]);
      const right = edge.label ? edge.label.x + edge.label.w : 0;
      return { edge, path: new Path2D(edge.path), left: Math.min(...xs), right: Math.max(...xs, right) + 4, top: Math.min(...ys), bottom: Math.max(...ys) + 4 };
    });
  }

  function resize(w, h) {
    const dense = window.devicePixelRatio || 1;
    [width, height] = [w, h];
    if (canvas.width === Math.round(w * dense) && canvas.height === Math.round(h * dense)) return;
    canvas.width = Math.round(w * dense);
    canvas.height = Math.round(h * dense);
  }

  /** marks: { selected, hovered, found: Set, now } of ids. */
  function draw(view, marks) {
    const dense = window.devicePixelRatio || 1;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = colour.page;
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.setTransform(view.k * dense, 0, 0, view.k * dense, view.x * dense, view.y * dense);
    const [left, top] = [-view.x / view.k - 10, -view.y / view.k - 12];
    const [right, bottom] = [left + width / view.k + 20, top + height / view.k + 24];
    const seen = (each) => each.x < right && each.y < bottom && each.x + each.w > left && each.y + each.h > top;
    const boxes = picture.boxes.filter(seen);
    const edges = shapes.filter((each) => each.left < right && each.top < bottom && each.right > left && each.bottom > top);
    for (const spot of boxes) if (spot.open) group(spot, view.k);
    lines(edges, marks);
    for (const spot of boxes) if (!spot.open) closed(spot, view.k);
    writing(boxes, edges, view.k);
    rings(boxes, marks, view.k);
    if (view.k > 0.3) for (const spot of boxes) badge(spot);
    return boxes.length;
  }

  function radius(box, spot) {
    if (spot.open) return 10;
    return box.role === "module" || !box.role ? 8 : spot.h / 2;
  }

  function outline(spot, round, grow = 0) {
    context.beginPath();
    context.roundRect(spot.x - grow, spot.y - grow, spot.w + 2 * grow, spot.h + 2 * grow, round + grow);
  }

  function group(spot, k) {
    const { box, depth } = byId.get(spot.id);
    const { fill, rim } = tone(box, true, depth);
    outline(spot, 10);
    context.fillStyle = fill;
    context.fill();
    stripe(box, spot, 34, k);
    outline(spot, 10);
    context.strokeStyle = rim;
    context.lineWidth = box.mark ? 1.6 : 1;
    context.stroke();
  }

  function closed(spot, k) {
    const { box } = byId.get(spot.id);
    const { fill, rim } = tone(box, false);
    const round = radius(box, spot);
    context.strokeStyle = rim;
    context.fillStyle = fill;
    context.lineWidth = box.mark ? 1.6 : 1;
    if ((box.times || 1) > 1) for (const off of [6, 3]) {
      outline({ ...spot, x: spot.x + off, y: spot.y + off }, round);
      context.fill();
      context.stroke();
    }
    outline(spot, round);
    context.fill();
    stripe(box, spot, spot.h, k);
    if (box.role === "constant" || box.mark === "removed") context.setLineDash([4, 3]);
    outline(spot, round);
    context.stroke();
    context.setLineDash([]);
  }

  /** What training changes, at the left side; half and half where it changes a part. */
  function stripe(box, spot, h, k) {
    const [first, second] = stripes(box);
    if (!first || k < 0.08) return;
    context.save();
    outline(spot, radius(box, spot));
    context.clip();
    context.fillStyle = first;
    context.fillRect(spot.x, spot.y, 4, h);
    if (second) {
      context.fillStyle = second;
      context.fillRect(spot.x, spot.y + h / 2, 4, h / 2);
    }
    context.restore();
  }

  function lines(edges, marks) {
    for (const { edge, path } of edges) {
      const lit = marks.selected !== null && (edge.source === marks.selected || edge.target === marks.selected);
      context.strokeStyle = context.fillStyle = edge.mark ? colour[edge.mark] : lit ? colour.accent : colour.edge;
      context.lineWidth = lit || edge.mark ? 1.8 : edge.times > 1 ? 1.8 : 1.2;
      if (edge.mark === "removed") context.setLineDash([5, 3]);
      context.stroke(path);
      context.setLineDash([]);
      if (edge.target !== "") arrow(edge.points);
    }
  }

  function arrow(points) {
    const [x, y] = points[points.length - 1], [fromX, fromY] = points[points.length - 2];
    const long = Math.hypot(x - fromX, y - fromY) || 1;
    const [a, b] = [(x - fromX) / long, (y - fromY) / long];
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(x - 7 * a - 3.4 * b, y - 7 * b + 3.4 * a);
    context.lineTo(x - 7 * a + 3.4 * b, y - 7 * b - 3.4 * a);
    context.fill();
  }

  /** Texts by their kind, so that the font is set a few times a frame only. */
  function writing(boxes, edges, k) {
    const kinds = { label: [], kind: [], detail: [], times: [] };
    for (const spot of boxes) for (const text of spot.texts) kinds[text.role].push([text, spot]);
    for (const [role, list] of Object.entries(kinds)) {
      if (texts.SIZES[role] * k < SMALL) continue;
      context.font = font(role);
      for (const [text, spot] of list) {
        context.fillStyle = inkOf(role, byId.get(spot.id).box);
        context.fillText(text.text, text.x, text.y);
      }
    }
    if (k > 0.3) for (const spot of boxes) chevron(spot);
    if (texts.SIZES.shape * k < SMALL + 1) return;
    context.font = font("shape");
    for (const { edge } of edges) {
      if (!edge.label) continue;
      context.fillStyle = edge.label.same ? colour.faint : colour.ink;
      context.fillText(edge.label.text, edge.label.x, edge.label.y);
    }
  }

  function inkOf(role, box) {
    if (box.role === "input" || box.role === "output") return colour.page;
    if (role === "label") return colour.ink;
    return role === "times" ? colour.accent : colour.soft;
  }

  /** Says that a box can be opened or closed. */
  function chevron(spot) {
    const { box } = byId.get(spot.id);
    if (!model.isContainer(box)) return;
    const x = spot.x + spot.w - 14, y = spot.y + (spot.open ? 17 : spot.h / 2);
    context.strokeStyle = colour.soft;
    context.lineWidth = 1.5;
    context.beginPath();
    for (const [dx, dy] of spot.open ? [[-4, -2], [0, 2], [4, -2]] : [[-2, -4], [2, 0], [-2, 4]]) context.lineTo(x + dx, y + dy);
    context.stroke();
  }

  function badge(spot) {
    const { box } = byId.get(spot.id);
    if (!box.mark) return;
    context.font = `600 9.5px ${FAMILY}`;
    const w = context.measureText(box.mark).width + 12;
    const x = spot.x + spot.w - w - 8;
    context.fillStyle = colour[box.mark];
    context.beginPath();
    context.roundRect(x, spot.y - 7, w, 14, 7);
    context.fill();
    context.fillStyle = colour.page;
    context.fillText(box.mark, x + 6, spot.y + 3.4);
  }

  function rings(boxes, marks, k) {
    for (const spot of boxes) {
      const { box } = byId.get(spot.id);
      const chosen = spot.id === marks.selected, found = marks.found.has(spot.id);
      if (!chosen && !found && spot.id !== marks.hovered) continue;
      outline(spot, radius(box, spot), chosen ? 2.5 : found ? 2 : 0);
      context.strokeStyle = chosen ? colour.accent : found ? colour.trainable : colour.soft;
      context.lineWidth = (chosen ? 2.5 : found ? 2 : 1) / Math.min(1, Math.max(k, 0.25));
      if (found && !chosen) context.setLineDash([6, 3]);
      context.stroke();
      context.setLineDash([]);
    }
  }

  /** All boxes as plain areas, for the small map. */
  function overview(target, across, down) {
    const dense = window.devicePixelRatio || 1;
    const [w, h] = [picture.width * across, picture.height * down];
    Object.assign(target, { width: Math.ceil(w * dense), height: Math.ceil(h * dense) });
    Object.assign(target.style, { width: `${w}px`, height: `${h}px` });
    const small = target.getContext("2d");
    small.scale(across * dense, down * dense);
    for (const spot of picture.boxes) {
      const { box } = byId.get(spot.id);
      small.fillStyle = spot.open ? mixed(colour.line, colour.paper, 0.35) : box.mark ? colour[box.mark] : stripes(box).slice(-1)[0] || colour.line;
      small.fillRect(spot.x, spot.y, spot.w, spot.h);
    }
  }

  /** The whole as SVG, for paper. */
  function svg() {
    const safe = (text) => text.replace(/[&<>"]/g, (letter) => `&#${letter.charCodeAt(0)};`);
    const rects = picture.boxes.map((spot) => {
      const { box, depth } = byId.get(spot.id);
      const { fill, rim } = tone(box, spot.open, depth);
      const words = spot.texts.map((text) => `<text x="${text.x}" y="${text.y}" font-size="${texts.SIZES[text.role]}" font-weight="${weights[text.role] || 400}" fill="${inkOf(text.role, box)}">${safe(text.text)}</text>`);
      return `<rect x="${spot.x}" y="${spot.y}" width="${spot.w}" height="${spot.h}" rx="${radius(box, spot)}" fill="${fill}" stroke="${rim}"/>${words.join("")}`;
    });
    const ways = picture.edges.map((edge) => {
      const label = edge.label ? `<text x="${edge.label.x}" y="${edge.label.y}" font-size="10" fill="${colour.ink}">${safe(edge.label.text)}</text>` : "";
      return `<path d="${edge.path}" fill="none" stroke="${edge.mark ? colour[edge.mark] : colour.edge}" stroke-width="1.2"${edge.target === "" ? "" : ' marker-end="url(#arrow)"'}/>${label}`;
    });
    const head = `<marker id="arrow" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" markerUnits="userSpaceOnUse" orient="auto"><path d="M0 .6L8 4 0 7.4z" fill="${colour.edge}"/></marker>`;
    return `<svg xmlns="http://www.w3.org/2000/svg" width="${picture.width}" height="${picture.height}" viewBox="0 0 ${picture.width} ${picture.height}">${head}${rects.join("")}${ways.join("")}</svg>`;
  }

  return { measure, colours, tone, stripes, use, resize, draw, overview, svg };
}
