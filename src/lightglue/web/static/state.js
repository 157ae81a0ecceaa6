/* The state of the view, in the address behind "#": copy it, and the other sees the same (as long as the result lives).
 *
 * #pair?r=RESULT&t=0.2&view=points    route, then names and values; what is as usual is left out
 * read() -> { route, params: URLSearchParams }
 * write(route, { name: value }) replaces the address without a step in the history; go(route, {...}) with one
 * onChange(listener) -> called after Back, Forward, or a link
 */

const ROUTES = ["pair", "folder", "maps"];

export function read(hash = location.hash) {
  const [name, query = ""] = hash.replace(/^#/, "").split("?");
  return { route: ROUTES.includes(name) ? name : "pair", params: new URLSearchParams(query) };
}

export function address(route, values = {}) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && value !== undefined && value !== "" && value !== false) params.set(name, String(value));
  }
  const query = params.toString();
  return `#${route}${query ? `?${query}` : ""}`;
}

let pending = 0;

/** Not more often than browsers allow (Safari: 100 times in 30 s): a slider writes its last place only. */
export function write(route, values) {
  clearTimeout(pending);
  pending = setTimeout(() => {
    if (read().route !== route) return;
    history.replaceState(null, "", address(route, values));
  }, 250);
}

export function go(route, values) {
  clearTimeout(pending);
  const next = address(route, values);
  if (next !== location.hash) location.hash = next;
}

export function onChange(listener) {
  window.addEventListener("hashchange", () => listener(read()));
}
