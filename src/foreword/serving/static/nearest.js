/** The words of the model's vocabulary that lie nearest to each prompt. */

import { breakable, element } from "./dom.js";
import { value } from "./numbers.js";

const FIRST = 12; // words shown before "more"

/** @param {Object<string, [string, number][]>} words - by domain, nearest first */
export function nearestWords(words) {
  return element("ul", { class: "cards" }, Object.entries(words).map(([domain, own]) => card(domain, own)));
}

function card(domain, own) {
  const items = own.map(([word, score], place) =>
    element(
      "li",
      { hidden: place >= FIRST, dir: "auto" },
      word,
      typeof score === "number" ? element("small", {}, ` ${value(score, 2)}`) : null,
    ),
  );
  const list = element("ul", { class: "words" }, items);
  const rest = items.slice(FIRST);
  const more = element("button", { type: "button", class: "more", "aria-expanded": "false", "aria-label": `more words of ${domain}` }, `${rest.length} more`);
  more.addEventListener("click", () => {
    const open = more.getAttribute("aria-expanded") === "false";
    for (const item of rest) item.hidden = !open;
    more.setAttribute("aria-expanded", String(open));
    more.textContent = open ? "less" : `${rest.length} more`;
  });
  const title = element("h3", {}, breakable(domain));
  return element("li", {}, title, own.length ? list : element("p", { class: "empty" }, "None."), rest.length ? more : null);
}
