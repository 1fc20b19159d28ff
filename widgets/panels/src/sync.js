// One question at a time, always the newest: what is asked while an answer is awaited replaces what was asked before it.

const PATIENCE = 3000; // ms after which an answer is given up

export class Newest {
  /** `send(number, value)` asks; `answered(number)` tells that number's answer has come. */
  constructor(send, now = () => performance.now()) {
    this.send = send;
    this.now = now;
    this.number = 0;
    this.waiting = 0;
    this.since = 0;
    this.next = null;
  }

  ask(value) {
    if (this.waiting && this.now() - this.since < PATIENCE) { this.next = { value }; return; }
    this.number += 1;
    this.waiting = this.number;
    this.since = this.now();
    this.next = null;
    this.send(this.number, value);
  }

  answered(number) {
    if (!this.waiting || number < this.waiting) return;
    this.waiting = 0;
    if (this.next) this.ask(this.next.value);
  }

  get busy() {
    return this.waiting > 0;
  }
}
