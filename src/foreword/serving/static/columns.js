/** The systems' hits side by side; in a narrow window one at a time, chosen by tabs. */

import { element } from "./dom.js";
import { wordsOf } from "./excerpt.js";
import { hitItem, toggle } from "./hit.js";
import { BASE, ranksOf, systemName, systemNote } from "./moves.js";

const NARROW = matchMedia("(max-width: 760px)");
const PREFERRED = "prompt"; // the tab that is open at first: the one with something to tell

export class Columns {
  #leave;
  #systems = [];
  #tabs = [];
  #panels = [];
  #chosen = PREFERRED;
  #marked = null;

  /** @param {() => void} leave - called when the keyboard leaves the hits upwards */
  constructor(leave) {
    this.#leave = leave;
    NARROW.addEventListener("change", () => this.settle());
  }

  /**
   * The columns of one query.
   * @param {string[]} systems - those that answered, in order
   * @param {Object<string, Object[]>} hits - by system, best first
   * @param {number} count - hits asked for
   * @param {string} query - whose words are marked
   * @param {?string} domain - whose files the service gives; null: it gives none
   * @param {?import("./hit.js").Labels} labels - of the query; null: the service keeps none
   */
  build(systems, hits, count, query, domain, labels) {
    this.#systems = systems;
    if (!systems.includes(this.#chosen)) this.#chosen = systems.includes(PREFERRED) ? PREFERRED : systems[0];
    const words = wordsOf(query);
    const ranks = new Map(systems.map((system) => [system, ranksOf(hits[system])]));
    this.#tabs = systems.map((system) => this.#tab(system));
    this.#panels = systems.map((system) => {
      const digits = hits[system].some(({ score }) => Math.abs(score) >= 10) ? 1 : 3; // one kind of number in a column
      const items = hits[system].map((hit, place) => hitItem(system, hit, place, ranks, count, digits, words, domain, labels));
      const list = element("ol", { class: "hits" }, items);
      return element(
        "section",
        { class: "column", id: `column-${system}`, "data-system": system },
        element("h2", { id: `name-${system}` }, systemName(system), " ", element("small", {}, systemNote(system))),
        items.length ? list : element("p", { class: "empty" }, "No hits."),
      );
    });
    const tabs = element("div", { role: "tablist", "aria-label": "Systems" }, this.#tabs);
    tabs.addEventListener("keydown", (event) => this.#tabKey(event));
    const columns = element("div", { class: "columns" }, this.#panels);
    this.#watch(columns);
    return element("div", { class: "answer" }, tabs, columns, systems.includes(BASE) ? legend() : null);
  }

  /** Fit roles and what is hidden to the window: tabs and their panels when narrow, else named regions. */
  settle() {
    const narrow = NARROW.matches;
    this.#systems.forEach((system, place) => {
      const [tab, panel, chosen] = [this.#tabs[place], this.#panels[place], system === this.#chosen];
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      panel.hidden = narrow && !chosen;
      panel.setAttribute("role", narrow ? "tabpanel" : "region");
      panel.setAttribute("aria-labelledby", narrow ? tab.id : `name-${system}`);
    });
    if (this.#systems.length) this.#settleTabStop();
  }

  /** Focus the first hit that is shown; false where there is none. */
  enter() {
    const first = this.#shownItems()[0];
    first?.focus();
    return Boolean(first);
  }

  #tab(system) {
    const show = () => this.#choose(system);
    const attributes = { type: "button", role: "tab", id: `tab-${system}`, "aria-controls": `column-${system}`, on: { click: show } };
    return element("button", attributes, systemName(system));
  }

  #choose(system) {
    this.#chosen = system;
    this.settle();
  }

  #tabKey(event) {
    const place = this.#systems.indexOf(this.#chosen);
    const last = this.#systems.length - 1;
    const to = { ArrowLeft: place ? place - 1 : last, ArrowRight: place < last ? place + 1 : 0, Home: 0, End: last }[event.key];
    if (to === undefined) {
      if (event.key === "ArrowDown" && this.enter()) event.preventDefault();
      return;
    }
    event.preventDefault();
    this.#choose(this.#systems[to]);
    this.#tabs[to].focus();
  }

  #items(panel) {
    return [...panel.querySelectorAll(".hits > li")];
  }

  #shownItems() {
    return this.#panels.filter((panel) => !panel.hidden).flatMap((panel) => this.#items(panel));
  }

  /** One hit takes part in the order of Tab: the one visited last, or the first that is shown. */
  #settleTabStop(wanted = null) {
    const shown = this.#shownItems();
    const stop = wanted ?? shown.find((item) => item.tabIndex === 0) ?? shown[0];
    for (const panel of this.#panels) {
      for (const item of this.#items(panel)) {
        item.tabIndex = item === stop ? 0 : -1;
        for (const button of item.querySelectorAll("button")) button.tabIndex = item.tabIndex;
      }
    }
  }

  #watch(columns) {
    const itemOf = (event) => event.target.closest?.(".hits > li") ?? null;
    const focused = () => columns.querySelector(".hits > li:focus-within");
    columns.addEventListener("mouseover", (event) => this.#mark(itemOf(event) ?? focused()));
    columns.addEventListener("mouseleave", () => this.#mark(focused()));
    columns.addEventListener("focusin", (event) => {
      const item = itemOf(event);
      this.#mark(item);
      if (item) this.#settleTabStop(item);
    });
    columns.addEventListener("focusout", (event) => {
      if (!columns.contains(event.relatedTarget)) this.#mark(null);
    });
    columns.addEventListener("keydown", (event) => {
      const item = itemOf(event);
      if (item && !event.ctrlKey && !event.metaKey && !event.altKey) this.#hitKey(event, item);
    });
  }

  /** Mark a hit's document in every column. */
  #mark(item) {
    const wanted = item?.dataset.doc ?? null;
    if (wanted === this.#marked && wanted === null) return;
    this.#marked = wanted;
    for (const panel of this.#panels) {
      for (const other of this.#items(panel)) other.classList.toggle("marked", wanted !== null && other.dataset.doc === wanted);
    }
  }

  #hitKey(event, item) {
    const place = this.#panels.findIndex((panel) => panel.contains(item));
    const own = this.#items(this.#panels[place]);
    const row = own.indexOf(item);
    const { key } = event;
    if (key === "Enter" && event.target === item) toggle(item);
    else if (key === "ArrowDown") own[row + 1]?.focus();
    else if (key === "ArrowUp" && row) own[row - 1].focus();
    else if (key === "ArrowUp" || key === "Escape") this.#leave();
    else if (key === "ArrowLeft" || key === "ArrowRight") this.#sideways(place, row, key === "ArrowLeft" ? -1 : 1);
    else if (key === "Home") own[0].focus();
    else if (key === "End") own.at(-1).focus();
    else return;
    event.preventDefault();
  }

  /** To the next column that has hits: the same document there, or the hit at the same height. */
  #sideways(place, row, step) {
    const document_ = this.#items(this.#panels[place])[row].dataset.doc;
    for (let to = place + step; to >= 0 && to < this.#panels.length; to += step) {
      const items = this.#items(this.#panels[to]);
      if (!items.length) continue;
      if (this.#panels[to].hidden) this.#choose(this.#systems[to]);
      const same = items.find((item) => item.dataset.doc === document_);
      (same ?? items[Math.min(row, items.length - 1)]).focus();
      return;
    }
  }
}

function legend() {
  return element(
    "p",
    { class: "note" },
    "The line beside a hit runs from its rank in base (left) to its rank in this column (right). “new”: not among base's hits. “dropped”: not among the prompt's. Scores can be compared within a column only.",
  );
}
