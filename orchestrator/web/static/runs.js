// The Runs page: filters that live in the address, a page of runs, what is done to those that are chosen, strips of graphs.

import {act, ago, ask, badge, bar, between, confirmed, count, duration, h, link, live, money, number, page, plural, readOnly, say, STATES, table} from './console.js';

const FIELDS = ['state', 'tenant', 'graph', 'label', 'q', 'since', 'until', 'before'];
const ORDER = ['running', 'held', 'submitted', 'cancelling', 'failed', 'degraded', 'terminated_by_cost', 'cancelled', 'refused', 'succeeded'];
const AT_ONCE = 10;
const chosen = new Set();
let rows = [], now = 0, polling = null;

// -- the address ------------------------------------------------------------------------------------------------------

const asked = () => new URLSearchParams(location.search);

function go(change, push = true) {
  const words = asked();
  for (const [name, value] of Object.entries(change)) {
    words.delete(name);
    for (const each of [value].flat()) if (each) words.append(name, each);
  }
  if (!('before' in change)) words.delete('before');
  history[push ? 'pushState' : 'replaceState'](null, '', `${location.pathname}${words.size ? `?${words}` : ''}`);
  chosen.clear();
  fields();
  polling.again();
}

function query() {
  const words = asked(), kept = new URLSearchParams();
  for (const name of FIELDS) for (const value of words.getAll(name)) kept.append(name, value);
  return kept;
}

// -- what stays -------------------------------------------------------------------------------------------------------

const field = (name, label, attributes) => h('div', {class: 'hg-field'}, h('label', {for: `hg-${name}`}, label),
  h('input', {id: `hg-${name}`, name, class: 'form-control form-control-sm', maxlength: 100, autocomplete: 'off', ...attributes}));

const since = h('select', {id: 'hg-since', name: 'since', class: 'form-select form-select-sm'},
  [['', 'any time'], ['15m', '15 minutes'], ['1h', '1 hour'], ['24h', '24 hours'], ['7d', '7 days'], ['30d', '30 days'], ['own', 'from … to …']]
    .map(([value, words]) => h('option', {value}, words)));
const from = field('from', 'From', {type: 'datetime-local'}), to = field('to', 'To', {type: 'datetime-local'});
const form = h('form', {class: 'hg-filters', role: 'search', 'aria-label': 'Filter runs'},
  field('q', 'Search', {type: 'search', placeholder: 'run, key, tenant, graph'}), field('tenant', 'Tenant', {}), field('graph', 'Graph', {}),
  field('label', 'Label', {placeholder: 'name=value'}),
  h('div', {class: 'hg-field'}, h('label', {for: 'hg-since'}, 'Submitted within'), since), from, to,
  h('button', {class: 'btn btn-primary btn-sm', type: 'submit'}, 'Filter'),
  h('button', {class: 'btn btn-link btn-sm', type: 'button', onclick: () => go(Object.fromEntries(FIELDS.map((name) => [name, null])))}, 'Show all'));
const chips = h('nav', {class: 'hg-chips', 'aria-label': 'Filter by state'});
const bulk = h('div', {class: 'hg-bulk', role: 'region', 'aria-label': 'Chosen runs'});
const list = h('div', {id: 'hg-runs'});
const pager = h('nav', {class: 'hg-pager', 'aria-label': 'Pages'});
const strips = h('details', {class: 'hg-card hg-strips', open: true}, h('summary', {}, 'Latest runs of each graph'), h('div', {class: 'hg-strip-list'}));

page.append(h('header', {class: 'page-header mb-3'}, h('h1', {class: 'hg-title'}, 'Runs')), form, chips, strips, bulk, list, pager);

const localTime = (at) => { const time = new Date(at * 1000); return new Date(time - time.getTimezoneOffset() * 60000).toISOString().slice(0, 16); };
const epoch = (text) => (text ? String(Math.round(new Date(text).getTime() / 1000)) : null);

function fields() {
  const words = asked();
  for (const name of ['q', 'tenant', 'graph', 'label']) form.elements[name].value = words.get(name) || '';
  const own = /^\d+$/.test(words.get('since') || '') || words.get('until');
  since.value = own ? 'own' : words.get('since') || '';
  form.elements.from.value = own && words.get('since') ? localTime(words.get('since')) : '';
  form.elements.to.value = words.get('until') ? localTime(words.get('until')) : '';
  from.hidden = to.hidden = !own;
}

form.addEventListener('submit', (event) => {
  event.preventDefault();
  const own = since.value === 'own';
  go({
    ...Object.fromEntries(['q', 'tenant', 'graph', 'label'].map((name) => [name, form.elements[name].value.trim()])),
    since: own ? epoch(form.elements.from.value) : since.value, until: own ? epoch(form.elements.to.value) : null,
  });
});
since.addEventListener('change', () => {
  from.hidden = to.hidden = since.value !== 'own';
  if (since.value !== 'own') form.requestSubmit();
});
window.addEventListener('popstate', () => { chosen.clear(); fields(); polling.again(); });

// -- what changes -----------------------------------------------------------------------------------------------------

function drawChips(counts) {
  const states = asked().getAll('state'), all = Object.values(counts).reduce((sum, each) => sum + each, 0);
  const chip = (state, words, number, on, change) => h('button', {
    type: 'button', class: `hg-chip ${on ? 'hg-on' : ''} ${state ? `hg-${STATES[state][2]}` : ''}`, 'aria-pressed': on ? 'true' : 'false',
    'data-state': state || 'all', onclick: () => go({state: change}),
  }, state ? h('span', {class: 'hg-glyph', 'aria-hidden': 'true'}, STATES[state][0]) : null, words, ' ', h('b', {}, count(number)));
  const focused = chips.contains(document.activeElement) ? document.activeElement.dataset.state : null;
  chips.replaceChildren(chip(null, 'All', all, !states.length, []), ...ORDER.filter((state) => counts[state] || states.includes(state)).map((state) => {
    const on = states.includes(state);
    return chip(state, STATES[state][1], counts[state] || 0, on, on ? states.filter((each) => each !== state) : [...states, state]);
  }));
  if (focused) chips.querySelector(`[data-state="${focused}"]`)?.focus();
}

function progressOf(run) {
  const parts = ['succeeded', 'skipped', 'failed', 'timed_out', 'upstream_failed', 'cancelled'].map((state) => [state, run.counts[state] || 0]);
  const ended = parts.reduce((sum, [, each]) => sum + each, 0);
  if (!run.total) return h('span', {class: 'hg-none'}, '–');
  const words = `${count(ended)} of ${plural(run.total, 'node')} ended: ${parts.filter(([, each]) => each).map(([state, each]) => `${each} ${STATES[state][1]}`).join(', ') || 'none yet'}`;
  return h('div', {class: 'hg-progress'}, bar(parts, run.total, words), h('span', {class: 'hg-small'}, `${count(ended)}/${count(run.total)}`));
}

function filterLink(change, text) {
  const words = asked();
  for (const [name, value] of Object.entries(change)) words.set(name, value);
  words.delete('before');
  return h('a', {href: `?${words}`, onclick: (event) => { if (!event.metaKey && !event.ctrlKey) { event.preventDefault(); go(change); } }}, text);
}

function drawRun(run) {
  const labels = Object.entries(run.labels);
  return h('tr', {'data-run': run.id, class: chosen.has(run.id) ? 'table-active' : null},
    readOnly ? null : h('td', {}, h('input', {
      type: 'checkbox', class: 'form-check-input', 'aria-label': `Choose run ${run.id}`, checked: chosen.has(run.id),
      onchange: (event) => { chosen[event.target.checked ? 'add' : 'delete'](run.id); draw(); },
    })),
    h('td', {}, badge(run.state), run.paused.length ? badge('paused') : null,
      run.reason && run.state !== 'succeeded' ? h('div', {class: 'hg-small hg-clip', title: run.reason}, run.reason) : null),
    h('th', {scope: 'row', class: 'hg-run-id'}, link(`/run/${run.id}`, run.id), run.gen > 1 ? h('span', {class: 'hg-small'}, ` generation ${run.gen}`) : null,
      run.key ? h('div', {class: 'hg-small hg-clip', title: run.key}, run.key) : null),
    h('td', {}, filterLink({graph: run.graph}, run.graph),
      labels.length ? h('div', {class: 'hg-labels'}, labels.slice(0, 4).map(([name, value]) => filterLink({label: `${name}=${value}`}, `${name}=${value}`)),
        labels.length > 4 ? h('span', {class: 'hg-small'}, `+${labels.length - 4}`) : null) : null),
    h('td', {}, filterLink({tenant: run.tenant}, run.tenant)), h('td', {}, progressOf(run)), h('td', {class: 'text-nowrap'}, ago(run.submitted, now)),
    number(duration(between(run.submitted, run.started ?? (run.over ? run.finished : now)))),
    number(duration(between(run.started, run.finished ?? now))), number(money(run.cost)));
}

function draw() {
  const shown = rows.map((run) => run.id);
  for (const id of [...chosen]) if (!shown.includes(id)) chosen.delete(id);
  const all = h('input', {
    type: 'checkbox', class: 'form-check-input', 'aria-label': 'Choose all on this page', checked: chosen.size > 0 && chosen.size === rows.length,
    indeterminate: chosen.size > 0 && chosen.size < rows.length,
    onchange: (event) => { chosen.clear(); if (event.target.checked) shown.forEach((id) => chosen.add(id)); draw(); },
  });
  const heading = (text, right) => h('th', {scope: 'col', class: right ? 'text-end' : null}, text);
  const focused = list.contains(document.activeElement) ? document.activeElement.getAttribute('aria-label') : null;
  list.replaceChildren(table('runs-table', 'Runs', [...(readOnly ? [] : [h('th', {scope: 'col'}, all)]), 'State', 'Run', 'Graph', 'Tenant', 'Progress', 'Submitted',
    heading('Waited', true), heading('Took', true), heading('Cost', true)], rows.map(drawRun), 'No run fits.'));
  if (focused) list.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
  drawBulk();
}

function drawBulk() {
  bulk.hidden = readOnly || !chosen.size;
  const button = (verb, word, kind) => h('button', {type: 'button', class: `btn btn-sm ${kind}`, 'data-act': verb, onclick: () => all(verb, word)}, word);
  bulk.replaceChildren(h('b', {}, plural(chosen.size, 'run'), ' chosen'), button('cancel', 'Cancel', 'btn-outline-danger'),
    button('rerun', 'Rerun what failed', 'btn-outline-primary'), button('pause', 'Pause', 'btn-outline-secondary'), button('resume', 'Resume', 'btn-outline-secondary'));
}

async function all(verb, word) {
  const runs = [...chosen];
  const reason = await confirmed(`${word}: ${plural(runs.length, 'run')}`, runs.length === 1 ? runs[0] : `${runs[0]} and ${plural(runs.length - 1, 'other')}`, word);
  if (reason === null) return;
  const refused = [];
  let done = 0;
  try {
    for (let first = 0; first < runs.length; first += AT_ONCE) {
      const answer = await act(`/runs/${verb}`, {runs: runs.slice(first, first + AT_ONCE), reason});
      for (const each of answer.done) each.ok ? (done += 1) : refused.push(each);
    }
  } catch (error) {
    refused.push({run: '', said: error.message});
  }
  if (done) say(`${word}: ${plural(done, 'run')} done.`);
  for (const each of refused.slice(0, 3)) say(each.said, true);
  if (refused.length > 3) say(`${plural(refused.length - 3, 'more run')} refused likewise.`, true);
  document.dispatchEvent(new Event('hg-acted'));
  polling.again();
}

function drawPager(found) {
  const later = asked().get('before');
  pager.replaceChildren(
    later ? h('button', {type: 'button', class: 'btn btn-outline-secondary btn-sm', onclick: () => go({before: null})}, 'Newest') : '',
    found.after ? h('button', {type: 'button', class: 'btn btn-outline-secondary btn-sm', id: 'hg-older', onclick: () => { go({before: found.after}); scrollTo(0, 0); }}, 'Older') : '',
    found.partial ? h('span', {class: 'hg-small'}, 'Only the newest 10,000 runs were looked at for the label; narrow the time, tenant or graph to see further.') : '');
}

let controller = null;
async function look() {
  controller?.abort();
  controller = new AbortController();
  const found = await ask(`/runs/data?${query()}`, controller.signal);
  rows = found.runs;
  now = found.now;
  drawChips(found.counts);
  draw();
  drawPager(found);
}

async function lookAtStrips() {
  if (!strips.open) return;
  const tenant = asked().get('tenant');
  const found = await ask(`/runs/strips${tenant ? `?tenant=${encodeURIComponent(tenant)}` : ''}`);
  strips.hidden = !found.graphs.length;
  strips.lastChild.replaceChildren(...found.graphs.map(({graph, runs}) => h('div', {class: 'hg-strip'}, h('span', {class: 'hg-clip', title: graph}, filterLink({graph}, graph)),
    h('span', {class: 'hg-strip-runs'}, runs.map(([id, , state]) => link(`/run/${id}`, STATES[state]?.[0] || '?', {
      class: `hg-tick hg-${(STATES[state] || [])[2] || 'idle'}`, title: `${id}: ${STATES[state]?.[1] || state}`, 'aria-label': `${id}: ${STATES[state]?.[1] || state}`,
    }))))));
}

fields();
polling = live(look, 3);
live(lookAtStrips, 10);
