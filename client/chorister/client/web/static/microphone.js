// Sound as the microphone gives it: no echo cancelling, no noise suppression, no automatic gain, no
// lossy codec. Samples become a WAV file of 32-bit floats at the rate of the sound card.

const LONGEST_S = 90;

export async function listen(onBlock, onFull) {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
  } catch (error) {
    const denied = error.name === "NotAllowedError";
    const refusal = new Error("no microphone");
    refusal.parts = {
      rule: "Recording needs a microphone.",
      found: denied ? "the browser does not allow this page to use it" : `${error.name}`,
      advice: denied ? "Allow it beside the address above, and try again." : "Connect one, and try again.",
    };
    throw refusal;
  }
  const context = new AudioContext();
  const close = async () => {
    for (const track of stream.getTracks()) track.stop();
    await context.close();
  };
  try {
    await context.audioWorklet.addModule("/static/tap.js");
  } catch (error) {
    await close();
    throw error;
  }
  const source = context.createMediaStreamSource(stream);
  const tap = new AudioWorkletNode(context, "tap", { channelCount: 1, channelCountMode: "explicit" });
  const blocks = [];
  let count = 0;
  let finish;
  const ended = new Promise((resolve) => { finish = resolve; });
  tap.port.onmessage = ({ data }) => {
    if (data === null) { finish(); return; }
    blocks.push(data);
    count += data.length;
    onBlock(data, count / context.sampleRate);
    if (count >= LONGEST_S * context.sampleRate) onFull();
  };
  source.connect(tap);
  // Silent, and connected so that it runs.
  tap.connect(context.destination);
  return {
    async stop() {
      tap.port.postMessage("stop");
      await ended;
      const rate = context.sampleRate;
      await close();
      return wav(blocks, count, rate);
    },
    close,
  };
}

function wav(blocks, count, rate) {
  const bytes = new ArrayBuffer(58 + 4 * count);
  const view = new DataView(bytes);
  const text = (at, letters) => [...letters].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 50 + 4 * count, true); text(8, "WAVE");
  text(12, "fmt "); view.setUint32(16, 18, true); view.setUint16(20, 3, true); view.setUint16(22, 1, true);
  view.setUint32(24, rate, true); view.setUint32(28, 4 * rate, true);
  view.setUint16(32, 4, true); view.setUint16(34, 32, true); view.setUint16(36, 0, true);
  text(38, "fact"); view.setUint32(42, 4, true); view.setUint32(46, count, true);
  text(50, "data"); view.setUint32(54, 4 * count, true);
  let at = 58;
  for (const block of blocks) {
    for (const sample of block) { view.setFloat32(at, sample, true); at += 4; }
  }
  return bytes;
}
