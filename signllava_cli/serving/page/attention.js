"use strict";

// Which frames were read for which word of a translation: a heat map of words and frames for each stream.

const ROW_HEIGHT = 16; // of a word, in CSS pixels; page.css has it too
const STRONG = 0.5; // embeddings with this part of the highest weight of a word are outlined

function makeElement(name, text = "", properties = {}) {
  const element = document.createElement(name);
  element.textContent = text;
  return Object.assign(element, properties);
}

/* Request the attention of a translated clip, the first time only, and show it in `box`. */
async function loadAttention(box, line) {
  if (box.dataset.state === "loaded" || box.dataset.state === "loading") return;
  box.dataset.state = "loading";
  box.textContent = "computing ...";
  try {
    const response = await fetch("api/attention?" + new URLSearchParams({ key: line.attention }), { method: "POST" });
    if (!response.ok) throw new Error(await errorMessage(response));
    showAttention(box, await response.json(), line);
    box.dataset.state = "loaded";
  } catch (error) {
    box.replaceChildren(makeElement("p", error.message, { className: "error" }));
    box.dataset.state = "failed"; // opening it again tries again
  }
}

function showAttention(box, { words, streams, shares }, line) {
  let pressed = null; // the index of the chosen word
  const choices = makeElement("p", "", { className: "words", role: "group", ariaLabel: "Words" });
  const frames = makeElement("p", "", { className: "frames-read", role: "status" });
  const maps = streams.map((stream) => makeHeatMap(stream, words, show, choose));
  const buttons = words.map((word, index) => {
    const button = makeElement("button", word, { type: "button", ariaPressed: "false" });
    button.addEventListener("click", () => choose(index));
    button.addEventListener("pointerenter", () => show(index));
    button.addEventListener("pointerleave", () => show(null));
    button.addEventListener("focus", () => show(index));
    button.addEventListener("blur", () => show(null));
    return button;
  });
  choices.append(...buttons);

  /* Show a word while the pointer or the focus is on it; null: the chosen one again, or all. */
  function show(index) {
    const word = index ?? pressed;
    for (const map of maps) map.draw(word);
    if (word === null) frames.textContent = "Choose a word to see the frames that were read most for it.";
    else frames.textContent = `${words[word]}: ${streams.map((stream) => strongestFrames(stream, word, line)).join("; ")}`;
  }

  function choose(index) {
    pressed = pressed === index ? null : index;
    buttons.forEach((button, number) => { button.ariaPressed = String(number === pressed); });
    show(index);
  }

  box.replaceChildren(choices, frames, ...maps.map((map) => map.element), makeNumbers(words, streams, shares, line));
  show(null);
  new ResizeObserver(() => show(null)).observe(box);
}

/* The heat map of a stream: `element`, and `draw(word)`, which shows one word (null: all). */
function makeHeatMap(stream, words, show, choose) {
  const element = makeElement("section", "", { className: "heat" });
  const highest = Math.max(...stream.weights.flat(), 1e-9);
  const numFrames = stream.edges.at(-1);
  const title = `${stream.name}, ${formatCount(numFrames, "frame")}, at most ${formatShare(highest)}`;
  const names = makeElement("ul", "", { className: "row-names", ariaHidden: "true" }); // the buttons above have the words
  const rows = words.map((word) => makeElement("li", word, { title: word }));
  const canvas = makeElement("canvas", "", { role: "img" });
  canvas.ariaLabel = `Heat map of words and frames of ${stream.name}; the table of numbers has its strongest frames`;
  names.append(...rows);
  element.append(makeElement("h2", title), names, canvas);
  canvas.style.height = `${ROW_HEIGHT * words.length + 2}px`;
  const rowAt = (event) => Math.min(words.length - 1, Math.max(0, Math.floor(event.offsetY / ROW_HEIGHT)));
  canvas.addEventListener("pointermove", (event) => show(rowAt(event)));
  canvas.addEventListener("pointerleave", () => show(null));
  canvas.addEventListener("click", (event) => choose(rowAt(event)));
  rows.forEach((row, index) => {
    row.addEventListener("pointerenter", () => show(index));
    row.addEventListener("pointerleave", () => show(null));
    row.addEventListener("click", () => choose(index));
  });

  function draw(word) {
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(canvas.clientWidth * scale);
    canvas.height = Math.round(ROW_HEIGHT * words.length * scale);
    canvas.dataset.word = word === null ? "" : words[word];
    const pen = canvas.getContext("2d");
    const [width, height] = [canvas.width / numFrames, canvas.height / words.length];
    pen.fillStyle = pen.strokeStyle = getComputedStyle(canvas).color;
    pen.lineWidth = 1.5 * scale;
    stream.weights.forEach((weights, row) => {
      const rowHighest = Math.max(...weights, 1e-9);
      const strength = word === row ? 1 / rowHighest : (word === null ? 1 : 0.4) / highest; // a shown word has its own scale
      weights.forEach((weight, index) => {
        const [start, end] = [stream.edges[index] * width, stream.edges[index + 1] * width];
        pen.globalAlpha = strength * weight;
        pen.fillRect(start, row * height, end - start, height);
        if (word !== row || weight < STRONG * rowHighest) return;
        pen.globalAlpha = 1;
        pen.strokeRect(start + scale, row * height + scale, Math.max(1, end - start - 2 * scale), height - 2 * scale);
      });
    });
    rows.forEach((row, index) => row.classList.toggle("shown", index === word));
  }

  return { element, draw };
}

/* The strongest embedding of a word in a stream: its frames, and its time if the clip has one. */
function strongestFrames(stream, word, line) {
  const weights = stream.weights[word];
  const index = weights.indexOf(Math.max(...weights));
  const [first, end] = [stream.edges[index], stream.edges[index + 1]];
  const frames = end - first > 1 ? `frames ${first + 1} to ${end}` : `frame ${end}`;
  const numFrames = stream.edges.at(-1);
  let time = "";
  if (line.start !== null && line.end !== null) {
    const second = (frame) => (line.start + (line.end - line.start) * frame / numFrames).toFixed(2);
    time = `, ${second(first)} to ${second(end)} s`;
  }
  return `${stream.name} ${frames} of ${numFrames}${time} (${formatShare(weights[index])})`;
}

function formatShare(share) {
  return `${(100 * share).toFixed(1)} %`;
}

/* The numbers as a table: for each word its shares, and its strongest frames in each stream. */
function makeNumbers(words, streams, shares, line) {
  const table = makeElement("table");
  const labels = { context: "context sentences", answer: "words before", instructions: "other text" };
  const head = table.createTHead().insertRow();
  const names = ["word", ...Object.keys(shares).map((name) => labels[name] ?? name), "strongest frames"];
  head.append(...names.map((name) => makeElement("th", name, { scope: "col" })));
  const body = table.createTBody();
  words.forEach((word, index) => {
    const row = body.insertRow();
    row.append(makeElement("th", word, { scope: "row" }));
    for (const share of Object.values(shares)) row.insertCell().textContent = formatShare(share[index]);
    row.insertCell().textContent = streams.map((stream) => strongestFrames(stream, index, line)).join("; ");
  });
  table.prepend(makeElement("caption", "What each word's attention is on: the mean over all layers and heads"));
  const details = makeElement("details", "", { className: "numbers" });
  details.append(makeElement("summary", "numbers"), table);
  return details;
}
