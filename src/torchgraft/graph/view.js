/* Where one looks: pan, zoom and what fingers, mouse and wheel do to it. A point of the picture times k plus (x, y) is
   a point of the canvas. */
"use strict";

function viewer(canvas, changed, { click, doubleClick, hover }) {
  const view = { x: 0, y: 0, k: 1 };
  const MOST = 3, STILL = 5; // zoom; pixels that a click may slip
  const pointers = new Map();
  let slipped = 0, spread = 0, least = 0.02, moving = 0;

  function set(x, y, k) {
    Object.assign(view, { x, y, k: Math.min(MOST, Math.max(least, k)) });
    changed();
  }

  function pan(dx, dy) {
    stop();
    set(view.x + dx, view.y + dy, view.k);
  }

  function zoom(factor, at) {
    stop();
    const k = Math.min(MOST, Math.max(least, view.k * factor));
    const grown = k / view.k;
    set(at.x - (at.x - view.x) * grown, at.y - (at.y - view.y) * grown, k);
  }

  const stop = () => cancelAnimationFrame(moving);

  /** Glide to a place in a fifth of a second, or at once for those who want no motion. */
  function glide(x, y, k) {
    stop();
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return set(x, y, k);
    const from = { ...view }, start = performance.now();
    const step = (now) => {
      const part = Math.min(1, (now - start) / 200);
      const eased = 1 - (1 - part) ** 3;
      const scale = from.k * (k / from.k) ** eased;
      set(from.x + (x - from.x) * eased, from.y + (y - from.y) * eased, scale);
      if (part < 1) moving = requestAnimationFrame(step);
    };
    moving = requestAnimationFrame(step);
  }

  function place(event) {
    const frame = canvas.getBoundingClientRect();
    return { x: event.clientX - frame.left, y: event.clientY - frame.top };
  }

  const toPicture = (point) => ({ x: (point.x - view.x) / view.k, y: (point.y - view.y) / view.k });

  function fingers() {
    const [one, other] = [...pointers.values()];
    return { x: (one.x + other.x) / 2, y: (one.y + other.y) / 2, far: Math.hypot(one.x - other.x, one.y - other.y) || 1 };
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button > 1) return;
    stop();
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, place(event));
    slipped = pointers.size > 1 ? Infinity : 0;
    if (pointers.size === 2) spread = fingers().far;
  });

  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId), now = place(event);
    if (!before) return hover(toPicture(now), now);
    if (pointers.size === 2) return pinch(event.pointerId, now);
    slipped += Math.hypot(now.x - before.x, now.y - before.y);
    pointers.set(event.pointerId, now);
    if (slipped < STILL) return;
    canvas.classList.add("drag");
    pan(now.x - before.x, now.y - before.y);
  });

  function pinch(id, now) {
    const old = fingers();
    pointers.set(id, now);
    const next = fingers();
    set(view.x + next.x - old.x, view.y + next.y - old.y, view.k);
    zoom(next.far / spread, next);
    spread = next.far;
  }

  function release(event) {
    const held = pointers.delete(event.pointerId);
    canvas.classList.toggle("drag", pointers.size > 0 && slipped >= STILL);
    if (held && event.type === "pointerup" && slipped < STILL && event.button === 0) click(toPicture(place(event)), event);
  }

  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => hover(null));
  canvas.addEventListener("dblclick", (event) => doubleClick(toPicture(place(event))));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const line = event.deltaMode === 1 ? 20 : 1;
    if (event.ctrlKey || event.metaKey) return zoom(Math.exp(-Math.max(-60, Math.min(60, event.deltaY * line)) * 0.01), place(event));
    if (event.shiftKey && !event.deltaX) return pan(-event.deltaY * line, 0);
    pan(-event.deltaX * line, -event.deltaY * line);
  }, { passive: false });

  return { view, set, pan, zoom, glide, stop, floor: (k) => (least = Math.min(0.5, k)) };
}
