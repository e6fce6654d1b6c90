// The console: which section is open, which key is used, and how fresh the figures are.

import { apiKey, getJson } from "./api.js";
import { byId, make, setHidden, setText, sync } from "./dom.js";
import { clock } from "./format.js";
import { showOverview, startOverview } from "./overview.js";
import { Playground } from "./playground.js";
import { Poller } from "./poll.js";
import { showRollouts } from "./rollouts.js";
import { Timeline } from "./timeline.js";

const SECTIONS = ["overview", "rollouts", "playground"];
const EVERY_MS = 2000;
const NO_KEY = 401;
const NO_RIGHT = 403;
const IS_KEY = /^[!-~]+$/; // what a header can hold
let hasKeys = document.documentElement.dataset.keys === "on";

const timeline = new Timeline();
const playground = new Playground();
const documents = {}; // the last ones that came, by name
const poller = new Poller(look, { everyMs: EVERY_MS, told: showState });
let freshS = null; // when figures came last
let isAdmin = true; // until the platform says otherwise

function showSection() {
  const asked = location.hash.slice(1);
  const open = SECTIONS.includes(asked) ? asked : SECTIONS[0];
  for (const name of SECTIONS) {
    setHidden(byId(name), name !== open);
    const link = document.querySelector(`nav a[href="#${name}"]`);
    if (name === open) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${byId(`${open}-title`).textContent} – Manta console`;
  window.scrollTo(0, 0);
}

// One look at everything. Throws what keeps the figures from being fresh.
async function look() {
  const key = apiKey.get();
  const isOver = () => apiKey.get() !== key; // another key has been given meanwhile
  if (hasKeys && !key) return showGate("This platform asks for a key.");
  try {
    const { data } = await getJson("v1/models");
    if (isOver()) return;
    playground.offer(data);
    await lookAtFigures(isOver);
    showGate(null);
  } catch (error) {
    if (isOver()) return;
    if (error.status !== NO_KEY) throw error;
    hasKeys = true;
    forget();
    showGate(`${error.message}. Type a key that is in force.`);
  }
}

async function lookAtFigures(isOver) {
  if (!isAdmin) return;
  const found = {};
  try {
    found.status = await getJson("admin/status");
  } catch (error) {
    if (isOver()) return;
    if (error.status !== NO_RIGHT && error.status !== 404) throw error;
    isAdmin = false;
    document.body.classList.remove("has-figures");
    return showNotices([`No figures for this key: ${error.message}. The playground works with it.`]);
  }
  const problems = [];
  await Promise.all(
    ["rollouts", "scaling", "timeline"].map(async (name) => {
      try {
        found[name] = await getJson(`admin/${name}`);
      } catch (error) {
        if (error.status === NO_KEY) throw error;
        problems.push(`${name} cannot be read: ${error.message}. What is shown of it was last seen before.`);
      }
    }),
  );
  if (isOver()) return;
  Object.assign(documents, found);
  freshS = Date.now() / 1000;
  show(problems);
}

function show(problems) {
  document.body.classList.add("has-figures");
  if (documents.timeline) timeline.take(documents.timeline);
  showOverview(documents, timeline);
  if (documents.rollouts) showRollouts(documents.rollouts, { refresh: () => poller.now() });
  const refused = documents.rollouts?.refused;
  const broken = documents.status.apps.filter((app) => !["RUNNING", "DEPLOYING", "DELETING"].includes(app.status));
  showNotices([...(refused ? [refused] : []), ...broken.map((app) => `${app.name} is ${app.status.toLowerCase().replaceAll("_", " ")}.`), ...problems]);
}

function showNotices(texts) {
  sync(byId("notices"), [...new Set(texts)], {
    key: (text) => text,
    create: (text) => make("p", { kind: "notice bad", text }),
    update: () => {},
  });
}

function showGate(reason) {
  const hasKey = Boolean(apiKey.get());
  setHidden(byId("key-button"), !hasKeys);
  setText(byId("key-button"), hasKey ? "Change key" : "Key");
  setHidden(byId("gate-forget"), !hasKey);
  if (reason === null) return;
  setText(byId("gate-reason"), reason);
  setHidden(byId("gate"), false);
}

function showState({ state, error }) {
  const waits = state === "live" && hasKeys && !apiKey.get();
  const shown = waits ? "needs a key" : state === "live" && !isAdmin ? "no figures" : state;
  const element = byId("state");
  element.dataset.state = shown === state ? state : "waiting";
  const stale = freshS === null ? `No figures: ${error?.message}` : `Stale: figures of ${clock(freshS)}`;
  const words = { live: "Live", paused: "Paused", stale };
  setText(element, words[shown] ?? `${shown[0].toUpperCase()}${shown.slice(1)}`);
  element.title = error ? error.message : "";
  document.body.classList.toggle("is-stale", state === "stale");
}

// Begins anew without a key: what was shown was for another one's reader.
function forget() {
  apiKey.set(null);
  isAdmin = true;
  freshS = null;
  playground.offer([]);
  document.body.classList.remove("has-figures");
}

function useKey(key) {
  if (key && !IS_KEY.test(key)) return showGate("A key has no spaces and only plain letters, digits and signs. Type it again.");
  forget();
  playground.renew(); // the next key's reader may be another one
  apiKey.set(key);
  byId("gate-key").value = "";
  setHidden(byId("gate"), Boolean(key));
  showNotices([]);
  poller.now();
}

byId("gate").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(byId("gate-key").value.trim());
  byId("main").focus();
});
byId("gate-forget").addEventListener("click", () => useKey(null));
byId("key-button").addEventListener("click", () => {
  setHidden(byId("gate"), !byId("gate").hidden);
  if (!byId("gate").hidden) byId("gate-key").focus();
});
window.addEventListener("hashchange", showSection);
startOverview();
showSection();
poller.now();
