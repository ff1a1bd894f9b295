// The status page. What the cluster says is only ever set as text, never as markup.
'use strict';

const SVG = 'http://www.w3.org/2000/svg';
const DETAIL_EVERY = 2000;
const RETRY_AFTER = 3000;
// Something is said every 15 seconds. After a laptop has slept, or behind a proxy whose other side is gone,
// nobody tells that the connection is dead.
const SILENT_AFTER = 40000;
const CELLS = ['name', 'state', 'since', 'pods', 'flight', 'held', 'why'];

const byId = (id) => document.getElementById(id);
const rows = new Map(); // "namespace/name" -> { key, view, item, link, cells }
let order = []; // keys of all rows as they are listed; in the list are those that fit the filter
let isFresh = true; // the next event has every workload
let opened = null; // key of the workload in the detail

// ---- words ----

function ago(time) {
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(time)) / 1000));
  if (!Number.isFinite(seconds)) return '';
  if (seconds < 60) return seconds + ' s';
  if (seconds < 3600) return Math.floor(seconds / 60) + ' min';
  if (seconds < 172800) return Math.floor(seconds / 3600) + ' h';
  return Math.floor(seconds / 86400) + ' d';
}

function duration(ms) {
  return ms < 1000 ? ms + ' ms' : (ms / 1000).toFixed(ms < 10000 ? 2 : 1) + ' s';
}

function savedSeconds(view) {
  const since = view.since ? (Date.now() - Date.parse(view.since)) / 1000 : 0;
  return view.savedPodSeconds + view.savingPods * Math.max(0, since);
}

function podHours(seconds) {
  const hours = seconds / 3600;
  return (hours < 10 ? hours.toFixed(2) : Math.round(hours).toLocaleString('en')) + ' pod-hours';
}

function callerText(caller) {
  const who = caller.workload || caller.pod || caller.account;
  const name = who && caller.address ? who + ' (' + caller.address + ')' : who || caller.address;
  return caller.asked ? name + ': ' + caller.asked : name;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function element(kind, text, className) {
  const node = document.createElement(kind);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

// ---- list ----

function makeRow(key, view) {
  const item = document.createElement('li');
  const link = document.createElement('a');
  link.className = 'row';
  link.href = '#' + key;
  const cells = {};
  for (const name of CELLS) {
    cells[name] = element('span', '', name);
    link.append(cells[name]);
  }
  item.append(link);
  // Its link was followed before it was there.
  if (key === opened) link.setAttribute('aria-current', 'true');
  return { key, view, item, link, cells };
}

function fill(row) {
  const { view, cells } = row;
  setText(cells.name, row.key);
  setText(cells.state, view.state);
  cells.state.dataset.state = view.state;
  setText(cells.since, view.since ? ago(view.since) : '');
  setText(cells.pods, view.ready + '/' + view.desired);
  setText(cells.flight, String(view.inFlight));
  setText(cells.held, String(view.held));
  setText(cells.why, view.reason);
  cells.why.title = view.reason;
  row.item.classList.toggle('odd', view.conditions.length > 0);
  const odd = view.conditions.length > 0 ? ', needs attention' : '';
  row.link.setAttribute('aria-label', row.key + ', ' + view.state + ', ' + view.ready + ' of ' +
    view.desired + ' pods, ' + view.inFlight + ' in flight, ' + view.held + ' held' + odd);
}

function placeOf(key) {
  let low = 0, high = order.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (order[middle] < key) low = middle + 1; else high = middle;
  }
  return low;
}

function remove(key) {
  const row = rows.get(key);
  if (!row) return;
  row.item.remove();
  rows.delete(key);
  order.splice(placeOf(key), 1);
}

function apply(change) {
  if (isFresh) {
    const there = new Set(change.changed.map((view) => view.namespace + '/' + view.name));
    for (const key of [...rows.keys()]) if (!there.has(key)) remove(key);
    isFresh = false;
  }
  change.gone.forEach(remove);
  const added = [];
  for (const view of change.changed) {
    const key = view.namespace + '/' + view.name;
    const known = rows.get(key);
    const row = known || makeRow(key, view);
    row.view = view;
    fill(row);
    if (known) {
      place(row);
    } else {
      rows.set(key, row);
      added.push(row);
    }
  }
  insert(added);
  total();
  notice(change.silentActivators || []);
  if (opened && change.changed.some((view) => view.namespace + '/' + view.name === opened)) {
    showNow(rows.get(opened).view);
  }
}

// What is wrong with all workloads at once; whoever reads aloud is told when it begins.
function notice(silent) {
  setText(byId('notice'), silent.length === 0 ? '' : 'No workload falls asleep: ' +
    (silent.length === 1 ? 'an activator is' : 'activators are') + ' ready and not heard (' + silent.join(', ') +
    '). Delete the pod; where the next one is silent, too, see that autoscalers reach port 9090 of activators.');
  byId('notice').hidden = silent.length === 0;
}

function insert(added) {
  if (order.length === 0) {
    // Many at once: one insertion.
    order = added.map((row) => row.key).sort();
    listAll();
    return;
  }
  for (const row of added) {
    order.splice(placeOf(row.key), 0, row.key);
    place(row);
  }
}

// Takes a row into the list or out of it, as it fits the filter now; the others stay, and with them where the
// keyboard is.
function place(row) {
  if (fits(row) === row.item.isConnected) return;
  if (row.item.isConnected) {
    row.item.remove();
    return;
  }
  const behind = order.slice(placeOf(row.key) + 1).find((key) => rows.get(key).item.isConnected);
  byId('list').insertBefore(row.item, behind ? rows.get(behind).item : null);
}

// Lists every row that fits. Rows that are hidden instead would cost a browser as much again as those that are
// shown: 0.4 s where 1,000 become 50.
function listAll() {
  const shown = order.map((key) => rows.get(key)).filter(fits);
  byId('list').replaceChildren(...shown.map((row) => row.item));
}

function fits(row) {
  const text = byId('text').value.trim().toLowerCase();
  const state = byId('state').value;
  const view = row.view;
  const fitsState = !state || view.state === state ||
    (state === 'attention' && view.conditions.length > 0);
  return fitsState && (!text || row.key.toLowerCase().includes(text) ||
    view.reason.toLowerCase().includes(text));
}

function filterAll() {
  listAll();
  total();
}

function total() {
  let asleep = 0, held = 0, flight = 0, ready = 0, saved = 0, odd = 0;
  for (const { view } of rows.values()) {
    asleep += view.state === 'Asleep' ? 1 : 0;
    held += view.held;
    flight += view.inFlight;
    ready += view.ready;
    saved += savedSeconds(view);
    odd += view.conditions.length > 0 ? 1 : 0;
  }
  const attention = odd ? ' · ' + odd + ' need attention' : '';
  setText(byId('totals'), rows.size + ' workloads, ' + asleep + ' asleep · ' + ready + ' pods ready · ' +
    flight + ' in flight, ' + held + ' held · ' + podHours(saved) + ' saved' + attention);
  byId('none').hidden = byId('list').childElementCount > 0;
}

// ---- detail ----

function showNow(view) {
  setText(byId('name'), view.namespace + '/' + view.name);
  setText(byId('now'), view.targetKind + ' ' + view.targetName + ': ' + view.state +
    (view.since ? ' for ' + ago(view.since) : '') + ' (' + view.mode + ') · ' + view.ready + ' of ' +
    view.desired + ' pods · ' + view.inFlight + ' in flight, ' + view.held + ' held · ' +
    podHours(savedSeconds(view)) + ' saved');
  setText(byId('why'), view.reason);
  const written = 'From the ScaledWorkload’s status: the replica that leads this workload does not answer, ' +
    'and only it has the line and the history.';
  setText(byId('source'), view.isLive ? 'Live.' : written);
  fillList('conditions', view.conditions, (c) =>
    element('li', c.reason + ' (' + c.type + ' is ' + c.status + '): ' + (c.message || 'no message')));
}

function fillList(id, things, make, none) {
  const items = things.map(make);
  if (items.length === 0 && none) items.push(element('li', none, 'quiet'));
  byId(id).replaceChildren(...items);
}

function wakeItem(wake) {
  const item = document.createElement('li');
  const took = wake.totalMs === undefined || wake.totalMs === null
    ? 'no answer seen' : 'answered after ' + duration(wake.totalMs);
  item.append(element('div', wake.at + ' (' + ago(wake.at) + ' ago): to ' + wake.scaledTo + ' pods, ' + took));
  const bar = element('div', undefined, 'bar');
  bar.setAttribute('aria-hidden', 'true');
  const end = Math.max(1, ...wake.phases.map((phase) => phase.ms));
  let from = 0;
  wake.phases.forEach((phase, index) => {
    const part = element('i', undefined, 'phase' + (index % 6));
    part.style.width = (100 * Math.max(0, phase.ms - from) / end) + '%';
    part.title = phase.name + ' ' + duration(phase.ms);
    from = Math.max(from, phase.ms);
    bar.append(part);
  });
  if (wake.phases.length > 0) item.append(bar);
  const phases = wake.phases.map((phase) => phase.name + ' ' + duration(phase.ms)).join(' · ');
  if (phases) item.append(element('div', phases, 'quiet'));
  const by = (wake.by || []).map(callerText).join('; ');
  item.append(element('div', by ? 'by ' + by : 'caller not known', 'quiet'));
  return item;
}

function shareItem(text, percent) {
  const item = element('li', text);
  const bar = element('span', undefined, 'share');
  bar.style.width = percent + '%';
  item.append(bar);
  return item;
}

function callerItem(share) {
  return shareItem(callerText(share.caller) + ' — ' + share.holds + ' times, ' + share.percent + ' %', share.percent);
}

function showKeptAwake(view, kept) {
  const shares = kept ? kept.by.map((share) => ({ text: callerText(share.caller), percent: share.percent })) : [];
  if (kept && kept.othersPercent > 0) shares.push({ text: 'others', percent: kept.othersPercent });
  const share = ({ text, percent }) => shareItem(text + ' — ' + (percent || 'below 1') + ' %', percent);
  fillList('awake', shares, share, 'nobody has called, or it is not known');
  const when = kept && kept.at ? 'Last called ' + ago(kept.at) + ' ago. ' : '';
  setText(byId('awake-when'), shares.length === 0 ? '' : when + (view.state === 'Asleep'
    ? 'Whose requests its pods had before it fell asleep.' : 'Whose requests its pods have had lately.'));
}

function draw(detail) {
  const view = detail.workload;
  const now = { ago: 0, inFlight: view.inFlight, ready: view.ready, desired: view.desired };
  const points = [...detail.line, now];
  const oldest = Math.max(60, points[0].ago);
  const mostLoad = Math.max(1, ...points.map((p) => p.inFlight));
  const mostPods = Math.max(1, ...points.map((p) => p.ready));
  const x = (p) => 600 * (1 - p.ago / oldest);
  const y = (value, most) => 140 - 115 * value / most;
  const path = (value, most) => points.map((p) => x(p).toFixed(1) + ',' + y(value(p), most).toFixed(1)).join(' ');
  const line = (kind, text) => {
    const node = document.createElementNS(SVG, 'polyline');
    node.setAttribute('class', kind);
    node.setAttribute('points', text);
    return node;
  };
  const label = (text, place, anchor) => {
    const node = document.createElementNS(SVG, 'text');
    node.setAttribute('x', place);
    node.setAttribute('y', 16);
    node.setAttribute('text-anchor', anchor);
    node.textContent = text;
    return node;
  };
  byId('line').replaceChildren(
    line('load', path((p) => p.inFlight, mostLoad)),
    line('pods', path((p) => p.ready, mostPods)),
    label('in flight, up to ' + mostLoad, 8, 'start'),
    label('pods (dashed), up to ' + mostPods, 592, 'end'));
  setText(byId('caption'), 'The last ' + duration(oldest * 1000) + '; now ' + view.inFlight +
    ' in flight on ' + view.ready + ' pods.');
}

function showDetail(detail) {
  const view = detail.workload;
  showNow(view);
  draw(detail);
  fillList('wakes', detail.wakes, wakeItem, 'none known');
  showKeptAwake(view, detail.keptAwake);
  fillList('callers', detail.callers, callerItem, 'nobody, or not known');
  fillList('pods', detail.pods, (pod) => element('li', pod.pod + ': ' + pod.inFlight + ' in flight, ' +
    pod.requests + ' since it started'), 'no pod has reported');
  fillList('history', detail.history, (change) => element('li', change.at + ': ' + change.from + ' → ' +
    change.to + ', ' + change.reason), 'none since its replica leads it');
}

let asked = 0;
async function loadDetail() {
  if (!opened || document.visibilityState === 'hidden') return;
  const [key, number] = [opened, ++asked];
  const path = 'workloads/' + key.split('/').map(encodeURIComponent).join('/');
  try {
    const answer = await fetch(path);
    // A later question has been asked since.
    if (number !== asked || key !== opened) return;
    if (answer.ok) showDetail(await answer.json());
    else setText(byId('why'), answer.status === 404 ? 'It is gone.' : 'No answer: ' + answer.status);
  } catch (error) {
    setText(byId('source'), 'No answer: ' + error.message);
  }
}

function route() {
  const [key, before] = [location.hash.slice(1), opened];
  // Names begin with a letter or a digit: dots would lead to another path of this server.
  opened = /^[a-z0-9][^/]*\/[a-z0-9][^/]*$/.test(key) ? key : null;
  for (const row of rows.values()) row.link.removeAttribute('aria-current');
  document.body.classList.toggle('open', opened !== null);
  byId('detail').hidden = opened === null;
  if (opened === null) {
    // Back to where it was opened.
    if (rows.has(before)) rows.get(before).link.focus();
    return;
  }
  const row = rows.get(opened);
  setText(byId('name'), opened);
  if (row) {
    row.link.setAttribute('aria-current', 'true');
    showNow(row.view);
  }
  byId('detail').focus({ preventScroll: true });
  loadDetail();
}

// ---- keys ----

function move(step) {
  const shown = byId('list').querySelectorAll('a');
  const at = [...shown].indexOf(document.activeElement);
  const next = shown[Math.min(shown.length - 1, Math.max(0, at + step))];
  if (next) next.focus();
}

function onKey(event) {
  const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  const isReading = byId('detail').contains(event.target);
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === 'Escape') {
    if (isTyping) event.target.blur(); else location.hash = '';
  } else if (isTyping || (isReading && event.key.startsWith('Arrow'))) {
    // Arrows scroll what is read.
    return;
  } else if (event.key === '/') {
    byId('text').focus();
  } else if (event.key === 'ArrowDown' || event.key === 'j') {
    move(1);
  } else if (event.key === 'ArrowUp' || event.key === 'k') {
    move(-1);
  } else {
    return;
  }
  event.preventDefault();
}

// ---- events ----

function say(state, text) {
  byId('link').dataset.state = state;
  setText(byId('link'), text);
}

function follow() {
  const events = new EventSource('events');
  let heardAt = Date.now();
  const again = () => {
    clearInterval(watch);
    events.close();
    setTimeout(follow, RETRY_AFTER);
  };
  const watch = setInterval(() => {
    if (Date.now() - heardAt < SILENT_AFTER) return;
    say('lost', 'nothing heard, trying again');
    again();
  }, RETRY_AFTER);
  events.onopen = () => {
    heardAt = Date.now();
    isFresh = true;
    say('live', 'live');
  };
  events.addEventListener('alive', () => { heardAt = Date.now(); });
  events.onmessage = (event) => {
    heardAt = Date.now();
    apply(JSON.parse(event.data));
  };
  events.onerror = () => {
    say('lost', 'connection lost, trying again');
    if (events.readyState === EventSource.CLOSED) again();
  };
}

byId('filter').addEventListener('submit', (event) => event.preventDefault());
byId('text').addEventListener('input', filterAll);
byId('state').addEventListener('change', filterAll);
document.addEventListener('keydown', onKey);
addEventListener('hashchange', route);
setInterval(loadDetail, DETAIL_EVERY);
setInterval(() => {
  for (const row of rows.values()) setText(row.cells.since, row.view.since ? ago(row.view.since) : '');
  total();
}, 10000);
route();
follow();
