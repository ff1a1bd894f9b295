// What a test asks a page about its looks; it is there before the page's own script is.
'use strict';

globalThis.looks = (() => {
  // Least contrast of text and what is behind it: WCAG 2, level AA.
  const LEAST = 4.5;

  const channel = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);

  const parse = (text) => {
    const parts = /^rgba?\(([\d.]+), ([\d.]+), ([\d.]+)(?:, ([\d.]+))?\)$/.exec(text);
    if (!parts) throw new Error('not a colour that is understood here: ' + text);
    const [red, green, blue] = parts.slice(1, 4).map((part) => Number(part) / 255);
    return { red, green, blue, alpha: parts[4] === undefined ? 1 : Number(parts[4]) };
  };

  const light = ({ red, green, blue }) =>
    0.2126 * channel(red) + 0.7152 * channel(green) + 0.0722 * channel(blue);

  const over = (above, below) => {
    const mixed = (name) => above[name] * above.alpha + below[name] * (1 - above.alpha);
    return { red: mixed('red'), green: mixed('green'), blue: mixed('blue'), alpha: 1 };
  };

  const behind = (node) => {
    // Without any colour a browser shows its own paper.
    if (!node) return parse(matchMedia('(prefers-color-scheme: dark)').matches ? 'rgb(0, 0, 0)' : 'rgb(255, 255, 255)');
    const colour = parse(getComputedStyle(node).backgroundColor);
    return colour.alpha === 1 ? colour : over(colour, behind(node.parentElement));
  };

  const contrast = (colour, paper) => {
    const [a, b] = [light(over(colour, paper)), light(paper)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };

  // Each text that is shown: its node, how it is called here, and its colour.
  function* texts() {
    for (const node of document.body.querySelectorAll('*')) {
      if (!node.checkVisibility() || node.matches('option, script, noscript')) continue;
      const style = getComputedStyle(node);
      if (node.matches('input') && !node.value && node.placeholder) {
        yield [node, node.placeholder, getComputedStyle(node, '::placeholder').color];
      }
      const own = [...node.childNodes].filter((child) => child.nodeType === Node.TEXT_NODE);
      const text = own.map((child) => child.data.trim()).join(' ').trim();
      if (text || node.value) yield [node, text || node.value, node.matches('svg *') ? style.fill : style.color];
    }
  }

  // Texts that are hard to read, with what makes them so; and how many there are at all.
  const faint = () => {
    const found = [];
    let seen = 0;
    for (const [node, text, colour] of texts()) {
      seen += 1;
      const ratio = contrast(parse(colour), behind(node));
      if (ratio < LEAST) found.push(text.slice(0, 40) + ': ' + colour + ', contrast ' + ratio.toFixed(2));
    }
    return { seen, found };
  };

  // What reaches beyond a screen of this width, which would have to be pushed aside to be read.
  const wider = (width) => {
    const found = [];
    for (const node of document.body.querySelectorAll('*')) {
      const { left, right } = node.getBoundingClientRect();
      if (node.checkVisibility() && right > width + 0.5 && left >= 0) {
        found.push(node.tagName + ' ' + (node.id || node.className) + ' ends at ' + right);
      }
    }
    const all = document.scrollingElement.scrollWidth;
    return all > width ? [all + ' wide of ' + width, ...found] : [];
  };

  // Where the keyboard is, and whether somebody who looks can tell.
  const focus = () => {
    const node = document.activeElement;
    const style = getComputedStyle(node);
    const place = node.getBoundingClientRect();
    const isDrawn = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
    const isInView = place.bottom > 0 && place.top < innerHeight && place.right > 0 && place.left < innerWidth;
    return {
      at: node.id ? '@' + node.id : node.getAttribute('href') || node.tagName.toLowerCase(),
      isSeen: node.matches(':focus-visible') && isDrawn && isInView,
    };
  };

  return { faint, wider, focus };
})();
