/**
 * Choose which time the timeline shows. It moves along with the clock until another time is chosen.
 */

import { offsetAt } from "./clock.js";
import { stamp } from "./load.js";
import { now } from "./time.js";

const SECOND_MILLISECONDS = 1000;
/** How much of the time is past, while it moves along with the clock. */
const PAST = 2 / 3;
/** How far a shift moves, as a part of the length. */
const SHIFT = 1 / 2;
/** How far the clock goes on before it moves along, as a part of the length. */
const LAG = 1 / 60;
/** On a narrow screen: how many times longer buckets are, and how many times farther apart the times above the lanes. */
const NARROW = { bucket: 3, step: 2 };
/**
 * The lengths, the longest first: the name in the address, what the headline calls the past and the coming part, how long the time is
 * and how long its buckets are, and how far apart the times above the lanes are, all in seconds.
 *
 * @type {{name: string, words: string, length: number, bucket: number, step: number}[]}
 */
const LENGTHS = [
  { name: "48h", words: "The last 32 hours, and 16 to come.", length: 172_800, bucket: 1800, step: 21_600 },
  { name: "", words: "The last 12 hours, and 6 to come.", length: 64_800, bucket: 600, step: 7200 },
  { name: "6h", words: "The last 4 hours, and 2 to come.", length: 21_600, bucket: 180, step: 3600 },
  { name: "2h", words: "The last 80 minutes, and 40 to come.", length: 7200, bucket: 60, step: 900 },
  { name: "30min", words: "The last 20 minutes, and 10 to come.", length: 1800, bucket: 15, step: 300 },
];
const DEFAULT = 1;
/** How times begin that the service can read. */
const YEAR = /^\d{4}-/;

/** A time that the timeline shows. */
export class Stretch {
  #level;

  /**
   * @param {number} level Its length, as an index of `LENGTHS`.
   * @param {number | null} from When it begins; null: it moves along with the clock.
   */
  constructor(level, from) {
    this.#level = level;
    const { length, bucket, words } = LENGTHS[level];
    this.isFollowing = from === null;
    this.words = words;
    /** In milliseconds, as the next ones. Whole buckets, so that marks keep their places while the clock goes on. */
    this.length = length * SECOND_MILLISECONDS;
    this.begin = floor(from ?? now() - PAST * this.length, bucket * SECOND_MILLISECONDS);
    this.end = this.begin + this.length;
  }

  /** Return the one that an address names. @param {Record<string, string>} query */
  static of({ span = "", from = "" }) {
    const level = LENGTHS.findIndex(({ name }) => name === span);
    const begin = Date.parse(from);
    return new Stretch(level < 0 ? DEFAULT : level, Number.isNaN(begin) || !YEAR.test(from) ? null : begin);
  }

  /** Return what names it in an address. */
  get query() {
    return { span: LENGTHS[this.#level].name, from: this.isFollowing ? "" : stamp(this.begin) };
  }

  get isLongest() {
    return this.#level === 0;
  }

  get isShortest() {
    return this.#level === LENGTHS.length - 1;
  }

  /** Return the parameters by which the service reads it. @param {boolean} isNarrow */
  asked(isNarrow) {
    return { from: stamp(this.begin), to: stamp(this.end), bucket_seconds: LENGTHS[this.#level].bucket * (isNarrow ? NARROW.bucket : 1) };
  }

  /** Return the same one as the clock has it now. */
  fresh() {
    return new Stretch(this.#level, this.isFollowing ? null : this.begin);
  }

  /** Return whether the clock has gone on so far that it should move along. */
  isBehind() {
    return this.fresh().begin - this.begin >= LAG * this.length;
  }

  /** Return the one that moves along with the clock. */
  following() {
    return new Stretch(this.#level, null);
  }

  /**
   * Return a shorter or a longer one.
   *
   * @param {1 | -1} by 1: the next shorter one.
   * @param {number | null} [anchor] The time that keeps its place; null: now, if it moves along with the clock, or else the middle.
   */
  zoomed(by, anchor = null) {
    const level = Math.max(0, Math.min(LENGTHS.length - 1, this.#level + by));
    if (anchor === null && this.isFollowing) return new Stretch(level, null);
    const kept = anchor ?? (this.begin + this.end) / 2;
    return new Stretch(level, kept - this.place(kept) * LENGTHS[level].length * SECOND_MILLISECONDS);
  }

  /** Return an earlier or a later one. @param {1 | -1} by */
  shifted(by) {
    return new Stretch(this.#level, this.begin + by * SHIFT * this.length);
  }

  /** Return where a time is, as a part of the length: 0 at the beginning, 1 at the end. @param {number} time */
  place(time) {
    return (time - this.begin) / this.length;
  }

  /** Return the times that are written above the lanes. @param {boolean} isNarrow */
  marked(isNarrow) {
    const step = LENGTHS[this.#level].step * SECOND_MILLISECONDS * (isNarrow ? NARROW.step : 1);
    const offset = offsetAt(this.begin);
    const first = Math.ceil((this.begin + offset) / step) * step - offset;
    return Array.from({ length: Math.ceil((this.end - first) / step) }, (_, index) => first + index * step);
  }
}

/** @param {number} number @param {number} step */
function floor(number, step) {
  return Math.floor(number / step) * step;
}
