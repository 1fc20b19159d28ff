// The records of a run as the page knows them: the whole log once, then only what is new. No drawing here.

export const LIMIT = 2000;

/** A record is [step, loss, metrics or null, bits, activation bits, kept shares, bit bound]. */
export class RunLog {
  constructor() {
    this.records = [];
    this.version = 0;
    this.beginnings = 0;
  }

  /** Forget everything when the run began anew since; false for news from before that. */
  begin(beginnings = 0) {
    if (beginnings > this.beginnings) {
      this.beginnings = beginnings;
      this.records = [];
      this.version += 1;
    }
    return beginnings === this.beginnings;
  }

  get last() {
    return this.records.length ? this.records[this.records.length - 1] : null;
  }

  get lastStep() {
    return this.last ? this.last[0] : -1;
  }

  /** Take the whole log, unless more is known here already. */
  replace(records) {
    if (records.length && records[records.length - 1][0] < this.lastStep) return;
    this.records = records.slice();
    this.version += 1;
  }

  /** Add the records after step `after`; false when some in between never came, so that the whole log has to be asked for. */
  extend(after, records) {
    if (after > this.lastStep) return false;
    for (const record of records) if (record[0] > this.lastStep) this.records.push(record);
    if (this.records.length > LIMIT) this.records = thin(this.records);
    this.version += 1;
    return true;
  }

  /** [step, value] of every finite value that `read` finds. */
  points(read) {
    const found = [];
    for (const record of this.records) {
      const value = read(record);
      if (value !== null && value !== undefined && Number.isFinite(value)) found.push([record[0], value]);
    }
    return found;
  }

  /** Names of all metrics, in order of appearance. */
  metricNames() {
    const names = new Set();
    for (const record of this.records) for (const name of Object.keys(record[2] || {})) names.add(name);
    return [...names];
  }
}

/** Every other record that carries no metrics goes; first and last stay. */
export function thin(records) {
  let odd = false;
  return records.filter((record, i) => {
    if (i === 0 || i === records.length - 1 || record[2]) return true;
    odd = !odd;
    return odd;
  });
}

/** Cut the records into runs of equal value for one row of a strip: [first step, end step, value]. */
export function spansOf(records, read) {
  const spans = [];
  let from = 0;
  for (const record of records) {
    const value = read(record);
    const previous = spans[spans.length - 1];
    if (previous && previous[2] === value) previous[1] = record[0];
    else spans.push([from, record[0], value]);
    from = record[0];
  }
  return spans;
}
