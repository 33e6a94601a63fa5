// What transformers.js makes of a bundle, with no network, as JSON on stdout. The request is JSON on stdin:
// {"bundle": folder, "dtype": "fp32" or "q8", "image": file, "pixel_values": file of raw float32, "size": S,
//  "texts": [[...], ...], "labels": [...], "template": "... {}", "pixels_out": file to write}
import { readFileSync, writeFileSync } from 'node:fs';
import {
  AutoProcessor, AutoTokenizer, CLIPTextModelWithProjection, CLIPVisionModelWithProjection, RawImage, Tensor, env,
  pipeline,
} from '@huggingface/transformers';

env.allowRemoteModels = false;
const request = JSON.parse(readFileSync(0, 'utf8'));
const { bundle, dtype, size } = request;

const vision = await CLIPVisionModelWithProjection.from_pretrained(bundle, { dtype });
const bytes = readFileSync(request.pixel_values);
const given = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
const pixel_values = new Tensor('float32', given, [given.length / (3 * size * size), 3, size, size]);
const from_pixels = await vision({ pixel_values });

const processor = await AutoProcessor.from_pretrained(bundle);
const processed = await processor(await RawImage.read(request.image));
writeFileSync(request.pixels_out, new Uint8Array(processed.pixel_values.data.buffer));
const from_file = await vision(processed);

const text = await CLIPTextModelWithProjection.from_pretrained(bundle, { dtype });
const tokenizer = await AutoTokenizer.from_pretrained(bundle);
const texts = [];
for (const batch of request.texts) {
  const inputs = tokenizer(batch, { padding: true, truncation: true });
  const { text_embeds } = await text(inputs);
  texts.push({ input_ids: inputs.input_ids.tolist().map((row) => row.map(Number)), text_embeds: text_embeds.tolist() });
}

const classify = await pipeline('zero-shot-image-classification', bundle, { dtype });
const labels = await classify(request.image, request.labels, { hypothesis_template: request.template });

console.log(JSON.stringify({
  outputs: Object.keys(from_pixels),
  from_pixels: from_pixels.image_embeds.tolist(),
  processed_shape: processed.pixel_values.dims,
  from_file: from_file.image_embeds.tolist(),
  texts,
  labels,
}));
