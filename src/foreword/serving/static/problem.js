/** Errors, said where the answer would have been. */

import { element } from "./dom.js";

/**
 * Show an error, read out at once, with a button to try again.
 * @param {HTMLElement} place - emptied first
 * @param {Error} error
 * @param {(() => void)|null} again - null: no button
 */
export function showProblem(place, error, again = null) {
  const detail = error.detail && error.detail !== error.message ? element("p", { dir: "auto" }, error.detail) : null;
  place.replaceChildren(
    element(
      "div",
      { class: "problem", role: "alert" },
      element("p", {}, element("strong", {}, error.message)),
      detail,
      again ? element("button", { type: "button", on: { click: again } }, "Try again") : null,
    ),
  );
}
