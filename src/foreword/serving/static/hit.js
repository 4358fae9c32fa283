/** One hit: rank, title, how it moved, score, text, and what opens behind "more". */

import { breakable, element } from "./dom.js";
import { excerpt, marked } from "./excerpt.js";
import { BASE, move, slope, systemName } from "./moves.js";
import { value } from "./numbers.js";
import { call } from "./service.js";

/** Which files answer a query, as the reader says and the folder's labels.tsv holds; the same in every column. */
export class Labels {
  #asked;
  #failed;
  #grades = {};
  #buttons = [];

  /** @param {(error: Error) => void} failed - takes what went wrong */
  constructor(domain, query, failed) {
    this.#asked = { domain, query };
    this.#failed = failed;
    this.#call({});
  }

  /** The two buttons of a hit. */
  of(file) {
    return [["Relevant", 1], ["Not relevant", 0]].map(([name, grade]) => {
      const click = () => this.#call({ file, grade: this.#grades[file] === grade ? null : grade });
      const attributes = { type: "button", class: "more label", "aria-pressed": "false", title: "Written to labels.tsv in the folder" };
      const button = element("button", { ...attributes, tabindex: -1, on: { click } }, name);
      this.#buttons.push({ file, grade, button });
      return button;
    });
  }

  async #call(change) {
    try {
      this.#grades = (await call("labels", { body: { ...this.#asked, ...change } })).labels;
      for (const { file, grade, button } of this.#buttons) button.setAttribute("aria-pressed", String(this.#grades[file] === grade));
    } catch (error) {
      this.#failed(error);
    }
  }
}

/**
 * @param {string} system - whose hit
 * @param {{doc_id: string, title?: string, text?: string, score?: number, rank?: number, metadata?: Object, passage?: ?Object}} hit
 * @param {number} place - in the list, from 0
 * @param {Map<string, Map<string, number>>} ranks - system -> doc_id -> rank
 * @param {number} count - hits asked for
 * @param {number} digits - of its score
 * @param {?RegExp} words - the query's, from `wordsOf`
 * @param {?string} domain - whose files the service gives; null: it gives none
 * @param {?Labels} labels - of the query; null: the service keeps none
 */
export function hitItem(system, hit, place, ranks, count, digits, words, domain, labels = null) {
  const id = String(hit.doc_id);
  const rank = hit.rank ?? place + 1;
  const text = String(hit.text ?? "");
  const file = typeof hit.metadata?.file === "string" ? hit.metadata.file : "";
  const title = hit.title || file || id;
  const more = element("button", { type: "button", class: "more", "aria-expanded": "false", tabindex: -1 }, "more");
  more.setAttribute("aria-label", `more of ${title}`);
  const item = element(
    "li",
    { "data-doc": id, tabindex: -1 },
    element(
      "div",
      { class: "gutter" },
      element("span", { class: "rank" }, element("span", { class: "unseen" }, "rank "), rank),
      moved(system, id, rank, ranks, count),
    ),
    element(
      "div",
      {},
      element(
        "div",
        { class: "line" },
        element("h3", { dir: "auto" }, hit.title || !file ? breakable(title) : path(file, domain, { tabindex: -1 })),
        element("span", { class: "score" }, element("span", { class: "unseen" }, "score "), value(hit.score, digits)),
      ),
      file && hit.title ? element("p", { class: "file", dir: "auto" }, path(file, domain, { tabindex: -1 })) : null,
      hit.passage ? element("p", { class: "passage" }, `Passage ${hit.passage.number} of ${hit.passage.of}`) : null,
      text ? element("p", { class: "text", dir: "auto" }, marked(excerpt(text, words), words)) : null,
      more,
      file && labels ? labels.of(file) : null,
      element("div", { class: "details", hidden: true }),
    ),
  );
  more.addEventListener("click", () => toggle(item));
  opened.set(item, { text, words, fill: () => details(id, hit, ranks, count, domain) });
  return item;
}

/** The path of a file, leading to it where the service gives the domain's files. */
function path(file, domain, attributes = {}) {
  if (domain === null) return breakable(file);
  const href = `file?${new URLSearchParams({ domain, file })}`;
  return element("a", { href, target: "_blank", rel: "noopener", ...attributes }, breakable(file));
}

const opened = new WeakMap(); // item -> what its "more" shows

/** Open a hit, or close it. */
export function toggle(item) {
  const open = item.classList.toggle("open");
  const { text, words, fill } = opened.get(item);
  const more = item.querySelector(".more");
  const shown = item.querySelector(".text");
  shown?.replaceChildren(...marked(open ? text : excerpt(text, words), words));
  more.textContent = open ? "less" : "more";
  more.setAttribute("aria-expanded", String(open));
  more.setAttribute("aria-label", `${more.textContent} of ${item.querySelector("h3").textContent}`);
  const place = item.querySelector(".details");
  place.hidden = !open;
  place.replaceChildren(...(open ? [fill()] : []));
}

/** Against base: a line and words. In base itself: what the prompt no longer has. */
function moved(system, id, rank, ranks, count) {
  const base = ranks.get(BASE);
  if (!base) return null;
  if (system === BASE) {
    const gone = ranks.has("prompt") && !ranks.get("prompt").has(id);
    return gone ? element("span", { class: "moved down" }, "dropped", element("span", { class: "unseen" }, " by the prompt")) : null;
  }
  const { kind, words } = move(base.get(id), rank);
  return element("span", { class: `moved ${kind}` }, slope(base.get(id), rank, count), " ", element("span", {}, words));
}

/** The document's id, its rank in each system, and its metadata. */
function details(id, hit, ranks, count, domain) {
  const places = [...ranks].map(([system, own]) => `${systemName(system)} ${own.has(id) ? own.get(id) : `not in ${count}`}`);
  const metadata = Object.entries(hit.metadata ?? {}).map(([name, given]) => [
    name,
    typeof given === "object" ? JSON.stringify(given) : name === "file" ? path(String(given), domain) : given,
  ]);
  const { passage } = hit;
  const place = passage ? [["passage", `${passage.number} of ${passage.of}, characters ${passage.start} to ${passage.end}`]] : [];
  const pairs = [["document", id], ...place, ["ranks", places.join(", ")], ["score", hit.score ?? "none"], ...metadata];
  return element(
    "dl",
    {},
    pairs.map(([name, given]) => [element("dt", {}, name), element("dd", { dir: "auto" }, given)]),
  );
}
