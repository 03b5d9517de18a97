// The search page: asks the server, shows what it found, plays moments. Foreign text is only ever set as text.
'use strict';
const $ = (id) => document.getElementById(id);
const form = $('form'), list = $('hits'), video = $('video'), FILTERS = ['video', 'folder', 'after', 'before', 'shortest', 'longest', 'least_score', 'per_video'];
const MARGIN = 0.02; // seconds: a seek to a start must not show the picture before it
let hits = [], further = false, asked = 0, floor = null; // what was found
let open = null, until = null, clip = false, low = 0, span = [0, 1]; // what plays; `low`: second of the video at which a clip begins

function code(seconds) {
  const tenths = Math.max(Math.round(seconds * 10), 0), hours = Math.floor(tenths / 36000), two = (n) => String(n).padStart(2, '0');
  const tail = two(Math.floor(tenths / 10) % 60) + '.' + tenths % 10, minutes = Math.floor(tenths / 600) % 60;
  return hours ? hours + ':' + two(minutes) + ':' + tail : minutes + ':' + tail;
}
const percent = (part, whole) => Math.min(Math.max(100 * part / Math.max(whole, 1e-6), 0), 100) + '%';

// ---- state in the address: sentence, filters, the open moment
function parameters() {
  const found = new URLSearchParams();
  for (const name of ['q', ...FILTERS]) {
    const value = form.elements[name] && form.elements[name].value.trim();
    if (value) found.set(name, value);
  }
  return found;
}
function remember(push) {
  const state = parameters();
  if (open) {
    state.set('in', open.video);
    state.set('at', open.start.toFixed(2) + '-' + open.end.toFixed(2));
  }
  const address = state.size ? '?' + state : location.pathname;
  if (address !== location.search) history[push ? 'pushState' : 'replaceState'](null, '', address);
}
function restore() {
  const state = new URLSearchParams(location.search);
  for (const name of ['q', ...FILTERS]) if (form.elements[name]) form.elements[name].value = state.get(name) || '';
  $('filters').open = FILTERS.some((name) => state.get(name));
  const times = /^([\d.]+)-([\d.]+)$/.exec(state.get('at') || '');
  const wanted = times && state.get('in') !== null ? { video: state.get('in'), start: Number(times[1]), end: Number(times[2]) } : null;
  shut();
  ask(wanted);
}

// ---- asking
async function answer(address) {
  let reply, said = {};
  try { reply = await fetch(address); } catch { throw Object.assign(new Error('The server does not answer.'), { again: true }); }
  if (reply.ok) return reply;
  try { said = (await reply.json()).error; } catch { /* no error of ours */ }
  let words = said.message || 'The server answers with status ' + reply.status + '.';
  if (said.field && words.startsWith(said.field + ': ')) words = words.slice(said.field.length + 2);
  throw Object.assign(new Error(words[0].toUpperCase() + words.slice(1)), { again: reply.status >= 500 });
}
function fail(error, again) {
  const box = $('error'), button = document.createElement('button');
  button.type = 'button';
  button.textContent = 'Try again';
  button.addEventListener('click', () => { box.hidden = true; again(); });
  box.replaceChildren(error.message, ...(error.again ? [button] : []));
  box.hidden = false;
}
async function busy(work) {
  const begun = performance.now(), mine = asked;
  const tick = setInterval(async () => {
    if (mine !== asked) return clearInterval(tick);
    const seconds = (performance.now() - begun) / 1000;
    $('progress').hidden = seconds < 0.3;
    if (seconds < 1) return;
    const state = await fetch('/health').then((reply) => reply.json(), () => ({}));
    if (mine !== asked || $('progress').hidden) return;
    const words = state.status === 'starting' ? 'The model is being loaded' : 'Searching';
    if ($('status').textContent !== words) $('status').textContent = words; // is read out once, the seconds are not
    $('waiting').textContent = Math.round(seconds) + ' s';
  }, 300);
  try { return await work; } finally { clearInterval(tick); if (mine === asked) { $('progress').hidden = true; $('waiting').textContent = ''; } }
}
async function ask(wanted) {
  const mine = ++asked, text = form.elements.q.value.trim();
  const active = FILTERS.filter((name) => form.elements[name] && form.elements[name].value.trim()).length;
  $('active').textContent = active ? active + ' set' : '';
  document.title = text ? text + ' · Search videos' : 'Search videos';
  $('progress').hidden = $('error').hidden = $('more').hidden = true;
  $('start').hidden = $('corpus').hidden = Boolean(text);
  $('status').textContent = $('waiting').textContent = '';
  list.replaceChildren();
  hits = []; further = false; floor = null;
  if (!text) return;
  list.setAttribute('aria-busy', 'true');
  try {
    await more(mine);
    if (mine === asked && wanted) show(hits.find((hit) => same(hit, wanted)) || { ...wanted, title: wanted.video, video_url: '/video/' + encodeURIComponent(wanted.video) }, false);
  } catch (error) { if (mine === asked) fail(error, () => ask(wanted)); }
  list.removeAttribute('aria-busy');
}
async function more(mine) {
  const state = parameters();
  state.set('offset', hits.length);
  state.set('limit', 24);
  further = false;
  const found = await busy(answer('/search?' + state).then((reply) => reply.json()));
  if (mine !== asked) return;
  if (floor === null && found.hits.length) floor = [found.hits.at(-1).score, found.hits[0].score]; // bars show the span of the first page
  found.hits.forEach(add);
  const count = hits.length + (found.more ? ' moments so far' : hits.length === 1 ? ' moment' : ' moments');
  const where = ' among ' + found.videos.toLocaleString('en') + ' videos';
  const note = found.note.charAt(0).toUpperCase() + found.note.slice(1);
  $('status').textContent = hits.length ? count + where + '. ' + note : 'No moment was found' + where + '. Say it in other words, or set fewer filters. ' + note;
  further = found.more;
  $('more').hidden = !further;
}
function next() {
  const mine = asked;
  if (further) more(mine).catch((error) => { if (mine === asked) { further = true; fail(error, next); } });
}
const same = (one, other) => one.video === other.video && Math.abs(one.start - other.start) < 0.011 && Math.abs(one.end - other.end) < 0.011;

// ---- results
function add(hit) {
  const item = $('hit').content.firstElementChild.cloneNode(true), part = (selector) => item.querySelector(selector), picture = part('img');
  hit.button = item.firstElementChild;
  part('.rank').textContent = hit.rank;
  part('.title').textContent = part('.title').title = hit.title;
  part('.times').textContent = code(hit.start) + ' – ' + code(hit.end);
  part('b').textContent = Math.abs(hit.score) < 1000 ? hit.score.toFixed(3) : hit.score.toPrecision(3);
  Object.assign(part('.place i').style, { left: percent(hit.start, hit.duration), width: 'max(3px, ' + percent(hit.end - hit.start, hit.duration) + ')' });
  part('.bar i').style.width = percent(0.1 + 0.9 * (hit.score - floor[0]) / Math.max(floor[1] - floor[0], 1e-9), 1);
  const third = (hit.end - hit.start) / 3, from = Math.max(hit.start - third, 0), to = Math.min(hit.end + third, Math.max(hit.duration, hit.end));
  Object.assign(part('.inside').style, { left: percent(hit.start - from, to - from), width: percent(hit.end - hit.start, to - from) });
  if (hit.strip_url) {
    let tries = 0;
    picture.addEventListener('load', () => part('.film').classList.add('there'));
    picture.addEventListener('error', () => {
      if (++tries < 3) setTimeout(() => { picture.src = hit.strip_url + '#' + tries; }, 2000 * tries);
      else part('.film').classList.add('none');
    });
    picture.src = hit.strip_url;
  } else part('.film').classList.add('none');
  // a click by keyboard has no detail: it plays and pauses, one by mouse begins anew
  hit.button.addEventListener('click', (event) => (event.detail === 0 && open && open.button === hit.button ? toggle() : show(hit, true)));
  hits.push(hit);
  list.append(item);
}
new IntersectionObserver((seen) => { if (seen[0].isIntersecting) next(); }, { rootMargin: '300px' }).observe($('more'));
$('more').addEventListener('click', next);

// ---- playing
function show(hit, play) {
  if (open && open.button) open.button.classList.remove('on'), open.button.removeAttribute('aria-current');
  const address = hit.video_url, changed = !open || open.video !== hit.video || !video.src;
  open = { ...hit };
  if (hit.button) hit.button.classList.add('on'), hit.button.setAttribute('aria-current', 'true');
  $('player').hidden = false;
  $('both').classList.add('open');
  if (hit.button) hit.button.scrollIntoView({ block: 'nearest' }); // the list has another width now
  $('title').textContent = hit.title;
  const around = Math.max((hit.end - hit.start) * 0.75, 2);
  span = [Math.max(hit.start - around, 0), Math.min(hit.end + around, hit.duration || Infinity)];
  for (const id of ['from', 'to']) [$(id).min, $(id).max] = span;
  trim();
  for (const id of ['save', 'marker']) $(id).disabled = !address;
  if (!address) { video.removeAttribute('src'); video.load(); $('now').textContent = 'The file of this video is not known here.'; until = null; }
  else {
    if (changed || clip) { clip = false; low = 0; video.src = address; }
    begin(play);
  }
  remember(false);
}
function begin(play) {
  until = open.end;
  const seek = () => { video.currentTime = Math.max(open.start - low + MARGIN, 0); if (play) video.play().catch(() => {}); };
  if (video.readyState >= 1) seek(); else video.addEventListener('loadedmetadata', seek, { once: true });
  $('now').textContent = play ? 'Playing ' + code(open.start) + ' to ' + code(open.end) + '.' : '';
}
function toggle() {
  if (!open) return hits[0] && hits[0].button.click();
  const time = video.currentTime + low;
  if (!video.paused) video.pause();
  else if (until === null || time >= open.end - 0.05 || time < open.start - 0.05) begin(true);
  else video.play().catch(() => {});
}
function watch() {
  const time = video.currentTime + low;
  $('head').style.left = percent(time - span[0], span[1] - span[0]);
  $('head').hidden = time < span[0] || time > span[1];
  if (until !== null && !video.seeking && (video.ended || (!video.paused && time >= until - 0.01))) {
    video.pause();
    $('now').textContent = 'Stopped at the end of the moment, ' + code(until) + '.';
    until = null;
  }
  if (!video.paused) requestAnimationFrame(watch);
}
for (const name of ['play', 'timeupdate', 'seeked', 'ended']) video.addEventListener(name, watch);
video.addEventListener('error', async () => {
  if (!open || !video.getAttribute('src')) return;
  if (clip) { $('now').textContent = 'This browser cannot play the video.'; return; }
  const wanted = open; // the file is of a kind that this browser does not play: a clip encoded by the server is
  $('now').textContent = 'This browser does not play the file; a clip is being made.';
  try {
    const from = Math.max(wanted.start - 1, 0), made = await answer(part('clip', { start: from, end: wanted.end + 1 }));
    const data = await made.blob();
    if (open !== wanted) return;
    clip = true;
    low = from;
    video.src = URL.createObjectURL(data);
    begin(true);
  } catch (error) { if (open === wanted) $('now').textContent = error.message; }
});
function shut() {
  if (open && open.button) { open.button.classList.remove('on'); open.button.removeAttribute('aria-current'); open.button.focus({ preventScroll: true }); }
  open = until = null;
  video.pause();
  $('player').hidden = true;
  $('both').classList.remove('open');
}

// ---- trimming and taking away
function trim() {
  $('from').value = open.start; $('to').value = open.end;
  Object.assign($('span').style, { left: percent(open.start - span[0], span[1] - span[0]), width: percent(open.end - open.start, span[1] - span[0]) });
  $('from-time').textContent = code(open.start); $('to-time').textContent = code(open.end);
  $('length').textContent = (open.end - open.start).toFixed(2) + ' s';
  for (const id of ['from', 'to']) $(id).setAttribute('aria-valuetext', code(Number($(id).value)));
}
for (const id of ['from', 'to']) {
  $(id).addEventListener('input', () => {
    if (id === 'from') open.start = Math.min(Number($(id).value), open.end - 0.1); else open.end = Math.max(Number($(id).value), open.start + 0.1);
    trim();
    until = null;
    video.pause();
    video.currentTime = Math.max((id === 'from' ? open.start : open.end) - low, 0);
  });
  $(id).addEventListener('change', () => { remember(false); if (open.video_url) begin(true); });
}
function part(name, more) {
  return '/' + name + '/' + encodeURIComponent(open.video) + '?' + new URLSearchParams({ start: open.start.toFixed(3), end: open.end.toFixed(3), ...more });
}
async function save(button, address) {
  const words = button.textContent;
  button.disabled = true;
  button.textContent = 'Making it';
  try {
    const made = await answer(address), link = document.createElement('a'), said = made.headers.get('content-disposition') || '';
    const coded = /filename\*=utf-8''([^;]+)/i.exec(said), plain = /filename="([^"]*)"/.exec(said);
    link.href = URL.createObjectURL(await made.blob());
    link.download = coded ? decodeURIComponent(coded[1]) : plain ? plain[1] : 'moment';
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    $('now').textContent = 'Saved ' + link.download + '.';
  } catch (error) { $('now').textContent = error.message; }
  button.disabled = false;
  button.textContent = words;
}
$('save').addEventListener('click', () => save($('save'), part('clip', {})));
$('marker').addEventListener('click', () => save($('marker'), part('markers', { kind: $('kind').value, score: open.score || 0, q: form.elements.q.value.trim() })));
$('link').addEventListener('click', async () => {
  try { await navigator.clipboard.writeText(location.href); $('now').textContent = 'The link is copied.'; } catch { $('now').textContent = location.href; }
});
$('close').addEventListener('click', () => { shut(); remember(false); });

// ---- the box and the keyboard
function submit() { shut(); remember(true); ask(null); }
form.addEventListener('submit', (event) => { event.preventDefault(); submit(); });
$('filters').addEventListener('change', submit);
$('clear').addEventListener('click', () => { for (const name of FILTERS) if (form.elements[name]) form.elements[name].value = ''; submit(); });
document.querySelectorAll('.example').forEach((button) => button.addEventListener('click', () => { form.elements.q.value = button.textContent; submit(); }));
addEventListener('popstate', restore);
if (!location.search) form.elements.q.focus();
document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const at = event.target, typing = at.matches('input:not([type=range]), select, textarea'), place = hits.findIndex((hit) => hit.button === document.activeElement);
  const move = { ArrowDown: 1, ArrowUp: -1, ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (event.key === 'Escape') {
    if (typing) at.blur(); else if (open) { shut(); remember(false); } else return;
  } else if (event.key === '/' && !typing) { form.elements.q.focus(); form.elements.q.select(); }
  else if (move && hits.length && (at === form.elements.q ? event.key === 'ArrowDown' : !typing && !at.matches('input, video'))) {
    const from = place >= 0 ? place : open && open.button ? hits.findIndex((hit) => hit.button === open.button) : -1;
    const button = hits[Math.min(Math.max(from + move, 0), hits.length - 1)].button;
    button.focus({ preventScroll: true });
    button.scrollIntoView({ block: 'nearest' });
  } else if (event.key === ' ' && !typing && !at.matches('button, summary, a, video, input')) toggle();
  else return;
  event.preventDefault();
});
restore();
