/** The part of a text that has most of a query's words, and those words marked in it. */

import { element } from "./dom.js";

const SHORT = 500; // characters shown at first, more than the lines that the style sheet leaves
const NEAR = 200; // characters in which as many of the words as can be are looked for: about those lines
const BEFORE = 40; // characters shown before the first of them
const LEAST = 3; // letters of a word that is marked: shorter ones are everywhere, as are these
const COMMON = new Set("and are but can did does for from had has have how its not that the their there these this was were what when where which who why will with you your".split(" "));

/** What finds a query's words, whatever their case and ending; null: it has none. */
export function wordsOf(query) {
  const long = [...new Set(query.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [])].filter((word) => word.length >= LEAST);
  const rare = long.filter((word) => !COMMON.has(word));
  const words = rare.length ? rare : long;
  const starts = words.map((word) => (word.length > 5 ? word.slice(0, -2) : word));
  return starts.length ? new RegExp(`(?<![\\p{L}\\p{N}])(?:${starts.join("|")})[\\p{L}\\p{N}]{0,4}(?![\\p{L}\\p{N}])`, "giu") : null;
}

/**
 * A short text: its beginning, or the part in which the words are.
 * @param {string} text
 * @param {?RegExp} words - from `wordsOf`
 */
export function excerpt(text, words) {
  const found = words ? [...text.matchAll(words)].map((match) => [match.index, match[0].toLowerCase()]) : [];
  let [start, most] = [0, 0];
  for (const [place] of found) {
    const here = new Set(found.filter(([other]) => other >= place && other < place + NEAR).map(([, word]) => word)).size;
    if (here > most) [start, most] = [place, here];
  }
  const from = start > NEAR - BEFORE ? text.indexOf(" ", start - BEFORE) + 1 : 0; // words are not cut
  return `${from ? "… " : ""}${text.slice(from, from + SHORT)}`;
}

/** A text's parts, the words among them marked. */
export function marked(text, words) {
  if (!words) return [text];
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(words)) {
    parts.push(text.slice(end, match.index), element("mark", {}, match[0]));
    end = match.index + match[0].length;
  }
  return [...parts, text.slice(end)];
}
