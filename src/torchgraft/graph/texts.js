/* What stands in a box, line by line, and so how large a closed box is. Pure JavaScript; runs before layout.js. */
"use strict";

var texts = (() => {
  const WIDEST = 300; // of a line of settings
  const SPACE = 7; // between two words of different weight
  const SIZES = { label: 13, kind: 11, detail: 10.5, times: 11, shape: 10 };

  // Advance widths of DejaVu Sans from space to ~, in hundredths of the size; it is the widest of the usual fonts.
  const PLAIN = [32,40,46,84,64,95,78,27,39,39,50,84,32,36,32,34,64,64,64,64,64,64,64,64,64,64,34,34,84,84,84,53,100,68,69,70,77,63,58,77,75,29,29,66,56,86,75,79,60,79,69,63,61,73,68,99,69,61,69,39,34,39,84,50,50,61,63,55,63,62,35,63,63,28,28,58,28,97,63,61,63,63,41,52,39,63,59,82,59,59,52,64,34,64,84];
  const BOLD = [35,46,52,84,70,100,87,31,46,46,52,84,38,42,38,37,70,70,70,70,70,70,70,70,70,70,40,40,84,84,84,58,100,77,76,73,83,68,68,82,84,37,37,77,64,100,84,85,73,85,77,72,68,81,77,110,77,72,73,46,37,46,84,50,50,67,72,59,72,68,44,72,71,34,34,67,34,104,71,69,72,72,49,60,48,71,65,92,65,65,58,71,37,71,84];
  const OTHER = { "×": 84, "→": 84, "−": 84, "·": 38, "…": 100 };

  let measured = null;
  const widths = new Map();

  /** Let a browser measure with the font that it has; without this, the table above holds. */
  function measureWith(measure) {
    measured = measure;
    widths.clear();
  }

  function textWidth(text, role) {
    if (!measured) return tabled(text, role);
    const key = role + text;
    if (!widths.has(key)) widths.set(key, measured(text, role));
    return widths.get(key);
  }

  function tabled(text, role) {
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
    return words.reduce((sum, [role, text]) => sum + textWidth(text, role) + SPACE, -SPACE);
  }

  function closedSize(box) {
    const first = widthOf(heading(box));
    if (box.role && box.role !== "module") return { w: Math.max(46, Math.ceil(first) + 24), h: 26, fixed: true };
    const more = (box.boxes || []).length > 0 ? 14 : 0; // room for the arrow that opens it
    const second = box.detail ? textWidth(trimmed(box.detail, "detail", WIDEST), "detail") : 0;
    return { w: Math.max(96, Math.ceil(Math.max(first, second)) + 24 + 2 * more), h: box.detail ? 42 : 28, fixed: false };
  }

  /** Texts of a box of width w, relative to its corner: centred when closed, at the left of its header when open. */
  function textsOf(box, w, open) {
    const words = heading(box);
    let x = open ? 15 : (w - widthOf(words)) / 2;
    const texts = words.map(([role, text]) => {
      const placed = { x, y: open ? 21 : !box.role || box.role === "module" ? 18 : 17, role, text };
      x += textWidth(text, role) + SPACE;
      return placed;
    });
    if (!open && box.detail && (!box.role || box.role === "module")) {
      const text = trimmed(box.detail, "detail", WIDEST);
      texts.push({ x: (w - textWidth(text, "detail")) / 2, y: 33, role: "detail", text });
    }
    return texts;
  }

  return { SIZES, measureWith, width: textWidth, heading, widthOf, closedSize, textsOf };
})();
