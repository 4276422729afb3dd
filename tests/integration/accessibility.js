// What can be measured of a page as Chromium has drawn it: contrast of every text, tables, headings, ids. Returns sentences about what is wrong.
// Contrast is that of WCAG 2.2, 1.4.3 (https://www.w3.org/TR/WCAG22/#contrast-minimum), and 4.5 for large text as well.

(within) => {
  const LEAST = 4.5, wrong = new Set();
  const pen = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const roots = [...document.querySelectorAll(within)];

  function rgba(colour) {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = '#000';
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  }

  function over([r, g, b, a], below) {
    return [r, g, b].map((part, at) => part * a + below[at] * (1 - a));
  }

  function luminance(colour) {
    const [r, g, b] = colour.map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  function ratio(one, other) {
    const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  }

  function background(element) {
    // The colours that lie below an element's text, composed from the first opaque one up. Opacity of the text itself counts in `opacity`.
    const layers = [];
    for (let each = element; each; each = each.parentElement) {
      if (each instanceof SVGElement && !(each instanceof SVGSVGElement)) {
        // Shapes before it in the same group lie below it.
        for (const shape of [...each.children].filter((child) => child.matches('rect')).reverse()) {
          if (covers(shape, element)) layers.push(rgba(getComputedStyle(shape).fill));
        }
      } else {
        const style = getComputedStyle(each);
        if (style.backgroundImage.includes('gradient') && !each.matches('html, body')) wrong.add(`${named(element)} lies on a gradient, whose contrast is not one`);
        layers.push(rgba(style.backgroundColor));
      }
      if (layers.length && layers.at(-1)[3] === 1) break;
    }
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  }

  function covers(shape, element) {
    const [around, inner] = [shape.getBoundingClientRect(), element.getBoundingClientRect()];
    const [x, y] = [(inner.left + inner.right) / 2, (inner.top + inner.bottom) / 2];
    const before = shape.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING;
    return before && x >= around.left && x <= around.right && y >= around.top && y <= around.bottom;
  }

  function opacity(element) {
    let all = 1;
    for (let each = element; each; each = each.parentElement) all *= Number(getComputedStyle(each).opacity);
    return all;
  }

  function named(element) {
    const words = (element.getAttribute('aria-label') || element.textContent || '').trim().replace(/\s+/g, ' ').slice(0, 40);
    const inside = element.closest('[id]');
    return `<${element.nodeName.toLowerCase()}${element.getAttribute('class') ? ` class="${element.getAttribute('class')}"` : ''}> "${words}"${inside && inside !== element ? ` in #${inside.id}` : ''}`;
  }

  function legible(element, colour, what) {
    const below = background(element), [r, g, b, a] = rgba(colour);
    const found = ratio(over([r, g, b, a * opacity(element)], below), below);
    if (found < LEAST) wrong.add(`${what} ${named(element)}: contrast ${found.toFixed(2)}, ${colour} on rgb(${below.map(Math.round)})`);
  }

  const seen = (element) => element.checkVisibility({opacityProperty: true, visibilityProperty: true}) && element.getBoundingClientRect().width > 1;
  let texts = 0;
  for (const root of roots) {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    for (let text = walker.nextNode(); text; text = walker.nextNode()) {
      const element = text.parentElement;
      if (!text.data.trim() || !seen(element) || element.matches('title, option, script, style') || element.closest(':disabled')) continue;
      const style = getComputedStyle(element);
      legible(element, element instanceof SVGElement ? style.fill : style.color, 'text');
      texts += 1;
    }
    for (const control of root.querySelectorAll('input:not([type=checkbox]), select, textarea')) {
      if (!seen(control) || control.disabled) continue;
      legible(control, getComputedStyle(control).color, 'what is typed into');
      if (control.placeholder) legible(control, getComputedStyle(control, '::placeholder').color, 'the hint of');
    }
    for (const table of root.querySelectorAll('table')) {
      const heads = [...table.querySelectorAll('thead th')];
      if (!heads.length) wrong.add(`${named(table)} has no headings`);
      for (const head of table.querySelectorAll('th')) {
        if (!head.scope) wrong.add(`${named(head)} says not what it heads`);
        if (!head.textContent.trim() && !head.querySelector('[aria-label]')) wrong.add(`a heading of ${table.id || named(table)} is empty`);
      }
      for (const row of table.querySelectorAll('tbody tr')) {
        const wide = [...row.cells].reduce((sum, cell) => sum + cell.colSpan, 0);
        if (wide !== heads.reduce((sum, head) => sum + head.colSpan, 0)) wrong.add(`a row of ${table.id || named(table)} has ${wide} cells for ${heads.length} headings`);
      }
    }
    for (const list of root.querySelectorAll('ul, ol, dl')) {
      for (const child of list.children) {
        if (!child.matches(list.matches('dl') ? 'dt, dd, div' : 'li')) wrong.add(`${named(child)} is no member of the list that it is in`);
      }
    }
    for (const hidden of root.querySelectorAll('[aria-hidden="true"]')) {
      if (hidden.matches('a, button, input, [tabindex="0"]') || hidden.querySelector('a, button, input, select, [tabindex="0"]')) wrong.add(`${named(hidden)} is hidden and can have the focus`);
    }
    for (const picture of root.querySelectorAll('svg[role=img], canvas[role=img], img, [role=img]')) {
      if (seen(picture) && !picture.getAttribute('aria-label') && !picture.alt) wrong.add(`${named(picture)} is a picture without words`);
    }
  }
  let level = 0;
  for (const heading of [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].filter(seen)) {
    const own = Number(heading.nodeName[1]);
    if (own > level + 1) wrong.add(`${named(heading)} follows a heading of level ${level}`);
    level = own;
  }
  if ([...document.querySelectorAll('h1')].filter(seen).length !== 1) wrong.add('there is not one first heading');
  if (!document.documentElement.lang) wrong.add('the page says no language');
  if (!document.title.trim()) wrong.add('the page has no title');
  const ids = [...document.querySelectorAll('[id]')].map((each) => each.id);
  for (const id of new Set(ids.filter((each, at) => ids.indexOf(each) !== at))) wrong.add(`there are two of #${id}`);
  for (const name of ['aria-labelledby', 'aria-describedby', 'aria-controls', 'for']) {
    for (const element of document.querySelectorAll(`[${name}]`)) {
      for (const id of element.getAttribute(name).split(/\s+/)) if (!document.getElementById(id)) wrong.add(`${named(element)} leads by ${name} to #${id}, which is not there`);
    }
  }
  return {wrong: [...wrong].sort(), texts};
}
