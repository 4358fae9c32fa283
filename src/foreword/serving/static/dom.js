/** Elements built from data. Text becomes text nodes and nothing else: no string is ever read as markup. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element.
 * @param {string} name - tag name
 * @param {Object} attributes - `on`: listeners by event; `style`: custom properties; true: present; null, false: left out
 * @param {...(Node|string|number|Array|null)} children - strings become text
 */
export function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same in SVG's namespace. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (name === "style") for (const [key, amount] of Object.entries(value)) node.style.setProperty(key, amount);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined).map(asNode));
  return node;
}

function asNode(child) {
  return child instanceof Node ? child : String(child);
}

/** A name that may break after `/`, `_`, `-`, `.` and `:`, as long identifiers must in narrow columns. */
export function breakable(name) {
  return String(name).split(/(?<=[/_\-.:])/).flatMap((part, place) => (place ? [element("wbr"), part] : [part]));
}

/** A wide thing that scrolls by itself, reachable by keyboard, so that the page never scrolls sideways. */
export function scroll(label, child) {
  return element("div", { class: "scroll", role: "region", "aria-label": label, tabindex: 0 }, child);
}
