// Weights that are not on this machine: offered with their size and licence, fetched when the user says so.

import { clear, el } from "./dom.js";
import { bytesText, t } from "./i18n.js";

export class WeightsOffer {
  /** chosen: gives the name of the features that are to be matched. */
  constructor(app, chosen) {
    this.app = app;
    this.chosen = chosen;
    this.known = null;
    this.element = el("div", { class: "offer", hidden: true });
  }

  /** What the service says of features and their weights. */
  learn(options) {
    this.known = options;
    this.show();
  }

  /** Offer these weights, or those of the chosen features where they are missing; hide where there is nothing to offer. */
  show(weights = null, text = null) {
    const row = this.known?.features.find(({ name }) => name === this.chosen());
    const missing = weights ?? (row?.weights === "missing" ? [row] : []);
    this.element.hidden = !missing.length && !text;
    if (this.element.hidden) return;
    const total = missing.reduce((sum, each) => sum + (each.bytes ?? 0), 0);
    const licences = [...new Set(missing.map((each) => each.licence).filter(Boolean))].join(", ");
    const about = el("p", {}, text ?? t("weights_missing", { features: this.chosen() }), " ",
      t("weights_about", { size: total ? bytesText(total) : t("size_unknown"), licence: licences || "?" }));
    const button = el("button", { type: "button", class: "primary" }, t("weights_fetch", { size: total ? bytesText(total) : "" }));
    button.onclick = () => this.#fetch(missing.map((each) => each.name), about, button);
    clear(this.element).append(about, button);
  }

  /** What a request or a job failed of, if it is for want of weights: whether it is. */
  refused(error) {
    if (error.code === "weights_missing") this.show(error.body?.weights);
    else if (error.code === "weights") this.show(error.body?.weights, this.app.explain(error));
    else return false;
    return true;
  }

  async #fetch(names, about, button) {
    button.disabled = true;
    try {
      for (const name of names.length ? names : [this.chosen()]) {
        await this.app.api.run(`weights/${encodeURIComponent(name)}`, {}, {
          onProgress: ({ done, total }) => {
            if (total) button.textContent = `${Math.floor((100 * done) / total)} %`;
          },
        });
      }
      this.app.forgetOptions();
      this.learn(await this.app.options());
      this.app.announce(t("weights_there"));
    } catch (error) {
      button.disabled = false;
      button.textContent = t("try_again");
      about.append(el("span", { class: "fault" }, ` ${this.app.explain(error)}`));
    }
  }
}
