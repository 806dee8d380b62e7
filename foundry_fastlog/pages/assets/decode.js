// Reads arrays of numbers as encoding.py writes them.

const TYPES = [Uint8Array, Uint16Array, Uint32Array, Float32Array, Float64Array];

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

// One array, from an offset on: [numbers as Float64Array, the next offset].
function readArray(view, offset) {
  const Type = TYPES[view.getUint8(offset)];
  const differences = view.getUint8(offset + 1) === 1;
  const length = view.getUint32(offset + 2, true);
  const width = Type.BYTES_PER_ELEMENT;
  const planes = offset + 14;
  const bytes = new Uint8Array(length * width);
  for (let plane = 0; plane < width; plane++) {
    const packed = new Uint8Array(view.buffer, planes + plane * length, length);
    for (let i = 0, at = plane; i < length; i++, at += width) bytes[at] = packed[i];
  }
  const values = Float64Array.from(new Type(bytes.buffer));
  if (differences && length) {
    values[0] = view.getFloat64(offset + 6, true);
    for (let i = 1; i < length; i++) values[i] += values[i - 1];
  }
  return [values, planes + length * width];
}

export async function decode(base64) {
  const packed = new Blob([bytesOf(base64)]).stream();
  const plain = packed.pipeThrough(new DecompressionStream("deflate"));
  const view = new DataView(await new Response(plain).arrayBuffer());
  const arrays = [];
  for (let offset = 0; offset < view.byteLength; ) {
    const [values, next] = readArray(view, offset);
    arrays.push(values);
    offset = next;
  }
  return arrays;
}
