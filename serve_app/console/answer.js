// One turn of a conversation as it is shown: the question, the answer as it comes, its citations and its timings.

import { make, setText } from "./dom.js";
import { duration, number } from "./format.js";

const FLAW = { length: "cut at max tokens", content_filter: "cut by a filter" };

export class Turn {
  constructor(question, model) {
    this.model = model;
    this.answer = "";
    this.text = make("p", { kind: "text" });
    this.thoughts = make("p", { kind: "text soft" });
    this.thinking = make("details", { hidden: true }, make("summary", { text: "Reasoning" }), this.thoughts);
    this.who = make("p", { kind: "soft who", text: model });
    this.after = make("div");
    const body = make("div", { kind: "answer", "aria-busy": "true" }, this.who, this.thinking, this.text, this.after);
    this.body = body;
    this.element = make("div", { kind: "turn" }, make("p", { kind: "question text", text: question }), body);
  }

  // Says who answers: of a pipeline its version too, and of an adapter.
  showWho({ model, variant, pipelineVersion, adapterVersion }) {
    const asked = pipelineVersion ? `${this.model} ${pipelineVersion}` : this.model;
    const answering = [[model, adapterVersion].filter(Boolean).join(" "), variant].filter(Boolean).join(" / ");
    setText(this.who, pipelineVersion && answering ? `${asked} → ${answering}` : answering || asked);
  }

  addText(piece) {
    this.answer += piece;
    this.text.append(piece);
  }

  addThought(piece) {
    this.thinking.hidden = false;
    this.thoughts.append(piece);
  }

  showCitations(citations) {
    const items = citations.map((each) =>
      make(
        "li",
        { value: each.number },
        make("cite", { text: [each.title, ...(each.headings ?? [])].filter(Boolean).join(" › ") }),
        make("blockquote", { text: each.quote }),
        make("p", { kind: "soft", text: `${each.document_id}, characters ${each.quote_start}–${each.quote_end}, score ${number(each.score)}` }),
      ),
    );
    const title = make("h4", { text: `Citations (${citations.length})` });
    this.after.append(title, make("ol", { kind: "citations" }, ...items));
  }

  showError({ message, status, code, param, requestId }) {
    const details = [status && `status ${status}`, code, param && `parameter ${param}`, requestId && `request ${requestId}`];
    const more = make("p", { kind: "soft", text: details.filter(Boolean).join(", ") });
    this.after.append(make("div", { kind: "notice bad", role: "alert" }, make("p", { text: message }), more));
  }

  // Ends the turn; timings are null where nothing was measured.
  end(timings) {
    this.body.setAttribute("aria-busy", "false");
    if (!timings) return;
    const figures = [
      ["First token", duration(timings.firstS)],
      ["Tokens/s", number(timings.tokensPerS)],
      ["Gap, median", duration(timings.gapS)],
      ["Total", duration(timings.totalS)],
      [timings.isCounted ? "Tokens" : "Pieces", number(timings.tokens)],
    ];
    if (timings.promptTokens !== null) figures.push(["Prompt tokens", number(timings.promptTokens)]);
    if (timings.isStopped) figures.push(["Ended", "stopped"]);
    else if (FLAW[timings.finish]) figures.push(["Ended", FLAW[timings.finish]]);
    const items = figures.map(([name, value]) => make("div", {}, make("dt", { text: name }), make("dd", { text: value })));
    this.after.append(make("dl", { kind: "timings" }, ...items));
  }
}
