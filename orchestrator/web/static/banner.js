// The banner on every page, Flower's own among them: what is paused, and whose limits are only observed.

import {ask, h, link, stamp} from './console.js';

const banner = document.getElementById('hg-banner');
let shown = '';

function named(some) {
  const rest = some.count - some.names.length;
  return some.names.join(', ') + (rest > 0 ? ` and ${rest} more` : '');
}

function lines(found) {
  const told = [];
  if (found.platform) {
    const {by, reason, at} = found.platform;
    told.push([`The platform is paused since ${stamp(at)} by ${by}${reason ? `: ${reason}` : ''}. Nothing begins.`, null]);
  }
  if (found.tenants.count) told.push([`Paused: ${found.tenants.count === 1 ? 'tenant' : 'tenants'} ${named(found.tenants)}.`, '/tenants']);
  if (found.runs.count) told.push([`Paused: ${found.runs.count === 1 ? 'run' : 'runs'} ${named(found.runs)}.`, '/runs']);
  if (found.observed.count) told.push([`Limits are only observed, not enforced, of ${named(found.observed)}.`, '/tenants']);
  if (found.off.count) told.push([`Limits are off for ${named(found.off)}.`, '/tenants']);
  return told;
}

async function look() {
  try {
    const told = lines(await ask('/console/banner'));
    const text = JSON.stringify(told);
    if (text !== shown) {
      shown = text;
      banner.replaceChildren(...told.map(([words, path]) => h('p', {},
        h('span', {'aria-hidden': 'true', class: 'hg-glyph'}, '‖'), words, path ? [' ', link(path, 'Show', {})] : null)));
    }
  } catch {
    // The page itself says when the console is away.
  }
}

let timer = null;
function step() {
  clearTimeout(timer);
  if (!document.hidden) look().finally(() => { timer = setTimeout(step, 10000); });
}
document.addEventListener('visibilitychange', step);
document.addEventListener('hg-acted', step);
step();
