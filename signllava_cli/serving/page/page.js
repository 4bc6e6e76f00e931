"use strict";

const $ = (id) => document.getElementById(id);
let droppedFiles = [];
let runningRequest = null;

function setStatus(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

function formatCount(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

async function loadModel() {
  const model = await (await fetch("api/model")).json();
  const streams = Object.entries(model.streams).map(([name, width]) => `${name} (${width})`).join(", ");
  $("model").textContent = `${model.checkpoint}, streams ${streams}`;
  $("window").value = model.window;
  $("prelude").value = model.prelude;
  if (model.split) $("split").textContent = `split ${model.split}`;
  const recordings = await (await fetch("api/recordings")).json();
  for (const recording of recordings) {
    const option = new Option(`${recording.name} (${formatCount(recording.clips, "clip")})`, recording.name);
    option.dataset.video = recording.video ? "yes" : "";
    $("recording").append(option);
  }
  if (recordings.length) $("recording").selectedIndex = 1;
  updateChoice();
}

function updateChoice() {
  const files = [...$("files").files, ...droppedFiles];
  $("chosen").replaceChildren(...files.map((file) => {
    const item = document.createElement("li");
    item.textContent = `${file.name}, ${Math.ceil(file.size / 1024)} KiB`;
    return item;
  }));
  const option = $("recording").selectedOptions[0];
  const video = option.value && option.dataset.video;
  $("video").hidden = !video;
  if (video) showVideo({ recording: option.value });
  $("source").querySelector("[value=gold]").disabled = !option.value;
  if (!option.value && $("source").value === "gold") $("source").value = "predicted";
}

function showVideo(query) {
  const source = "api/video?" + new URLSearchParams(query);
  if ($("video").getAttribute("src") !== source) $("video").src = source;
  $("video").hidden = false;
}

function buildRequest() {
  const settings = { window: $("window").value, prelude: $("prelude").value, source: $("source").value };
  const recording = $("recording").value;
  if (recording) {
    const query = new URLSearchParams({ recording, ...settings });
    return ["api/recordings/translate?" + query, undefined];
  }
  const body = new FormData();
  for (const [key, value] of Object.entries(settings)) body.append(key, value);
  for (const file of [...$("files").files, ...droppedFiles]) body.append("uploads", file);
  return ["api/uploads/translate", body];
}

async function translate(event) {
  event.preventDefault();
  if (!$("recording").value && !$("files").files.length && !droppedFiles.length) {
    setStatus("Choose a recording or feature files.", true);
    return;
  }
  runningRequest = new AbortController();
  $("translate").disabled = true;
  $("stop").disabled = false;
  $("clips").replaceChildren();
  setStatus("translating ...");
  try {
    const [url, body] = buildRequest();
    const response = await fetch(url, { method: "POST", body, signal: runningRequest.signal });
    if (!response.ok) throw new Error(await errorMessage(response));
    let lastLine = null;
    for await (const line of readLines(response.body)) {
      showClip(line);
      lastLine = line;
      setStatus(`${line.number} of ${line.of} clips`);
    }
    if (!lastLine || lastLine.number < lastLine.of) throw new Error(lastLine?.error || "The translation ended early.");
    setStatus(`${formatCount(lastLine.of, "clip")} translated`);
  } catch (error) {
    setStatus(error.name === "AbortError" ? "stopped" : error.message, error.name !== "AbortError");
  } finally {
    $("translate").disabled = false;
    $("stop").disabled = true;
  }
}

async function errorMessage(response) {
  const { detail } = await response.json().catch(() => ({ detail: response.statusText }));
  return typeof detail === "string" ? detail : detail.map((problem) => `${problem.loc.at(-1)}: ${problem.msg}`).join("; ");
}

async function* readLines(body) {
  let rest = "";
  const decoder = new TextDecoder();
  const reader = body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

function showClip(line) {
  const item = $("clip").content.cloneNode(true).firstElementChild;
  const setText = (selector, text) => {
    const element = item.querySelector(selector);
    element.textContent = text;
    return element;
  };
  setText(".name", `${line.number}. ${line.clip}`);
  setText(".text", line.text);
  setText(":scope > .error", line.error || "").hidden = !line.error;
  setText(".reference dd", line.reference || "");
  item.querySelector(".reference").hidden = !line.reference;
  item.querySelector(".confidence").hidden = line.confidence === null;
  if (line.confidence !== null) {
    item.querySelector("meter").value = line.confidence;
    setText(".confidence span", `${Math.round(100 * line.confidence)} %`);
  }
  const notes = [];
  if (!line.finished) notes.push("ended by the length limit");
  if (line.truncated_frames) notes.push(`${formatCount(line.truncated_frames, "frame")} removed`);
  if (line.truncated_sentences) notes.push(`${formatCount(line.truncated_sentences, "context sentence")} removed`);
  setText(".note dd", notes.join(", "));
  item.querySelector(".note").hidden = !notes.length;
  const context = item.querySelector(".context");
  context.hidden = !line.context.length;
  setText("summary", `context: ${formatCount(line.context.length, "sentence")}`);
  context.querySelector("ul").replaceChildren(...line.context.map((sentence) => {
    const sentenceItem = document.createElement("li");
    sentenceItem.textContent = sentence;
    return sentenceItem;
  }));
  const play = item.querySelector(".play");
  const option = $("recording").selectedOptions[0];
  const recording = option.value;
  const inRecording = option.dataset.video && line.start !== null;
  play.hidden = !inRecording && !line.video;
  play.addEventListener("click", () => {
    if (inRecording) playPart({ recording }, line.start, line.end);
    else playPart({ recording, clip: line.clip }, 0, null);
  });
  $("clips").append(item);
}

function playPart(query, start, end) {
  const video = $("video");
  showVideo(query);
  video.currentTime = start;
  video.play().catch((error) => setStatus(`The video cannot be played: ${error.message}`, true));
  video.ontimeupdate = () => {
    if (end !== null && video.currentTime >= end) {
      video.pause();
      video.ontimeupdate = null;
    }
  };
}

$("form").addEventListener("submit", translate);
$("stop").addEventListener("click", () => runningRequest?.abort());
$("files").addEventListener("change", () => { $("recording").value = ""; updateChoice(); });
$("recording").addEventListener("change", updateChoice);
for (const name of ["dragenter", "dragover"]) {
  $("drop").addEventListener(name, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
}
$("drop").addEventListener("dragleave", () => $("drop").classList.remove("over"));
$("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  droppedFiles = [...event.dataTransfer.files];
  $("recording").value = "";
  updateChoice();
});
loadModel().catch((error) => setStatus(error.message, true));
