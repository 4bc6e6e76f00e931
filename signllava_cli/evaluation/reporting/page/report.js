"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const PER_PAGE = 50, MAX_COMPARED_WORDS = 400, LONG_TEXT = 1000, MAX_SYSTEMS = 6;
let filtered = [], page = 0;

for (const [index, name] of data.systems.entries()) for (const list of ["system", "against"]) $(list).append(new Option(name, index));
if (data.clips.every((clip) => clip.reading === null)) for (const name of ["context-bound", "wrong-reading"]) document.querySelector(`option[value=${name}]`).remove();
if (data.systems.length < 2) {
  $("against-label").hidden = true;
  for (const name of ["gained", "lost", "gain", "loss"]) document.querySelectorAll(`option[value=${name}]`).forEach((option) => option.remove());
} else $("system").value = "1";

const gain = (clip, system) => clip.scores[system] - clip.scores[Number($("against").value)];
const filters = {
  all: () => true,
  exact: (clip, system) => clip.hypotheses[system].trim() === clip.reference.trim(),
  wrong: (clip, system) => clip.hypotheses[system].trim() !== clip.reference.trim(),
  empty: (clip, system) => !clip.hypotheses[system].trim(),
  context: (clip, system) => clip.contexts[system].length > 0,
  leaked: (clip, system) => clip.leaked[system],
  "context-bound": (clip) => clip.reading !== null,
  "wrong-reading": (clip, system) => clip.reading !== null && !clip.correct_readings[system],
  gained: (clip, system) => gain(clip, system) > 0,
  lost: (clip, system) => gain(clip, system) < 0,
};
const orders = {
  low: (system) => (a, b) => a.scores[system] - b.scores[system],
  high: (system) => (a, b) => b.scores[system] - a.scores[system],
  gain: (system) => (a, b) => gain(b, system) - gain(a, system),
  loss: (system) => (a, b) => gain(a, system) - gain(b, system),
  long: () => (a, b) => b.reference.length - a.reference.length,
};

function updateList() {
  const system = Number($("system").value), query = $("search").value.trim().toLocaleLowerCase();
  const isShown = filters[$("filter").value], order = orders[$("sort").value];
  const matches = (clip) => !query || [clip.id, clip.reference, ...clip.hypotheses].some((text) => text.toLocaleLowerCase().includes(query));
  filtered = data.clips.filter((clip) => isShown(clip, system) && matches(clip));
  if (order) filtered.sort(order(system));
  page = 0;
  drawPage();
}

function drawPage() {
  const numPages = Math.max(1, Math.ceil(filtered.length / PER_PAGE));
  $("count").textContent = `${filtered.length} of ${data.clips.length} clips`;
  $("page").textContent = `page ${page + 1} of ${numPages}`;
  $("before").setAttribute("aria-disabled", page === 0); // a disabled button would lose the focus
  $("after").setAttribute("aria-disabled", page >= numPages - 1);
  $("list").replaceChildren(...filtered.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(makeItem));
}

function makeElement(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

function makeItem(clip) {
  const system = Number($("system").value), other = Number($("against").value), item = makeElement("li");
  const change = system === other ? "" : ` (${gain(clip, system) < 0 ? "" : "+"}${gain(clip, system).toFixed(1)})`;
  item.append(makeElement("p", `${clip.id}, ${data.score_label} ${clip.scores[system].toFixed(1)}${change}`, "text meta"));
  if (clip.reading !== null) item.append(makeElement("p", `context-bound: “${clip.reading}”, ${clip.correct_readings[system] ? "correct" : "wrong"} reading`, "text meta"));
  if (clip.question) item.append(makeLine("question", [clip.question], clip.question));
  const [reference, hypothesis] = compareWords(clip.reference, clip.hypotheses[system]);
  item.append(makeLine("reference", reference, clip.reference), makeLine(data.systems[system], hypothesis, clip.hypotheses[system]));
  for (const [index, name] of data.systems.entries()) {
    if (index !== system && (index === other || data.systems.length < MAX_SYSTEMS)) item.append(makeLine(name, compareWords(clip.reference, clip.hypotheses[index])[1], clip.hypotheses[index]));
  }
  if (clip.contexts[system].length) {
    const context = makeElement("details");
    context.append(makeElement("summary", `context, ${clip.contexts[system].length} sentence${clip.contexts[system].length === 1 ? "" : "s"}`));
    for (const sentence of clip.contexts[system]) context.append(makeElement("p", sentence, "text"));
    item.append(context);
  }
  return item;
}

function makeLine(label, nodes, text) {
  const line = makeElement("p", undefined, text.length > LONG_TEXT ? "text long" : "text");
  if (text.length > LONG_TEXT) line.tabIndex = 0; // keyboards can scroll it
  line.append(makeElement("small", `${label}: `), ...(text ? nodes : [makeElement("small", "(empty)")]));
  return line;
}

/** The words and the spaces between them; characters, for texts in Japanese or Chinese script. */
const splitWords = (text) => (/[\u3040-\u30ff\u3400-\u9fff]/.test(text) ? [...text] : text.split(/(\s+)/));

/** Both texts as nodes, with words outside their longest common subsequence marked. */
function compareWords(reference, hypothesis) {
  const a = splitWords(reference), b = splitWords(hypothesis);
  if (a.length > MAX_COMPARED_WORDS || b.length > MAX_COMPARED_WORDS) return [[reference], [hypothesis]];
  const lengths = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1)); // of the common subsequence of a[i:] and b[j:]
  for (let i = a.length - 1; i >= 0; i--) for (let j = b.length - 1; j >= 0; j--) lengths[i][j] = a[i] === b[j] ? lengths[i + 1][j + 1] + 1 : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
  const left = [], right = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { left.push(a[i++]); right.push(b[j++]); }
    else if (j >= b.length || (i < a.length && lengths[i + 1][j] >= lengths[i][j + 1])) left.push(makeElement("del", a[i++]));
    else right.push(makeElement("ins", b[j++]));
  }
  return [left, right];
}

for (const name of ["system", "against", "filter", "sort"]) $(name).addEventListener("change", updateList);
$("search").addEventListener("input", updateList);
$("clip-form").addEventListener("submit", (event) => event.preventDefault());
$("before").addEventListener("click", () => { if (page > 0) { page--; drawPage(); } });
$("after").addEventListener("click", () => { if ((page + 1) * PER_PAGE < filtered.length) { page++; drawPage(); } });
updateList();
