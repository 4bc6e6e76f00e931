"use strict";

// Landmarks drawn over the playing video, and videos recorded with the camera.

const VIDEO_NAME = /\.(mp4|webm|mkv|mov|m4v|avi|mpg|mpeg|ts)$/i;
const BODY_LINES = [[11, 12], [11, 13], [13, 15], [12, 14], [14, 16], [11, 23], [12, 24], [23, 24]];
const HAND_LINES = [0, 5, 9, 13, 17].flatMap((base, finger) => {
  const first = finger === 0 ? 1 : base;
  return [[0, first], [first, first + 1], [first + 1, first + 2], [first + 2, first + 3]];
});
const PARTS = [ // in the order of the points
  { start: 0, count: 25, lines: BODY_LINES, color: "#ffd54a" },
  { start: 25, count: 21, lines: HAND_LINES, color: "#ff7a59" }, // right
  { start: 46, count: 21, lines: HAND_LINES, color: "#5ad1ff" }, // left
  { start: 67, count: 37, lines: [], color: "#d7f5d3" },
];
let landmarkFrames = []; // {time, step, points, width, height}, by time
let recorder = null;

function isVideo(file) {
  return file.type.startsWith("video/") || VIDEO_NAME.test(file.name);
}

function clearLandmarks() {
  landmarkFrames = [];
  document.getElementById("show-landmarks-label").hidden = true;
}

function addLandmarks({ times, points, width, height }) {
  const step = times.length > 1 ? (times.at(-1) - times[0]) / (times.length - 1) : 0.1;
  landmarkFrames.push(...times.map((time, index) => ({ time, step, points: points[index], width, height })));
  document.getElementById("show-landmarks-label").hidden = false;
}

function findLandmarks(time) {
  let [low, high] = [0, landmarkFrames.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (landmarkFrames[middle].time <= time + 0.002) low = middle + 1;
    else high = middle;
  }
  const frame = landmarkFrames[low - 1];
  return frame && time < frame.time + 1.5 * frame.step ? frame : null;
}

function drawLandmarks(time) {
  const canvas = document.getElementById("landmarks");
  const frame = document.getElementById("show-landmarks").checked ? findLandmarks(time) : null;
  canvas.dataset.time = frame ? frame.time : "";
  if (!frame) {
    canvas.width = canvas.width; // clears it
    return;
  }
  [canvas.width, canvas.height] = [frame.width, frame.height];
  const pen = canvas.getContext("2d");
  const size = Math.max(2, frame.width / 320);
  pen.lineWidth = size;
  for (const { start, count, lines, color } of PARTS) {
    const point = (index) => {
      const at = 2 * (start + index);
      return frame.points[at] === -1 && frame.points[at + 1] === -1 ? null : frame.points.slice(at, at + 2);
    };
    pen.strokeStyle = pen.fillStyle = color;
    pen.beginPath();
    for (const [from, to] of lines) {
      const ends = [point(from), point(to)];
      if (ends.includes(null)) continue;
      pen.moveTo(...ends[0]);
      pen.lineTo(...ends[1]);
    }
    pen.stroke();
    for (let index = 0; index < count; index++) {
      const at = point(index);
      if (at) pen.fillRect(at[0] - size / 2, at[1] - size / 2, size, size);
    }
  }
}

function drawWhilePlaying(video) {
  const draw = (_now, metadata) => {
    drawLandmarks(metadata ? metadata.mediaTime : video.currentTime);
    video.requestVideoFrameCallback(draw);
  };
  if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(draw);
  for (const event of ["timeupdate", "seeked"]) video.addEventListener(event, () => drawLandmarks(video.currentTime));
}

/* Starts the camera; the result's `file` is a promise of the recording. */
async function startRecording(video) {
  const stream = await navigator.mediaDevices.getUserMedia({ video: true, audio: false });
  const parts = [];
  recorder = new MediaRecorder(stream);
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  const file = new Promise((resolve) => recorder.addEventListener("stop", () => {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
    video.muted = false;
    const type = recorder.mimeType.split(";")[0];
    recorder = null;
    resolve(new File(parts, `recording.${type.split("/")[1] === "mp4" ? "mp4" : "webm"}`, { type }));
  }));
  video.removeAttribute("src");
  video.srcObject = stream;
  video.muted = true;
  video.play().catch(() => {});
  recorder.start();
  return { file };
}

function stopRecording() {
  recorder.stop();
}
