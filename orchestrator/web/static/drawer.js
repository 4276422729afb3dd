// The drawer of one node: attempts, log, parameters, result, traceback, costs, the decisions that touched it.

import {badge, count, duration, h, link, money, number, page, plural, stamp, STATES, table} from './console.js';
import {Log} from './log.js';

export class Drawer {
  constructor(read, keep, readLog) {
    this.read = read;
    this.log = new Log(readLog);
    this.keep = keep;
    this.node = null;
    this.before = null;
    this.shown = '';
    this.body = h('div', {class: 'hg-drawer-body'});
    this.title = h('h2', {id: 'hg-drawer-title', tabindex: '-1'});
    this.element = h('aside', {class: 'hg-drawer', role: 'dialog', 'aria-labelledby': 'hg-drawer-title', hidden: true},
      h('div', {class: 'hg-drawer-head'}, this.title, h('button', {type: 'button', class: 'btn-close', 'aria-label': 'Close', onclick: () => this.close()})), this.body);
    this.element.addEventListener('keydown', (event) => { if (event.key === 'Escape') this.close(); });
    page.append(this.element);
  }

  async open(node) {
    this.reveal(node);
    this.node = node;
    this.shown = '';
    this.log.close();
    this.keep({node});
    this.body.replaceChildren(h('p', {class: 'hg-small'}, 'Reading …'));
    await this.again();
  }

  list(members) {
    this.reveal(plural(members.length, 'node'));
    this.node = null;
    this.log.close();
    const order = ['failed', 'timed_out', 'running', 'due', 'upstream_failed', 'cancelled', 'skipped', 'not_taken', 'pending', 'succeeded'];
    members.sort((one, other) => order.indexOf(one.state) - order.indexOf(other.state));
    this.body.replaceChildren(h('ul', {class: 'hg-members'}, members.slice(0, 500).map(({id, state}) => h('li', {}, badge(state),
      h('button', {type: 'button', class: 'hg-plain', onclick: () => this.open(id)}, id)))),
    members.length > 500 ? h('p', {class: 'hg-small'}, `and ${count(members.length - 500)} more: see Nodes`) : '');
  }

  reveal(title) {
    if (this.element.hidden) this.before = document.activeElement;
    this.element.hidden = false;
    this.title.textContent = title;
    this.title.focus();
  }

  close() {
    if (this.element.hidden) return;
    this.element.hidden = true;
    this.node = null;
    this.log.close();
    this.keep({node: null});
    this.before?.focus?.();
  }

  async again() {
    const node = this.node;
    if (node === null) return;
    try {
      const found = await this.read(node);
      const text = JSON.stringify(found);
      if (this.node !== node || text === this.shown) return;
      this.shown = text;
      this.draw(found);
    } catch (error) {
      if (this.node === node) this.body.replaceChildren(h('p', {class: 'alert alert-danger'}, error.message));
    }
  }

  draw(node) {
    const part = (title, ...content) => (content.flat().some((each) => each) ? h('section', {class: 'hg-part'}, h('h3', {}, title), content) : null);
    const code = (text, label) => h('pre', {class: 'detail-code', tabindex: '0', role: 'region', 'aria-label': label}, text);
    const state = node.outcome === 'skipped' && (node.reason || '').startsWith('not taken: ') ? 'not_taken' : node.outcome || node.state;
    const fact = (term, value) => (value === null || value === undefined || value === '' ? null : h('div', {class: 'detail-row'}, h('dt', {}, term), h('dd', {}, value)));
    const settings = Object.entries(node.spec).map(([name, value]) => fact(name, typeof value === 'object' ? JSON.stringify(value) : String(value)));
    this.body.replaceChildren(...[
      h('p', {}, badge(state), node.required ? null : h('span', {class: 'hg-small'}, ' optional'),
        node.adopted ? h('span', {class: 'hg-small'}, ` adopted from generation ${node.adopted}`) : null),
      node.reason ? h('p', {class: 'hg-reason'}, node.reason) : null,
      h('dl', {class: 'detail-list'}, fact('Task', node.task), fact('Worker', node.worker), fact('Variant', node.verdict),
        fact('Queued', node.queued_at && stamp(node.queued_at)), fact('Began', node.started_at && stamp(node.started_at)),
        fact('Ended', node.finished_at && stamp(node.finished_at)),
        fact('Took', node.started_at && node.finished_at ? duration(node.finished_at - node.started_at) : null),
        fact('Lost workers', node.lost || null),
        node.task_id ? fact('Celery', link(`/task/${encodeURIComponent(node.task_id)}`, 'task page')) : null),
      node.error ? part(node.error.type || 'Error', h('p', {class: 'hg-reason'}, node.error.message || ''), node.error.traceback ? code(node.error.traceback, 'Traceback') : null) : null,
      part('Attempts', node.tries.length ? table('attempts-table', 'Attempts', ['Attempt', 'Began', 'Took', 'Ended as', 'Worker'], node.tries.map((each) => [
        String(each.attempt), stamp(each.began), duration(each.ended === null ? null : each.ended - each.began),
        each.outcome === 'lost' ? 'worker lost' : each.outcome ? [(STATES[each.outcome] || ['', each.outcome])[1], each.delay_s === undefined ? '' : `, again after ${duration(each.delay_s)}`,
          each.error ? h('div', {class: 'hg-small'}, `${each.error.type || ''} ${each.error.message || ''}`) : null] : 'running',
        each.worker || '–'])) : null),
      node.tries.length || node.adopted ? part('Log', this.log.element) : null,
      part('Parameters', node.params === '{}' ? null : code(node.params, 'Parameters')),
      part('Result', node.result === null ? null : node.result.object ? h('p', {}, 'In the result store: ', h('code', {}, node.result.object)) : code(node.result.json, 'Result')),
      part('Cost', node.entries.length ? table('cost-table', 'Ledger entries', ['Attempt', 'Entry', 'Category', 'Amount', 'By'], node.entries.map((each) => [
        String(each.attempt), each.kind, each.category || '–', number(money(each.amount)), each.by])) : null,
      node.usage.map((each) => h('p', {class: 'hg-small'}, `Attempt ${each.attempt} used `, each.lines.map(([category, unit, quantity]) => `${quantity} ${unit} (${category})`).join(', '),
        each.prices ? ` by prices ${each.prices}` : ''))),
      part('Decisions', node.decisions.map((each) => h('p', {}, h('b', {}, each.action), ` ${each.reason} `, h('span', {class: 'hg-small'}, `${each.id}, ${stamp(each.at)}`)))),
      settings.length ? part('As submitted', h('dl', {class: 'detail-list'}, settings)) : null,
    ].filter(Boolean));
    this.log.show(node);
  }
}

