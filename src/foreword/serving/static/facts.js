/** What is known about a domain and its prompt, in a line. */

import { element } from "./dom.js";
import { count, several, size, value } from "./numbers.js";

const SIDES = {
  query: "for queries only",
  shared: "the same for queries and documents",
  untied: "one part for queries, one for documents",
};

/**
 * @param {Object} domain - one of `GET domains`
 * @param {boolean} others - other domains have prompts
 */
export function domainFacts(domain, others) {
  const { prompt } = domain;
  const facts = [];
  if (typeof domain.documents === "number") facts.push(several(domain.documents, "document"));
  if (!prompt) facts.push("no prompt");
  if (!prompt && others) facts.push(`to search it with another domain's prompt: foreword serve --use '${domain.name}=NAME'`);
  if (prompt) {
    if (prompt.name && prompt.name !== domain.name) facts.push(`searched with the prompt of ${prompt.name}`);
    const kind = prompt.mixture ? "mixture of prompts" : `${prompt.kind} prompt`;
    facts.push(prompt.length ? `${kind}, ${several(prompt.length, "vector")}` : kind);
    if (prompt.sides) facts.push(SIDES[prompt.sides] ?? words(prompt.sides));
    if (prompt.parameters) facts.push(`${count(prompt.parameters)} parameters`);
    if (prompt.bytes) facts.push(size(prompt.bytes));
    if (prompt.trained_on?.length) facts.push(`trained on ${words(prompt.trained_on)}`);
    if (prompt.supervision) facts.push(`labels: ${supervision(prompt.supervision)}`);
  }
  if (domain.hybrid) facts.push(hybrid(domain.hybrid));
  return element("ul", { class: "facts", "aria-label": `About ${domain.name}` }, facts.map((fact) => element("li", {}, fact)));
}

/** The weight of BM25 in the column of both, and how it was chosen. */
function hybrid({ bm25, chosen_by: by, queries, dense, hybrid: joined }) {
  const share = bm25 === 0 ? "the model alone" : bm25 === 1 ? "BM25 alone" : `BM25 has a weight of ${value(bm25, 2)}`;
  if (!queries) return `hybrid: ${share}, the default`;
  return `hybrid: ${share}, chosen on ${count(queries)} ${by} (nDCG@10 ${value(joined)}, the model alone ${value(dense)})`;
}

function words(names) {
  return Array.isArray(names) ? names.join(", ") : String(names);
}

/** A method's name, or those of a mapping from collections to methods. */
function supervision(given) {
  if (typeof given !== "object") return String(given);
  const methods = given.method ? [given.method] : Object.values(given).map((one) => one?.method ?? one);
  return [...new Set(methods.filter((method) => typeof method === "string"))].join(", ") || "unknown";
}
