// What the browser's runtime, WebAssembly, makes of graphs. Request on stdin, answer on stdout, both JSON:
// [{graph: file, type: "float32" | "int64", dims: [...], values: file of raw numbers}, ...] -> [[number, ...], ...]
import { readFileSync } from 'node:fs';
import * as ort from 'onnxruntime-web/wasm';

ort.env.wasm.numThreads = 1;
const ARRAYS = { float32: Float32Array, int64: BigInt64Array };
const answer = [];
for (const { graph, type, dims, values } of JSON.parse(readFileSync(0, 'utf8'))) {
  const session = await ort.InferenceSession.create(new Uint8Array(readFileSync(graph)));
  const numbers = new ARRAYS[type](new Uint8Array(readFileSync(values)).buffer);
  const given = { [session.inputNames[0]]: new ort.Tensor(type, numbers, dims) };
  const outputs = await session.run(given);
  answer.push(Array.from(outputs[session.outputNames[0]].data));
}
console.log(JSON.stringify(answer));
