/** Every domain's figures, systems side by side; a click on a column's name sorts by it. */

import { breakable, element, scroll } from "./dom.js";
import { BASE, systemName } from "./moves.js";
import { difference, NOTHING, value } from "./numbers.js";

const HEADLINE = "nDCG@10"; // the measure to begin with, where it is there
const NAME = ""; // the column of names, beside the systems

/** @param {{domain: string, system: string, measure: string, value: number}[]} figures */
export function figuresTable(figures) {
  const compared = new Set(figures.filter((one) => one.system === BASE).map((one) => one.measure));
  const measures = [...new Set(figures.map((one) => one.measure))];
  const telling = (measure) => 2 * compared.has(measure) + (measure === HEADLINE); // those with the base's figures tell most
  measures.sort((a, b) => telling(b) - telling(a));
  const place = element("div");
  const show = (measure) => place.replaceChildren(new Table(figures.filter((one) => one.measure === measure), measure).node);
  show(measures[0]);
  if (measures.length === 1) return place;
  const options = measures.map((measure) => element("option", {}, measure));
  const select = element("select", { on: { change: (event) => show(event.target.value) } }, options);
  return element("div", {}, element("p", { class: "field inline" }, element("label", {}, "Measure ", select)), place);
}

class Table {
  #systems;
  #values = new Map(); // domain -> system -> value
  #measure;
  #order = { column: NAME, ascending: true };
  #heads = new Map();
  #body = element("tbody");
  #said = element("p", { class: "unseen", role: "status" });

  constructor(figures, measure) {
    this.#measure = measure;
    const systems = new Set(figures.map((one) => one.system));
    this.#systems = [...(systems.has(BASE) ? [BASE] : []), ...[...systems].filter((system) => system !== BASE)];
    for (const one of figures) {
      if (!this.#values.has(one.domain)) this.#values.set(one.domain, new Map());
      this.#values.get(one.domain).set(one.system, one.value);
    }
    const head = element("tr", {}, this.#head(NAME, "Domain"), this.#systems.map((system) => this.#head(system, systemName(system))));
    const table = element("table", { "aria-label": `${measure} of each domain` }, element("thead", {}, head), this.#body, this.#foot());
    this.node = element("div", {}, scroll(`${measure} of each domain`, table), this.#said);
    this.#sort();
  }

  #head(column, name) {
    const sort = () => {
      const same = this.#order.column === column;
      this.#order = { column, ascending: same ? !this.#order.ascending : column === NAME };
      this.#sort();
      const how = column === NAME ? (this.#order.ascending ? "A to Z" : "Z to A") : this.#order.ascending ? "least first" : "greatest first";
      this.#said.textContent = `Sorted by ${name}, ${how}.`;
    };
    const button = element("button", { type: "button", class: "sort", on: { click: sort } }, name, " ", element("span", { class: "arrow", "aria-hidden": "true" }));
    const head = element("th", { scope: "col", class: column === NAME ? null : "n" }, button);
    this.#heads.set(column, head);
    return head;
  }

  #sort() {
    const { column, ascending } = this.#order;
    for (const [name, head] of this.#heads) {
      if (name === column) head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
    const sign = ascending ? 1 : -1;
    const byName = (a, b) => a.localeCompare(b, "en", { numeric: true });
    const domains = [...this.#values.keys()].sort((a, b) => {
      if (column === NAME) return sign * byName(a, b);
      const [first, second] = [this.#values.get(a).get(column), this.#values.get(b).get(column)];
      if (first === undefined || second === undefined) return Number(first === undefined) - Number(second === undefined);
      return sign * (first - second) || byName(a, b);
    });
    this.#body.replaceChildren(...domains.map((domain) => this.#row(domain)));
  }

  #row(domain) {
    const own = this.#values.get(domain);
    const best = Math.max(...own.values());
    const cells = this.#systems.map((system) => this.#cell(own.get(system), own.get(BASE), system, own.size > 1 && own.get(system) === best));
    return element("tr", {}, element("th", { scope: "row" }, breakable(domain)), cells);
  }

  #cell(one, base, system, best) {
    if (typeof one !== "number") return element("td", { class: "n" }, NOTHING);
    const number = best ? element("strong", {}, value(one)) : value(one);
    if (system === BASE || typeof base !== "number") return element("td", { class: "n" }, number);
    const kind = one > base ? "up" : one < base ? "down" : "same";
    return element("td", { class: "n" }, number, element("small", { class: kind }, difference(one - base)));
  }

  /** Means over the domains, of the systems that have them all. */
  #foot() {
    if (this.#values.size < 2) return null;
    const rows = [...this.#values.values()];
    const means = this.#systems.map((system) =>
      rows.every((row) => typeof row.get(system) === "number") ? rows.reduce((sum, row) => sum + row.get(system), 0) / rows.length : undefined,
    );
    const base = means[this.#systems.indexOf(BASE)];
    const cells = this.#systems.map((system, place) => this.#cell(means[place], base, system, false));
    return element("tfoot", {}, element("tr", {}, element("th", { scope: "row" }, `Mean of ${rows.length}`), cells));
  }
}
