/** The page: shows the view that the address names, and puts what the reader does into the address. */

import * as address from "./address.js";
import { Bank } from "./bank.js";
import { element } from "./dom.js";
import { watchKey } from "./key.js";
import { duration } from "./numbers.js";
import { showProblem } from "./problem.js";
import { Search } from "./search.js";
import { call } from "./service.js";

const find = (id) => document.getElementById(id);
const search = new Search((asked) => show({ ...address.read(), ...asked }));
const bank = new Bank();
let shown = null; // the address that is shown

/** Make a state the address and show it. */
function show(state) {
  address.go(state);
  follow(true);
}

/**
 * Show what the address asks for.
 * @param {boolean} again - also when it is shown already: the reader has asked anew
 */
function follow(again = false) {
  const state = address.read();
  const wanted = address.address(state);
  if (wanted === shown && !again) return; // the address changed in its fragment alone, as by the skip link
  shown = wanted;
  for (const view of ["search", "bank"]) find(`${view}-view`).hidden = view !== state.view;
  for (const link of document.querySelectorAll("nav a[data-view]")) {
    const other = { ...state, view: link.dataset.view };
    link.href = address.address(other);
    if (link.dataset.view === state.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const parts = state.view === "bank" ? ["Bank"] : [state.query, state.query && state.domain];
  document.title = [...parts.filter(Boolean), "Foreword"].join(" – ");
  if (state.view === "bank") bank.show();
  else search.show(state);
}

/** Clicks on the views' links stay on the page; with a modifier they open a tab, as links do. */
function watchLinks() {
  for (const link of document.querySelectorAll("a[data-view]")) {
    link.addEventListener("click", (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
      event.preventDefault();
      const state = { ...address.read(), view: link.dataset.view };
      show(link.closest("nav") ? state : { view: "search", domain: "", query: "", count: 0 });
      find(`${state.view}-view`).querySelector("h1").focus({ preventScroll: true });
    });
  }
}

function watchKeys() {
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select, dialog, [contenteditable]");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    if (address.read().view !== "search") show({ ...address.read(), view: "search" });
    find("query").focus();
    find("query").select();
  });
}

/** The footer: which service this is. */
async function describeService() {
  const place = find("service");
  try {
    const health = await call("health");
    const facts = [`Foreword ${health.version ?? ""}`, health.backbone, `up ${duration(health.uptime_seconds)}`];
    place.replaceChildren(facts.filter(Boolean).join(" · "), " · ", element("a", { href: "docs" }, "API reference"));
  } catch (error) {
    place.replaceChildren(`The service's health is unknown: ${error.message}`);
  }
}

/** Learn the domains, then show what the address asks for. */
async function start() {
  const place = find("search-problem");
  place.replaceChildren();
  find("status").textContent = "Asking the service for its domains…";
  follow(true); // the bank's view waits for no domains
  try {
    const { domains } = await call("domains");
    find("status").textContent = "";
    search.learn(domains ?? []);
  } catch (error) {
    find("status").textContent = "";
    showProblem(place, error, start);
    return;
  }
  if (address.read().view !== "search") return;
  const typed = find("query").value; // while the domains were awaited
  follow(true);
  if (typed && !address.read().query) find("query").value = typed;
  if (search.early) find("search-form").requestSubmit();
  // Where there is a keyboard, typing can begin at once; on a touch screen it would come up over the page.
  const idle = document.activeElement === document.body && !address.read().query;
  if (idle && matchMedia("(pointer: fine)").matches) find("query").focus({ preventScroll: true });
}

watchKey(() => location.reload());
watchLinks();
watchKeys();
window.addEventListener("popstate", () => follow());
describeService();
start();
