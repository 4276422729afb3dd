// The drawing of a graph: SVG up to some hundred boxes, a canvas above; pan, zoom, search, the first failure.

import {count, h, STATES, svg} from './console.js';

const SVG_MAX = 400;
const LETTERS = {p: 'pending', q: 'due', r: 'running', s: 'succeeded', f: 'failed', t: 'timed_out', k: 'skipped', x: 'cancelled', u: 'upstream_failed', n: 'not_taken'};
const WORST = 'ftrqxuknps';

export class GraphView {
  constructor(panel, choose) {
    this.choose = choose;
    this.drawing = this.nodes = this.painter = null;
    this.view = null;
    this.marked = new Set();
    this.at = -1;
    this.search = h('input', {type: 'search', id: 'hg-graph-search', class: 'form-control form-control-sm', placeholder: 'node or task', oninput: () => this.find(0)});
    this.search.addEventListener('keydown', (event) => { if (event.key === 'Enter') { event.preventDefault(); this.find(event.shiftKey ? -1 : 1); } });
    this.found = h('span', {class: 'hg-small', role: 'status'});
    this.failure = h('button', {type: 'button', class: 'btn btn-outline-danger btn-sm', id: 'hg-first-failure', hidden: true, onclick: () => this.jump()}, 'First failure');
    const zoom = (sign, label, by) => h('button', {type: 'button', class: 'btn btn-outline-secondary btn-sm', 'aria-label': label, onclick: () => this.zoom(by)}, sign);
    this.stage = h('div', {class: 'hg-stage', tabindex: '0', role: 'group', 'aria-label': 'Graph of the run: arrow keys move it, plus and minus zoom'});
    this.legend = h('p', {class: 'hg-legend'});
    panel.append(h('div', {class: 'hg-graph-bar'}, h('label', {class: 'visually-hidden', for: 'hg-graph-search'}, 'Search the graph'), this.search, this.found, this.failure,
      h('span', {class: 'hg-zoom'}, zoom('−', 'Zoom out', 1 / 1.3), zoom('+', 'Zoom in', 1.3),
        h('button', {type: 'button', class: 'btn btn-outline-secondary btn-sm', onclick: () => { this.fit(); this.paint(); }}, 'Fit'))), this.stage, this.legend);
    this.listen();
    new ResizeObserver(() => { if (this.drawing && this.stage.clientWidth) { if (!this.view) this.fit(); this.paint(); } }).observe(this.stage);
    new MutationObserver(() => this.paint()).observe(document.documentElement, {attributeFilter: ['data-bs-theme']});
  }

  draw(drawing) {
    this.drawing = drawing;
    this.view = null;
    this.marked.clear();
    this.painter = new (drawing.boxes.length > SVG_MAX ? OnCanvas : InSvg)(this);
    this.stage.replaceChildren(this.painter.element);
    this.stage.dataset.painter = drawing.boxes.length > SVG_MAX ? 'canvas' : 'svg';
  }

  colour(nodes) {
    this.nodes = nodes;
    const failed = [...nodes.states].map((letter, index) => ('ft'.includes(letter) ? [nodes.finished_at[index] ?? Infinity, index] : null)).filter(Boolean);
    failed.sort((one, other) => one[0] - other[0]);
    this.first = failed.length ? failed[0][1] : null;
    this.failure.hidden = this.first === null;
    // What came later than the graph, items of a map say, is part of the box of the node that it is named after.
    const own = new Map(this.drawing.ids.map((id, index) => [id, index])), more = new Map();
    nodes.more.forEach((id, offset) => {
      let name = id;
      while (name && !own.has(name)) name = name.slice(0, Math.max(0, name.lastIndexOf('.')));
      if (name) more.set(own.get(name), [...(more.get(own.get(name)) || []), this.drawing.ids.length + offset]);
    });
    this.members = this.drawing.boxes.map(([, , members]) => (more.size ? members.flatMap((index) => [index, ...(more.get(index) || [])]) : members));
    this.letters = this.members.map((members) => {
      if (members.length === 1) return nodes.states[members[0]];
      let worst = WORST.length - 1;
      for (const index of members) worst = Math.min(worst, WORST.indexOf(nodes.states[index]));
      return WORST[worst];
    });
    const counts = {};
    for (const letter of nodes.states) counts[letter] = (counts[letter] || 0) + 1;
    this.legend.replaceChildren(...Object.keys(LETTERS).filter((letter) => counts[letter]).map((letter) => {
      const [glyph, word, colour] = STATES[LETTERS[letter]];
      return h('span', {class: `hg-${colour} hg-key`}, h('span', {class: 'hg-glyph', 'aria-hidden': 'true'}, glyph), `${word} ${count(counts[letter])}`);
    }));
  }

  show() {
    if (!this.stage.clientWidth) return;
    if (!this.view) this.fit();
    this.paint();
  }

  paint() {
    if (this.view && this.nodes && this.stage.clientWidth) this.painter.paint();
  }

  label(at) {
    const members = this.members[at], id = this.drawing.ids[members[0]];
    if (members.length === 1) return id;
    const task = this.drawing.tasks[this.drawing.task[members[0]]];
    const same = this.drawing.boxes[at][2].length === 1 ? id : task.split('.').at(-1);
    return `${same} ×${count(members.length)}`;
  }

  words(at) {
    const members = this.members[at], counts = {};
    for (const index of members) counts[this.nodes.states[index]] = (counts[this.nodes.states[index]] || 0) + 1;
    const task = this.drawing.tasks[this.drawing.task[this.drawing.boxes[at][2][0]]];
    return `${this.label(at)}, ${task}: ${Object.entries(counts).map(([letter, number]) => `${members.length > 1 ? `${number} ` : ''}${STATES[LETTERS[letter]][1]}`).join(', ')}`;
  }

  // -- moving about ---------------------------------------------------------------------------------------------------

  fit() {
    const {width, height} = this.drawing, wide = this.stage.clientWidth, high = this.stage.clientHeight;
    const scale = Math.max(0.02, Math.min(1.2, (wide - 40) / width, (high - 40) / height));
    this.view = {scale, x: (wide - width * scale) / 2, y: (high - height * scale) / 2};
    if (scale < 0.25) Object.assign(this.view, {scale: 0.5, x: 20, y: high / 2 - (height * 0.5) / 2});
  }

  zoom(by, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    const scale = Math.max(0.02, Math.min(3, this.view.scale * by)), real = scale / this.view.scale;
    this.view = {scale, x: x - (x - this.view.x) * real, y: y - (y - this.view.y) * real};
    this.paint();
  }

  centre(at) {
    const [x, y] = this.drawing.boxes[at], [wide, high] = this.drawing.box, scale = Math.max(0.8, this.view.scale);
    this.view = {scale, x: this.stage.clientWidth / 2 - (x + wide / 2) * scale, y: this.stage.clientHeight / 2 - (y + high / 2) * scale};
  }

  find(step) {
    const part = this.search.value.toLowerCase().trim();
    this.marked.clear();
    if (part) {
      this.members.forEach((members, at) => {
        if (this.drawing.tasks[this.drawing.task[this.drawing.boxes[at][2][0]]].toLowerCase().includes(part) || members.some((index) => this.name(index).toLowerCase().includes(part))) this.marked.add(at);
      });
    }
    const all = [...this.marked];
    this.at = all.length ? (step ? (this.at + step + all.length) % all.length : 0) : -1;
    this.found.textContent = !part ? '' : all.length ? `${count(this.at + 1)} of ${count(all.length)}` : 'not found';
    if (all.length) this.centre(all[this.at]);
    this.paint();
  }

  name(index) {
    return index < this.drawing.ids.length ? this.drawing.ids[index] : this.nodes.more[index - this.drawing.ids.length];
  }

  jump() {
    const at = this.members.findIndex((members) => members.includes(this.first));
    if (at >= 0) {
      this.marked = new Set([at]);
      this.centre(at);
      this.paint();
    }
    this.choose([this.first]);
  }

  listen() {
    let from = null, moved = false;
    this.stage.addEventListener('wheel', (event) => {
      event.preventDefault();
      const box = this.stage.getBoundingClientRect();
      this.zoom(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
    }, {passive: false});
    this.stage.addEventListener('pointerdown', (event) => { if (event.button === 0) { from = [event.clientX, event.clientY]; moved = false; } });
    window.addEventListener('pointermove', (event) => {
      if (!from) return;
      const [x, y] = [event.clientX - from[0], event.clientY - from[1]];
      if (!moved && Math.hypot(x, y) < 4) return;
      moved = true;
      from = [event.clientX, event.clientY];
      this.view = {...this.view, x: this.view.x + x, y: this.view.y + y};
      this.paint();
    });
    window.addEventListener('pointerup', (event) => {
      const clicked = from && !moved && this.stage.contains(event.target);
      from = null;
      if (!clicked) return;
      const box = this.stage.getBoundingClientRect(), at = this.hit((event.clientX - box.left - this.view.x) / this.view.scale, (event.clientY - box.top - this.view.y) / this.view.scale);
      if (at >= 0) this.choose(this.members[at]);
    });
    this.stage.addEventListener('keydown', (event) => {
      const step = {ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60]}[event.key];
      if (step) this.view = {...this.view, x: this.view.x + step[0], y: this.view.y + step[1]};
      else if (event.key === '+' || event.key === '=') this.zoom(1.3);
      else if (event.key === '-') this.zoom(1 / 1.3);
      else return;
      event.preventDefault();
      this.paint();
    });
  }

  hit(x, y) {
    const [wide, high] = this.drawing.box;
    return this.drawing.boxes.findIndex(([left, top]) => x >= left && x <= left + wide && y >= top && y <= top + high);
  }
}

function points(drawing, edge) {
  const [wide, high] = drawing.box, [source, target, ...bends] = edge, [x, y] = drawing.boxes[source], [toX, toY] = drawing.boxes[target];
  const column = bends.length ? (toX - x) / (bends.length + 1) : 0;
  return [[x + wide, y + high / 2], ...bends.map((bend, at) => [x + column * (at + 1) + wide / 2, bend + high / 2]), [toX, toY + high / 2]];
}

class InSvg {
  constructor(of) {
    this.of = of;
    const {drawing} = of, [wide, high] = drawing.box;
    this.edges = svg('g', {class: 'hg-edges'}, drawing.edges.map((edge) => {
      const [[x, y], ...rest] = points(drawing, edge);
      let path = `M${x},${y}`, before = [x, y];
      for (const [toX, toY] of rest) { const half = (before[0] + toX) / 2; path += ` C${half},${before[1]} ${half},${toY} ${toX},${toY}`; before = [toX, toY]; }
      return svg('path', {d: path});
    }));
    this.boxes = drawing.boxes.map(([x, y, members], at) => {
      const box = svg('g', {class: 'hg-box', transform: `translate(${x},${y})`, tabindex: '0', role: 'button'},
        members.length > 1 ? svg('rect', {class: 'hg-box-behind', x: 5, y: -5, width: wide, height: high, rx: 7}) : null,
        svg('rect', {class: 'hg-box-front', width: wide, height: high, rx: 7}), svg('text', {class: 'hg-box-glyph', x: 10, y: high / 2 + 5}), svg('text', {class: 'hg-box-name', x: 30, y: high / 2 + 4.5}), svg('title', {}));
      box.addEventListener('keydown', (event) => { if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); of.choose(of.members[at]); } });
      box.addEventListener('focus', () => { if (box.matches(':focus-visible')) { of.centre(at); of.paint(); } });
      return box;
    });
    this.all = svg('g', {}, this.edges, this.boxes);
    this.element = svg('svg', {class: 'hg-svg', width: '100%', height: '100%'}, this.all);
  }

  paint() {
    const {of} = this, {x, y, scale} = of.view;
    this.all.setAttribute('transform', `translate(${x},${y}) scale(${scale})`);
    this.boxes.forEach((box, at) => {
      const letter = of.letters[at], [glyph, , colour] = STATES[LETTERS[letter]], name = of.label(at);
      box.setAttribute('class', `hg-box hg-${colour} ${letter === 'r' ? 'hg-going' : ''} ${of.marked.has(at) ? 'hg-marked' : ''}`);
      const words = of.words(at);
      if (box.getAttribute('aria-label') === words) return;
      box.setAttribute('aria-label', words);
      box.lastChild.textContent = words;
      box.querySelector('.hg-box-glyph').textContent = glyph;
      box.querySelector('.hg-box-name').textContent = name.length > 20 ? `${name.slice(0, 19)}…` : name;
    });
  }
}

class OnCanvas {
  constructor(of) {
    this.of = of;
    this.element = h('canvas', {class: 'hg-canvas', 'aria-hidden': 'true'});
    this.asked = false;
  }

  paint() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => { this.asked = false; this.now(); });
  }

  now() {
    const {of, element} = this, {drawing} = of, ratio = devicePixelRatio || 1, wide = of.stage.clientWidth, high = of.stage.clientHeight;
    if (!wide || !of.view) return;
    if (element.width !== Math.round(wide * ratio) || element.height !== Math.round(high * ratio)) {
      [element.width, element.height] = [Math.round(wide * ratio), Math.round(high * ratio)];
    }
    const style = getComputedStyle(element), colours = {}, context = element.getContext('2d'), {x, y, scale} = of.view;
    for (const name of ['good', 'bad', 'warn', 'active', 'wait', 'idle']) colours[name] = style.getPropertyValue(`--hg-${name}`).trim();
    const surface = style.getPropertyValue('--flower-surface').trim(), text = style.getPropertyValue('color');
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, wide, high);
    context.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * x, ratio * y);
    const [left, top, right, bottom] = [-x / scale, -y / scale, (wide - x) / scale, (high - y) / scale], [boxWide, boxHigh] = drawing.box;
    context.strokeStyle = style.getPropertyValue('--flower-text-muted').trim();
    context.globalAlpha = 0.35;
    context.lineWidth = Math.max(0.6, 0.8 / scale);
    context.beginPath();
    for (const edge of drawing.edges) {
      const [sx, sy] = drawing.boxes[edge[0]], [tx, ty] = drawing.boxes[edge[1]];
      if (Math.max(sx + boxWide, tx) < left || Math.min(sx, tx) > right || Math.max(sy, ty) + boxHigh < top || Math.min(sy, ty) > bottom) continue;
      const [first, ...rest] = points(drawing, edge);
      context.moveTo(...first);
      let before = first;
      for (const point of rest) {
        const half = (before[0] + point[0]) / 2;
        if (scale < 0.3) context.lineTo(...point); else context.bezierCurveTo(half, before[1], half, point[1], ...point);
        before = point;
      }
    }
    context.stroke();
    context.globalAlpha = 1;
    context.font = '13px system-ui, sans-serif';
    context.textBaseline = 'middle';
    drawing.boxes.forEach(([bx, by], at) => {
      if (bx + boxWide < left || bx > right || by + boxHigh < top || by > bottom) return;
      const [glyph, , name] = STATES[LETTERS[of.letters[at]]];
      context.fillStyle = scale < 0.25 ? colours[name] : surface;
      context.strokeStyle = colours[name];
      context.lineWidth = of.marked.has(at) ? 5 : 1.5;
      context.beginPath();
      context.roundRect(bx, by, boxWide, boxHigh, 7);
      context.fill();
      context.stroke();
      if (scale >= 0.25) {
        context.fillStyle = colours[name];
        context.fillText(glyph, bx + 10, by + boxHigh / 2);
        if (scale > 0.45) {
          const label = of.label(at);
          context.fillStyle = text;
          context.fillText(label.length > 20 ? `${label.slice(0, 19)}…` : label, bx + 30, by + boxHigh / 2);
        }
      }
    });
  }
}
