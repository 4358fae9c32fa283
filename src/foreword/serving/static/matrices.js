/** Matrices of domains by domains: tables whose cells are coloured, with the value in each. */

import { breakable, element, scroll } from "./dom.js";
import { difference, NOTHING, value } from "./numbers.js";

/** Similarity of domains, a domain against itself left without colour. */
export function similarityMatrix({ names, values }) {
  const other = (row, column) => names[row] !== names[column];
  return element(
    "div",
    {},
    matrix({
      label: "Similarity of domains",
      corner: "",
      rows: names,
      columns: names,
      values,
      coloured: other,
      rivals: other,
      text: (number) => value(number, 2),
    }),
    element("p", { class: "note" }, "Outlined: the nearest other domain of each column."),
  );
}

/** What sources' prompts score on targets; with the base's figures, also what they gain over it. */
export function transferMatrix(transfer, figures) {
  const { sources, targets, values, measure } = transfer;
  const base = new Map(figures.filter((one) => one.system === "base" && one.measure === measure).map((one) => [one.domain, one.value]));
  const shared = {
    corner: "prompt of ↓ on →",
    rows: sources,
    columns: targets,
    rivals: (row, column) => sources[row] !== targets[column],
  };
  const plain = () => matrix({ ...shared, label: `${measure} of sources on targets`, values, text: (number) => value(number) });
  const place = element("div", {}, plain());
  const note = element("p", { class: "note" }, `${measure}. Rows: whose prompt; columns: on what. Outlined: the best prompt of another domain.`);
  if (!targets.some((target) => base.has(target))) return element("div", {}, place, note);
  const gains = values.map((row) =>
    row.map((one, column) => (isNumber(one) && base.has(targets[column]) ? one - base.get(targets[column]) : null)),
  );
  const against = () =>
    matrix({ ...shared, label: `Gain in ${measure} over base`, values: gains, text: difference, diverging: true });
  const choice = chooser("Show", [
    ["gain over base", against],
    [measure, plain],
  ], place);
  return element("div", {}, choice, place, note);
}

/** Radio buttons that fill `place` with what each makes; the first is chosen. */
function chooser(title, choices, place) {
  const name = `choice-${title.toLowerCase()}`;
  const buttons = choices.map(([label, make], number) =>
    element(
      "label",
      {},
      element("input", { type: "radio", name, checked: number === 0, on: { change: () => place.replaceChildren(make()) } }),
      ` ${label}`,
    ),
  );
  place.replaceChildren(choices[0][1]());
  return element("fieldset", { class: "choice" }, element("legend", {}, title), buttons);
}

/**
 * A table of rows by columns.
 * @param {Object} options
 * @param {string} options.label - names the table
 * @param {string} options.corner - text above the row names
 * @param {string[]} options.rows
 * @param {string[]} options.columns
 * @param {(number|null)[][]} options.values - [rows][columns]
 * @param {(row: number, column: number) => boolean} options.coloured - which cells have a colour and make the scale
 * @param {(row: number, column: number) => boolean} options.rivals - which cells compete for a column's outline
 * @param {(number) => string} options.text - a value as text
 * @param {boolean} options.diverging - two colours around 0, instead of one from the least to the greatest
 */
function matrix({ label, corner, rows, columns, values, coloured = () => true, rivals, text, diverging = false }) {
  const present = values.flatMap((row, r) => row.filter((one, c) => isNumber(one) && coloured(r, c)));
  const furthest = Math.max(...present.map(Math.abs), 0) || 1;
  const low = diverging ? -furthest : Math.min(...present);
  const high = diverging ? furthest : Math.max(...present);
  const best = columns.map((_, c) => Math.max(...rows.map((_, r) => (isNumber(values[r]?.[c]) && rivals(r, c) ? values[r][c] : -Infinity))));
  const cell = (r, c) => {
    const one = values[r]?.[c];
    if (!isNumber(one)) return element("td", { class: "heat none" }, NOTHING);
    if (!coloured(r, c)) return element("td", { class: "heat none" }, text(one));
    const strength = diverging ? Math.abs(one) / furthest : high > low ? (one - low) / (high - low) : 0.5;
    const outlined = rows.length > 1 && rivals(r, c) && one === best[c];
    const classes = ["heat", diverging && one < 0 ? "loss" : "", outlined ? "outlined" : ""].filter(Boolean).join(" ");
    const title = `${rows[r]} → ${columns[c]}: ${text(one)}`;
    return element("td", { class: classes, title, style: { "--strength": `${(100 * strength).toFixed(1)}%` } }, text(one));
  };
  const head = element("tr", {}, element("td", { class: "corner" }, corner), columns.map((name) => element("th", { scope: "col" }, breakable(name))));
  const body = rows.map((name, r) => element("tr", {}, element("th", { scope: "row" }, breakable(name)), columns.map((_, c) => cell(r, c))));
  const table = element("table", { class: "matrix", "aria-label": label }, element("thead", {}, head), element("tbody", {}, body));
  return element("div", {}, present.length ? scale(low, high, text, diverging) : null, scroll(label, table));
}

/** The colours' legend: a bar with its ends' values. */
function scale(low, high, text, diverging) {
  return element(
    "p",
    { class: "scale" },
    element("span", {}, text(low)),
    element("span", { class: diverging ? "bar diverging" : "bar", role: "img", "aria-label": `Colours run from ${text(low)} to ${text(high)}` }),
    element("span", {}, text(high)),
  );
}

function isNumber(one) {
  return typeof one === "number" && Number.isFinite(one);
}
