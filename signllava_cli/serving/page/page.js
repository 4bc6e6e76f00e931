"use strict";

const $ = (id) => document.getElementById(id);
let dropped = [];
let running = null;

function tell(text, isFault = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isFault);
}

async function open_() {
  const model = await (await fetch("api/model")).json();
  const streams = Object.entries(model.streams).map(([name, width]) => `${name} (${width})`).join(", ");
  $("model").textContent = `${model.checkpoint}, streams ${streams}`;
  $("window").value = model.window;
  $("prelude").value = model.prelude;
  if (model.split) $("split").textContent = `split ${model.split}`;
  const recordings = await (await fetch("api/recordings")).json();
  for (const recording of recordings) {
    const option = new Option(`${recording.name} (${recording.clips} clips)`, recording.name);
    option.dataset.video = recording.video ? "yes" : "";
    $("recording").append(option);
  }
  if (recordings.length) $("recording").selectedIndex = 1;
  chosenChanged();
}

function chosenChanged() {
  const files = [...$("files").files, ...dropped];
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

function showVideo(what) {
  const source = "api/video?" + new URLSearchParams(what);
  if ($("video").getAttribute("src") !== source) $("video").src = source;
  $("video").hidden = false;
}

function request() {
  const settings = { window: $("window").value, prelude: $("prelude").value, source: $("source").value };
  const recording = $("recording").value;
  if (recording) {
    const query = new URLSearchParams({ recording, ...settings });
    return ["api/recordings/translate?" + query, undefined];
  }
  const body = new FormData();
  for (const [key, value] of Object.entries(settings)) body.append(key, value);
  for (const file of [...$("files").files, ...dropped]) body.append("uploads", file);
  return ["api/uploads/translate", body];
}

async function translate(event) {
  event.preventDefault();
  if (!$("recording").value && !$("files").files.length && !dropped.length) {
    tell("Choose a recording, or feature files.", true);
    return;
  }
  running = new AbortController();
  $("translate").disabled = true;
  $("stop").disabled = false;
  $("clips").replaceChildren();
  tell("translating ...");
  try {
    const [address, body] = request();
    const response = await fetch(address, { method: "POST", body, signal: running.signal });
    if (!response.ok) throw new Error(await whyNot(response));
    let last = null;
    for await (const line of lines(response.body)) {
      show(line);
      last = line;
      tell(`${line.number} of ${line.of} clips`);
    }
    if (!last || last.number < last.of) throw new Error(last?.error || "The translation broke off.");
    tell(`${last.of} clips translated`);
  } catch (error) {
    tell(error.name === "AbortError" ? "stopped" : error.message, error.name !== "AbortError");
  } finally {
    $("translate").disabled = false;
    $("stop").disabled = true;
  }
}

async function whyNot(response) {
  const { detail } = await response.json().catch(() => ({ detail: response.statusText }));
  return typeof detail === "string" ? detail : detail.map((each) => `${each.loc.at(-1)}: ${each.msg}`).join("; ");
}

async function* lines(body) {
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

function show(line) {
  const item = $("clip").content.cloneNode(true).firstElementChild;
  const put = (selector, text) => {
    const place = item.querySelector(selector);
    place.textContent = text;
    return place;
  };
  put(".name", `${line.number}. ${line.clip}`);
  put(".text", line.text);
  put(":scope > .error", line.error || "").hidden = !line.error;
  put(".reference dd", line.reference || "");
  item.querySelector(".reference").hidden = !line.reference;
  item.querySelector(".confidence").hidden = line.confidence === null;
  if (line.confidence !== null) {
    item.querySelector("meter").value = line.confidence;
    put(".confidence span", `${Math.round(100 * line.confidence)} %`);
  }
  const notes = [];
  if (!line.finished) notes.push("cut at the length limit");
  if (line.cut_frames) notes.push(`${line.cut_frames} frames left out`);
  if (line.cut_sentences) notes.push(`${line.cut_sentences} context sentences left out`);
  put(".note dd", notes.join(", "));
  item.querySelector(".note").hidden = !notes.length;
  const context = item.querySelector(".context");
  context.hidden = !line.context.length;
  put("summary", `saw ${line.context.length} sentence${line.context.length === 1 ? "" : "s"}`);
  context.querySelector("ul").replaceChildren(...line.context.map((sentence) => {
    const each = document.createElement("li");
    each.textContent = sentence;
    return each;
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

function playPart(what, start, end) {
  const video = $("video");
  showVideo(what);
  video.currentTime = start;
  video.play().catch((fault) => tell(`The video cannot be played: ${fault.message}`, true));
  video.ontimeupdate = () => {
    if (end !== null && video.currentTime >= end) {
      video.pause();
      video.ontimeupdate = null;
    }
  };
}

$("ask").addEventListener("submit", translate);
$("stop").addEventListener("click", () => running?.abort());
$("files").addEventListener("change", () => { $("recording").value = ""; chosenChanged(); });
$("recording").addEventListener("change", chosenChanged);
for (const name of ["dragenter", "dragover"]) {
  $("drop").addEventListener(name, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
}
$("drop").addEventListener("dragleave", () => $("drop").classList.remove("over"));
$("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  dropped = [...event.dataTransfer.files];
  $("recording").value = "";
  chosenChanged();
});
open_().catch((error) => tell(error.message, true));
