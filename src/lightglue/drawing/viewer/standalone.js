/* pair.html: the viewer with one pair that stands in the page. */

import { el } from "./dom.js";
import { t } from "./i18n.js";
import { switches } from "./switches.js";
import { loadPicture } from "./viewer.js";
import { Workbench } from "./workbench.js";

async function start() {
  const { pair, pictures } = JSON.parse(document.getElementById("data").textContent);
  const buttons = switches();
  const bench = el("div");
  const names = pair.images.map(({ name }) => name).join(" - ");
  document.body.append(
    el("header", { class: "top" }, el("span", { class: "brand" }, "LightGlue"), el("span", { class: "quiet title" }, names),
      el("span", { class: "switches" }, buttons)),
    el("main", { id: "main" }, el("h1", { class: "unseen" }, names), bench));
  const workbench = new Workbench(bench);
  const write = () => {
    const values = Object.entries(workbench.params()).filter(([, value]) => value !== null);
    const hash = values.length ? `#${new URLSearchParams(values)}` : "#";
    clearTimeout(write.timer);
    write.timer = setTimeout(() => {
      try {
        history.replaceState(null, "", hash);
      } catch { /* some browsers forbid it to files */ }
    }, 250);
  };
  const first = new URLSearchParams(location.hash.slice(1));
  workbench.show(pair, await Promise.all(pictures.map(loadPicture)), first);
  workbench.addEventListener("change", write);
  const title = () => { document.title = `${names} - ${t("title_pair")}`; };
  title();
}

start();
