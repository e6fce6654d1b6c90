// Polling: looks again and again while somebody looks at the page.

export class Poller {
  #look;
  #told;
  #everyMs;
  #timer = null;
  #round = 0; // a look that was begun before a pause is not listened to after it

  constructor(look, { everyMs, told }) {
    this.#look = look;
    this.#told = told;
    this.#everyMs = everyMs;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.pause() : this.now()));
  }

  pause() {
    this.#round += 1;
    clearTimeout(this.#timer);
    this.#told({ state: "paused" });
  }

  // Looks at once, and from then on regularly.
  async now() {
    clearTimeout(this.#timer);
    const round = ++this.#round;
    let told;
    try {
      await this.#look();
      told = { state: "live" };
    } catch (error) {
      told = { state: "stale", error };
    }
    if (round !== this.#round) return;
    this.#told(told);
    if (!document.hidden) this.#timer = setTimeout(() => this.now(), this.#everyMs);
  }
}
