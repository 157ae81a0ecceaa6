/* Keys of one letter: what each does, in one table that the help shows; off where somebody types, or wants none. */

import { recall, remember } from "./i18n.js";

const bindings = []; // { keys: ["j"], shown: "J", text: word, run(event) -> false where it did not apply, when() }
let on = recall("keys") !== "off";

/** Add a binding; returns a function that takes it away. `keys` as in KeyboardEvent.key, letters in lower case. */
export function bind(keys, shown, text, run, when = () => true) {
  const binding = { keys, shown, text, run, when };
  bindings.push(binding);
  return () => bindings.splice(bindings.indexOf(binding), 1);
}

/** What the help shows: those that apply now. */
export function listed() {
  return bindings.filter((each) => each.text && each.when());
}

export function keysOn() {
  return on;
}

export function setKeysOn(value) {
  on = value;
  remember("keys", value ? "on" : "off");
}

const TYPED = new Set(["INPUT", "TEXTAREA", "SELECT"]);

function typing(event) {
  const target = event.target;
  if (!(target instanceof Element)) return false;
  if (target.isContentEditable) return true;
  if (!TYPED.has(target.tagName)) return false;
  if (["checkbox", "radio", "button", "file"].includes(target.type)) return event.key === " " || event.key.startsWith("Arrow");
  // A slider has its own arrows; letters mean nothing to it.
  return target.type !== "range" || event.key.length > 1;
}

export function listen() {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (document.querySelector("dialog[open]")) return;
    const inField = typing(event);
    if (inField && key !== "Escape") return;
    if (!on && event.key.length === 1 && key !== "?") return;
    if (event.key === " " && event.target instanceof Element && event.target.closest("button, a, summary")) return;
    for (const binding of [...bindings].reverse()) {
      if (!binding.keys.includes(key) || !binding.when()) continue;
      if (binding.run(event) === false) continue;
      event.preventDefault();
      return;
    }
  });
}
