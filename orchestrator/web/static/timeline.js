// When nodes waited and ran: how many of both over time, and what ran on which worker, one lane for each thing that it did at once.

import {count, duration, h, STATES} from './console.js';

const LANE = 14, TOP = 110, LEFT = 170, GAP = 8;

export class Timeline {
  constructor(panel, choose) {
    this.choose = choose;
    this.bars = [];
    this.canvas = h('canvas', {class: 'hg-timeline', role: 'img'});
    this.tip = h('div', {class: 'hg-tip', hidden: true, role: 'status'});
    this.legend = h('p', {class: 'hg-legend'}, h('span', {class: 'hg-key hg-wait'}, h('span', {class: 'hg-swatch'}), 'nodes queued'), h('span', {class: 'hg-key hg-active'}, h('span', {class: 'hg-swatch'}), 'nodes running'),
      h('span', {class: 'hg-small'}, 'Below, by worker: pale is the time in line, solid the time at work. All of it is also a table under Nodes.'));
    this.box = h('div', {class: 'hg-timeline-box'}, this.canvas, this.tip);
    panel.append(this.legend, this.box);
    this.canvas.addEventListener('pointermove', (event) => this.hover(event));
    this.canvas.addEventListener('pointerleave', () => { this.tip.hidden = true; });
    this.canvas.addEventListener('click', (event) => { const found = this.hit(event); if (found) this.choose(found.index); });
    new ResizeObserver(() => this.show()).observe(this.box);
    new MutationObserver(() => this.show()).observe(document.documentElement, {attributeFilter: ['data-bs-theme']});
  }

  feed(drawing, nodes, nameOf, stateOf) {
    Object.assign(this, {nodes, nameOf, stateOf});
  }

  show() {
    const {nodes} = this, wide = this.box.clientWidth;
    if (!nodes || !wide) return;
    const now = nodes.now * 1000, work = [], changes = [];
    nodes.states.split('').forEach((letter, index) => {
      const queued = nodes.queued_at[index], began = nodes.started_at[index], ended = nodes.finished_at[index];
      if (queued !== null) { changes.push([queued, 1, 0]); changes.push([began ?? ended ?? now, -1, 0]); }
      if (began === null) return;
      const until = ended ?? (letter === 'r' ? now : began);
      changes.push([began, 0, 1], [until, 0, -1]);
      work.push({index, queued: queued ?? began, began, until, worker: nodes.worker[index]});
    });
    const style = getComputedStyle(this.canvas), colour = (name) => style.getPropertyValue(name).trim(), context = this.canvas.getContext('2d');
    if (!changes.length) {
      this.canvas.style.height = '60px';
      [this.canvas.width, this.canvas.height] = [wide, 60];
      context.fillStyle = style.color;
      context.font = '14px system-ui, sans-serif';
      context.fillText('Nothing has been queued yet.', 12, 34);
      return;
    }
    const first = Math.min(...extent(changes, Math.min)), last = Math.max(...extent(changes, Math.max), first + 1);
    const scale = (wide - LEFT - 12) / (last - first), x = (at) => LEFT + (at - first) * scale;

    // Lanes: what a worker did at the same time lies in different ones.
    work.sort((one, other) => one.began - other.began);
    const lanes = nodes.workers.map(() => []);
    for (const each of work) {
      const mine = lanes[each.worker] || (lanes[each.worker] = []);
      let lane = mine.findIndex((free) => free <= each.began);
      if (lane < 0) lane = mine.push(0) - 1;
      mine[lane] = each.until;
      each.lane = lane;
    }
    const tops = [];
    let height = TOP + 20;
    nodes.workers.forEach((_, at) => { tops[at] = height; height += Math.max(1, lanes[at].length) * LANE + GAP; });
    const ratio = devicePixelRatio || 1;
    this.canvas.style.height = `${height}px`;
    [this.canvas.width, this.canvas.height] = [wide * ratio, height * ratio];
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.font = '12px system-ui, sans-serif';
    context.textBaseline = 'middle';
    const muted = colour('--flower-text-muted');

    this.axis(context, first, last, x, height, muted, colour('--bs-border-color'));
    changes.sort((one, other) => one[0] - other[0]);
    let most = 1, queued = 0, running = 0;
    const line = changes.map(([at, wait, run]) => { queued += wait; running += run; most = Math.max(most, queued, running); return [x(at), queued, running]; });
    const y = (value) => TOP - (value / most) * (TOP - 24);
    for (const [at, name, alpha] of [[1, '--hg-wait', 0.25], [2, '--hg-active', 0.3]]) {
      context.beginPath();
      context.moveTo(LEFT, TOP);
      let before = 0;
      for (const point of line) { context.lineTo(point[0], y(before)); context.lineTo(point[0], y(point[at])); before = point[at]; }
      context.lineTo(line.at(-1)[0], TOP);
      context.globalAlpha = alpha;
      context.fillStyle = context.strokeStyle = colour(name);
      context.fill();
      context.globalAlpha = 1;
      context.stroke();
    }
    context.fillStyle = muted;
    context.textAlign = 'right';
    context.fillText(`at most ${count(most)}`, LEFT - 10, 30);
    context.fillText('0', LEFT - 10, TOP - 2);

    this.bars = [];
    nodes.workers.forEach((worker, at) => {
      context.fillStyle = style.color;
      context.fillText(worker.length > 23 ? `…${worker.slice(-22)}` : worker, LEFT - 10, tops[at] + LANE / 2);
    });
    context.textAlign = 'left';
    for (const each of work) {
      const [, , name] = STATES[this.stateOf(each.index)], from = x(each.began), width = Math.max(1.5, x(each.until) - from), top = (tops[each.worker] ?? TOP) + each.lane * LANE;
      context.fillStyle = colour(`--hg-${name}`);
      context.globalAlpha = 0.18;
      context.fillRect(x(each.queued), top + LANE / 2 - 2, from - x(each.queued), 3);
      context.globalAlpha = 1;
      context.fillRect(from, top + 1, width, LANE - 3);
      if (width > 70) {
        context.fillStyle = colour('--flower-surface');
        context.save();
        context.beginPath();
        context.rect(from, top, width - 3, LANE);
        context.clip();
        context.fillText(this.nameOf(each.index), from + 4, top + LANE / 2);
        context.restore();
      }
      this.bars.push({...each, from, to: from + width, top, bottom: top + LANE});
    }
    this.canvas.setAttribute('aria-label', `Timeline of ${count(work.length)} nodes on ${count(nodes.workers.length)} workers, ${duration((last - first) / 1000)} long`);
  }

  axis(context, first, last, x, height, muted, faint) {
    const span = (last - first) / 1000, step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400, 604800].find((each) => span / each <= 8) || 2592000;
    context.fillStyle = muted;
    context.strokeStyle = faint;
    context.textAlign = 'left';
    for (let at = 0; at <= span; at += step) {
      const place = Math.round(x(first + at * 1000)) + 0.5;
      context.beginPath();
      context.moveTo(place, 16);
      context.lineTo(place, height);
      context.stroke();
      context.fillText(at ? `+${duration(at)}` : new Date(first).toLocaleTimeString(), place + 3, 8);
    }
  }

  hit(event) {
    const {offsetX: x, offsetY: y} = event;
    return this.bars.find((bar) => x >= bar.from - 1 && x <= bar.to + 1 && y >= bar.top && y < bar.bottom);
  }

  hover(event) {
    const found = this.hit(event);
    this.tip.hidden = !found;
    this.canvas.style.cursor = found ? 'pointer' : '';
    if (!found) return;
    this.tip.textContent = `${this.nameOf(found.index)}: ${STATES[this.stateOf(found.index)][1]}, waited ${duration((found.began - found.queued) / 1000)}, took ${duration((found.until - found.began) / 1000)}`;
    this.tip.style.left = `${Math.min(event.offsetX + 12, this.box.clientWidth - 260)}px`;
    this.tip.style.top = `${event.offsetY + 16}px`;
  }
}

function extent(changes, of) {
  let found = changes[0][0];
  for (const [at] of changes) found = of(found, at);
  return [found];
}
