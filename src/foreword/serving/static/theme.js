/* Light, dark, or as the system has it. A plain script in the head, so that the choice holds before the first paint. */
"use strict";

(() => {
  const KEY = "foreword-theme";
  const NEXT = { auto: "light", light: "dark", dark: "auto" };

  /** The stored choice; a browser that refuses storage has the system's. */
  function stored() {
    try {
      const theme = localStorage.getItem(KEY);
      return theme in NEXT ? theme : "auto";
    } catch {
      return "auto";
    }
  }

  function store(theme) {
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // Storage is refused: the choice holds until the page is left, which is all that can be had.
    }
  }

  function apply(theme) {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) {
      const word = document.createElement("span");
      word.className = "room"; // hidden, though not from screen readers, where there is no room
      word.textContent = "Theme: ";
      button.replaceChildren(word, theme);
      button.title = `Change to ${NEXT[theme]}`;
    }
  }

  let theme = stored();
  apply(theme);
  document.addEventListener("DOMContentLoaded", () => {
    apply(theme);
    document.getElementById("theme").addEventListener("click", () => {
      theme = NEXT[theme];
      store(theme);
      apply(theme);
    });
  });
})();
