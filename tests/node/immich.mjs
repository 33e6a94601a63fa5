// Requests as Immich's server makes them, with Node's own fetch and FormData. Request on stdin, answer on stdout, JSON:
// {url, name, images: [file, ...], texts: [text, ...]}
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';

const { url, name, images, texts } = JSON.parse(readFileSync(0, 'utf8'));

async function predict(entries, field, value) {
  const form = new FormData();
  form.append('entries', JSON.stringify(entries));
  form.append(field, value);
  const response = await fetch(new URL('/predict', url), { method: 'POST', body: form });
  return { status: response.status, body: await response.json() };
}

const blob = async (file) => new Blob([new Uint8Array(await readFile(file))]);
const ping = await fetch(new URL('/ping', url), { signal: AbortSignal.timeout(2000) });
const answer = { ping: { ok: ping.ok, text: await ping.text() }, images: [], texts: [] };
for (const file of images) {
  answer.images.push(await predict({ clip: { visual: { modelName: name } } }, 'image', await blob(file)));
}
for (const text of texts) {
  answer.texts.push(await predict({ clip: { textual: { modelName: name, options: { language: 'en' } } } }, 'text', text));
}
const faces = {
  'facial-recognition': {
    detection: { modelName: 'buffalo_l', options: { minScore: 0.7 } },
    recognition: { modelName: 'buffalo_l' },
  },
};
answer.faces = await predict(faces, 'image', await blob(images[0]));
answer.other = await predict({ clip: { textual: { modelName: 'ViT-L-14__openai' } } }, 'text', 'a');
console.log(JSON.stringify(answer));
