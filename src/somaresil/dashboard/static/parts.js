// What the views are made of: badges, dialogs, tables, curves.
import {html, useEffect, useLayoutEffect, useRef, useState} from './vendor/htm-preact.module.js';
import {set, setNow, store} from './live.js';
import {NONE, count, figure, plain, seconds, spaced, time} from './words.js';

// States are told by a shape and a word; the colour only repeats them.
const SHAPES = {
  disc: html`<circle cx="6" cy="6" r="5" />`,
  block: html`<path d="M1 1h10v10H1z" />`,
  half: html`<circle cx="6" cy="6" r="4" class="rim" /><path d="M6 2v8a4 4 0 0 0 0-8" />`,
  ring: html`<circle cx="6" cy="6" r="4" class="rim" />`,
  bolt: html`<path d="M7 0 2 7h3l-1 5 6-7H7z" />`,
  wedge: html`<path d="M6 1 11.5 11H.5z" />`,
};
const LOOKS = new Map(Object.entries({
  'disc good': 'closed live in promoted',
  'block bad': 'open forced_open missing out error critical page rolled_back',
  'half warn': 'half_open ramping stale paused',
  'wedge warn': 'warning ticket',
  'half accent': 'tried',
  'bolt chaos': 'running',
  'ring chaos': 'scheduled',
}).flatMap(([look, states]) => states.split(' ').map(state => [state, look.split(' ')])));
const look = state => LOOKS.get(state) || ['ring', 'calm'];
export const STATES = ['forced_open', 'open', 'half_open', 'ramping', 'disabled', 'metrics_only', 'closed'];
export const toneOf = state => look(state)[1];

export function Badge({state, text}) {
  if (state == null && !text) return html`<span class="muted">none</span>`;
  const [shape, tone] = look(state);
  return html`<span class=${`badge ${tone}`}>
    <svg viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">${SHAPES[shape]}</svg>${text || spaced(state)}</span>`;
}

export const Name = ({children}) => html`<bdi class="name">${plain(children)}</bdi>`;
export const GuardLink = ({name}) => html`<a href=${`#/guards/${encodeURIComponent(name)}`}><${Name}>${name}<//></a>`;
export const SloLink = ({name}) => html`<a href=${`#/slos/${encodeURIComponent(name)}`}><${Name}>${name}<//></a>`;
export const Fact = ({name, children, tone}) => html`<div class="fact"><dt>${name}</dt><dd class=${tone}>${children}</dd></div>`;
export const errorTone = value => (value >= 0.05 ? 'bad' : value >= 0.01 ? 'warn' : '');

// A part of a whole as a bar; the figure stands beside it.
export const Bar = ({value, tone}) => html`<svg class=${`bar ${tone}`} viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
  <rect class="rail" width="100" height="8" /><rect width=${Math.max(0, Math.min(1, value || 0)) * 100} height="8" /></svg>`;

// Dialogs are the browser's: it keeps the focus inside and gives it back where it came from. `run` gets what was typed into the field.
export const confirm = dialog => setNow({dialog});

export function Dialog() {
  const {title, text, label, danger, run, second, field, body} = store.dialog;
  const box = useRef(), typed = useRef(), close = () => setNow({dialog: null});
  useLayoutEffect(() => {
    const from = document.activeElement;
    box.current.showModal();
    box.current.querySelector('.first').focus();
    return () => from.isConnected && from.focus();
  }, []);
  const act = what => () => { const said = typed.current?.value.trim(); close(); what(said); };
  return html`<dialog ref=${box} class=${danger && 'danger'} role=${run ? 'alertdialog' : 'dialog'}
      aria-labelledby="dialog-title" aria-describedby="dialog-text" onClose=${close}>
    <h2 id="dialog-title">${title}</h2><div id="dialog-text">${text}${body}</div>
    ${field && html`<label>${field} <input ref=${typed} maxlength="200" /></label>`}
    <p class="actions">${run && html`<button class=${`first primary ${danger && 'danger'}`} onClick=${act(run)}>${label} <kbd>Enter</kbd></button>`}
      ${second && html`<button class="danger" onClick=${act(second.run)}>${second.label}</button>`}
      <button class=${!run && 'first'} onClick=${close}>${run ? 'Cancel' : 'Close'} <kbd>Esc</kbd></button></p></dialog>`;
}

export function Notice() {
  const {notice} = store;
  return notice && html`<div class=${`notice ${notice.bad ? 'bad' : 'good'}`}><div><p>${notice.text}</p>
      <ul>${notice.rows.map(row => html`<li key=${row}>${row}</li>`)}</ul></div>
    <button onClick=${() => set({notice: null})}>Dismiss</button></div>`;
}

const Scroll = ({label, children}) => html`<div class="scroll" role="region" aria-label=${label} tabindex="0">${children}</div>`;

// A table as it is: the first cell of each row names it.
export const Grid = ({caption, hide, head, rows}) => html`<${Scroll} label=${caption}><table><caption class=${hide && 'hidden'}>${caption}</caption>
  <thead><tr>${head.map((title, place) => html`<th key=${title} scope="col" class=${place && 'num'}>${title}</th>`)}</tr></thead>
  <tbody>${rows.map(([name, ...cells]) => html`<tr key=${name}><th scope="row">${name}</th>
    ${cells.map(cell => html`<td class="num">${cell}</td>`)}</tr>`)}</tbody></table><//>`;
const Figures = props => html`<details><summary>As a table</summary><${Grid} hide ...${props} /></details>`;

export function Pager({page, pages, turn, what, children}) {
  return pages > 1 && html`<nav class="pager" aria-label=${`Pages of ${what}`}><button disabled=${!page} onClick=${() => turn(page - 1)}>Previous</button>
    <span>${children}</span><button disabled=${page >= pages - 1} onClick=${() => turn(page + 1)}>Next</button></nav>`;
}

// Columns of tables that can be sorted: a figure, and something else.
export const number = (key, title, format = count, more) => ({key, title, numeric: true, value: row => row[key], cell: row => format(row[key]), ...more});
// What is urgent gets its place at once.
export const column = (key, title, cell, more) => ({key, title, value: row => row[key], cell, ...more});
export const unsorted = {value: null};

const SETTLED = 5000; // Milliseconds for which an order holds, and as long as somebody points at it: figures move, lines do not jump.

export function Table({caption, hide, columns, rows, id, start = [], empty = 'Nothing yet.', mark, size = 50}) {
  const [[key, down], setOrder] = useState(start);
  const [page, turn] = useState(0);
  const held = useRef({}).current, pointed = value => () => { held.pointed = value; };
  const by = columns.find(one => one.key === key);
  let shown = rows;
  if (by) {
    const sign = [key, down, rows.length].join();
    if (sign !== held.sign || (!held.pointed && (by.urgent || performance.now() - held.at > SETTLED))) {
      // What is not known comes last, whichever way.
      const compare = (one, other) => (one == null) - (other == null) || (typeof one === 'string' ? one.localeCompare(other) : one - other || 0) * (down ? -1 : 1);
      const places = new Map(rows.map(row => [by.value(row), id(row)]).sort(([one], [other]) => compare(one, other)).map(([, name], place) => [name, place]));
      Object.assign(held, {sign, places, at: performance.now()});
    }
    const place = row => held.places.get(id(row)) ?? rows.length;
    shown = [...rows].sort((one, other) => place(one) - place(other));
  }
  const pages = Math.ceil(shown.length / size), current = Math.max(0, Math.min(page, pages - 1)), from = current * size;
  const look = one => `${one.numeric ? 'num' : ''} ${one.wide ? `wide${one.wide}` : ''}`;
  return html`<${Scroll} label=${caption}><table><caption class=${hide && 'hidden'}>${caption}</caption>
    <thead><tr>${columns.map(one => html`<th key=${one.key} scope="col" class=${look(one)}
      aria-sort=${by === one ? (down ? 'descending' : 'ascending') : undefined}>${one.value
      ? html`<button class="sort" onClick=${() => setOrder([one.key, by === one ? !down : Boolean(one.numeric)])}>${one.title}
        <span aria-hidden="true">${by === one ? (down ? '▾' : '▴') : ''}</span></button>`
      : one.title}</th>`)}</tr></thead>
    <tbody onMouseEnter=${pointed(true)} onMouseLeave=${pointed(false)} onfocusin=${pointed(true)} onfocusout=${pointed(false)}>
      ${shown.slice(from, from + size).map(row => html`<tr key=${id(row)} class=${mark?.(row)}>
        ${columns.map((one, place) => (place
      ? html`<td key=${one.key} class=${`${look(one)} ${one.tone?.(row) || ''}`}>${one.cell(row)}</td>`
      : html`<th key=${one.key} scope="row" class=${look(one)}>${one.cell(row)}</th>`))}</tr>`)}</tbody></table>
    ${!rows.length && html`<p class="empty">${empty}</p>`}<//>
  <${Pager} page=${current} pages=${pages} turn=${turn} what=${caption}>
    ${count(from + 1)}–${count(Math.min(from + size, shown.length))} of ${count(shown.length)}<//>`;
}

// Calls a column, bad and rejected ones in front of them.
export function Spark({series, label}) {
  const calls = series?.calls || [], most = Math.max(1, ...calls), step = 120 / calls.length;
  if (!calls.length) return NONE;
  const bars = values => values.map((value, place) => value &&
    `M${(place * step).toFixed(1)} 24v${-Math.max(1.5, (value / most) * 24).toFixed(1)}h${(step - 0.2).toFixed(1)}V24z`).filter(Boolean).join('');
  return html`<svg class="spark" viewBox="0 0 120 24" width="120" height="24" role="img" aria-label=${label}>
    <path class="calls" d=${bars(calls)} />
    <path class="bad" d=${bars(calls.map((_, place) => (series.bad?.[place] || 0) + (series.rejected?.[place] || 0)))} /></svg>`;
}

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// `lines`: [{label, values, tone, dash}]; a gap is null. `format` writes the values of the axis.
export function Plot({label, at, lines, format = figure, high = 0, theme}) {
  const box = useRef(), held = useRef(), height = 150, data = [at, ...lines.map(line => line.values)];
  useEffect(() => {
    const width = () => box.current.clientWidth;
    const axis = {stroke: colour('muted'), grid: {stroke: colour('line'), width: 1}, ticks: {show: false}, font: '11px system-ui, sans-serif'};
    const plot = held.current = new uPlot({
      width: width(), height, legend: {show: false}, cursor: {y: false, drag: {x: false, y: false}},
      scales: {y: {range: (_, least, most) => [Math.min(0, least ?? 0), Math.max(high, (most ?? 1) * 1.05)]}},
      axes: [{...axis, size: 26, space: 80, values: (_, ticks) => ticks.map(tick => time(tick).replace(/:00$/, ''))},
        {...axis, size: 58, values: (_, ticks) => ticks.map(tick => format(tick))}],
      series: [{}, ...lines.map(line => ({stroke: colour(line.tone), width: 1.75, dash: line.dash, points: {show: at.length < 3}}))],
    }, data, box.current);
    const watch = new ResizeObserver(() => plot.setSize({width: width(), height}));
    watch.observe(box.current);
    return () => { watch.disconnect(); plot.destroy(); };
  }, [theme, lines.length]);
  useEffect(() => held.current.setData(data), [at.at(-1), lines.map(line => line.values.at(-1)).join()]);
  const few = Math.ceil(at.length / 12);
  return html`<figure class="plot"><figcaption>${label}<span class="legend">${lines.map(line => html`
      <span key=${line.label} class=${line.tone}><i class=${line.dash && 'dash'}></i>${line.label}</span>`)}</span></figcaption>
    <div ref=${box} class="canvas" role="img" aria-label=${`${label}: ${lines.map(line => `${line.label} ${format(line.values.at(-1))}`).join(', ')}`}></div>
    <${Figures} caption=${label} head=${['Time', ...lines.map(line => line.label)]}
      rows=${at.map((each, place) => [time(each), ...lines.map(line => format(line.values[place]))]).filter((_, place) => (at.length - 1 - place) % few === 0)} /></figure>`;
}

// Where the latencies were: time to the right, slower upwards, darker for more calls; and the same as a table.
export function Heat({heat, theme}) {
  const canvas = useRef(), {bounds, columns, cells} = heat;
  const used = bounds.concat(0).map((_, bucket) => bucket).filter(bucket => cells.some(cell => cell?.[bucket]));
  const low = used[0] ?? 0, shown = used.length ? Array.from({length: used.at(-1) - low + 1}, (_, place) => used.at(-1) - place) : [];
  useEffect(() => {
    const sheet = canvas.current;
    if (!sheet) return;
    sheet.width = columns.length * 8;
    sheet.height = shown.length * 16;
    const brush = sheet.getContext('2d'), most = Math.max(...cells.flatMap(cell => cell || []));
    brush.fillStyle = colour('accent');
    cells.forEach((cell, place) => shown.forEach((bucket, row) => {
      brush.globalAlpha = cell?.[bucket] ? 0.15 + 0.85 * Math.sqrt(cell[bucket] / most) : 0;
      brush.fillRect(place * 8, row * 16, 7, 15);
    }));
  }, [theme, columns.at(-1), String(cells.at(-1)), shown.length]);
  if (!shown.length) return html`<p class="empty">No call has ended in this time.</p>`;
  const name = bucket => (bucket < bounds.length ? `≤ ${seconds(bounds[bucket])}` : `> ${seconds(bounds.at(-1))}`);
  const size = Math.ceil(columns.length / 6), groups = columns.map((_, place) => place).filter(place => place % size === 0);
  const total = (bucket, from) => count(cells.slice(from, from + size).reduce((sum, cell) => sum + (cell?.[bucket] || 0), 0));
  return html`<div class="heat"><ol aria-hidden="true">${shown.map(bucket => html`<li key=${bucket}>${name(bucket)}</li>`)}</ol>
    <canvas ref=${canvas} style=${{height: `${shown.length * 16}px`}} role="img" aria-label="Calls by latency and time; the table has the figures"></canvas>
    <p aria-hidden="true"><span>${time(columns[0])}</span><span>${time(columns.at(-1))}</span></p></div>
  <${Figures} caption="Calls by latency and time"
    head=${['Latency', ...groups.map(from => `from ${time(columns[from])}`)]}
    rows=${shown.map(bucket => [name(bucket), ...groups.map(from => total(bucket, from))])} />`;
}
