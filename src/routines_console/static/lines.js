/**
 * Compare two texts line by line.
 *
 * @typedef {{kind: "same" | "removed" | "added", text: string, before: number | null, after: number | null}} Line With its number on each side, from 1.
 */

/** More lines than this on both sides are not compared: all are removed, and all are added. */
const MOST = 2000;

/**
 * Return the lines of both texts in order: those of both once, and removed ones before added ones.
 *
 * @param {string} before
 * @param {string} after
 * @returns {Line[]}
 */
export function compareLines(before, after) {
  const [left, right] = [before.split("\n"), after.split("\n")];
  let begin = 0;
  while (begin < Math.min(left.length, right.length) && left[begin] === right[begin]) begin += 1;
  let end = 0;
  while (end < Math.min(left.length, right.length) - begin && left.at(-1 - end) === right.at(-1 - end)) end += 1;
  const same = (index, other) => ({ kind: /** @type {const} */ ("same"), text: left[index], before: index + 1, after: other + 1 });
  return [
    ...left.slice(0, begin).map((_, index) => same(index, index)),
    ...middle(left.slice(begin, left.length - end), right.slice(begin, right.length - end), begin),
    ...left.slice(left.length - end).map((_, index) => same(left.length - end + index, right.length - end + index)),
  ];
}

/** Compare what differs at the beginning and at the end, by the longest lines that both have in common. */
function middle(left, right, offset) {
  const removed = (index) => ({ kind: "removed", text: left[index], before: offset + index + 1, after: null });
  const added = (index) => ({ kind: "added", text: right[index], before: null, after: offset + index + 1 });
  if (left.length > MOST || right.length > MOST) return [...left.map((_, index) => removed(index)), ...right.map((_, index) => added(index))];
  const width = right.length + 1;
  const common = new Uint16Array((left.length + 1) * width);
  for (let row = left.length - 1; row >= 0; row -= 1) {
    for (let column = right.length - 1; column >= 0; column -= 1) {
      common[row * width + column] = left[row] === right[column] ? common[(row + 1) * width + column + 1] + 1
        : Math.max(common[(row + 1) * width + column], common[row * width + column + 1]);
    }
  }
  const lines = [];
  let [row, column] = [0, 0];
  while (row < left.length || column < right.length) {
    if (row < left.length && column < right.length && left[row] === right[column]) {
      lines.push({ kind: "same", text: left[row], before: offset + row + 1, after: offset + column + 1 });
      row += 1;
      column += 1;
    } else if (column === right.length || (row < left.length && common[(row + 1) * width + column] >= common[row * width + column + 1])) {
      lines.push(removed(row));
      row += 1;
    } else {
      lines.push(added(column));
      column += 1;
    }
  }
  return lines;
}
