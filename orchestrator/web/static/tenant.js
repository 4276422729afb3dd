// The page of a tenant: its budget, what it spent by day and category, what cost most, decisions, policy, who did what.

import {ago, ask, badge, count, duration, exactMoney, h, link, live, money, number, page, plural, readOnly, stamp, svg, table} from './console.js';
import {budget, key, level, pausing, share} from './tenants.js';

const tenant = page.dataset.tenant, CATEGORIES = ['llm', 'retrieval', 'storage', 'compute', 'other'];
const head = h('header', {class: 'hg-run-head'}), body = h('div', {});
page.append(head, body);
let shown = '';

function chart(days) {
  const most = Math.max(1, ...days.map(({spent}) => Object.values(spent).reduce((sum, each) => sum + Math.max(0, each), 0)));
  const wide = 900, high = 160, step = wide / days.length;
  const bars = days.map(({day, spent}, at) => {
    let top = high;
    const whole = Object.values(spent).reduce((sum, each) => sum + each, 0);
    return svg('g', {}, svg('title', {}, `${day}: ${exactMoney(whole)}`), svg('rect', {x: at * step, y: 0, width: step, height: high, fill: 'transparent'}),
      CATEGORIES.filter((category) => spent[category] > 0).map((category) => {
        const part = (spent[category] / most) * (high - 10);
        top -= part;
        return svg('rect', {class: `hg-cat-${category}`, x: at * step + 2, y: top, width: step - 4, height: Math.max(0.5, part)});
      }));
  });
  return h('figure', {class: 'hg-chart'}, svg('svg', {viewBox: `0 0 ${wide} ${high + 18}`, role: 'img', 'aria-label': `Spent by day and category over ${days.length} days, at most ${exactMoney(most)} a day`},
    svg('line', {x1: 0, x2: wide, y1: high, y2: high, class: 'hg-axis'}), bars,
    days.map(({day}, at) => (at % 5 === 4 ? svg('text', {x: at * step + step / 2, y: high + 14, class: 'hg-tick-text'}, day.slice(5)) : null))),
  h('figcaption', {class: 'hg-legend'}, CATEGORIES.map((category) => h('span', {class: 'hg-key-plain'}, h('span', {class: `hg-swatch hg-cat-${category}`}), category)), h('span', {class: 'hg-small'}, `at most ${exactMoney(most)} a day`)),
  h('details', {}, h('summary', {class: 'hg-small'}, 'As a table'), table(null, 'Spent by day', ['Day', ...CATEGORIES], days.filter(({spent}) => Object.keys(spent).length).map(({day, spent}) => [day, ...CATEGORIES.map((category) => number(money(spent[category] ?? 0)))]), 'Nothing was spent.')));
}

async function look() {
  const found = await ask(`/tenant/${tenant}/data`);
  const text = JSON.stringify({...found, now: 0});
  if (text === shown) return;
  shown = text;
  const open = [...body.querySelectorAll('details')].map((each) => each.open);
  head.replaceChildren(h('div', {}, h('p', {class: 'page-eyebrow'}, link('/tenants', 'Tenants')), h('h1', {class: 'hg-title'}, found.name, ' ', level(found.level), found.paused ? badge('paused') : null),
    h('p', {class: 'hg-run-id mb-1'}, found.id), found.paused ? h('p', {class: 'hg-reason'}, `Paused since ${stamp(found.paused.at)} by ${found.paused.by}${found.paused.reason ? `: ${found.paused.reason}` : ''}`) : null),
  h('div', {class: 'hg-acts'}, link(`/runs?tenant=${found.id}`, 'Runs', {class: 'btn btn-outline-primary btn-sm'}),
    readOnly ? null : h('button', {type: 'button', class: 'btn btn-outline-secondary btn-sm', onclick: () => pausing(found.id, found.paused, () => polling.again())}, found.paused ? 'Resume' : 'Pause')));
  const figure = (term, value, note) => h('div', {}, h('dt', {}, term), h('dd', {}, value, note ? h('span', {class: 'hg-small'}, note) : null));
  body.replaceChildren(
    h('section', {class: 'hg-card'}, h('h2', {}, 'Budget of the day'), budget(found.settled, found.reserved, found.held, found.limit_per_day, found.levels), key(),
      found.limit_per_month === null ? null : [h('h2', {}, 'Budget of the month ', level(found.month_level)), budget(found.month_settled, found.month_reserved, found.held, found.limit_per_month, found.levels)]),
    h('dl', {class: 'hg-figures'}, figure('Settled', money(found.settled)), figure('Reserved', money(found.reserved)), figure('Held', money(found.held)), figure('Limit', money(found.limit_per_day), found.currency),
      figure('Burn per hour', money(found.burn_per_hour), found.lasts_s === null ? 'nothing in the last hour' : `lasts ${duration(found.lasts_s)}`),
      figure('Runs', `${count(found.running_runs)} of ${count(found.max_concurrent_runs)}`, `${count(found.waiting_runs)} waiting`),
      figure('Nodes', `${count(found.running_nodes)} running`, `${count(found.queued)} queued, ${count(found.parked)} parked, ${count(found.delayed)} delayed`),
      figure('Oldest in line', duration(found.oldest_s)), figure('Share (due)', share(found), `weight ${found.weight}`), figure('Refused today', count(found.refused))),
    h('section', {class: 'hg-card'}, h('h2', {}, 'Spent by day'), chart(found.days)),
    h('h2', {class: 'hg-section'}, 'What cost most in 7 days'), table('top-table', 'Costliest runs', ['Run', 'Graph', 'State', 'Cost'], found.top.map((each) => [
      link(`/run/${each.run_id}?g=${each.generation}`, each.run_id, {class: 'hg-run-id'}), each.graph, badge(each.state), number(money(each.cost))]), 'Nothing cost anything.'),
    h('h2', {class: 'hg-section'}, 'Decisions of the cost agent'), table('decisions-table', 'Decisions', ['At', 'Run', 'Decision', 'Why', 'Saves'], found.decisions.map((each) => [
      ago(each.at, found.now), link(`/run/${each.run_id}?tab=Decisions`, each.run_id, {class: 'hg-run-id'}), `${each.action}${each.observed ? ' (observed only)' : ''}`, each.reason, number(money(each.saving))]), 'It decided nothing.'),
    h('details', {class: 'hg-card'}, h('summary', {}, `Policy, version ${found.version}`), h('dl', {class: 'detail-list mt-2'}, Object.entries(found.policy).map(([name, value]) => h('div', {class: 'detail-row'}, h('dt', {}, name), h('dd', {}, value === null ? '–' : String(value)))))),
    h('details', {class: 'hg-card'}, h('summary', {}, `Who did what: the latest ${plural(found.audit.length, 'line')} of 7 days`), table(null, 'Audit', ['At', 'Who', 'What', 'To', 'Why'], found.audit.map((line) => [stamp(line.at), line.actor, line.action, line.target || '–', line.reason || '–']), 'Nothing was done.')));
  body.querySelectorAll('details').forEach((each, at) => { each.open = open[at] || false; });
}

const polling = live(look, 3);
