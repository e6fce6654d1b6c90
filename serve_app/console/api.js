// The platform's API, by addresses relative to the page: so it works behind a path prefix too.

const NAME = "manta.key";
let held = null; // where the tab has no storage

export const apiKey = {
  get: () => {
    try {
      return sessionStorage.getItem(NAME);
    } catch {
      return held;
    }
  },
  set: (value) => {
    held = value;
    try {
      if (value) sessionStorage.setItem(NAME, value);
      else sessionStorage.removeItem(NAME);
    } catch {
      // kept in memory
    }
  },
};

export class ApiError extends Error {
  constructor(message, { status = 0, code = null, param = null, requestId = null } = {}) {
    super(message);
    Object.assign(this, { status, code, param, requestId });
  }
}

// The key goes to this platform only: every path is below the page's own.
async function send(path, { body, headers = {}, ...more } = {}) {
  const key = apiKey.get();
  const sent = { ...headers };
  if (key) sent.authorization = `Bearer ${key}`;
  if (body !== undefined) sent["content-type"] = "application/json";
  const answer = await fetch(path, { cache: "no-store", credentials: "omit", headers: sent, body: body && JSON.stringify(body), ...more }).catch(said);
  if (!answer.ok) throw await errorOf(answer);
  return answer;
}

// Browsers say of a platform that is away no more than that a fetch has failed, each in its own words.
function said(error) {
  if (error.name === "AbortError") throw error; // who asked has stopped it
  throw new ApiError("the platform does not answer", { code: error.name === "TimeoutError" ? "timeout" : "unreachable" });
}

async function errorOf(answer) {
  const { status } = answer;
  const requestId = answer.headers.get("x-request-id");
  try {
    return describedError((await answer.json()).error, { status, requestId });
  } catch {
    return new ApiError(`the platform answered with status ${status}`, { status, requestId });
  }
}

export const describedError = (error, told = {}) =>
  new ApiError(String(error.message ?? error), { code: error.code ?? null, param: error.param ?? null, ...told });

const DEADLINE_MS = 10_000;

export const getJson = async (path) => (await send(path, { signal: AbortSignal.timeout(DEADLINE_MS) })).json();
export const postJson = async (path) => (await send(path, { method: "POST" })).json();
export const openStream = (path, body, { signal, headers }) => send(path, { method: "POST", body, signal, headers });
