/**
 * Write the times above the lanes, and draw lines through them; one of them is now.
 */

import { h } from "../dom.js";
import { now } from "../time.js";
import { axisWords } from "./lane-words.js";

/** How near to now a time is not written, as a part of the length. */
const NEAR = { wide: 0.035, narrow: 0.09 };

/**
 * Build the times.
 *
 * @param {import("../stretch.js").Stretch} stretch
 * @param {boolean} isNarrow
 */
export function axis(stretch, isNarrow) {
  const isFree = (time) => Math.abs(time - now()) / stretch.length > NEAR[isNarrow ? "narrow" : "wide"];
  return h("div", { class: "axis", "aria-hidden": "true" },
    stretch.marked(isNarrow).filter(isFree).map((time) => {
      const { text, isMidnight } = axisWords(time);
      return h("span", { class: isMidnight && "midnight", css: placed(stretch, time) }, text);
    }),
    isPresent(stretch) && h("span", { class: "now", css: placed(stretch, now()) }, "now"));
}

/** Build the lines behind the lanes. @param {import("../stretch.js").Stretch} stretch @param {boolean} isNarrow */
export function lines(stretch, isNarrow) {
  return [
    stretch.marked(isNarrow).map((time) => h("i", { css: placed(stretch, time) })),
    isPresent(stretch) && h("i", { class: "now", css: placed(stretch, now()) }),
  ];
}

/** Return where now is, which bounds what is past; the end if it is not shown. @param {import("../stretch.js").Stretch} stretch */
export function nowPlace(stretch) {
  return isPresent(stretch) ? placed(stretch, now())["--from"] : "100%";
}

function isPresent(stretch) {
  return stretch.begin <= now() && now() <= stretch.end;
}

function placed(stretch, time) {
  return { "--from": `${(stretch.place(time) * 100).toFixed(2)}%` };
}
