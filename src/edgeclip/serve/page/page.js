// The search page. The address bar holds what was asked, so that back, reload and bookmarks work.
const $ = (id) => document.getElementById(id);
const PAGE = 60, MOST = 1000;
const fields = ['after', 'before', 'in', 'ext'];

let results = [], shown = -1, k = PAGE, turn = 0, example = null, welcome = '';

async function ask(path, body) {
  const answer = await fetch(path, body && { method: 'POST', body: JSON.stringify(body) });
  if (answer.status === 401) {
    await token();
    return ask(path, body);
  }
  const said = await answer.json().catch(() => ({ detail: `The server answered ${answer.status}.` }));
  if (!answer.ok) throw new Error(said.detail);
  return said;
}

// Kept as a cookie, since pictures are asked for without headers.
function token() {
  return new Promise((resolve) => {
    $('login').addEventListener('close', () => {
      document.cookie = `edgeclip_token=${encodeURIComponent($('token').value)}; SameSite=Strict; Path=/`;
      resolve();
    }, { once: true });
    if (!$('login').open) $('login').showModal();
  });
}

function state(text, { wrong = false, action = null } = {}) {
  $('state').textContent = text;
  $('state').classList.toggle('wrong', wrong);
  if (action) {
    const button = document.createElement('button');
    [button.type, button.textContent, button.onclick] = ['button', action[0], action[1]];
    $('state').append(button);
  }
}

function asked() {
  const hash = new URLSearchParams(location.hash.slice(1));
  const body = Object.fromEntries(fields.filter((name) => hash.get(name)).map((name) => [name, hash.get(name)]));
  if (body.in) body.in = [body.in];
  if (body.ext) body.ext = body.ext.split(/[\s,]+/).filter(Boolean);
  if (hash.get('similar')) body.similar = Number(hash.get('similar'));
  else if (hash.get('image') && example) body.image = example;
  else if (hash.get('q')) body.query = hash.get('q');
  else return null;
  return body;
}

function go(changes) {
  const hash = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of Object.entries(changes)) value ? hash.set(name, value) : hash.delete(name);
  k = PAGE;
  if (`#${hash}` === location.hash) find();
  else location.hash = hash;
}

async function find(anyway = false) {
  const mine = ++turn, body = asked();
  reflect(body);
  if (!body) {
    draw([]);
    return state(welcome);
  }
  state('Searching…');
  const start = performance.now();
  try {
    const answer = await ask('/v1/search', { ...body, k });
    if (mine !== turn) return;
    if (!answer.is_match && answer.results.length && !anyway) {
      draw([]);
      return state('No good match.', { action: ['Show the nearest anyway', () => find(true)] });
    }
    draw(answer.results);
    const count = `${results.length}${results.length === k ? '+' : ''} picture${results.length === 1 ? '' : 's'}`;
    state(results.length ? `${count} in ${Math.round(performance.now() - start)} ms` : 'No pictures: try other words, or fewer filters.');
    $('more').hidden = results.length < k || k >= MOST;
  } catch (error) {
    if (mine !== turn) return;
    draw([]);
    state(error.message, { wrong: true });
  }
}

function reflect(body) {
  const hash = new URLSearchParams(location.hash.slice(1));
  $('query').value = hash.get('q') ?? '';
  for (const name of fields) $('filters').elements[name].value = hash.get(name) ?? '';
  $('toggle').classList.toggle('used', fields.some((name) => hash.get(name)));
  $('asked').hidden = !body || !('similar' in body || 'image' in body);
  if (body?.similar) $('example').src = `/v1/photos/${body.similar}/thumbnail`;
  if (body?.image) $('example').src = URL.createObjectURL(example.file);
  $('said').textContent = body?.similar ? 'More like this picture' : 'Like the picture you gave';
  document.title = hash.get('q') ? `${hash.get('q')} · Photo search` : 'Photo search';
}

// The indexed folders, and how many pictures there are.
async function about() {
  try {
    const index = await ask('/v1/index');
    $('filters').elements.in.replaceChildren(new Option('all', ''), ...index.roots.map((root) => new Option(root, root)));
    welcome = index.photos
      ? `${index.photos.toLocaleString()} pictures. Type a sentence, or drop a picture anywhere. Try: horse + stripes, apple - fruit.`
      : 'The index is empty: run edgeclip index FOLDER.';
  } catch (error) {
    return state(error.message, { wrong: true });
  }
  find();
}

function draw(found) {
  results = found;
  $('more').hidden = true;
  $('grid').replaceChildren(...found.map((result, number) => {
    const button = document.createElement('button'), image = document.createElement('img');
    button.type = 'button';
    button.title = result.path;
    button.onclick = () => view(number);
    [image.loading, image.decoding, image.alt] = ['lazy', 'async', name(result)];
    image.src = `/v1/photos/${result.id}/thumbnail`;
    button.append(image, label(result.score.toFixed(3)));
    if (result.alike.length) button.append(label(`+${result.alike.length}`, `${result.alike.length} more like it`));
    return button;
  }));
}

function label(text, title = 'Cosine with what was asked') {
  const span = document.createElement('span');
  [span.textContent, span.title] = [text, title];
  return span;
}

const name = (result) => result.path.split('/').at(-1);

function view(number) {
  if (!results[number]) return;
  shown = number;
  const result = results[number];
  $('picture').src = `/v1/photos/${result.id}/preview`;
  $('picture').alt = $('name').textContent = name(result);
  $('place').textContent = result.path.slice(0, -name(result).length - 1) || '/';
  const day = new Date(result.taken * 1000).toLocaleString(undefined, { dateStyle: 'long', timeStyle: 'short' });
  $('facts').textContent = `${day} · ${result.width} × ${result.height} · ${result.score.toFixed(3)}`;
  [$('before').hidden, $('after').hidden] = [number === 0, number === results.length - 1];
  if (!$('view').open) $('view').showModal();
}

function similar() {
  $('view').close();
  go({ similar: results[shown].id, q: '', image: '' });
}

function byPicture(file) {
  if (!file || (file.type && !file.type.startsWith('image/'))) return state('That is no picture.', { wrong: true });
  const reader = new FileReader();
  reader.onload = () => {
    example = Object.assign(new String(reader.result), { file });
    go({ image: Date.now(), q: '', similar: '' });
  };
  reader.readAsDataURL(file);
}

$('search').onsubmit = (event) => {
  event.preventDefault();
  go({ q: $('query').value.trim(), similar: '', image: '' });
};
$('pick').onclick = () => $('file').click();
$('file').onchange = () => byPicture($('file').files[0]);
$('toggle').onclick = () => {
  $('filters').hidden = !$('filters').hidden;
  $('toggle').setAttribute('aria-expanded', !$('filters').hidden);
};
$('filters').onchange = () => {
  const chosen = Object.fromEntries(fields.map((name) => [name, $('filters').elements[name].value]));
  go($('query').value.trim() ? { ...chosen, q: $('query').value.trim(), similar: '', image: '' } : chosen);
};
$('filters').onreset = () => go(Object.fromEntries(fields.map((name) => [name, ''])));
$('filters').onsubmit = (event) => event.preventDefault();
$('forget').onclick = () => go({ similar: '', image: '' });
$('more').onclick = () => {
  k = Math.min(2 * k, MOST);
  find(true);
};
$('close').onclick = () => $('view').close();
$('before').onclick = () => view(shown - 1);
$('after').onclick = () => view(shown + 1);
$('similar').onclick = similar;
$('view').addEventListener('close', () => $('grid').children[shown]?.focus());

addEventListener('hashchange', () => find());
addEventListener('dragover', (event) => {
  event.preventDefault();
  document.body.classList.add('over');
});
addEventListener('dragleave', (event) => event.relatedTarget ?? document.body.classList.remove('over'));
addEventListener('drop', (event) => {
  event.preventDefault();
  document.body.classList.remove('over');
  byPicture(event.dataTransfer.files[0]);
});
addEventListener('paste', (event) => event.clipboardData.files.length && byPicture(event.clipboardData.files[0]));
addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $('login').open) return;
  const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if ($('view').open) {
    if (move) view(shown + move);
    if (event.key === 'm') similar();
    return;
  }
  if (event.target.matches('input, select')) return;
  if (event.key === '/') {
    event.preventDefault();
    $('query').select();
  }
  const cells = [...$('grid').children], at = cells.indexOf(document.activeElement);
  if (at < 0) return;
  const columns = getComputedStyle($('grid')).gridTemplateColumns.split(' ').length;
  const step = move ?? { ArrowUp: -columns, ArrowDown: columns }[event.key];
  if (step && cells[at + step]) {
    event.preventDefault();
    cells[at + step].focus();
  }
});
about();
