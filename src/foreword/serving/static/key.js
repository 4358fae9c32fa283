/** The API key, where the service wants one: asked for in a dialog, kept in this tab's session. */

const NAME = "foreword-key";
const find = (id) => document.getElementById(id);

let held = null; // for a browser that refuses storage
let asking = null; // one dialog for all the calls that wait for it

/** The key in use, or null. */
export function currentKey() {
  try {
    return sessionStorage.getItem(NAME) ?? held;
  } catch {
    return held;
  }
}

function keep(key) {
  held = key;
  try {
    if (key) sessionStorage.setItem(NAME, key);
    else sessionStorage.removeItem(NAME);
  } catch {
    // Storage is refused: `held` keeps the key until the page is left.
  }
  find("forget-key").hidden = !key;
}

/**
 * Ask for a key; calls that fail together share the dialog.
 * @param {string|null} refused - the key that was sent, if any
 * @returns {Promise<string|null>} null: none was given
 */
export function askForKey(refused) {
  const present = currentKey();
  if (present && present !== refused) return Promise.resolve(present); // given meanwhile, for another call
  asking ??= show(Boolean(refused)).finally(() => (asking = null));
  return asking;
}

function show(refused) {
  const dialog = find("key-dialog");
  find("key-why").textContent = refused
    ? "The key that was sent was refused. Check it, or ask whoever runs the service."
    : "Ask whoever runs the service for one.";
  find("key").value = "";
  keep(null);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        const key = dialog.returnValue === "use" ? find("key").value.trim() : "";
        if (key) keep(key);
        resolve(key || null);
      },
      { once: true },
    );
  });
}

/**
 * Listen to the dialog's buttons and to "Forget the key".
 * @param {() => void} forgotten - called when the key was forgotten
 */
export function watchKey(forgotten) {
  find("forget-key").hidden = !currentKey();
  find("forget-key").addEventListener("click", () => {
    keep(null);
    forgotten();
  });
  find("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    find("key-dialog").close("use");
  });
  find("key-cancel").addEventListener("click", () => find("key-dialog").close(""));
}
