/* Which boxes a query means: by path, class, settings or shape, best first. */
"use strict";

function searcher(graph) {
  const rows = graph.list.slice(1).map((entry) => {
    const { box } = entry;
    const shapes = [...(box.given || []), ...(box.gave || [])].join(" ");
    return {
      entry, path: box.path.toLowerCase(), label: (box.label || "").toLowerCase(), kind: (box.kind || "").toLowerCase(),
      rest: [box.detail || "", shapes, box.mark || "", box.state === "none" ? "" : box.state || ""].join(" ").toLowerCase(), folded: (box.folded || []).map((path) => path.toLowerCase()),
    };
  });

  /** How well a row fits one word: 0 not at all. */
  function fits(row, word) {
    if (row.path === word) return 6;
    if (row.label === word || row.kind === word) return 5;
    if (row.path.startsWith(word)) return 4;
    if (row.path.includes(word) || row.label.includes(word)) return 3;
    if (row.kind.includes(word)) return 2;
    return row.rest.includes(word) || row.folded.includes(word) ? 1 : 0;
  }

  function find(query) {
    const text = query.trim().toLowerCase();
    if (!text) return [];
    const whole = ranked([text]);
    if (whole.length) return whole;
    const alike = unfolded(text);
    if (alike) return ranked([alike]);
    return text.includes(" ") ? ranked(text.split(/\s+/)) : [];
  }

  function ranked(words) {
    const scored = [];
    for (const row of rows) {
      const scores = words.map((word) => fits(row, word));
      if (scores.every((score) => score > 0)) scored.push({ entry: row.entry, score: scores.reduce((sum, score) => sum + score, 0) });
    }
    scored.sort((one, other) => other.score - one.score || one.entry.index - other.entry.index);
    return scored.map(({ entry }) => entry);
  }

  /** A path inside of a block that is folded is that path inside of the block that stands for it. */
  function unfolded(text) {
    for (const { folded } of rows) {
      const place = folded.find((path) => text === path || text.startsWith(`${path}.`));
      if (place && place !== folded[0]) return folded[0] + text.slice(place.length);
    }
    return "";
  }

  return { find };
}
