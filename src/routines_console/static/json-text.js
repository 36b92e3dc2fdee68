/**
 * Read JSON as a person has typed it, and know in which line each value is; write it so that people can read it.
 *
 * @typedef {{line: number, text: string}} TextFault What is wrong, and in which line, from 1.
 */

const DEEPEST = 100;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const WORD = /[A-Za-z_]\w*/y;
/** A value that is not longer is written in one line. */
const WIDTH = 100;

/** Stops the reading at the first character that is not JSON. */
class Unreadable extends Error {}

/**
 * Read a text.
 *
 * @param {string} text
 * @param {string} root The path of the whole; that of a value inside is `root.steps.1`.
 * @returns {{value: any, lines: Map<string, number>, faults: TextFault[]}} `value` is undefined if there are faults.
 */
export function readJson(text, root) {
  const reader = new Reader(text);
  try {
    reader.whole(root);
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    reader.faults.push({ line: reader.line, text: error.message });
  }
  const { faults, lines } = reader;
  return { value: faults.length ? undefined : JSON.parse(text), lines, faults };
}

/**
 * Return the line of the value that a path names, or of the nearest around it; null if the path leads elsewhere.
 *
 * @param {Map<string, number>} lines
 * @param {string} path
 */
export function lineOf(lines, path) {
  for (let part = path; part; part = part.slice(0, Math.max(0, part.lastIndexOf(".")))) {
    const line = lines.get(part);
    if (line !== undefined) return line;
  }
  return null;
}

/**
 * Write a value: short parts in one line, the outer two levels in several.
 *
 * @param {any} value
 * @param {string} [indent]
 * @returns {string}
 */
export function writeJson(value, indent = "") {
  const isOuter = indent.length < 4;
  const flat = inOneLine(value);
  if (!isFilled(value) || (!isOuter && indent.length + flat.length <= WIDTH)) return flat;
  const inner = `${indent}  `;
  if (Array.isArray(value)) {
    if (indent.length + flat.length <= WIDTH && !value.some(isFilled)) return flat;
    return `[\n${value.map((each) => inner + writeJson(each, inner)).join(",\n")}\n${indent}]`;
  }
  return `{\n${Object.entries(value).map(([key, each]) => `${inner}${JSON.stringify(key)}: ${writeJson(each, inner)}`).join(",\n")}\n${indent}}`;
}

/**
 * Return a value with the keys of its objects in the order of a model.
 *
 * @param {any} value
 * @param {any} model
 * @returns {any}
 */
export function inOrderOf(value, model) {
  if (Array.isArray(value)) return value.map((each, index) => inOrderOf(each, model?.[index]));
  if (value === null || typeof value !== "object") return value;
  const known = isFilled(model) && !Array.isArray(model) ? Object.keys(model).filter((key) => Object.hasOwn(value, key)) : [];
  const keys = [...known, ...Object.keys(value).filter((key) => !known.includes(key))];
  return Object.fromEntries(keys.map((key) => [key, inOrderOf(value[key], known.includes(key) ? model[key] : undefined)]));
}

function inOneLine(value) {
  if (Array.isArray(value)) return `[${value.map(inOneLine).join(", ")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.entries(value).map(([key, each]) => `${JSON.stringify(key)}: ${inOneLine(each)}`).join(", ")}}`;
}

function isFilled(value) {
  return value !== null && typeof value === "object" && Object.keys(value).length > 0;
}

/** Walks through a text. JSON has line breaks between values only, so lines are counted there. */
class Reader {
  #text;
  #at = 0;

  /** @param {string} text */
  constructor(text) {
    this.#text = text;
    this.line = 1;
    /** @type {Map<string, number>} */
    this.lines = new Map();
    /** @type {TextFault[]} */
    this.faults = [];
  }

  whole(root) {
    this.#space();
    this.#value(root, 0);
    this.#space();
    if (this.#at < this.#text.length) this.#refuse("nothing may follow the last bracket");
  }

  /** @param {string} what */
  #refuse(what) {
    throw new Unreadable(what);
  }

  get #next() {
    return this.#text[this.#at];
  }

  #space() {
    for (; " \t\r\n".includes(this.#next ?? "x"); this.#at += 1) if (this.#next === "\n") this.line += 1;
    if (this.#text.startsWith("//", this.#at) || this.#text.startsWith("/*", this.#at)) this.#refuse("JSON has no comments");
  }

  #value(path, depth) {
    if (depth > DEEPEST) this.#refuse("is nested too deeply");
    if (!this.lines.has(path)) this.lines.set(path, this.line);
    if (this.#next === "{") this.#items("}", (index, names) => this.#member(path, depth, names));
    else if (this.#next === "[") this.#items("]", (index) => this.#value(`${path}.${index}`, depth + 1));
    else if (this.#next === '"') this.#string();
    else this.#scalar();
  }

  /** Read what stands between brackets, with commas in between. */
  #items(end, item) {
    const names = new Set();
    this.#at += 1;
    this.#space();
    for (let index = 0; this.#next !== end; index += 1) {
      item(index, names);
      this.#space();
      if (this.#next === ",") {
        this.#at += 1;
        this.#space();
        if (this.#next === end) this.#refuse(`there is a comma too many before ${end}`);
      } else if (this.#next !== end) this.#refuse(`a comma or ${end} is missing`);
    }
    this.#at += 1;
  }

  #member(path, depth, names) {
    if (this.#next !== '"') this.#refuse("a name in double quotes is missing");
    const { line } = this;
    const name = this.#string();
    if (names.has(name)) this.faults.push({ line, text: `there is another "${name}" before: only one of them would count` });
    names.add(name);
    const inside = `${path}.${name}`;
    if (!this.lines.has(inside)) this.lines.set(inside, line);
    this.#space();
    if (this.#next !== ":") this.#refuse(`a colon is missing after "${name}"`);
    this.#at += 1;
    this.#space();
    this.#value(inside, depth + 1);
  }

  #string() {
    const begin = this.#at;
    for (this.#at += 1; this.#next !== '"'; this.#at += this.#next === "\\" ? 2 : 1) {
      if (this.#next === undefined || this.#next === "\n") this.#refuse('a text does not end: a " is missing, or a line break must be written \\n');
    }
    this.#at += 1;
    try {
      return JSON.parse(this.#text.slice(begin, this.#at));
    } catch {
      return this.#refuse("a text has a character or a \\ that JSON does not know");
    }
  }

  #scalar() {
    const number = this.#take(NUMBER);
    if (number) {
      if (!Number.isFinite(Number(number)) || (/^-?\d+$/.test(number) && !Number.isSafeInteger(Number(number)))) {
        this.faults.push({ line: this.line, text: `a browser cannot keep ${number} exactly: save this task over the API` });
      }
      return;
    }
    const word = this.#take(WORD);
    if (["true", "false", "null"].includes(word)) return;
    if (this.#next === "'") this.#refuse("texts are in double quotes");
    this.#refuse(word ? `${word} is no value: texts are in double quotes` : "a value is missing");
  }

  /** @param {RegExp} pattern A sticky one. */
  #take(pattern) {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0] ?? "";
    this.#at += found.length;
    return found;
  }
}
