// The Queues page: pools with their backpressure, who waits since when, what is parked or delayed, dead letters and what is done to them.

import {act, ago, ask, badge, bar, confirmed, count, duration, h, link, live, number, page, plural, readOnly, say, table} from './console.js';

const body = h('div', {});
page.append(h('header', {class: 'page-header mb-3'}, h('h1', {class: 'hg-title'}, 'Queues')), body);

const percent = (part) => (part === null ? '–' : `${(100 * part).toFixed(1)} %`);

function drawPool(pool) {
  return [h('th', {scope: 'row'}, pool.pool), pool.state === 'parked' ? h('span', {class: 'hg-state hg-warn'}, '‖ new runs wait') : h('span', {class: 'hg-state hg-good'}, '✓ open'),
    h('div', {class: 'hg-progress'}, bar([['running', Math.min(pool.load, pool.capacity)]], pool.capacity, `load ${count(pool.load)} of ${count(pool.capacity)}`), h('span', {class: 'hg-small'}, `${count(pool.load)}/${count(pool.capacity)}`)),
    number(count(pool.workers)), number(`${count(pool.running)}/${count(pool.slots)}`), number(count(pool.queued)), number(pool.parked ? `${count(pool.parked)} times, ${duration(pool.parked_s)}` : 'never')];
}

function drawTenant(tenant) {
  const levels = {};
  let oldest = null;
  for (const line of tenant.lines) {
    for (const [name, waits] of Object.entries(line.queued)) levels[name] = (levels[name] || 0) + waits;
    if (line.oldest_s !== null) oldest = Math.max(oldest ?? 0, line.oldest_s);
  }
  return [h('th', {scope: 'row'}, link(`/tenant/${tenant.tenant}`, tenant.tenant), tenant.paused ? [' ', badge('paused')] : null, tenant.status === 'active' ? null : h('span', {class: 'hg-small'}, ` ${tenant.status}`)),
    number(count(tenant.queued)), ['critical', 'high', 'normal', 'low', 'batch'].filter((name) => levels[name]).map((name) => `${name} ${count(levels[name])}`).join(', ') || '–',
    number(duration(oldest)), number(count(tenant.running)), number(count(tenant.parked)), number(count(tenant.delayed)), number(count(tenant.weight)), number(percent(tenant.share)), number(percent(tenant.due))];
}

const ACTS = {requeue: 'Send again', discard: 'Drop'};
let polling = null;

async function perform(verb, letters) {
  const one = letters.length === 1, words = one ? `Letter ${letters[0].tag} of ${letters[0].tenant}` : plural(letters.length, 'letter');
  const what = verb === 'requeue' ? 'goes back in line, as if it had just come' : 'is forgotten for good';
  const reason = await confirmed(`${ACTS[verb]}: ${one ? letters[0].task || letters[0].tag : 'dead letters'}`, `${words}: each ${what}.`, ACTS[verb]);
  if (reason === null) return;
  try {
    say((await act(`/queues/${verb}`, {tags: letters.map((letter) => letter.tag), reason})).said);
  } catch (error) {
    say(error.message, true);
  }
  polling.again();
}

function button(verb, letters, label) {
  return h('button', {type: 'button', class: `btn btn-sm ${verb === 'discard' ? 'btn-outline-danger' : 'btn-outline-primary'}`, 'aria-label': label, onclick: () => perform(verb, letters)},
    letters.length === 1 ? ACTS[verb] : label);
}

function drawLetter(letter, now) {
  // The letter of a node that has failed with it cannot be sent again: its run can be run again.
  const acts = readOnly ? [] : [h('td', {}, h('div', {class: 'hg-acts'}, letter.run ? null : button('requeue', [letter], `Send letter ${letter.tag} again`), button('discard', [letter], `Drop letter ${letter.tag}`)))];
  return [h('th', {scope: 'row', class: 'hg-run-id'}, letter.tag), letter.tenant, letter.run ? link(`/run/${letter.run.split('.')[0]}`, letter.task || letter.run) : letter.task || '–', ago(letter.at, now), letter.reason,
    letter.deaths.map((death) => death.worker).join(', ') || '–', ...acts];
}

function drawLetters(found) {
  const again = found.letters.filter((letter) => !letter.run), left = found.dead - found.letters.length;
  const all = readOnly || found.letters.length < 2 ? null : h('div', {class: 'hg-acts mb-2'},
    again.length > 1 ? button('requeue', again, `Send ${count(again.length)} letters again`) : null, button('discard', found.letters, `Drop ${count(found.letters.length)} letters`));
  return [h('h2', {class: 'hg-section'}, `Dead letters: ${count(found.dead)}`), all || '',
    table('letters-table', 'Dead letters', ['Letter', 'Tenant', 'Task', 'Given up', 'Why', 'Deaths', ...(readOnly ? [] : [h('th', {scope: 'col'}, h('span', {class: 'visually-hidden'}, 'What may be done'))])], found.letters.map((letter) => drawLetter(letter, found.now)), 'There is none.'),
    left > 0 ? h('p', {class: 'hg-small'}, `${plural(left, 'letter')} more; \`headgate queues letters\` lists all of them.`) : ''];
}

polling = live(async () => {
  const found = await ask(`/queues/data${location.search}`);
  const focused = body.contains(document.activeElement) ? document.activeElement.getAttribute('aria-label') : null;
  body.replaceChildren(
    found.paused ? h('p', {class: 'alert alert-warning', role: 'status'}, 'The platform is paused: nothing begins.') : '',
    h('h2', {class: 'hg-section'}, 'Pools'), table('pools-table', 'Pools', ['Pool', 'New runs', 'Load', 'Workers', 'Slots busy', 'In line', 'Was parked'], found.pools.map(drawPool), 'No pool has been named yet.'),
    h('h2', {class: 'hg-section'}, 'Tenants'), table('waiting-table', 'Tenants', ['Tenant', 'In line', 'By priority', 'Oldest', 'In hand', 'Parked', 'Delayed', 'Weight', 'Share', 'Due'], found.tenants.map(drawTenant), 'Nothing waits or runs.'),
    found.left_out ? h('p', {class: 'hg-small'}, `${plural(found.left_out, 'tenant')} more: see the Broker page.`) : '',
    h('p', {class: 'hg-small'}, `Runs of ${plural(found.waiting, 'tenant')} wait to be admitted. `, link('/runs?state=held', 'Show them'), ' · ', link('/broker', 'Every queue, as the broker has it')),
    ...drawLetters(found));
  if (focused) body.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
}, 3);
