/** How a hit's rank differs from the base model's: in words, and drawn. */

import { svg } from "./dom.js";

export const BASE = "base";

const NAMES = { base: "Base", prompt: "Prompt", bm25: "BM25", hybrid: "Hybrid" };
const WHAT = {
  base: "the frozen model alone",
  prompt: "with the domain's prompt",
  bm25: "matching words, no model",
  hybrid: "the model and BM25 together",
};

/** A system's name for people. */
export function systemName(system) {
  return Object.hasOwn(NAMES, system) ? NAMES[system] : system;
}

/** What a system is, or nothing for one that this page does not know. */
export function systemNote(system) {
  return Object.hasOwn(WHAT, system) ? WHAT[system] : "";
}

/** @returns {Map<string, number>} doc_id -> rank */
export function ranksOf(hits) {
  return new Map(hits.map((hit, place) => [String(hit.doc_id), hit.rank ?? place + 1]));
}

/**
 * The way from the base's rank to this one.
 * @param {number|undefined} before - undefined: not among the base's hits
 * @param {number} after
 * @returns {{kind: "up"|"down"|"same"|"new", words: string}}
 */
export function move(before, after) {
  if (before === undefined) return { kind: "new", words: "new" };
  if (before === after) return { kind: "same", words: "same" };
  return before > after
    ? { kind: "up", words: `up ${before - after}` }
    : { kind: "down", words: `down ${after - before}` };
}

/** One sentence: what the prompt moved, or nothing where one of the two is absent. */
export function summary(present, hits) {
  if (!present.includes(BASE) || !present.includes("prompt")) return "";
  const before = ranksOf(hits[BASE]);
  const tally = { up: 0, down: 0, new: 0, same: 0 };
  for (const [id, rank] of ranksOf(hits.prompt)) tally[move(before.get(id), rank).kind] += 1;
  return `Compared with base, the prompt's hits: ${tally.new} new, ${tally.up} up, ${tally.down} down, ${tally.same} unchanged.`;
}

const WIDTH = 34;
const HEIGHT = 20;
const EDGE = 4; // room for the dots

/**
 * The same way as a line from the base's rank (left) to this one (right), the first rank at the top. A new hit comes
 * from below the list, dashed. For the eye alone: the words stand beside it.
 */
export function slope(before, after, count) {
  const height = (rank) => EDGE + ((Math.min(rank, count) - 1) / Math.max(1, count - 1)) * (HEIGHT - 2 * EDGE);
  const { kind } = move(before, after);
  const [left, right] = [before === undefined ? HEIGHT : height(before), height(after)];
  return svg(
    "svg",
    { class: `slope ${kind}`, width: WIDTH, height: HEIGHT, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" },
    svg("line", { x1: EDGE, y1: left, x2: WIDTH - EDGE, y2: right }),
    before === undefined ? null : svg("circle", { cx: EDGE, cy: left, r: 2 }),
    svg("circle", { cx: WIDTH - EDGE, cy: right, r: 3 }),
  );
}
