/* What was found, as files, at the slider's place; and the link to what is seen. */

import { el, icon } from "./dom.js";
import { t } from "./i18n.js";

const FORMATS = ["npz", "json", "csv", "png", "svg", "pdf", "colmap", "html"];

export class Downloads {
  /** @param chosen () -> { id, query } of the result that is shown */
  constructor(app, chosen) {
    this.app = app;
    this.chosen = chosen;
    this.buttons = FORMATS.map((format) => el("button", { type: "button", "title-text": `format_${format}`, onclick: (event) => this.#fetch(format, event.currentTarget) },
      format === "colmap" ? "COLMAP" : format));
    this.fault = el("p", { class: "fault", role: "alert" });
    this.copyButton = el("button", { type: "button", class: "plain", onclick: () => this.#copy() }, icon("copy"), el("span", { text: "copy_link" }));
    this.element = el("div", { class: "card", hidden: true }, el("h3", { text: "downloads" }),
      el("div", { class: "downloads" }, this.buttons, this.copyButton), this.fault);
  }

  show() {
    this.element.hidden = false;
    this.fault.textContent = "";
  }

  hide() {
    this.element.hidden = true;
  }

  async #fetch(format, button) {
    const { id, query } = this.chosen();
    this.fault.textContent = "";
    button.disabled = true;
    try {
      const response = await fetch(this.app.api.url(`results/${encodeURIComponent(id)}/${format}?${query}`), { credentials: "same-origin" });
      if (!response.ok) throw new this.app.api.ApiError(response.status, await response.json().catch(() => null));
      const name = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "")?.[1] ?? `matches.${format === "colmap" ? "db" : format}`;
      const address = URL.createObjectURL(await response.blob());
      const link = el("a", { href: address, download: name });
      document.body.append(link);
      link.click();
      link.remove();
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
    } catch (error) {
      this.fault.textContent = error instanceof this.app.api.ApiError ? this.app.explain(error) : t("unreachable");
    } finally {
      button.disabled = false;
    }
  }

  async #copy() {
    await new Promise((resolve) => { setTimeout(resolve, 300); }); // the address is written with a delay
    try {
      await navigator.clipboard.writeText(location.href);
      this.app.announce(t("link_copied"));
      this.copyButton.lastChild.textContent = t("link_copied");
      setTimeout(() => { this.copyButton.lastChild.textContent = t("copy_link"); }, 2000);
    } catch {
      this.fault.textContent = t("link_by_hand");
    }
  }
}

