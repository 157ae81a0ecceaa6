/* The keys that apply now, and whether those of one letter are on. */

import { el } from "./dom.js";
import { t } from "./i18n.js";
import { keysOn, listed, setKeysOn } from "./keys.js";

export function showHelp() {
  const close = () => dialog.close();
  const dialog = el("dialog", { class: "help", "aria-labelledby": "help-title" },
    el("h2", { id: "help-title" }, t("help_title")),
    el("p", {}, t("help_text")),
    el("dl", { class: "keys" }, listed().map((each) => [el("dt", {}, el("kbd", {}, each.shown)), el("dd", {}, t(each.text))])),
    el("p", { class: "row" },
      el("label", { class: "check" },
        el("input", { type: "checkbox", checked: keysOn(), onchange: (event) => setKeysOn(event.target.checked) }), t("keys_on")),
      el("span", { class: "spring" }),
      el("button", { type: "button", class: "primary", onclick: close }, t("close"))));
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && close());
  document.body.append(dialog);
  dialog.showModal();
}
