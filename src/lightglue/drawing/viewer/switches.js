/* The buttons for language, colours and help, in the page's head. */

import { el } from "./dom.js";
import { showHelp } from "./help.js";
import { firstLanguage, language, setLanguage, t } from "./i18n.js";
import { bind, listen } from "./keys.js";
import { nextTheme, setTheme, themeName } from "./theme.js";

/** Start with what this browser keeps, and return the buttons. */
export function switches() {
  setTheme(themeName());
  setLanguage(firstLanguage());
  listen();
  bind(["?"], "?", "key_help", showHelp);
  const other = el("button", { type: "button", class: "plain", id: "language",
    onclick: () => setLanguage(language() === "en" ? "zh" : "en") });
  const theme = el("button", { type: "button", class: "plain", id: "theme", onclick: () => {
    nextTheme();
    say();
  } });
  const help = el("button", { type: "button", class: "plain", id: "help", onclick: showHelp }, "?");
  const say = () => {
    other.textContent = language() === "en" ? "中文" : "English";
    other.lang = language() === "en" ? "zh-CN" : "en";
    theme.textContent = t(`theme_${themeName()}`);
    theme.setAttribute("aria-label", t("theme_is", { theme: t(`theme_${themeName()}`) }));
    help.setAttribute("aria-label", t("help"));
  };
  say();
  document.addEventListener("languagechange", say);
  return [other, theme, help];
}
