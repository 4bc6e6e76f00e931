"use strict";

const $ = (id) => document.getElementById(id);
let droppedFiles = [];
let runningRequest = null;
let localVideo = { file: null, url: "" }; // a chosen video, and its address in this page

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
  if (model.no_video === null) await offerVideos();
  $("no-video").hidden = model.no_video === null;
  $("no-video").textContent = `No videos: ${model.no_video}`;
  updateChoice();
}

async function offerVideos() {
  $("file-kinds").textContent = "feature files or a video";
  $("files").accept += ",video/*,.mp4,.webm,.mkv,.mov";
  $("record").hidden = !navigator.mediaDevices || !window.MediaRecorder;
  const videos = await (await fetch("api/videos")).json();
  $("listed").append(...videos.map(({ name }) => new Option(name, name)));
  $("listed-choice").hidden = !videos.length;
}

function chosenFiles() {
  return [...$("files").files, ...droppedFiles];
}

/* The video that is translated itself: {name} of one of the folder, {file} of an upload; null: there is none. */
function chosenVideo() {
  if ($("recording").value) return null;
  if ($("listed").value) return { name: $("listed").value };
  const file = chosenFiles().find(isVideo);
  return file ? { file } : null;
}

function videoAddress({ name, file }) {
  if (name) return "api/videos/file?" + new URLSearchParams({ name });
  if (localVideo.file !== file) {
    URL.revokeObjectURL(localVideo.url);
    localVideo = { file, url: URL.createObjectURL(file) };
  }
  return localVideo.url;
}

/* Keep one of the three inputs; the others are emptied. */
function choose(kept) {
  if (kept !== "recording") $("recording").value = "";
  if (kept !== "listed") $("listed").value = "";
  if (kept !== "files") { $("files").value = ""; droppedFiles = []; }
  updateChoice();
}

function updateChoice() {
  clearLandmarks();
  $("chosen").replaceChildren(...chosenFiles().map((file) => {
    const item = document.createElement("li");
    item.textContent = `${file.name}, ${Math.ceil(file.size / 1024)} KiB`;
    return item;
  }));
  const option = $("recording").selectedOptions[0];
  const video = chosenVideo();
  $("cut-choice").hidden = !video;
  $("player").hidden = true;
  if (video) showVideo(videoAddress(video));
  else if (option.value && option.dataset.video) showVideo(datasetVideo({ recording: option.value }));
  else $("video").pause();
  $("source").querySelector("[value=gold]").disabled = !option.value;
  if (!option.value && $("source").value === "gold") $("source").value = "predicted";
}

function datasetVideo(query) {
  return "api/video?" + new URLSearchParams(query);
}

function showVideo(source) {
  if ($("video").getAttribute("src") !== source) $("video").src = source;
  $("player").hidden = false;
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
  const video = chosenVideo();
  if (!video) {
    for (const file of chosenFiles()) body.append("uploads", file);
    return ["api/uploads/translate", body];
  }
  body.append("cut", $("cut").value);
  for (const key of ["start", "end"]) if ($(key).value !== "") body.append(key, $(key).value);
  if (video.name) body.append("name", video.name);
  else body.append("upload", video.file);
  return ["api/videos/translate", body];
}

async function translate(event) {
  event.preventDefault();
  const video = chosenVideo();
  if (!$("recording").value && !video && !chosenFiles().length) {
    setStatus("Choose a recording, a video or feature files.", true);
    return;
  }
  if (video?.file && chosenFiles().length > 1) {
    setStatus("A video is translated alone: choose one video, or only feature files.", true);
    return;
  }
  clearLandmarks();
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
    let isDone = false;
    let note = "";
    for await (const line of readLines(response.body)) {
      if (line.clip === undefined) {
        isDone = line.done;
        if (line.short_movements) note = `; ${formatCount(line.short_movements, "movement")} too short for a sentence`;
        setStatus(`looking at the video: ${line.of ? `${line.frames} of about ${line.of}` : line.frames} frames`);
        continue;
      }
      showClip(line, video);
      lastLine = line;
      if (!video) setStatus(`${line.number} of ${line.of} clips`);
    }
    if (!video) isDone = lastLine?.number === lastLine?.of && lastLine;
    if (!isDone) throw new Error(lastLine?.error || "The translation ended early.");
    setStatus(`${formatCount(lastLine.number, video ? "sentence" : "clip")} translated${note}`);
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

function showClip(line, video) {
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
  play.hidden = !inRecording && !line.video && !(video && line.landmarks);
  const address = video && videoAddress(video);
  play.addEventListener("click", () => {
    if (video) playPart(address, line.start, line.end);
    else if (inRecording) playPart(datasetVideo({ recording }), line.start, line.end);
    else playPart(datasetVideo({ recording, clip: line.clip }), 0, null);
  });
  const attention = item.querySelector(".attention");
  attention.hidden = line.attention === null;
  attention.addEventListener("toggle", () => attention.open && loadAttention(attention.lastElementChild, line));
  if (line.landmarks) addLandmarks(line.landmarks);
  $("clips").append(item);
}

function playPart(source, start, end) {
  const video = $("video");
  showVideo(source);
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
$("files").addEventListener("change", () => { droppedFiles = []; choose("files"); });
$("recording").addEventListener("change", () => ($("recording").value ? choose("recording") : updateChoice()));
$("listed").addEventListener("change", () => ($("listed").value ? choose("listed") : updateChoice()));
for (const name of ["dragenter", "dragover"]) {
  $("drop").addEventListener(name, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
}
$("drop").addEventListener("dragleave", () => $("drop").classList.remove("over"));
$("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  useFiles([...event.dataTransfer.files]);
});

function useFiles(files) {
  $("files").value = "";
  droppedFiles = files;
  choose("files");
}

$("record").addEventListener("click", async () => {
  if (recorder) {
    stopRecording();
    return;
  }
  $("record").disabled = true; // until the camera is there
  try {
    const recording = await startRecording($("video"));
    $("player").hidden = false;
    clearLandmarks();
    $("record").textContent = "Stop recording";
    $("record").disabled = false;
    useFiles([await recording.file]);
    setStatus("recorded");
  } catch (error) {
    setStatus(`The camera cannot be used: ${error.message}`, true);
  } finally {
    $("record").disabled = false;
    $("record").textContent = "Record with the camera";
  }
});
$("show-landmarks").addEventListener("change", () => drawLandmarks($("video").currentTime));
drawWhilePlaying($("video"));
loadModel().catch((error) => setStatus(error.message, true));
