// A streamed chat answer: its events as they come, and what is measured of them.

import { describedError, openStream } from "./api.js";

const PATH = "v1/chat/completions";

// Yields the data of each event; comments go to `noted`.
export async function* eventsOf(stream, noted = () => {}) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  for (;;) {
    const { value, done } = await reader.read();
    const lines = (rest + (value ?? "")).split(/\r?\n/);
    rest = done ? "" : lines.pop();
    for (const line of lines) {
      if (line.startsWith(":")) noted(line.slice(1).trim());
      else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
      else if (line === "" && data.length) {
        yield data.join("\n");
        data = [];
      }
    }
    if (done) return;
  }
}

// Asks for an answer, and tells `heard` of it: who({...headers}), text(piece), thought(piece), citations(list).
// Returns the timings, also of an answer that was stopped.
export async function ask(body, { signal, sessionId, heard, now = () => performance.now() }) {
  const clock = new Timings(now);
  const asked = { ...body, stream: true, stream_options: { include_usage: true } };
  try {
    const answer = await openStream(PATH, asked, { signal, headers: { "x-session-id": sessionId } });
    const who = answererOf(answer.headers);
    heard.who(who);
    const noted = (comment) => {
      const [, variant] = comment.match(/^x-manta-variant: (.+)$/) ?? [];
      if (variant) heard.who({ ...who, variant });
    };
    for await (const data of eventsOf(answer.body, noted)) if (data !== "[DONE]") take(JSON.parse(data), { clock, heard, who });
  } catch (error) {
    clock.end();
    if (error.name !== "AbortError") throw Object.assign(error, { timings: clock.told() });
    return { ...clock.told(), isStopped: true };
  }
  clock.end();
  return clock.told();
}

const answererOf = (headers) => ({
  model: headers.get("x-manta-model"),
  variant: headers.get("x-manta-variant"),
  pipelineVersion: headers.get("x-manta-pipeline-version"),
  adapterVersion: headers.get("x-manta-adapter-version"),
  requestId: headers.get("x-request-id"),
});

function take(event, { clock, heard, who }) {
  if (event.error) throw describedError(event.error, { requestId: who.requestId });
  if (event.usage) clock.usage = event.usage;
  const choice = event.choices?.[0];
  const said = choice?.delta ?? choice?.message ?? {};
  const thought = said.reasoning ?? said.reasoning_content;
  if (thought || said.content) clock.piece();
  if (thought) heard.thought(thought);
  if (said.content) heard.text(said.content);
  if (choice?.finish_reason) clock.finish = choice.finish_reason;
  if (event.citations) heard.citations(event.citations);
}

class Timings {
  #now;
  #began;
  #first = null;
  #last = null;
  #ended = null;
  #gaps = [];
  usage = null;
  finish = null;

  constructor(now) {
    this.#now = now;
    this.#began = now();
  }

  piece() {
    const at = this.#now();
    if (this.#first === null) this.#first = at;
    else this.#gaps.push(at - this.#last);
    this.#last = at;
  }

  end() {
    this.#ended = this.#now();
  }

  // Seconds; null for what there was too little of.
  told() {
    const pieces = this.#gaps.length + (this.#first === null ? 0 : 1);
    const tokens = this.usage?.completion_tokens ?? pieces;
    const writing = this.#gaps.length ? (this.#last - this.#first) / 1000 : null;
    const gaps = [...this.#gaps].sort((a, b) => a - b);
    return {
      firstS: this.#first === null ? null : (this.#first - this.#began) / 1000,
      gapS: gaps.length ? gaps[Math.floor(gaps.length / 2)] / 1000 : null,
      tokensPerS: writing ? (tokens - 1) / writing : null,
      totalS: (this.#ended - this.#began) / 1000,
      tokens,
      promptTokens: this.usage?.prompt_tokens ?? null,
      isCounted: this.usage !== null,
      finish: this.finish,
    };
  }
}
