/* The page: language, theme, routes, keys. Each route is a module that is loaded when it is first shown:
 *
 *   export function mount(root, app) -> { show(params)?, hide()?, refresh()? }
 *     root: its <section>, which holds a heading only; called once
 *     show(params): each time its route is shown, and when its part of the address changes; URLSearchParams
 *     hide(): when another route is shown
 *
 * app has what modules share:
 *   api            the module api.js
 *   state          the module state.js: app.state.write("folder", {...}), app.state.go("pair", { r: id })
 *   t, el, add ... are imported from i18n.js and dom.js, words of one's own by addWords({ en, zh })
 *   health, options()   GET health (null until known) and GET options (a promise, asked for once)
 *   announce(text) said to screen readers;  notify(text, tone) shown on top until closed; tone "bad" or "good"
 *   computedOn(device) shown in the head
 *   explain(error) the sentence for an ApiError, in words for what the server could not say itself
 */

import * as api from "./api.js";
import { add, clear, el, icon } from "./dom.js";
import { t, translate } from "./i18n.js";
import * as state from "./state.js";
import { switches } from "./switches.js";

const MODULES = { pair: "./pair_page.js", folder: "./many.js", maps: "./map.js" };

const mounted = {}; // route -> what its mount gave
let shown = null;
let optionsPromise = null;

const app = {
  api,
  state,
  health: null,
  options() {
    optionsPromise ??= api.get("options").catch((error) => {
      optionsPromise = null;
      throw error;
    });
    return optionsPromise;
  },
  forgetOptions() {
    optionsPromise = null;
  },
  announce(text) {
    const place = document.getElementById("announce");
    place.textContent = "";
    requestAnimationFrame(() => { place.textContent = text; });
  },
  notify(text, tone = "bad") {
    const place = clear(document.getElementById("notice"));
    if (!text) return;
    add(place, el("p", { class: `notice ${tone}` }, el("span", {}, text),
      el("button", { type: "button", class: "plain", "aria-label": t("close"), onclick: () => clear(place) }, icon("close"))));
  },
  /** Where a result was computed: "cpu", "cuda". */
  computedOn(device) {
    app.device = device ?? app.device;
    machineWord();
  },
  explain(error) {
    if (error?.message && error.status) return error.message;
    if (error?.status === 0) return t("unreachable");
    if (error?.status) return t("failed_status", { status: String(error.status) });
    throw error;
  },
};

async function show({ route, params }) {
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.dataset.route !== route;
  for (const link of document.querySelectorAll("#routes a")) {
    if (link.dataset.route === route) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (shown !== route) {
    (await mounted[shown])?.hide?.();
    shown = route;
  }
  const root = document.querySelector(`main > section[data-route="${route}"]`);
  mounted[route] ??= import(MODULES[route]).then((module) => module.mount(root, app));
  document.title = `${t(`title_${route}`)} - LightGlue`;
  const page = await mounted[route];
  translate(root);
  if (shown === route) page?.show?.(params);
}

function machineWord() {
  const { health } = app;
  const device = app.device ?? (health?.device === "auto" ? null : health?.device);
  document.getElementById("machine").textContent = [device, health?.version].filter(Boolean).join(" · ");
}

async function start() {
  document.querySelector(".switches").append(...switches());
  document.addEventListener("languagechange", () => { document.title = `${t(`title_${shown}`)} - LightGlue`; });
  document.querySelector(".skip").onclick = (event) => { // "#main" is no route
    event.preventDefault();
    document.getElementById("main").focus();
  };
  state.onChange(show);
  api.get("health").then((health) => {
    app.health = health;
    machineWord();
  }, () => {});
  await show(state.read());
}

start();
