/* Light or dark: as the system has it, until the user says otherwise; then kept in this browser. */

import { recall, remember } from "./i18n.js";

const ORDER = ["auto", "light", "dark"];

export function themeName() {
  const kept = recall("theme");
  return ORDER.includes(kept) ? kept : "auto";
}

/** Show a theme; a "themechange" event on the document tells those who draw with its colours. */
export function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  remember("theme", name);
  document.dispatchEvent(new CustomEvent("themechange"));
}

export function nextTheme() {
  setTheme(ORDER[(ORDER.indexOf(themeName()) + 1) % ORDER.length]);
  return themeName();
}

/** Whether things may move by themselves. */
export function motionReduced() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}
