/** What is known about a domain and its prompt, in a line. */

import { element } from "./dom.js";
import { count, several, size } from "./numbers.js";

/**
 * @param {Object} domain - one of `GET domains`
 * @param {boolean} others - other domains have prompts
 */
export function domainFacts(domain, others) {
  const { prompt } = domain;
  const facts = [];
  if (typeof domain.documents === "number") facts.push(several(domain.documents, "document"));
  if (!prompt) facts.push("no prompt of its own: the frozen model and BM25 alone");
  if (!prompt && others) facts.push(`another's can search it: foreword serve --use '${domain.name}=NAME'`);
  if (prompt) {
    if (prompt.name && prompt.name !== domain.name) facts.push(`searched with the prompt of ${prompt.name}`);
    const kind = prompt.mixture ? "mixture of prompts" : `${prompt.kind} prompt`;
    facts.push(typeof prompt.length === "number" ? `${kind}, ${several(prompt.length, "vector")}` : kind);
    if (prompt.sides) facts.push(`sides: ${words(prompt.sides)}`);
    if (prompt.parameters) facts.push(`${count(prompt.parameters)} parameters`);
    if (prompt.bytes) facts.push(size(prompt.bytes));
    if (prompt.trained_on?.length) facts.push(`trained on ${words(prompt.trained_on)}`);
    if (prompt.supervision) facts.push(`labels: ${supervision(prompt.supervision)}`);
  }
  return element("ul", { class: "facts", "aria-label": `About ${domain.name}` }, facts.map((fact) => element("li", {}, fact)));
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
