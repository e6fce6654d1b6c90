// The playground: a conversation with any model, adapter or pipeline.

import { Turn } from "./answer.js";
import { byId, make, say, setHidden, setText, sync } from "./dom.js";
import { ask } from "./stream.js";

const KINDS = [["model", "Models"], ["adapter", "Adapters"], ["pipeline", "Pipelines"]];

// Not randomUUID: browsers have it on https and localhost only.
const freshId = () => [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

export class Playground {
  #cards = [];
  #messages = []; // what was said and answered, without the system prompt
  #session = "";
  #stop = null; // of the answer that is coming

  constructor() {
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    byId("message").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      byId("composer").requestSubmit();
    });
    byId("settings").addEventListener("submit", (event) => event.preventDefault());
    byId("stop").addEventListener("click", () => this.#stop?.abort());
    byId("renew").addEventListener("click", () => this.renew());
    byId("model").addEventListener("change", () => this.#note());
    this.renew();
  }

  // Offers what the key may name; what is chosen stays chosen.
  offer(cards) {
    this.#cards = cards.filter((card) => KINDS.some(([kind]) => kind === card.kind));
    const select = byId("model");
    const groups = KINDS.map(([kind, label]) => ({ label, cards: this.#cards.filter((card) => card.kind === kind) }));
    sync(select, groups.filter((group) => group.cards.length), {
      key: (group) => group.label,
      create: (group) => make("optgroup", { label: group.label }),
      update: (element, group) =>
        sync(element, group.cards, {
          key: (card) => card.id,
          create: (card) => make("option", { text: card.id, value: card.id }),
          update: () => {},
        }),
    });
    this.#note();
  }

  #note() {
    const card = this.#cards.find((each) => each.id === byId("model").value);
    const words = [];
    if (!card) words.push("This key may use no model here.");
    else if (card.kind === "pipeline") words.push("Answers from documents, with citations.");
    if (card?.engine === "simulated") words.push("A simulated engine: it writes no sense.");
    if (card?.max_model_len) words.push(`Up to ${card.max_model_len.toLocaleString("en")} tokens.`);
    setText(byId("model-note"), words.join(" "));
    byId("send").disabled = !card;
  }

  // Begins a new conversation: nothing of the old one is shown or sent any more.
  renew() {
    if (this.#stop) {
      this.#stop.abort();
      this.#stop = null; // what it has said is no part of the new one
      this.#showBusy(false);
    }
    this.#messages = [];
    this.#session = `console-${freshId()}`;
    byId("turns").replaceChildren(make("p", { kind: "soft empty", text: "Nothing was said yet." }));
    setText(byId("session"), `Session ${this.#session}: it keeps the conversation on one variant.`);
  }

  async #send() {
    const message = byId("message").value.trim();
    if (!message || this.#stop) return;
    const turn = new Turn(message, byId("model").value);
    const turns = byId("turns");
    turns.querySelector(".empty")?.remove();
    turns.append(turn.element);
    byId("message").value = "";
    const stop = (this.#stop = new AbortController());
    this.#showBusy(true);
    const isSaid = await this.#answer(turn, message, stop);
    if (this.#stop !== stop) return; // a new conversation has begun meanwhile
    if (isSaid) this.#messages.push({ role: "user", content: message }, { role: "assistant", content: turn.answer });
    this.#stop = null;
    this.#showBusy(false);
    this.#follow();
  }

  // Returns whether the turn belongs to the conversation from now on.
  async #answer(turn, message, stop) {
    const heard = {
      who: (who) => turn.showWho(who),
      text: (piece) => this.#following(() => turn.addText(piece)),
      thought: (piece) => this.#following(() => turn.addThought(piece)),
      citations: (found) => this.#following(() => turn.showCitations(found)),
    };
    this.#follow();
    try {
      const timings = await ask(this.#body(turn.model, message), { signal: stop.signal, sessionId: this.#session, heard });
      this.#following(() => turn.end(timings));
      say(timings.isStopped ? "Answer stopped." : "Answer complete.");
      return turn.answer !== "";
    } catch (error) {
      turn.showError(error);
      turn.end(turn.answer ? error.timings : null);
      if (!byId("message").value) byId("message").value = message; // to be sent again
      return false;
    }
  }

  #body(model, message) {
    const system = byId("system").value.trim();
    const body = { model, messages: [...this.#messages, { role: "user", content: message }] };
    if (system) body.messages.unshift({ role: "system", content: system });
    for (const [field, name] of [["temperature", "temperature"], ["max-tokens", "max_tokens"]]) {
      if (byId(field).value !== "") body[name] = byId(field).valueAsNumber;
    }
    return body;
  }

  #showBusy(isBusy) {
    byId("send").disabled = isBusy;
    setHidden(byId("stop"), !isBusy);
    if (isBusy && document.activeElement === byId("send")) byId("stop").focus();
    if (!isBusy && [document.body, byId("stop")].includes(document.activeElement)) byId("message").focus();
  }

  // Changes what is shown; a reader who is at the end stays there.
  #following(change) {
    const turns = byId("turns");
    const isAtEnd = turns.scrollHeight - turns.scrollTop - turns.clientHeight < 40;
    change();
    if (isAtEnd) this.#follow();
  }

  #follow() {
    byId("turns").scrollTop = byId("turns").scrollHeight;
  }
}
