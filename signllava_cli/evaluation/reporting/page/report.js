"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const PER_PAGE = 50, WORDS_COMPARED = 400;
let shown = [], page = 0;

for (const [number, name] of data.systems.entries()) for (const list of ["system", "against"]) $(list).append(new Option(name, number));
if (data.clips.every((clip) => clip.reading === null)) for (const name of ["bound", "unbound"]) document.querySelector(`option[value=${name}]`).remove();
if (data.systems.length < 2) {
  $("against-label").hidden = true;
  for (const name of ["gained", "lost", "gain", "loss"]) document.querySelectorAll(`option[value=${name}]`).forEach((each) => each.remove());
} else $("system").value = "1";

const gain = (clip, system) => clip.score[system] - clip.score[Number($("against").value)];
const filters = {
  all: () => true,
  exact: (clip, s) => clip.said[s].trim() === clip.meant.trim(),
  wrong: (clip, s) => clip.said[s].trim() !== clip.meant.trim(),
  empty: (clip, s) => !clip.said[s].trim(),
  context: (clip, s) => clip.saw[s].length > 0,
  leaked: (clip, s) => clip.leaked[s],
  bound: (clip) => clip.reading !== null,
  unbound: (clip, s) => clip.reading !== null && !clip.right[s],
  gained: (clip, s) => gain(clip, s) > 0,
  lost: (clip, s) => gain(clip, s) < 0,
};
const orders = {
  low: (s) => (a, b) => a.score[s] - b.score[s],
  high: (s) => (a, b) => b.score[s] - a.score[s],
  gain: (s) => (a, b) => gain(b, s) - gain(a, s),
  loss: (s) => (a, b) => gain(a, s) - gain(b, s),
  long: () => (a, b) => b.meant.length - a.meant.length,
};

function find() {
  const system = Number($("system").value), wanted = $("search").value.trim().toLocaleLowerCase();
  const keep = filters[$("filter").value], order = orders[$("sort").value];
  shown = data.clips.filter((clip) => keep(clip, system) && (!wanted || [clip.id, clip.meant, ...clip.said].some((text) => text.toLocaleLowerCase().includes(wanted))));
  if (order) shown.sort(order(system));
  page = 0;
  draw();
}

function draw() {
  const pages = Math.max(1, Math.ceil(shown.length / PER_PAGE));
  $("count").textContent = `${shown.length} of ${data.clips.length} clips`;
  $("page").textContent = `page ${page + 1} of ${pages}`;
  $("before").setAttribute("aria-disabled", page === 0); // not disabled, which would lose the focus
  $("after").setAttribute("aria-disabled", page >= pages - 1);
  $("list").replaceChildren(...shown.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(item));
}

function element(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

function item(clip) {
  const system = Number($("system").value), other = Number($("against").value), made = element("li");
  const change = system === other ? "" : ` (${gain(clip, system) < 0 ? "" : "+"}${gain(clip, system).toFixed(1)})`;
  made.append(element("p", `${clip.id}, ${data.score} ${clip.score[system].toFixed(1)}${change}`, "text meta"));
  if (clip.reading !== null) made.append(element("p", `context-bound: “${clip.reading}”, read ${clip.right[system] ? "right" : "wrong"}`, "text meta"));
  if (clip.asked) made.append(line("question", [clip.asked], clip.asked));
  const [meant, said] = compared(clip.meant, clip.said[system]);
  made.append(line("reference", meant, clip.meant), line(data.systems[system], said, clip.said[system]));
  for (const [number, name] of data.systems.entries()) {
    if (number !== system && (number === other || data.systems.length < 6)) made.append(line(name, compared(clip.meant, clip.said[number])[1], clip.said[number]));
  }
  if (clip.saw[system].length) {
    const context = element("details");
    context.append(element("summary", `context, ${clip.saw[system].length} sentences`));
    for (const sentence of clip.saw[system]) context.append(element("p", sentence, "text"));
    made.append(context);
  }
  return made;
}

function line(label, parts, whole) {
  const made = element("p", undefined, whole.length > 1000 ? "text long" : "text");
  if (whole.length > 1000) made.tabIndex = 0;
  made.append(element("small", `${label}: `), ...(whole ? parts : [element("small", "(empty)")]));
  return made;
}

/** The words and the space between them; characters, where words stand without spaces. */
const words = (text) => (/[\u3040-\u30ff\u3400-\u9fff]/.test(text) ? [...text] : text.split(/(\s+)/));

/** Both texts as nodes: words that the other lacks are marked (longest common subsequence). */
function compared(meant, said) {
  const a = words(meant), b = words(said);
  if (a.length > WORDS_COMPARED || b.length > WORDS_COMPARED) return [[meant], [said]];
  const best = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) for (let j = b.length - 1; j >= 0; j--) best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
  const left = [], right = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { left.push(a[i++]); right.push(b[j++]); }
    else if (j >= b.length || (i < a.length && best[i + 1][j] >= best[i][j + 1])) left.push(element("del", a[i++]));
    else right.push(element("ins", b[j++]));
  }
  return [left, right];
}

for (const name of ["system", "against", "filter", "sort"]) $(name).addEventListener("change", find);
$("search").addEventListener("input", find);
$("find").addEventListener("submit", (event) => event.preventDefault());
$("before").addEventListener("click", () => { if (page > 0) { page--; draw(); } });
$("after").addEventListener("click", () => { if ((page + 1) * PER_PAGE < shown.length) { page++; draw(); } });
find();
