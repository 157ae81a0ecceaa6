/* The service's interface /api/v1, and nothing of the page.
 *
 * get(path) -> JSON; post(path, json) -> JSON; remove(path)
 * upload(file, onProgress) -> the image's record { id, name, width, height, bytes }
 * job(id, { onProgress, onPair }) -> Promise of the finished job { id, state, result, ... }, or an ApiError (code
 *   "cancelled" where it was stopped); onProgress({ stage, done, total, text });
 *   follows the server's events, and asks again and again where these do not come through; `.cancel()` stops it.
 * run(path, json, handlers) -> post, then follow its job
 * Every failure is an ApiError { status, code, message, field, body }: `message` is the package's own sentence.
 * Paths are relative to the page: "images", "results/abc" -> api/v1/images, so a prefix in front of all is no matter.
 */

export class ApiError extends Error {
  constructor(status, body) {
    const error = body?.error ?? {};
    super(error.message ?? "");
    this.name = "ApiError";
    this.status = status; // 0: no answer
    this.code = error.code ?? (status ? "failed" : "unreachable");
    this.field = error.field ?? null;
    this.retryAfter = null; // seconds
    this.body = error;
  }
}

export function url(path) {
  return new URL(`api/v1/${path}`, document.baseURI).href;
}

async function ask(path, init = {}) {
  let response;
  try {
    response = await fetch(url(path), { credentials: "same-origin", cache: "no-store", ...init });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, null);
  }
  const body = response.status === 204 ? null : await response.json().catch(() => null);
  if (response.ok) return body;
  const failure = new ApiError(response.status, body);
  failure.retryAfter = Number(response.headers.get("Retry-After")) || null;
  throw failure;
}

export function get(path, signal) {
  return ask(path, { signal });
}

export function post(path, json) {
  return ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(json ?? {}) });
}

export function remove(path) {
  return ask(path, { method: "DELETE" });
}

/** Upload an image file. onProgress(share) while it is sent. */
export function upload(file, onProgress = () => {}) {
  const form = new FormData();
  form.append("file", file, file.name || "photograph.jpg");
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch says nothing of how far an upload is
    request.open("POST", url("images"));
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onerror = () => reject(new ApiError(0, null));
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) resolve(request.response);
      else reject(new ApiError(request.status, request.response));
    };
    request.send(form);
  });
}

const OVER = new Set(["done", "failed", "cancelled"]);

/** Follow a job to its end. */
export function job(id, { onProgress = () => {}, onPair = () => {} } = {}) {
  let source = null;
  let timer = 0;
  const promise = new Promise((resolve, reject) => {
    const finish = (state) => {
      source?.close();
      clearTimeout(timer);
      if (state.state === "done") resolve(state);
      else reject(new ApiError(state.state === "cancelled" ? 409 : 500, failureOf(state)));
    };
    const poll = async () => {
      try {
        const state = await get(`jobs/${id}`);
        if (OVER.has(state.state)) return finish(state);
        onProgress(state.progress);
        timer = setTimeout(poll, 300);
      } catch (error) {
        reject(error);
      }
    };
    source = new EventSource(url(`jobs/${id}/events`));
    const read = (event) => JSON.parse(event.data);
    source.addEventListener("progress", (event) => onProgress(read(event).progress));
    source.addEventListener("pair", (event) => onPair(read(event)));
    for (const name of OVER) source.addEventListener(name, (event) => finish({ ...read(event), state: name }));
    source.onerror = () => {
      source.close();
      poll();
    };
  });
  promise.cancel = () => remove(`jobs/${id}`).catch(() => {});
  return promise;
}

function failureOf(state) {
  const code = state.state === "cancelled" ? "cancelled" : state.error?.code ?? state.state;
  return { error: { message: "", ...state.error, code } };
}

/** Post, and follow the job that comes of it. The promise has `.cancel()`, which also works before there is a job. */
export function run(path, json, handlers = {}) {
  let following = null;
  let cancelled = false;
  const promise = (async () => {
    const answer = await post(path, json);
    following = job(answer.id, handlers);
    if (cancelled) following.cancel();
    return following;
  })();
  promise.cancel = () => {
    cancelled = true;
    return following?.cancel();
  };
  return promise;
}
