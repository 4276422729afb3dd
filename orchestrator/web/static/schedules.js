// The Schedules page: when each runs next, what became of its last times, how late they were; beat and its entries.

import {ago, ask, badge, duration, h, link, live, number, page, plural, stamp, STATES, table} from './console.js';

const body = h('div', {});
page.append(h('header', {class: 'page-header mb-3'}, h('h1', {class: 'hg-title'}, 'Schedules')), body);

const stateOf = (tick) => (tick.state === 'submitted' ? (tick.status === 'ended' ? tick.outcome : tick.status) || 'submitted' : tick.state);
const LATE_S = 15;

function drawTick(tick) {
  const state = stateOf(tick), [glyph, word, colour] = STATES[state] || ['·', state, 'idle'], title = `${stamp(tick.at)}: ${word}${tick.reason ? `, ${tick.reason}` : ''}`;
  const attributes = {class: `hg-tick hg-${colour}`, title, 'aria-label': title};
  return tick.run_id ? link(`/run/${tick.run_id}`, glyph, attributes) : h('span', {...attributes, role: 'img'}, glyph);
}

function drawEntry(entry, now) {
  const {last} = entry;
  const state = !last ? h('span', {class: 'hg-state hg-idle'}, '· not yet') : entry.late ? h('span', {class: 'hg-state hg-warn'}, '‖ late')
    : last.ok ? h('span', {class: 'hg-state hg-good'}, '✓ in time') : h('span', {class: 'hg-state hg-bad'}, '✗ put off');
  return [h('th', {scope: 'row'}, entry.name, h('div', {class: 'hg-small'}, entry.task)), number(duration(entry.every_s)), state, last ? ago(last.at, now) : '–',
    number(last ? duration(last.took_s) : '–'), last ? last.said || 'nothing to do' : '–', last ? [last.beat, h('div', {class: 'hg-small'}, last.worker)] : '–'];
}

function drawBeat(beat) {
  if (!beat) return [h('p', {class: 'alert alert-warning', role: 'status'}, 'Redis does not answer: nobody knows of beat.')];
  const alive = beat.beats.filter((each) => each.alive), late = beat.entries.filter((each) => each.late);
  return [
    alive.length && !late.length ? '' : h('p', {class: 'alert alert-warning', role: 'status'}, alive.length
      ? `Late: ${late.map((each) => each.name).join(', ')}. Does the worker of the queue system run?` : 'No beat has been heard of lately: celery -A orchestrator.app beat starts one.'),
    h('p', {class: 'hg-small'}, 'Beats: ', beat.beats.length ? beat.beats.map((each, at) => [at ? ', ' : '', each.name, each.alive ? ' (alive)' : [' (last ', ago(each.at, beat.now), ')']]) : 'none'),
    table('beat-table', 'Entries of beat', ['Entry', 'Every', 'State', 'Last', 'Took', 'What came of it', 'By'], beat.entries.map((each) => drawEntry(each, beat.now)), 'Beat has no entry.')];
}

live(async () => {
  const found = await ask(`/schedules/data${location.search}`), late = found.schedules.filter((each) => each.overdue_s > LATE_S);
  body.replaceChildren(
    late.length ? h('p', {class: 'alert alert-warning', role: 'status'}, `${plural(late.length, 'schedule')} should have run ${duration(Math.max(...late.map((each) => each.overdue_s)))} ago: is beat running?`) : '',
    table('schedules-table', 'Schedules', ['Schedule', 'Tenant', 'Graph', 'When', 'Next', 'Last', 'Result', 'Lag', 'Latest times'], found.schedules.map((each) => {
      const [last] = each.ticks;
      return [h('th', {scope: 'row'}, each.name, each.paused ? [' ', badge('paused')] : null), link(`/tenant/${each.tenant}`, each.tenant), link(`/runs?graph=${encodeURIComponent(each.graph)}`, each.graph),
        [each.when, each.timezone === 'UTC' ? null : h('div', {class: 'hg-small'}, each.timezone), h('div', {class: 'hg-small'}, `catch up ${each.catch_up}, overlap ${each.overlap}`)],
        ago(each.next, found.now), last ? ago(last.at, found.now) : '–', last ? [badge(stateOf(last)), last.reason ? h('div', {class: 'hg-small'}, last.reason) : null] : '–',
        number(last ? duration(last.lag_s) : '–'), h('span', {class: 'hg-strip-runs'}, [...each.ticks].reverse().map(drawTick))];
    }), 'No schedule is made yet: `headgate schedule create` makes one.'),
    found.left_out ? h('p', {class: 'hg-small'}, `${plural(found.left_out, 'schedule')} more; name a tenant: ?tenant=ID`) : '',
    h('h2', {class: 'hg-section'}, 'Beat'), ...drawBeat(found.beat));
}, 5);
