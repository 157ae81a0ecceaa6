/* Words of the page in English and Chinese.
 *
 * t("matches_found", { count: 549 }) -> the text in the language shown; {count} is filled in, numbers get separators.
 * An element with data-t="key" (el(..., { text: "key" })) follows the language by itself; data-t-title and data-t-label
 * do so for title and aria-label. A module adds words of its own: addWords({ en: {...}, zh: {...} }).
 * A "languagechange" event on the document tells those who draw texts.
 */

import { EN } from "./words_en.js";
import { ZH } from "./words_zh.js";

const WORDS = { en: { ...EN }, zh: { ...ZH } };
let current = "en";

/** What this browser keeps; storage may be forbidden, then nothing is kept. */
export function recall(name) {
  try {
    return localStorage.getItem(`lightglue.${name}`);
  } catch {
    return null;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(`lightglue.${name}`, value);
  } catch {
    /* not kept */
  }
}

export function language() {
  return current;
}

/** Words of another module, by language; a key that is there already is an error. */
export function addWords(tables) {
  for (const [name, table] of Object.entries(tables)) {
    for (const [key, text] of Object.entries(table)) {
      if (key in WORDS[name] && WORDS[name][key] !== text) throw new Error(`The word ${key} is there already.`);
      WORDS[name][key] = text;
    }
  }
}

export function hasWord(key) {
  return key in WORDS[current];
}

export function t(key, values = {}) {
  const text = WORDS[current][key] ?? WORDS.en[key];
  if (text === undefined) throw new Error(`There is no word ${key}.`);
  return text.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    return typeof value === "number" ? number(value) : String(value ?? "");
  });
}

export function number(value, digits = 0) {
  return value.toLocaleString(current === "zh" ? "zh-CN" : "en", {
    minimumFractionDigits: digits,
    maximumFractionDigits: Math.max(digits, Number.isInteger(value) ? 0 : digits),
  });
}

/** 12,345,678 bytes -> "12.3 MB". */
export function bytesText(count) {
  if (count < 1000) return `${count} B`;
  if (count < 1e6) return `${Math.round(count / 1e3)} kB`;
  return `${(count / 1e6).toFixed(count < 1e8 ? 1 : 0)} MB`;
}

/** Fill in the words of `root` and all below it. */
export function translate(root) {
  const each = (attribute, put) => {
    if (root.matches?.(`[${attribute}]`)) put(root, root.getAttribute(attribute));
    for (const element of root.querySelectorAll(`[${attribute}]`)) put(element, element.getAttribute(attribute));
  };
  each("data-t", (element, key) => { element.textContent = t(key); });
  each("data-t-title", (element, key) => { element.title = t(key); });
  each("data-t-label", (element, key) => { element.setAttribute("aria-label", t(key)); });
  return root;
}

export function setLanguage(name) {
  current = name in WORDS ? name : "en";
  document.documentElement.lang = current === "zh" ? "zh-CN" : "en";
  remember("language", current);
  translate(document.documentElement);
  document.dispatchEvent(new CustomEvent("languagechange"));
}

/** The language chosen earlier, else the browser's. */
export function firstLanguage() {
  const kept = recall("language");
  if (kept in WORDS) return kept;
  return (navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en";
}
