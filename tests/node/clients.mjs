// What transformers.js makes of a bundle, with no network. Request on stdin, answer on stdout, both JSON:
// {bundle: folder, dtype: "fp32" | "q8", images: [file, ...], pixel_values: file of raw float32 (N, 3, size, size),
//  size, texts: [[text, ...], ...], padding: true | "max_length", labels: [label, ...], template: "... {}"}
import { readFileSync } from 'node:fs';
import {
  AutoProcessor,
  AutoTokenizer,
  CLIPTextModelWithProjection,
  CLIPVisionModelWithProjection,
  RawImage,
  SiglipTextModel,
  SiglipVisionModel,
  Tensor,
  env,
  pipeline,
} from '@huggingface/transformers';

env.allowRemoteModels = false;
const { bundle, dtype, images, pixel_values, size, texts, padding, labels, template } = JSON.parse(
  readFileSync(0, 'utf8'),
);
const answer = { images: [], texts: [], labels: [] };
const siglip = JSON.parse(readFileSync(`${bundle}/config.json`, 'utf8')).model_type === 'siglip';
const [VisionModel, TextModel] = siglip
  ? [SiglipVisionModel, SiglipTextModel]
  : [CLIPVisionModelWithProjection, CLIPTextModelWithProjection];
const embedsOf = (outputs) => Object.values(outputs)[0];

const vision = await VisionModel.from_pretrained(bundle, { dtype });
const pixels = new Float32Array(new Uint8Array(readFileSync(pixel_values)).buffer);
const dims = [pixels.length / (3 * size * size), 3, size, size];
const given = await vision({ pixel_values: new Tensor('float32', pixels, dims) });
answer.outputs = Object.keys(given);
answer.from_pixels = embedsOf(given).tolist();

const processor = await AutoProcessor.from_pretrained(bundle);
for (const image of images) {
  answer.images.push(embedsOf(await vision(await processor(await RawImage.read(image)))).tolist()[0]);
}

const text = await TextModel.from_pretrained(bundle, { dtype });
const tokenizer = await AutoTokenizer.from_pretrained(bundle);
for (const batch of texts) {
  const inputs = tokenizer(batch, { padding, truncation: true });
  const text_embeds = embedsOf(await text(inputs));
  const input_ids = inputs.input_ids.tolist().map((row) => row.map(Number));
  answer.texts.push({ input_ids, text_embeds: text_embeds.tolist() });
}

const classify = await pipeline('zero-shot-image-classification', bundle, { dtype });
for (const image of images) {
  answer.labels.push(await classify(image, labels, { hypothesis_template: template }));
}

console.log(JSON.stringify(answer));
