// Runs in the audio thread: hands on every sample as it came, 2048 at a time.

const SIZE = 2048;

class Tap extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(SIZE);
    this.filled = 0;
    this.on = true;
    this.port.onmessage = () => {
      this.flush();
      this.on = false;
      this.port.postMessage(null);
    };
  }

  flush() {
    if (this.filled) this.port.postMessage(this.block.slice(0, this.filled));
    this.filled = 0;
  }

  process([input]) {
    if (!this.on) return false;
    const samples = input[0];
    if (samples) {
      for (let at = 0; at < samples.length; at += 1) {
        this.block[this.filled] = samples[at];
        this.filled += 1;
        if (this.filled === SIZE) this.flush();
      }
    }
    return true;
  }
}

registerProcessor("tap", Tap);
