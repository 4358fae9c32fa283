/** What is shown, as the page's address: it can be shared, and Back goes back. */

const DEFAULT_COUNT = 10;

/** @returns {{view: string, domain: string, query: string, count: number}} what the address asks for */
export function read() {
  const asked = new URLSearchParams(location.search);
  const count = Number(asked.get("k"));
  return {
    view: asked.get("view") === "bank" ? "bank" : "search",
    domain: asked.get("domain") ?? "",
    query: asked.get("q") ?? "",
    count: Number.isInteger(count) && count > 0 ? count : DEFAULT_COUNT,
  };
}

/** The address of a state; what is at its default is left out. */
export function address({ view, domain, query, count }) {
  const asked = new URLSearchParams();
  if (view === "bank") asked.set("view", "bank");
  if (domain) asked.set("domain", domain);
  if (query) asked.set("q", query);
  if (count && count !== DEFAULT_COUNT) asked.set("k", String(count));
  const text = asked.toString();
  return text ? `?${text}` : location.pathname;
}

/** Put a state into the address: a new entry of the history, unless it is there already. */
export function go(state) {
  if (address(state) !== address(read())) history.pushState(null, "", address(state));
}
