// What our pages' scripts share: elements made of text (never of markup), asking the console, polling, and words for states, times, money.

export const page = document.getElementById('hg-page');
export const prefix = (document.getElementById('hg-banner') || {dataset: {}}).dataset.prefix || '';
export const readOnly = page !== null && page.dataset.readOnly === '1';

export const STATES = {
  // word: [glyph, how it is called, which colour]
  submitted: ['◌', 'submitted', 'idle'], held: ['‖', 'held', 'wait'], running: ['▶', 'running', 'active'],
  cancelling: ['⊘', 'cancelling', 'wait'], refused: ['⊗', 'refused', 'bad'], succeeded: ['✓', 'succeeded', 'good'],
  degraded: ['◐', 'degraded', 'warn'], failed: ['✕', 'failed', 'bad'], cancelled: ['⊘', 'cancelled', 'idle'],
  terminated_by_cost: ['¤', 'terminated by cost', 'bad'], timed_out: ['◷', 'timed out', 'bad'], skipped: ['»', 'skipped', 'warn'],
  upstream_failed: ['↧', 'upstream failed', 'idle'], not_taken: ['·', 'not taken', 'idle'], pending: ['○', 'pending', 'idle'],
  due: ['…', 'queued', 'wait'], paused: ['‖', 'paused', 'wait'], missed: ['✕', 'missed', 'bad'],
};

export function h(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key === 'value' || key === 'checked' || key === 'disabled' || key === 'indeterminate') element[key] = value;
    else element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function link(path, text, attributes) {
  return h('a', {href: prefix + path, ...attributes}, text);
}

export function badge(state, text) {
  const [glyph, word, colour] = STATES[state] || ['?', state, 'idle'];
  return h('span', {class: `hg-state hg-${colour}`}, h('span', {class: 'hg-glyph', 'aria-hidden': 'true'}, glyph), text || word);
}

// -- words ------------------------------------------------------------------------------------------------------------

export function exactMoney(micros) {
  const sign = micros < 0 ? '−' : '', all = Math.abs(micros);
  return `${sign}${Math.floor(all / 1e6).toLocaleString('en')}.${String(all % 1e6).padStart(6, '0').replace(/0{1,4}$/, '')}`;
}

export function money(micros) {
  // To a hundredth of a cent, where that says something; the exact amount is its title.
  if (micros === null || micros === undefined) return h('span', {class: 'hg-none'}, '–');
  const exact = exactMoney(micros), tiny = micros !== 0 && Math.abs(micros) < 50;
  const rounded = tiny ? exact : exactMoney(Math.round(micros / 100) * 100).replace(/\.(\d+)$/, (all, digits) => `.${digits.slice(0, 4).padEnd(4, '0')}`);
  return h('span', {class: 'hg-money', title: exact}, rounded);
}

export function count(number) {
  return number === null || number === undefined ? '–' : number.toLocaleString('en');
}

export function plural(number, one, many) {
  return `${count(number)} ${number === 1 ? one : many || `${one}s`}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  if (seconds < 0.95) return `${Math.round(Math.max(0, seconds) * 1000)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const total = Math.round(seconds), days = Math.floor(total / 86400), hours = Math.floor(total / 3600) % 24;
  const minutes = Math.floor(total / 60) % 60;
  if (days) return `${days} d ${hours} h`;
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${total % 60} s`;
}

function coarse(seconds) {
  const [size, unit] = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']].find(([each]) => seconds >= each) || [1, 's'];
  return `${Math.floor(seconds / size)} ${unit}`;
}

export function between(since, until) {
  return since === null || since === undefined || until === null || until === undefined ? null : Math.max(0, until - since);
}

export function stamp(at) {
  if (at === null || at === undefined) return '–';
  const time = new Date(at * 1000), two = (number) => String(number).padStart(2, '0');
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

export function clock(at) {
  return `${stamp(at).slice(11)}.${String(Math.floor(at * 1000) % 1000).padStart(3, '0')}`;
}

export function ago(at, now) {
  if (at === null || at === undefined) return h('span', {class: 'hg-none'}, '–');
  const passed = now - at;
  const words = passed < 0 ? `in ${coarse(-passed)}` : passed < 1 ? 'now' : `${coarse(passed)} ago`;
  return h('time', {datetime: new Date(at * 1000).toISOString(), title: stamp(at)}, words);
}

// -- the console ------------------------------------------------------------------------------------------------------

export class Told extends Error {}

export async function ask(path, signal) {
  const reply = await fetch(prefix + path, {headers: {Accept: 'application/json'}, cache: 'no-cache', signal});
  return answered(reply);
}

export async function act(path, body) {
  const token = (document.cookie.match(/(?:^|; )_xsrf=([^;]*)/) || [])[1] || '';
  const headers = {'Content-Type': 'application/json', 'X-XSRFToken': decodeURIComponent(token)};
  return answered(await fetch(prefix + path, {method: 'POST', headers, body: JSON.stringify(body || {})}));
}

async function answered(reply) {
  if (!(reply.headers.get('Content-Type') || '').startsWith('application/json')) {
    throw new Told(reply.status === 401 || reply.redirected ? 'You are signed out; load the page again.' : `The console answered ${reply.status}.`);
  }
  const body = await reply.json();
  if (!reply.ok) throw new Told(body.error || `The console answered ${reply.status}.`);
  return body;
}

export function live(look, seconds) {
  // Calls `look` again and again: not while the page is hidden, and no more once it returns false. Errors are shown until it works again.
  let timer = null, going = false, over = false;
  async function step() {
    if (going || over) return;
    going = true;
    clearTimeout(timer);
    try {
      over = (await look()) === false;
      problem(null);
    } catch (error) {
      if (error.name !== 'AbortError') problem(error instanceof Told ? error.message : 'The console does not answer; it is asked again.');
      if (!(error instanceof Told) && !(error instanceof TypeError) && error.name !== 'AbortError') console.error(error);
    } finally {
      going = false;
    }
    if (!over && !document.hidden) timer = setTimeout(step, seconds * 1000);
  }
  document.addEventListener('visibilitychange', () => (document.hidden ? clearTimeout(timer) : step()));
  step();
  return {again: () => { over = false; step(); }};
}

export function problem(text) {
  let shown = document.getElementById('hg-problem');
  if (text === null) {
    if (shown) shown.remove();
    return;
  }
  if (!shown) {
    shown = h('p', {id: 'hg-problem', class: 'alert alert-danger', role: 'alert'});
    page.prepend(shown);
  }
  shown.textContent = text;
}

export function say(text, bad) {
  const shown = h('div', {class: `toast show hg-toast ${bad ? 'hg-toast-bad' : ''}`, role: bad ? 'alert' : 'status'},
    h('div', {class: 'toast-body'}, text));
  document.getElementById('toast-container').append(shown);
  setTimeout(() => shown.remove(), bad ? 12000 : 5000);
}

export function confirmed(title, text, word) {
  // Asks for a reason in a dialog; resolves to it, or to null where nothing is to be done.
  return new Promise((resolve) => {
    const reason = h('input', {class: 'form-control', id: 'hg-reason', maxlength: 500, placeholder: 'goes on record'});
    const dialog = h('dialog', {class: 'hg-dialog', 'aria-labelledby': 'hg-dialog-title'},
      h('form', {method: 'dialog'},
        h('h2', {id: 'hg-dialog-title'}, title), h('p', {}, text),
        h('label', {class: 'form-label', for: 'hg-reason'}, 'Reason'), reason,
        h('div', {class: 'hg-dialog-acts'},
          h('button', {class: 'btn btn-outline-secondary', value: 'no', formnovalidate: true}, 'Leave it'),
          h('button', {class: 'btn btn-primary', value: 'yes'}, word))));
    // Enter in the reason submits the first button there is: that must be the one that acts.
    reason.addEventListener('keydown', (event) => {
      if (event.key === 'Enter') { event.preventDefault(); dialog.close('yes'); }
    });
    dialog.addEventListener('close', () => { dialog.remove(); resolve(dialog.returnValue === 'yes' ? reason.value : null); });
    document.body.append(dialog);
    dialog.showModal();
    reason.focus();
  });
}

export function bar(counts, total, words) {
  // A progress bar of stacked parts, [state, number], with its text for who does not see it.
  const known = counts.filter(([, number]) => number > 0);
  return h('div', {class: 'hg-bar', role: 'img', 'aria-label': words, title: words},
    known.map(([state, number]) => h('span', {
      class: `hg-${(STATES[state] || ['', '', 'idle'])[2]}`, style: `width:${(100 * number) / Math.max(1, total)}%`,
    })));
}

export function table(id, label, headings, rows, empty) {
  const cell = (content) => (content instanceof Node && ['TD', 'TH'].includes(content.nodeName) ? content : h('td', {}, content));
  rows = rows.map((cells) => (cells instanceof Node ? cells : h('tr', {}, cells.map(cell))));
  const right = (at) => (rows.length && rows[0].cells[at]?.classList.contains('text-end') ? 'text-end' : null);
  return h('div', {class: 'hg-table', tabindex: '0', role: 'region', 'aria-label': label},
    h('table', {id, class: 'table table-hover align-middle mb-0'},
      h('thead', {}, h('tr', {}, headings.map((heading, at) => (heading instanceof Node ? heading : h('th', {scope: 'col', class: right(at)}, heading))))),
      h('tbody', {}, rows.length ? rows : h('tr', {}, h('td', {colspan: headings.length, class: 'hg-empty'}, empty)))));
}

export function number(content) {
  return h('td', {class: 'text-end'}, content);
}
