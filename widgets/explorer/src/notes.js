// What is written on a vertex besides its name: channels before and after, or a value of an overlay; and how much of it has gone.
// In: the columns that geta_nb/widgets/vertex_widths.py and overlay_values.py make. Out: words and shares. No DOM.
import { leavesOf } from "./graph.js";

const ARROW = " → ";

/** Channels of each vertex. `side` is "alone", "before" (the dense network of a pair), "after" (its subnet) or "other" (of two networks). */
export class Steps {
  /** @param counted {nodes, dense, now, budget?, subnet?, bits}; @param first (node) => channels on the other side, or null */
  constructor(counted, side, first = () => null) {
    this.counted = counted;
    this.side = side;
    this.first = first;
    this.row = new Map((counted.nodes ?? []).map((node, i) => [node, i]));
  }

  /** Channels of a vertex from first to last; null where it has none. */
  of(vertex) {
    const i = this.row.get(vertex);
    if (i === undefined) return null;
    const { dense, now, budget, subnet } = this.counted;
    if (this.side === "before") return [dense[i]];
    if (this.side === "after") return [dense[i], subnet[i]];
    if (this.side === "other") return [this.first(vertex) ?? now[i], now[i]];
    return [dense[i], now[i], ...(budget ? [budget[i]] : [])];
  }

  /** Channels as one reads them: what did not change stands once. */
  words(vertex, weight = -1) {
    const steps = this.of(vertex);
    if (!steps) return "";
    const bits = weight < 0 ? null : (this.side === "after" ? this.counted.bits?.subnet : this.side === "alone" ? this.counted.bits?.budget : null)?.[weight];
    return chain(steps) + (bits == null ? "" : `, ${Math.round(bits * 10) / 10} bit`);
  }

  /** The longest words that this vertex may come to have on either side, for its width. */
  longest(vertex, weight = -1) {
    const i = this.row.get(vertex);
    if (i === undefined) return "";
    const most = String(Math.max(this.counted.dense[i], this.counted.now[i], this.first(vertex) ?? 0));
    const many = this.side === "alone" && this.counted.budget ? 3 : 2;
    const bits = weight < 0 || this.side === "other" ? "" : ", 16 bit";
    return Array(many).fill(most).join(ARROW) + bits;
  }

  /** Shares of the first channels that are left after each step, over all vertices given; [] where nothing is known. */
  shares(vertices) {
    const known = vertices.map((vertex) => this.of(vertex)).filter(Boolean);
    const first = known.reduce((sum, steps) => sum + steps[0], 0);
    if (!first) return [];
    const many = Math.max(...known.map((steps) => steps.length));
    return Array.from({ length: many - 1 }, (_, k) => known.reduce((sum, steps) => sum + steps[Math.min(k + 1, steps.length - 1)], 0) / first);
  }
}

export const chain = (steps) => steps.filter((many, i) => i === 0 || many !== steps[i - 1]).join(ARROW);

/** What is written and drawn on the items of one view. */
export class Notes {
  /** @param given {graph, steps: Steps|null, values: Values|null, missing: Set of items the other side has not, or null} */
  constructor(given) {
    Object.assign(this, given);
  }

  get any() {
    return Boolean(this.steps || this.values);
  }

  /** Words for the second line of a vertex, which leave its shape there where they are "", or of a closed box. */
  words(item) {
    return item.leaf ? this._vertex(item, "words") : this._box(item);
  }

  longest(item) {
    return item.leaf ? this._vertex(item, "longest") : [this.steps ? "100 % left" : "", this._common(item)].filter(Boolean).join(" · ");
  }

  _vertex({ id }, which) {
    if (this.graph.data.nodes.vertex[id] !== id) return "";
    const channels = this.steps ? this.steps[which](id, this.graph.facts(id).w) : "";
    return [channels, this.values?.word(id) ?? ""].filter(Boolean).join(" · ");
  }

  _box(item) {
    const left = this.shares(item).at(-1) ?? 1;
    return [left < 1 ? `${Math.round(100 * left)} % left` : "", this._common(item)].filter(Boolean).join(" · ");
  }

  /** The value that all vertices in a box share, as when it is the module's own. */
  _common(item) {
    if (!this.values) return "";
    if (item.commonOf !== this.values) {
      const words = new Set([...leavesOf(item)].map(({ id }) => this.values.word(id)));
      words.delete("");
      item.commonOf = this.values;
      item.common = words.size === 1 ? [...words][0] : "";
    }
    return item.common;
  }

  /** Shares that are left of an item after each step: [] for all of it. */
  shares(item) {
    if (!this.steps) return [];
    if (item.sharesOf !== this.steps) {
      const { vertex } = this.graph.data.nodes;
      item.sharesOf = this.steps;
      item.left = this.steps.shares([...leavesOf(item)].map(({ id }) => id).filter((id) => vertex[id] === id));
    }
    return item.left;
  }

  isMissing(item) {
    return Boolean(this.missing?.has(item));
  }
}
