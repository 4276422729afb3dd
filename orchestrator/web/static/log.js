// The log of a node in its drawer: of the attempt that is chosen, and what comes of it while it runs. Lines are text, never markup.

import {clock, h, plural} from './console.js';

const ESCAPES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])/g;
const LOUD = {WARNING: 'warn', ERROR: 'bad', CRITICAL: 'bad', stderr: 'warn'};

export class Log {
  constructor(read) {
    this.read = read;
    this.chooser = h('select', {class: 'form-select form-select-sm d-inline-block w-auto', id: 'hg-log-attempt', onchange: () => this.choose(Number(this.chooser.value))});
    this.which = h('label', {class: 'hg-small hg-log-which', for: 'hg-log-attempt', hidden: true}, 'Attempt ', this.chooser);
    this.state = h('p', {class: 'hg-small', 'aria-live': 'polite'});
    this.lines = h('div', {class: 'detail-code hg-log', tabindex: '0', role: 'log', 'aria-label': 'Log', hidden: true, onscroll: () => this.mark()});
    this.top = null;
    this.element = h('div', {}, this.which, this.lines, this.state);
    this.node = null;
  }

  show(node) {
    // The node as its drawer has it: once when it is opened, and again whenever something about it has changed.
    if (this.node === null || this.node.id !== node.id || (this.node.adopted || null) !== (node.adopted || null)) this.clear(null);
    const newest = node.tries.length ? node.tries.at(-1).attempt : null;
    const followed = this.node === null || this.attempt === this.newest;
    this.node = node;
    this.newest = newest;
    this.which.hidden = node.tries.length < 2;
    this.chooser.replaceChildren(...node.tries.map((each) => h('option', {value: each.attempt, selected: each.attempt === (followed ? newest : this.attempt)}, String(each.attempt))));
    if (followed && this.attempt !== newest) this.clear(newest);
    if (newest !== null || node.adopted) this.again();
    else this.state.textContent = '';
    // The drawer was drawn anew, and what is put in place again is at its top.
    this.lines.scrollTop = this.top === null ? this.lines.scrollHeight : this.top;
  }

  mark() {
    const {scrollHeight, scrollTop, clientHeight} = this.lines;
    this.top = scrollHeight - scrollTop - clientHeight < 40 ? null : scrollTop;
  }

  choose(attempt) {
    this.clear(attempt);
    this.again();
  }

  clear(attempt) {
    this.attempt = attempt;
    this.last = 0;
    this.over = false;
    this.top = null;
    this.asked = (this.asked || 0) + 1;
    this.going = false;
    this.lines.replaceChildren();
    this.lines.hidden = true;
    this.state.textContent = '';
  }

  close() {
    this.clear(null);
    this.node = null;
  }

  // With each look of the page, while this attempt runs.
  async again() {
    if (this.node === null || this.over || this.going || (this.attempt === null && !this.node.adopted)) return;
    const asked = this.asked;
    this.going = true;
    try {
      const found = await this.read({id: this.node.id, after: this.last, ...(this.attempt === null ? {} : {attempt: this.attempt})}, this.node.adopted);
      if (asked === this.asked) this.add(found);
    } catch (error) {
      if (asked === this.asked) this.state.textContent = error.message;
    } finally {
      if (asked === this.asked) this.going = false;
    }
  }

  add(found) {
    const missing = found.missing ? [h('div', {class: 'hg-small'}, `${plural(found.missing, 'line')} not kept`)] : [];
    this.lines.append(...missing, ...found.lines.map(([number, at, level, logger, text]) => h('div', {class: `hg-line hg-${LOUD[level] || 'idle'}`, title: `${logger ? `${logger}, ` : ''}line ${number}`},
      h('span', {class: 'hg-line-at'}, clock(at)), h('span', {class: 'hg-line-level'}, level), h('span', {class: 'hg-line-text'}, text.replace(ESCAPES, '')))));
    if (found.lines.length) {
      this.last = found.lines.at(-1)[0];
      this.lines.hidden = false;
      if (this.top === null) this.lines.scrollTop = this.lines.scrollHeight;
    }
    this.over = found.over;
    this.state.textContent = !found.over ? 'It goes on.' : this.last ? '' : 'It said nothing.';
  }
}
