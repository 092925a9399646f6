/* Drawing on a canvas: of 2,000 visible boxes, moved, it gave 60 frames a second where SVG elements gave 45 to 50.
   It is drawn once with some margin, and that image is moved. */
"use strict";

function painter(canvas, byId, again) {
  const screen = canvas.getContext("2d", { alpha: false });
  let context = screen; // that of the screen, or of the image kept
  const FAMILY = getComputedStyle(document.body).fontFamily;
  const SMALL = 4.6; // pixels; letters below that are not drawn
  const PLAIN = 0.35; // zoom; below that, corners are square and ways straight
  const MANY = 200, MARGIN = 0.25; // boxes in sight; of the screen, kept at each side
  const weights = { label: 650 };
  let colour = {}, picture = null, shapes = [], width = 0, height = 0, kept = null, settling = 0;

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
    kept = null;
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
    kept = null;
    shapes = picture.edges.map((edge) => {
      const xs = edge.points.map((point) => point[0]), ys = edge.points.map((point) => point[1]);
      const right = edge.label ? edge.label.x + edge.label.w : 0;
      return { edge, path: new Path2D(edge.path), left: Math.min(...xs), right: Math.max(...xs, right) + 4, top: Math.min(...ys), bottom: Math.max(...ys) + 4 };
    });
  }

  function resize(w, h) {
    const ratio = dense();
    [width, height] = [w, h];
    kept = null;
    if (canvas.width === Math.round(w * ratio) && canvas.height === Math.round(h * ratio)) return;
    canvas.width = Math.round(w * ratio);
    canvas.height = Math.round(h * ratio);
  }

  const dense = () => window.devicePixelRatio || 1;

  /** marks: { selected, hovered, found: Set } of ids. */
  function draw(view, marks) {
    const area = { left: 0, top: 0, width, height };
    show(view, marks, inSight(view, area).length > MANY);
    context.setTransform(view.k * dense(), 0, 0, view.k * dense(), view.x * dense(), view.y * dense());
    rings(inSight(view, area), marks, view.k);
  }

  /** Move the image that is kept; where much is in sight, stretch it while zooming and draw anew when that rests. */
  function show(view, marks, many) {
    clearTimeout(settling);
    const [farX, farY] = [Math.round(width * MARGIN), Math.round(height * MARGIN)];
    const sharp = kept && kept.k === view.k;
    const grown = kept ? view.k / kept.k : 1;
    const [x, y] = kept ? [view.x - kept.x * grown, view.y - kept.y * grown] : [0, 0];
    const inside = kept && (sharp ? Math.abs(x) <= farX && Math.abs(y) <= farY : many && grown > 0.5 && grown < 2);
    if (!inside || kept.selected !== marks.selected) {
      keep(view, marks, { left: -farX, top: -farY, width: width + 2 * farX, height: height + 2 * farY });
      return show(view, marks, many);
    }
    screen.setTransform(dense(), 0, 0, dense(), 0, 0);
    screen.fillStyle = colour.page;
    screen.fillRect(0, 0, width, height);
    screen.drawImage(kept.image, x - farX * grown, y - farY * grown, (width + 2 * farX) * grown, (height + 2 * farY) * grown);
    if (!sharp) settling = setTimeout(() => {
      kept = null;
      again();
    }, 120);
  }

  function keep(view, marks, area) {
    const image = kept ? kept.image : document.createElement("canvas");
    const [w, h] = [area.width, area.height].map((size) => Math.round(size * dense()));
    if (image.width !== w || image.height !== h) Object.assign(image, { width: w, height: h });
    context = image.getContext("2d", { alpha: false });
    render(view, marks, area);
    context = screen;
    kept = { image, x: view.x, y: view.y, k: view.k, selected: marks.selected };
  }

  function bounds(view, area) {
    const [left, top] = [(area.left - view.x) / view.k - 10, (area.top - view.y) / view.k - 12];
    return { left, top, right: left + area.width / view.k + 20, bottom: top + area.height / view.k + 24 };
  }

  function inSight(view, area) {
    const { left, top, right, bottom } = bounds(view, area);
    return picture.boxes.filter((each) => each.x < right && each.y < bottom && each.x + each.w > left && each.y + each.h > top);
  }

  function render(view, marks, area) {
    const scale = view.k * dense();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = colour.page;
    context.fillRect(0, 0, context.canvas.width, context.canvas.height);
    context.setTransform(scale, 0, 0, scale, (view.x - area.left) * dense(), (view.y - area.top) * dense());
    const { left, top, right, bottom } = bounds(view, area);
    const boxes = inSight(view, area);
    const edges = shapes.filter((each) => each.left < right && each.top < bottom && each.right > left && each.bottom > top);
    const plain = view.k < PLAIN;
    for (const spot of boxes) if (spot.open) (plain ? block : group)(spot, view.k);
    (plain ? ways : lines)(edges, marks);
    for (const spot of boxes) if (!spot.open) (plain ? block : closed)(spot, view.k);
    writing(boxes, edges, view.k);
    if (!plain) for (const spot of boxes) badge(spot);
  }

  /** A box from afar: three rectangles. */
  function block(spot, k) {
    const { box, depth } = byId.get(spot.id);
    const { fill, rim } = spot.open ? tone(box, true, depth) : afar(box);
    const thin = (box.mark ? 1.8 : 1) / k / 1.4;
    context.fillStyle = rim;
    context.fillRect(spot.x, spot.y, spot.w, spot.h);
    context.fillStyle = fill;
    context.fillRect(spot.x + thin, spot.y + thin, spot.w - 2 * thin, spot.h - 2 * thin);
    stripe(box, spot);
  }

  /** Stronger than near, so that small boxes still say what they are. */
  function afar(box) {
    const strong = box.mark ? colour[box.mark] : stripes(box).slice(-1)[0];
    const { fill, rim } = tone(box, false);
    return strong ? { fill: mixed(strong, colour.paper, 0.4), rim: mixed(strong, colour.paper, 0.75) } : { fill, rim };
  }

  /** Edges from afar: all of one colour in one go. */
  function ways(edges, marks) {
    const colours = new Map();
    for (const { edge } of edges) {
      const name = edge.mark || (isLit(edge, marks) ? "accent" : "edge");
      if (!colours.has(name)) colours.set(name, []);
      colours.get(name).push(edge);
    }
    context.lineWidth = 1.5;
    for (const [name, list] of colours) {
      context.strokeStyle = colour[name];
      context.beginPath();
      for (const { points } of list) points.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.stroke();
    }
  }

  const isLit = (edge, marks) => marks.selected !== null && (edge.source === marks.selected || edge.target === marks.selected);

  function radius(box, spot) {
    if (spot.open) return 10;
    return box.role === "module" || !box.role ? 8 : spot.h / 2;
  }

  function outline(spot, round, grow = 0) {
    context.beginPath();
    context.roundRect(spot.x - grow, spot.y - grow, spot.w + 2 * grow, spot.h + 2 * grow, round + grow);
  }

  function group(spot) {
    const { box, depth } = byId.get(spot.id);
    const { fill, rim } = tone(box, true, depth);
    outline(spot, 10);
    context.fillStyle = fill;
    context.fill();
    stripe(box, spot);
    outline(spot, 10);
    context.strokeStyle = rim;
    context.lineWidth = box.mark ? 1.6 : 1;
    context.stroke();
  }

  function closed(spot) {
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
    stripe(box, spot);
    if (box.role === "constant" || box.mark === "removed") context.setLineDash([4, 3]);
    outline(spot, round);
    context.stroke();
    context.setLineDash([]);
  }

  /** What training changes, at the left side; half and half where it changes a part. */
  function stripe(box, spot) {
    const [first, second] = stripes(box);
    if (!first) return;
    const h = (spot.open ? 34 : spot.h) - 14;
    context.fillStyle = first;
    context.fillRect(spot.x + 5, spot.y + 7, 3, h);
    if (!second) return;
    context.fillStyle = second;
    context.fillRect(spot.x + 5, spot.y + 7 + h / 2, 3, h / 2);
  }

  function lines(edges, marks) {
    for (const { edge, path } of edges) {
      const lit = isLit(edge, marks);
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
    if (k > PLAIN) for (const spot of boxes) chevron(spot);
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
      if (k >= PLAIN) badge(spot);
    }
  }

  /** All boxes as plain areas, for the small map. */
  function overview(target, across, down) {
    const ratio = dense();
    const [w, h] = [picture.width * across, picture.height * down];
    Object.assign(target, { width: Math.ceil(w * ratio), height: Math.ceil(h * ratio) });
    Object.assign(target.style, { width: `${w}px`, height: `${h}px` });
    const small = target.getContext("2d");
    small.scale(across * ratio, down * ratio);
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
