/* The matches as a table, for those who do not see the picture and those who want numbers: a hundred at a time. */

import { clear, el } from "./dom.js";
import { number, t } from "./i18n.js";

const PAGE = 100;

export class MatchTable {
  /** @param onPin called with a match that the user has chosen */
  constructor(onPin) {
    this.onPin = onPin;
    this.first = 0;
    this.rows = [];
    this.body = el("tbody");
    this.head = el("tr");
    this.caption = el("caption", { class: "unseen" });
    this.pages = el("div", { class: "pages" });
    this.summary = el("summary", { text: "table" });
    this.element = el("details", { class: "table card" }, this.summary,
      el("div", { class: "scroll", tabindex: "0", role: "region", "label-text": "table" },
        el("table", {}, this.caption, el("thead", {}, this.head), this.body)), this.pages);
    this.element.addEventListener("toggle", () => this.draw());
  }

  show(pair, count, filter, pinned) {
    this.pair = pair;
    this.pinned = pinned;
    this.rows = Array.from({ length: count }, (_, k) => k).filter((k) => pair.passes(k, filter));
    this.first = Math.min(this.first, Math.max(0, Math.floor((this.rows.length - 1) / PAGE) * PAGE));
    this.draw();
  }

  mark(pinned) {
    this.pinned = pinned;
    const place = this.rows.indexOf(pinned);
    if (place >= 0 && (place < this.first || place >= this.first + PAGE)) {
      this.first = Math.floor(place / PAGE) * PAGE;
      return this.draw();
    }
    for (const row of this.body.rows) {
      if (Number(row.dataset.match) === pinned) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    }
  }

  draw() {
    if (!this.element.open || !this.pair) return;
    const { pair } = this;
    const focused = this.body.contains(document.activeElement) ? document.activeElement.closest("tr").dataset.match : null;
    this.caption.textContent = t("table_caption", { count: this.rows.length });
    const words = ["table_number", "score", "table_x0", "table_y0", "table_x1", "table_y1"];
    if (pair.inlier) words.push("fits");
    clear(this.head).append(...words.map((word) => el("th", { scope: "col" }, t(word))));
    clear(this.body);
    for (const k of this.rows.slice(this.first, this.first + PAGE)) {
      const cells = [...pair.end(k, 0), ...pair.end(k, 1)].map((value) => el("td", {}, value.toFixed(1)));
      const row = el("tr", { "data-match": k, "aria-current": k === this.pinned ? "true" : null },
        el("td", {}, el("button", { type: "button", class: "plain", "aria-label": t("table_pin", { k: k + 1 }), onclick: () => this.onPin(k) }, number(k + 1))),
        el("td", {}, pair.scores[k].toFixed(3)), cells,
        pair.inlier ? el("td", {}, t(pair.inlier[k] ? "is_inlier" : "is_outlier")) : null);
      this.body.append(row);
    }
    if (focused !== null) this.body.querySelector(`[data-match="${focused}"] button`)?.focus();
    const step = (by) => () => {
      this.first += by * PAGE;
      this.draw();
    };
    clear(this.pages).append(
      el("button", { type: "button", disabled: this.first === 0, onclick: step(-1) }, t("page_before")),
      el("button", { type: "button", disabled: this.first + PAGE >= this.rows.length, onclick: step(1) }, t("page_after")),
      el("span", { class: "quiet n" }, this.rows.length
        ? t("page_rows", { first: this.first + 1, last: Math.min(this.first + PAGE, this.rows.length), count: this.rows.length }) : t("table_empty")));
  }
}
