/** The search view: choose a domain, ask, see each system's hits beside the others'. */

import { Columns } from "./columns.js";
import { element } from "./dom.js";
import { domainFacts } from "./facts.js";
import { Labels } from "./hit.js";
import { several } from "./numbers.js";
import { summary, systemName } from "./moves.js";
import { showProblem } from "./problem.js";
import { call } from "./service.js";

const PAUSE = 250; // milliseconds: arrow keys run through a select's choices, and each would be a search
const find = (id) => document.getElementById(id);

export class Search {
  #domains = null; // null: not known yet
  #running = null; // AbortController of the search under way
  #columns = new Columns(() => find("query").focus());
  #ask;
  early = false; // whether the reader asked before the domains were known

  /** @param {(asked: {domain: string, query: string, count: number}) => void} ask - takes what the reader asks for */
  constructor(ask) {
    this.#ask = ask;
    let timer = 0;
    const now = () => ask({ domain: find("domain").value, query: find("query").value.trim(), count: Number(find("count").value) });
    const soon = () => {
      clearTimeout(timer);
      timer = setTimeout(now, PAUSE);
    };
    find("search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      clearTimeout(timer);
      if (this.#domains) now();
      else this.early = true;
    });
    find("domain").addEventListener("change", soon);
    find("count").addEventListener("change", () => find("query").value.trim() && soon());
    find("query").addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown" && this.#columns.enter()) event.preventDefault();
    });
  }

  /** Take the service's domains. */
  learn(domains) {
    this.#domains = new Map(domains.map((domain) => [domain.name, domain]));
    const options = domains.map((domain) =>
      element(
        "option",
        { value: domain.name, disabled: !domain.searchable },
        domain.searchable ? domain.name : `${domain.name} (no documents here)`,
      ),
    );
    find("domain").replaceChildren(...options);
    find("domain").disabled = !domains.length;
  }

  /** Show what the address asks for. */
  show({ domain, query, count }) {
    this.#running?.abort();
    find("query").value = query;
    chooseCount(count);
    if (!this.#domains) return;
    const chosen = this.#choose(domain);
    find("search-problem").replaceChildren();
    find("domain-facts").replaceChildren(chosen ? domainFacts(chosen, [...this.#domains.values()].some(({ prompt }) => prompt)) : "");
    if (chosen && query) {
      this.#search(chosen, query, count);
      return;
    }
    find("results").replaceChildren();
    find("results").removeAttribute("aria-busy");
    find("status").textContent = chosen ? "Type a query and press Enter." : this.#without(domain);
  }

  /** The domain asked for, or the first that can be searched; undefined where there is none. */
  #choose(name) {
    const domains = [...this.#domains.values()];
    const chosen = name ? this.#domains.get(name) : domains.find((domain) => domain.searchable);
    find("domain").value = chosen?.name ?? "";
    return chosen?.searchable ? chosen : undefined;
  }

  #without(name) {
    if (!this.#domains.size) return "This service has no domains: it was started without a collection, an index or a prompt.";
    if (this.#domains.has(name)) return `The domain “${name}” has a prompt but no documents here, so it cannot be searched. Choose another.`;
    if (name) return `This service has no domain “${name}”. Choose one of its ${this.#domains.size}.`;
    return "None of this service's domains has documents to search.";
  }

  async #search(domain, query, count) {
    const running = new AbortController();
    this.#running = running;
    const { systems } = domain;
    find("status").textContent = "Searching…";
    find("results").setAttribute("aria-busy", "true");
    if (!find("results").children.length) find("results").replaceChildren(waiting(systems));
    try {
      const body = { domain: domain.name, query, systems, k: count, where: null };
      const answer = await call("search", { body, signal: running.signal });
      if (running.signal.aborted) return;
      this.#answered(domain, answer, query, count);
    } catch (error) {
      if (running.signal.aborted) return; // another search has taken its place
      find("status").textContent = "";
      find("results").replaceChildren();
      showProblem(find("search-problem"), error, () => this.show({ domain: domain.name, query, count }));
    } finally {
      if (this.#running === running) find("results").removeAttribute("aria-busy");
    }
  }

  #answered({ name, systems, files, labels }, answer, query, count) {
    const hits = answer.results?.[0]?.systems ?? {};
    const present = systems.filter((system) => Array.isArray(hits[system]));
    const most = Math.max(0, ...present.map((system) => hits[system].length));
    if (!most) {
      find("results").replaceChildren(element("p", { class: "empty" }, "Nothing found. Try other words, or another domain."));
      find("status").textContent = "No hits.";
      return;
    }
    const failed = (error) => showProblem(find("search-problem"), error);
    const kept = labels ? new Labels(name, query, failed) : null;
    find("results").replaceChildren(this.#columns.build(present, hits, answer.k ?? count, query, files ? name : null, kept));
    this.#columns.settle();
    const missing = systems.filter((system) => !present.includes(system)).map(systemName);
    find("status").textContent = [
      `${several(most, "hit")} in ${Math.max(1, Math.round(answer.milliseconds ?? 0))} ms.`,
      summary(present, hits),
      missing.length ? `No answer from ${missing.join(" and ")}.` : "",
    ].join(" ");
  }
}

/** Set the number of hits; one that the list lacks, as an address may name, joins it. */
function chooseCount(count) {
  const select = find("count");
  if (![...select.options].some((option) => option.value === String(count))) select.append(element("option", {}, count));
  select.value = String(count);
}

/** What stands where the columns will be. */
function waiting(systems) {
  const rows = Array.from({ length: 4 }, () => element("div", { class: "bone" }));
  const columns = systems.map(() => element("div", { class: "column" }, rows.map((row) => row.cloneNode())));
  return element("div", { class: "columns waiting", "aria-hidden": "true" }, columns);
}
