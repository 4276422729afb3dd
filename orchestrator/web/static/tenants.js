// The Tenants page: each with its budget against its limit, how fast it goes, what waits and runs.

import {act, ask, badge, confirmed, count, duration, h, link, live, money, number, page, readOnly, say, table} from './console.js';

export const LEVELS = {HEALTHY: 'good', WARNING: 'warn', CRITICAL: 'bad', EXCEEDED: 'bad'};

export function level(name) {
  const glyph = {HEALTHY: '✓', WARNING: '!', CRITICAL: '!!', EXCEEDED: '✕'}[name] || '?';
  return h('span', {class: `hg-state hg-${LEVELS[name] || 'idle'}`}, h('span', {class: 'hg-glyph', 'aria-hidden': 'true'}, glyph), name.toLowerCase());
}

export function budget(settled, reserved, held, limit, levels) {
  const all = Math.max(limit * Math.max(1, levels[2] / 100), settled + reserved + held, 1), part = (micros) => `${(100 * micros) / all}%`;
  const percent = limit ? Math.round((100 * (settled + reserved)) / limit) : 100;
  return h('div', {class: 'hg-budget', role: 'img', 'aria-label': `${percent} % of the limit is settled or reserved`},
    h('span', {class: 'hg-settled', style: `width:${part(settled)}`, title: 'settled'}), h('span', {class: 'hg-reserved', style: `width:${part(reserved)}`, title: 'reserved'}),
    h('span', {class: 'hg-held', style: `width:${part(held)}`, title: 'held'}),
    levels.map((each, at) => h('i', {style: `left:min(calc(100% - 2px), ${part((limit * each) / 100)})`, title: `${['warning', 'critical', 'exceeded'][at]} at ${each} %`})));
}

export function key() {
  return h('p', {class: 'hg-legend'}, [['settled', 'settled'], ['reserved', 'reserved'], ['held', 'held']].map(([name, word]) => h('span', {class: 'hg-key-plain'}, h('span', {class: `hg-swatch hg-${name}`}), word)),
    h('span', {class: 'hg-small'}, 'marks: warning, critical and exceeded, by the tenant’s policy'));
}

export async function pausing(tenant, paused, again) {
  const word = paused ? 'Resume' : 'Pause', reason = await confirmed(`${word} tenant ${tenant}`, paused ? 'What waited goes on in its order.' : 'Nothing more of it begins; what runs goes on.', word);
  if (reason === null) return;
  try {
    say(`${tenant}: ${(await act(`/tenant/${tenant}/${paused ? 'resume' : 'pause'}`, {reason})).said}`);
  } catch (error) {
    say(error.message, true);
  }
  document.dispatchEvent(new Event('hg-acted'));
  again();
}

export function share(tenant) {
  return tenant.share === null ? '–' : `${(100 * tenant.share).toFixed(1)} % (${(100 * (tenant.due || 0)).toFixed(1)} %)`;
}

function start() {
  const words = () => new URLSearchParams(location.search);
  const search = h('input', {type: 'search', id: 'hg-q', name: 'q', class: 'form-control form-control-sm', value: words().get('q') || '', maxlength: 100});
  const list = h('div', {}), pager = h('nav', {class: 'hg-pager', 'aria-label': 'Pages'});
  let polling = null;
  const go = (change) => {
    const next = words();
    next.delete('after');
    for (const [name, value] of Object.entries(change)) value ? next.set(name, value) : next.delete(name);
    history.pushState(null, '', `${location.pathname}${next.size ? `?${next}` : ''}`);
    polling.again();
  };
  page.append(h('header', {class: 'page-header mb-3'}, h('h1', {class: 'hg-title'}, 'Tenants')),
    h('form', {class: 'hg-filters', role: 'search', onsubmit: (event) => { event.preventDefault(); go({q: search.value.trim()}); }},
      h('div', {class: 'hg-field'}, h('label', {for: 'hg-q'}, 'Id or name'), search), h('button', {class: 'btn btn-primary btn-sm'}, 'Search')), key(), list, pager);
  window.addEventListener('popstate', () => { search.value = words().get('q') || ''; polling.again(); });

  async function look() {
    const found = await ask(`/tenants/data?${words()}`);
    const focused = list.contains(document.activeElement) ? document.activeElement.getAttribute('aria-label') : null;
    list.replaceChildren(table('tenants-table', 'Tenants', ['Tenant', 'Level', 'Budget of the day', 'Burn per hour', 'Lasts', 'Runs', 'Nodes', 'Oldest', 'Share (due)', 'Refused today', ...(readOnly ? [] : [h('th', {scope: 'col'}, h('span', {class: 'visually-hidden'}, 'Pause or resume'))])],
      found.tenants.map((tenant) => h('tr', {'data-tenant': tenant.id},
        h('th', {scope: 'row'}, link(`/tenant/${tenant.id}`, tenant.id), h('div', {class: 'hg-small hg-clip'}, tenant.name === tenant.id ? '' : tenant.name)),
        h('td', {}, level(tenant.level), tenant.paused ? badge('paused') : null, tenant.status === 'active' ? null : h('span', {class: 'hg-state hg-idle'}, tenant.status),
          tenant.enforcement === 'enforce' ? null : h('span', {class: 'hg-state hg-wait'}, tenant.enforcement === 'observe' ? 'observed only' : 'limits off')),
        h('td', {class: 'hg-budget-cell'}, budget(tenant.settled, tenant.reserved, tenant.held, tenant.limit_per_day, tenant.levels),
          h('div', {class: 'hg-small'}, money(tenant.settled), ' + ', money(tenant.reserved), ' + ', money(tenant.held), ' of ', money(tenant.limit_per_day))),
        number(money(tenant.burn_per_hour)), number(duration(tenant.lasts_s)),
        number(`${count(tenant.running_runs)}/${count(tenant.max_concurrent_runs)}${tenant.waiting_runs ? `, ${count(tenant.waiting_runs)} waiting` : ''}`),
        number(`${count(tenant.running_nodes)} running, ${count(tenant.queued)} queued`), number(duration(tenant.oldest_s)), number(share(tenant)), number(count(tenant.refused)),
        readOnly ? null : h('td', {}, h('button', {type: 'button', class: 'btn btn-outline-secondary btn-sm', 'aria-label': `${tenant.paused ? 'Resume' : 'Pause'} ${tenant.id}`,
          onclick: () => pausing(tenant.id, tenant.paused, () => polling.again())}, tenant.paused ? 'Resume' : 'Pause')))), 'No tenant fits.'));
    if (focused) list.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
    pager.replaceChildren(words().get('after') ? h('button', {type: 'button', class: 'btn btn-outline-secondary btn-sm', onclick: () => go({after: null})}, 'First') : '',
      found.after ? h('button', {type: 'button', class: 'btn btn-outline-secondary btn-sm', onclick: () => go({after: found.after})}, 'More') : '');
  }
  polling = live(look, 4);
}

if (page && !page.dataset.tenant) start();
