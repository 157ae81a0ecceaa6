/* Elements without markup: all text goes in as text, so nothing that a user names a file can become a tag.
 *
 * el("button", { class: "plain", onclick: stop, "aria-label": "Stop" }, "Stop", child, ...) -> HTMLElement
 *   names that begin with "on" are listeners; true and false set and leave out an attribute; null is left out;
 *   `text` sets a translated text that follows the language (see i18n.js): { text: "match" }.
 */

export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "text") element.dataset.t = value;
    else if (name === "title-text") element.dataset.tTitle = value;
    else if (name === "label-text") element.dataset.tLabel = value;
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  add(element, ...children);
  return element;
}

/** Append children; strings and numbers as text, null and false not at all. */
export function add(parent, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return parent;
}

export function clear(element) {
  element.replaceChildren();
  return element;
}

const PATHS = {
  turn: "M13 4.5A6 6 0 1 0 14 9M13.5 1v4h-4",
  mask: "M3 13c2 0 3-1 3-2.5S5 8 4.500 8.500 3 11 2 12M6.500 9.500 13 2l1.500 1.500L8 11",
  points: "M8 1v4M8 11v4M1 8h4M11 8h4M8 8h.01",
  camera: "M2 5h3l1-2h4l1 2h3v8H2zM8 11.500a2.500 2.500 0 1 0 0-5 2.500 2.500 0 0 0 0 5",
  swap: "M3 5h10M10 2l3 3-3 3M13 11H3M6 8l-3 3 3 3",
  link: "M6.500 9.500l3-3M7 4.500 8.500 3a3 3 0 0 1 4.500 4.500L11.500 9M9 11.500 7.500 13A3 3 0 0 1 3 8.500L4.500 7",
  close: "M3.500 3.500l9 9M12.500 3.500l-9 9",
  fit: "M2 6V2h4M10 2h4v4M14 10v4h-4M6 14H2v-4",
  plus: "M8 3v10M3 8h10",
  minus: "M3 8h10",
  copy: "M5 5h8v9H5zM3 11V2h8",
  stack: "M2.500 2.500h11v4.500h-11zM2.500 9h11v4.500h-11z",
  side: "M2.500 2.500h4.500v11h-4.500zM9 2.500h4.500v11H9z",
  previous: "M10 3 5 8l5 5",
  next: "M6 3l5 5-5 5",
};

/** A line drawing of 16 x 16, hidden from screen readers: the button around it has the name. */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}
