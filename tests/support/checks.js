// Check the current page against WCAG 2.2, levels A and AA, as far as this can be automated; looks.py runs it.

function faults() {
  return [...contrasts(), ...names(), ...ids(), ...structure()];
}

function isShown(element) {
  return element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && element.getClientRects().length > 0;
}

// --- 1.4.3, 1.4.11: contrast of 4.5 for text, 3 for large text, borders and signs ---

function contrasts() {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || !isShown(element) || element.closest(".unseen, .skip-link, :disabled, [aria-hidden=true], noscript, option")) continue;
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const wanted = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    const ratio = contrast(blend(color(style.color), ground(element)), ground(element));
    if (ratio < wanted) found.push(`contrast ${ratio.toFixed(2)} of "${text.slice(0, 40)}" (${element.className || element.tagName})`);
  }
  for (const control of document.querySelectorAll("input:not([type=radio], [type=checkbox]), select, textarea")) {
    if (!isShown(control)) continue;
    const ratio = contrast(color(getComputedStyle(control).borderTopColor), ground(control.parentElement));
    if (ratio < 3) found.push(`contrast ${ratio.toFixed(2)} of the border of ${control.id}`);
  }
  for (const sign of document.querySelectorAll(".bar:not(.none), .badge i")) {
    if (!isShown(sign)) continue;
    const style = getComputedStyle(sign);
    const own = color(style.backgroundColor)[3] > 0 ? color(style.backgroundColor) : color(style.borderTopColor);
    const ratio = contrast(own, ground(sign.parentElement));
    if (ratio < 3) found.push(`contrast ${ratio.toFixed(2)} of the sign ${sign.className || sign.parentElement.className}`);
  }
  return found;
}

function color(text) {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  canvas.fillStyle = text;
  canvas.fillRect(0, 0, 1, 1);
  const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
  return [red, green, blue, alpha / 255];
}

function ground(element) {
  const layers = [];
  for (let each = element; each; each = each.parentElement) layers.push(color(getComputedStyle(each).backgroundColor));
  return layers.reduceRight((below, layer) => blend(layer, below), [255, 255, 255, 1]);
}

function blend([red, green, blue, alpha], below) {
  return [red, green, blue].map((part, index) => part * alpha + below[index] * (1 - alpha)).concat(1);
}

function contrast(one, other) {
  const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
}

function luminance(parts) {
  const [red, green, blue] = parts.slice(0, 3).map((part) => part / 255).map((part) =>
    part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

// --- 1.3.1, 2.4.4, 2.5.3, 4.1.2: every control has a name, which contains the text that it shows ---

function names() {
  return [...nameless(), ...misnamed()];
}

function misnamed() {
  const plain = (text) => text.replace(/\s+/g, " ").trim().toLowerCase();
  return [...document.querySelectorAll("a[aria-label], button[aria-label], summary[aria-label]")]
    .filter((element) => isShown(element) && !plain(element.ariaLabel).includes(plain(element.innerText)))
    .map((element) => `"${element.innerText}" is named "${element.ariaLabel}"`);
}

function nameless() {
  return [...document.querySelectorAll("a, button, input, select, textarea, summary, dialog, nav, section, [role=img]")]
    .filter(isShown).filter((element) => !nameOf(element)).map((element) => `no name: ${element.outerHTML.slice(0, 120)}`);
}

function nameOf(element) {
  const labelled = element.getAttribute("aria-labelledby");
  if (labelled) return labelled.split(" ").map((id) => document.getElementById(id)?.textContent ?? "").join(" ").trim();
  if (element.getAttribute("aria-label")) return element.getAttribute("aria-label").trim();
  if (element.labels?.length) return [...element.labels].map((label) => label.textContent).join(" ").trim();
  return /^(A|BUTTON|SUMMARY)$/.test(element.tagName) ? element.textContent.trim() : "";
}

// --- 4.1.1: ids are unique, and references to them exist ---

function ids() {
  const found = [];
  const seen = new Set();
  for (const element of document.querySelectorAll("[id]")) {
    if (seen.has(element.id)) found.push(`duplicate id ${element.id}`);
    seen.add(element.id);
  }
  for (const element of document.querySelectorAll("[aria-labelledby], label[for]")) {
    for (const id of (element.getAttribute("aria-labelledby") ?? element.getAttribute("for")).split(" ")) {
      if (!seen.has(id)) found.push(`${element.tagName} refers to the missing id ${id}`);
    }
  }
  return found;
}

// --- 1.3.1, 2.4.2, 2.4.3, 2.5.8, 3.1.1: structure of the page and size of targets ---

function structure() {
  const found = [];
  const levels = [...document.querySelectorAll("h1, h2, h3")].filter(isShown).map((heading) => Number(heading.tagName[1]));
  if (levels.filter((level) => level === 1).length !== 1) found.push(`expected one h1, found heading levels ${levels}`);
  if (levels.some((level, index) => index > 0 && level > levels[index - 1] + 1)) found.push(`heading level skipped: ${levels}`);
  if (document.querySelectorAll("main").length !== 1) found.push("expected one main element");
  if (!document.documentElement.lang) found.push("the document has no language");
  if (!document.title) found.push("the document has no title");
  if (document.querySelector("[tabindex]:not([tabindex='0'], [tabindex='-1'])")) found.push("a tabindex above 0 changes the keyboard order");
  const lists = [...document.querySelectorAll("ul, ol")].flatMap((list) => [...list.children]).filter((item) => item.tagName !== "LI");
  if (lists.length) found.push(`a list contains ${lists[0].outerHTML.slice(0, 80)}`);
  for (const target of document.querySelectorAll("button, input:not([type=radio], [type=checkbox]), select")) {
    const { width, height } = target.getBoundingClientRect();
    if (isShown(target) && !target.closest("p, label") && (width < 24 || height < 24)) found.push(`small target ${width}x${height}: ${target.outerHTML.slice(0, 80)}`);
  }
  return found;
}

// --- 2.4.7, 2.4.11: what has the focus shows it, and nothing is in front of it ---

function focusFault() {
  const focused = document.activeElement;
  if (!focused || focused === document.body) return "nothing has the focus";
  const name = `${focused.tagName} ${focused.id || focused.textContent.slice(0, 40)}`;
  const { left, right, top, bottom } = focused.getBoundingClientRect();
  const [x, y] = [(Math.max(left, 0) + Math.min(right, innerWidth)) / 2, (Math.max(top, 0) + Math.min(bottom, innerHeight)) / 2];
  const front = document.elementFromPoint(x, y);
  if (!front || bottom <= 0 || top >= innerHeight) return `the focus is off the screen: ${name}`;
  if (!focused.contains(front) && !front.contains(focused)) return `the focus is behind ${front.outerHTML.slice(0, 80)}: ${name}`;
  // A radio button shows it on the label beside it, the editor of a task around its lines.
  const marks = [focused, focused.nextElementSibling, focused.closest(".editor-scroll")].filter(Boolean).map((each) => getComputedStyle(each));
  const isMarked = marks.some((style) => style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1);
  return isMarked ? null : `the focus cannot be seen: ${name}`;
}
