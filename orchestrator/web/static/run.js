// The page of a run: head, tabs, what may be done, the drawer of one node.

import {act, ago, ask, badge, bar, between, confirmed, count, duration, h, link, live, money, number, page, plural, readOnly, say, stamp, STATES, table} from './console.js';
import {Drawer} from './drawer.js';
import {GraphView} from './graph.js';
import {Timeline} from './timeline.js';

export const LETTERS = {
  p: 'pending', q: 'due', r: 'running', s: 'succeeded', f: 'failed', t: 'timed_out', k: 'skipped', x: 'cancelled', u: 'upstream_failed', n: 'not_taken',
};
const TABS = ['Graph', 'Timeline', 'Nodes', 'Events', 'Decisions', 'JSON'];
const NODES_SHOWN = 200;

const run = page.dataset.run, words = new URLSearchParams(location.search);
let generation = words.get('g'), summary = null, drawing = null, nodes = null, tab = words.get('tab') || 'Graph', events = [];
const at = (path, more) => `/run/${run}/${path}?${new URLSearchParams({...(generation ? {g: generation} : {}), ...more})}`;

// -- the frame --------------------------------------------------------------------------------------------------------

const head = h('header', {class: 'hg-run-head'});
const figures = h('dl', {class: 'hg-figures'});
const tabs = h('div', {class: 'hg-tabs', role: 'tablist', 'aria-label': 'Views of the run'}, TABS.map((name) => h('button', {
  type: 'button', role: 'tab', id: `hg-tab-${name}`, 'aria-controls': `hg-panel-${name}`, 'data-tab': name,
  onclick: () => open(name), onkeydown: (event) => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (step) { const next = TABS[(TABS.indexOf(name) + step + TABS.length) % TABS.length]; open(next); document.getElementById(`hg-tab-${next}`).focus(); }
  },
}, name)));
const panels = Object.fromEntries(TABS.map((name) => [name, h('section', {role: 'tabpanel', id: `hg-panel-${name}`, 'aria-labelledby': `hg-tab-${name}`, hidden: true})]));
page.append(head, figures, tabs, ...Object.values(panels));

const drawer = new Drawer((id) => ask(at('node', {id})), keep, (asked, ran) => ask(at('log', {...asked, ...(ran ? {g: ran} : {})})));
const graph = new GraphView(panels.Graph, choose);
const timeline = new Timeline(panels.Timeline, (index) => choose([index]));

function keep(change) {
  for (const [name, value] of Object.entries(change)) value === null ? words.delete(name) : words.set(name, value);
  history.replaceState(null, '', `${location.pathname}${words.size ? `?${words}` : ''}`);
}

const nameOf = (index) => (index < drawing.ids.length ? drawing.ids[index] : nodes.more[index - drawing.ids.length]);
const stateOf = (index) => LETTERS[nodes.states[index]] || 'pending';

function choose(members) {
  if (members.length === 1) drawer.open(nameOf(members[0]));
  else drawer.list(members.map((index) => ({id: nameOf(index), state: stateOf(index)})));
}

function open(name) {
  tab = TABS.includes(name) ? name : 'Graph';
  keep({tab: tab === 'Graph' ? null : tab});
  for (const each of TABS) {
    const on = each === tab, button = document.getElementById(`hg-tab-${each}`);
    button.setAttribute('aria-selected', String(on));
    button.tabIndex = on ? 0 : -1;
    panels[each].hidden = !on;
  }
  show();
}

function show() {
  if (tab === 'Graph' && drawing && nodes) graph.show();
  if (tab === 'Timeline' && nodes) timeline.show();
  if (tab === 'Nodes' && nodes) drawNodes();
  if (tab === 'Events') lookAtEvents();
  if (tab === 'Decisions') lookAtDecisions();
  if (tab === 'JSON') lookAtRecord();
}

// -- head -------------------------------------------------------------------------------------------------------------

const ACTS = [
  ['cancel', 'Cancel', 'btn-outline-danger', (state) => ['submitted', 'held', 'running'].includes(state)],
  ['pause', 'Pause', 'btn-outline-secondary', (state, paused) => ['submitted', 'held', 'running'].includes(state) && !paused],
  ['resume', 'Resume', 'btn-outline-primary', (state, paused, held) => paused && !held],
  ['rerun', 'Rerun from failed', 'btn-outline-primary', (state) => ['failed', 'degraded', 'cancelled'].includes(state)],
  ['approve', 'Approve and go on', 'btn-outline-primary', (state, paused, held) => state === 'terminated_by_cost' || (paused && held)],
];

async function perform(verb, word) {
  const reason = await confirmed(`${word}: ${summary.graph}`, `Run ${run}`, word);
  if (reason === null) return;
  try {
    const [done] = (await act(`/runs/${verb}`, {runs: [run], reason})).done;
    say(`${word}: ${done.said}`, !done.ok);
    if (done.ok && (verb === 'rerun' || verb === 'approve')) {
      generation = null;
      keep({g: null});
    }
  } catch (error) {
    say(error.message, true);
  }
  document.dispatchEvent(new Event('hg-acted'));
  start();
}

function drawHead() {
  const paused = summary.paused.some((scope) => scope.startsWith('run:'));
  const newest = summary.generations.at(-1)[0] === summary.gen;
  const buttons = readOnly || !newest ? [] : ACTS.filter(([, , , may]) => may(summary.state, paused, summary.held)).map(([verb, word, kind]) => h('button', {
    type: 'button', class: `btn btn-sm ${kind}`, 'data-act': verb, onclick: () => perform(verb, word),
  }, word));
  const chooser = summary.generations.length < 2 ? null : h('label', {class: 'hg-small'}, 'Generation ', h('select', {
    class: 'form-select form-select-sm d-inline-block w-auto', id: 'hg-generation',
    onchange: (event) => { generation = event.target.value; keep({g: generation, node: null}); drawer.close(); start(); },
  }, summary.generations.map(([each, state]) => h('option', {value: each, selected: each === summary.gen}, `${each}: ${STATES[state]?.[1] || state}`))));
  const focused = head.contains(document.activeElement) ? document.activeElement.dataset.act || document.activeElement.id : null;
  head.replaceChildren(
    h('div', {}, h('p', {class: 'page-eyebrow'}, link('/runs', 'Runs'), ' / ', link(`/runs?graph=${encodeURIComponent(summary.graph)}`, summary.graph)),
      h('h1', {class: 'hg-title'}, summary.graph, ' ', badge(summary.state), summary.paused.length ? badge('paused') : null),
      h('p', {class: 'hg-run-id mb-1'}, run, summary.key ? h('span', {class: 'hg-small'}, ` key ${summary.key}`) : null),
      summary.reason ? h('p', {class: 'hg-reason'}, summary.reason) : null,
      h('div', {class: 'hg-labels'}, Object.entries(summary.labels).map(([name, value]) => link(`/runs?label=${encodeURIComponent(`${name}=${value}`)}`, `${name}=${value}`)))),
    h('div', {class: 'hg-acts'}, chooser, buttons));
  if (focused) head.querySelector(`[data-act="${CSS.escape(focused)}"],#${CSS.escape(focused)}`)?.focus();
  document.title = `${STATES[summary.state]?.[0] || ''} ${summary.graph} · Flower`;
}

function drawFigures() {
  const now = summary.now, parts = ['succeeded', 'skipped', 'failed', 'timed_out', 'upstream_failed', 'cancelled'].map((state) => [state, summary.counts[state] || 0]);
  const ended = parts.reduce((sum, [, each]) => sum + each, 0);
  const figure = (term, value, note) => h('div', {}, h('dt', {}, term), h('dd', {}, value, note ? h('span', {class: 'hg-small'}, note) : null));
  const spent = Object.entries(summary.costs).map(([category, micros]) => [`${category} `, money(micros), ' ']);
  figures.replaceChildren(
    figure('Progress', [`${count(ended)} of ${count(summary.total)} `, bar(parts, summary.total || 1, `${ended} of ${summary.total} nodes ended`)]),
    figure('Submitted', ago(summary.submitted, now), stamp(summary.submitted)),
    figure('Waited', duration(between(summary.submitted, summary.started ?? summary.finished ?? now)), 'to be started'),
    figure('Took', duration(between(summary.started, summary.finished ?? now)), summary.finished ? stamp(summary.finished) : 'so far'),
    figure('Nodes waited', duration(summary.wait_mean), summary.wait_longest === null ? '' : `at most ${duration(summary.wait_longest)}`),
    figure('Cost', money(summary.cost), spent.length ? h('span', {}, spent) : null),
    figure('Estimate', money(summary.estimate), summary.budget === null ? '' : h('span', {}, 'budget ', money(summary.budget))),
    figure('Tenant', link(`/tenant/${summary.tenant}`, summary.tenant), `priority ${summary.priority}`));
}

// -- nodes ------------------------------------------------------------------------------------------------------------

const nodeFilter = h('input', {type: 'search', id: 'hg-node-filter', class: 'form-control form-control-sm', placeholder: 'node or task', oninput: () => drawNodes()});
const nodeState = h('select', {id: 'hg-node-state', class: 'form-select form-select-sm', onchange: () => drawNodes()});
const nodeList = h('div', {});
panels.Nodes.append(h('div', {class: 'hg-filters'}, h('div', {class: 'hg-field'}, h('label', {for: 'hg-node-filter'}, 'Search'), nodeFilter),
  h('div', {class: 'hg-field'}, h('label', {for: 'hg-node-state'}, 'State'), nodeState)), nodeList);

function drawNodes() {
  const counts = {};
  for (const letter of nodes.states) counts[letter] = (counts[letter] || 0) + 1;
  const chosen = nodeState.value, part = nodeFilter.value.toLowerCase();
  nodeState.replaceChildren(h('option', {value: ''}, `all ${count(nodes.states.length)}`),
    ...Object.keys(LETTERS).filter((letter) => counts[letter] || letter === chosen).map((letter) => h('option', {value: letter, selected: letter === chosen}, `${STATES[LETTERS[letter]][1]} ${count(counts[letter] || 0)}`)));
  const shown = [];
  let found = 0;
  for (let index = 0; index < nodes.states.length; index += 1) {
    const task = index < drawing.task.length ? drawing.tasks[drawing.task[index]] : '';
    if ((chosen && nodes.states[index] !== chosen) || (part && !nameOf(index).toLowerCase().includes(part) && !task.toLowerCase().includes(part))) continue;
    found += 1;
    if (shown.length < NODES_SHOWN) shown.push([index, task]);
  }
  const optional = new Set(drawing.optional);
  nodeList.replaceChildren(table('nodes-table', 'Nodes', ['State', 'Node', 'Task', 'Attempts', 'Worker', 'Waited', 'Took', 'Cost'], shown.map(([index, task]) => h('tr', {},
    h('td', {}, badge(stateOf(index))),
    h('th', {scope: 'row'}, h('button', {type: 'button', class: 'hg-plain', onclick: () => choose([index])}, nameOf(index)), optional.has(index) ? h('span', {class: 'hg-small'}, ' optional') : null),
    h('td', {}, task), number(count(nodes.attempt[index])), h('td', {class: 'hg-clip'}, nodes.workers[nodes.worker[index]] || '–'),
    number(duration(between(nodes.queued_at[index], nodes.started_at[index]) === null ? null : (nodes.started_at[index] - nodes.queued_at[index]) / 1000)),
    number(duration(nodes.started_at[index] === null ? null : ((nodes.finished_at[index] ?? nodes.now * 1000) - nodes.started_at[index]) / 1000)),
    number(money(nodes.cost[index])))), 'No node fits.'),
  found > shown.length ? h('p', {class: 'hg-small'}, `The first ${count(shown.length)} of ${count(found)} are shown; search for the others.`) : '');
}

// -- events, decisions, JSON ------------------------------------------------------------------------------------------

const eventList = h('div', {}), moreEvents = h('button', {type: 'button', class: 'btn btn-outline-secondary btn-sm', hidden: true}, 'Later events');
let eventsAfter = null;
panels.Events.append(eventList, moreEvents);
moreEvents.addEventListener('click', () => lookAtEvents(eventsAfter));

async function lookAtEvents(after = null) {
  try {
    const found = await ask(at('events', after ? {after} : {}));
    events = after ? [...events, ...found.events] : found.events;
    eventsAfter = found.after;
    moreEvents.hidden = !found.after;
    eventList.replaceChildren(table('events-table', 'Events', ['At', 'Event', 'Node', 'What'], events.map((event) => {
      const {t, at: ms, run: of, gen, tenant, node, ...rest} = event.data;
      const line = Object.entries(rest).map(([name, value]) => `${name} ${typeof value === 'object' ? JSON.stringify(value) : value}`).join(' · ');
      return h('tr', {}, h('td', {class: 'text-nowrap'}, stamp(event.at)), h('th', {scope: 'row'}, event.type),
        h('td', {}, node ? h('button', {type: 'button', class: 'hg-plain', onclick: () => drawer.open(node)}, node) : ''),
        h('td', {class: 'hg-event'}, line.length > 300 ? h('details', {}, h('summary', {}, `${line.slice(0, 120)}…`), line) : line));
    }), 'No event is on record yet.'));
  } catch (error) {
    say(error.message, true);
  }
}

async function lookAtDecisions() {
  try {
    const found = (await ask(at('decisions'))).decisions;
    panels.Decisions.replaceChildren(...(found.length ? found.map(drawDecision) : [h('p', {class: 'hg-empty'}, 'The cost agent decided nothing about this run.')]));
  } catch (error) {
    say(error.message, true);
  }
}

export function drawDecision(decision) {
  const say = decision.observed ? 'observed only: nothing was applied' : decision.applied_at === null ? 'not applied yet' : `applied ${stamp(decision.applied_at)}`;
  return h('article', {class: 'hg-card'},
    h('h2', {}, `${decision.action} `, h('span', {class: 'hg-small'}, `${decision.id} · ${stamp(decision.at)} · by ${decision.trigger} · ${say}`)),
    h('p', {}, decision.reason), decision.flags.length ? h('p', {class: 'hg-labels'}, decision.flags.map((flag) => h('span', {class: 'hg-state hg-warn'}, flag))) : null,
    decision.cause ? h('p', {class: 'hg-small'}, `Tripped by ${decision.cause}`) : null,
    decision.plan.length ? table(null, 'What it changes', ['What', 'Node', 'To', 'Why', 'Saves'], decision.plan.slice(0, 50).map((each) => [each.type, each.node, each.change || '–', each.reason || '–', number(money(each.saving))]), '') : null,
    decision.plan.length > 50 ? h('p', {class: 'hg-small'}, `and ${plural(decision.plan.length - 50, 'more change')}`) : null);
}

async function lookAtRecord() {
  const path = at('record');
  try {
    const text = JSON.stringify(await ask(path), null, 2), shown = text.slice(0, 200000);
    panels.JSON.replaceChildren(h('p', {}, h('a', {href: document.getElementById('hg-banner').dataset.prefix + path, download: `${run}.json`}, 'Download'), ' ',
      shown.length < text.length ? h('span', {class: 'hg-small'}, 'The beginning is shown; the download has all of it.') : null), h('pre', {class: 'detail-code', tabindex: '0', role: 'region', 'aria-label': 'The run as JSON'}, shown));
  } catch (error) {
    say(error.message, true);
  }
}

// -- polling ----------------------------------------------------------------------------------------------------------

let polling = null, last = '';

async function look() {
  const wanted = generation;
  const later = Promise.all([ask(at('nodes', last ? {since: last} : {})), drawing || ask(at('graph'))]);
  later.catch(() => null);
  const told = await ask(at('summary'));
  if (wanted !== generation) return true;
  summary = told;
  drawHead();
  drawFigures();
  const [state, drawn] = await later;
  if (wanted !== generation) return true;
  if (!state.same) {
    nodes = state;
    last = state.at;
  } else if (nodes) {
    nodes.now = state.now;
  }
  if (drawing !== drawn) {
    drawing = drawn;
    graph.draw(drawing);
  }
  graph.colour(nodes);
  timeline.feed(drawing, nodes, nameOf, stateOf);
  if (['Graph', 'Timeline'].includes(tab) || (tab === 'Nodes' && !state.same)) show();
  if (!state.same) drawer.again();
  drawer.log.again();
  return !(state.over && state.same);
}

function start() {
  last = '';
  drawing = null;
  if (polling) polling.again(); else polling = live(look, 2);
}

open(tab);
start();
if (words.get('node')) drawer.open(words.get('node'));
