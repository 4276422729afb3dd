// The Queues page: pools with their backpressure, who waits since when, what is parked or delayed, dead letters.

import {ago, ask, badge, bar, count, duration, h, link, live, number, page, plural, table} from './console.js';

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

live(async () => {
  const found = await ask(`/queues/data${location.search}`);
  body.replaceChildren(
    found.paused ? h('p', {class: 'alert alert-warning', role: 'status'}, 'The platform is paused: nothing begins.') : '',
    h('h2', {class: 'hg-section'}, 'Pools'), table('pools-table', 'Pools', ['Pool', 'New runs', 'Load', 'Workers', 'Slots busy', 'In line', 'Was parked'], found.pools.map(drawPool), 'No pool has been named yet.'),
    h('h2', {class: 'hg-section'}, 'Tenants'), table('waiting-table', 'Tenants', ['Tenant', 'In line', 'By priority', 'Oldest', 'In hand', 'Parked', 'Delayed', 'Weight', 'Share', 'Due'], found.tenants.map(drawTenant), 'Nothing waits or runs.'),
    found.left_out ? h('p', {class: 'hg-small'}, `${plural(found.left_out, 'tenant')} more: see the Broker page.`) : '',
    h('p', {class: 'hg-small'}, `Runs of ${plural(found.waiting, 'tenant')} wait to be admitted. `, link('/runs?state=held', 'Show them'), ' · ', link('/broker', 'Every queue, as the broker has it')),
    h('h2', {class: 'hg-section'}, `Dead letters: ${count(found.dead)}`), table('letters-table', 'Dead letters', ['Letter', 'Tenant', 'Task', 'Given up', 'Why', 'Deaths'], found.letters.map((letter) => [
      h('th', {scope: 'row', class: 'hg-run-id'}, letter.tag), letter.tenant, letter.run ? link(`/run/${letter.run.split('.')[0]}`, letter.task || letter.run) : letter.task || '–', ago(letter.at, found.now), letter.reason,
      letter.deaths.map((death) => death.worker).join(', ') || '–']), 'There is none.'));
}, 3);
