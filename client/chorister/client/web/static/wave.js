// Waveforms: of what is heard now, and the outline of what was recorded.

import { h } from "./dom.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function prepare(canvas) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth || 300;
  const height = canvas.clientHeight || 64;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  return { pen, width, height };
}

function bars(canvas, peaks, slots, tone) {
  const { pen, width, height } = prepare(canvas);
  pen.fillStyle = colour("--rule");
  pen.fillRect(0, height / 2 - 0.5, width, 1);
  const step = width / slots;
  peaks.forEach((peak, at) => {
    const size = Math.max(Math.sqrt(peak) * (height - 4), 1);
    pen.fillStyle = peak > 0.98 ? colour("--bad") : tone;
    pen.fillRect(at * step, (height - size) / 2, Math.max(step - 1, 1), size);
  });
}

export function outline(peaks, label) {
  const canvas = h("canvas", { class: "wave", role: "img", "aria-label": label });
  const draw = () => bars(canvas, peaks, Math.max(peaks.length, 1), colour("--a"));
  new ResizeObserver(draw).observe(canvas);
  return canvas;
}

export function meter() {
  const canvas = h("canvas", { class: "wave live", role: "img", "aria-label": "What the microphone hears" });
  const level = h("span", { class: "level quiet", "aria-hidden": "true" }, "");
  const peaks = [];
  let shownAt = 0;
  return {
    element: h("div", { class: "meter" }, canvas, level),
    add(block, seconds) {
      let peak = 0;
      let power = 0;
      for (const sample of block) { peak = Math.max(peak, Math.abs(sample)); power += sample * sample; }
      peaks.push(Math.min(peak, 1));
      if (peaks.length > 120) peaks.shift();
      bars(canvas, peaks, 120, colour("--a"));
      if (seconds - shownAt > 0.2) {
        shownAt = seconds;
        const db = 10 * Math.log10(power / block.length + 1e-12);
        const word = peak > 0.98 ? "too loud" : db < -55 ? "very quiet" : "";
        level.textContent = `${seconds.toFixed(0)} s   ${Math.max(db, -99).toFixed(0)} dB ${word}`;
      }
    },
  };
}
