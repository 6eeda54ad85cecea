// The page around the views: where one is, whether the news is fresh, and the switches that are always there.
import {html, render, useEffect, useErrorBoundary} from './vendor/htm-preact.module.js';
import {changed, connect, drawnBy, isStale, may, now, set, silence, store} from './live.js';
import {Badge, Dialog, Grid, Name, Notice, confirm} from './parts.js';
import {Canaries, Chaos, Events, Guard, Overview, Slo, Slos, hold, kill, left, running} from './views.js';
import {plain, plural, span, spaced, time, zone} from './words.js';

const TABS = [['overview', 'Overview'], ['slos', 'SLOs'], ['chaos', 'Chaos'], ['canary', 'Canary'], ['events', 'Events']];
// The title, the view, and the view of one of them.
const VIEWS = new Map([
  ['overview', ['Overview', Overview]], ['guards', ['Overview', Overview, Guard]], ['slos', ['Objectives', Slos, Slo]],
  ['chaos', ['Chaos', Chaos]], ['canary', ['Canary', Canaries]], ['events', ['Events', Events]],
]);
const Nowhere = () => html`<p class="empty">Go to the <a href="#/overview">overview</a>.</p>`;

const decoded = text => { try { return decodeURIComponent(text); } catch { return text; } };
function place() {
  const [path, query = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const [view, ...rest] = path.split('/');
  return {view: view || 'overview', name: decoded(rest.join('/')), about: new URLSearchParams(query).get('about')};
}

const keep = (key, value) => { try { localStorage.setItem(`somaresil.${key}`, value); } catch { /* Private windows keep nothing. */ } };
const kept = key => { try { return localStorage.getItem(`somaresil.${key}`); } catch { return null; } };
document.documentElement.dataset.theme = kept('theme') ?? '';
const dark = () => (document.documentElement.dataset.theme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
function turn() {
  document.documentElement.dataset.theme = dark() ? 'light' : 'dark';
  keep('theme', document.documentElement.dataset.theme);
  changed();
}
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', changed);

let keysOn = kept('keys') !== 'off';
const go = view => () => { location.hash = `#/${view}`; };
const KEYS = [
  ...TABS.map(([view, title], number) => [String(number + 1), title, go(view)]),
  ['/', 'Filter', () => document.querySelector('[data-filter]')?.focus()],
  ['p', 'Hold the events still, or go on', () => place().view === 'events' && hold()],
  ['t', 'Light or dark', turn],
  ['k', 'Stop all chaos: asks once', () => may('stop') && store.picture && kill(store.picture)],
  ['?', 'These keys', help],
];
function help() {
  confirm({title: 'Keys', body: html`<${Grid} caption="Keys and what they do" hide head=${['Key', 'Does']}
      rows=${KEYS.map(([key, what]) => [html`<kbd>${key}</kbd>`, what])} />
    <label><input type="checkbox" checked=${keysOn}
      onChange=${event => { keysOn = event.target.checked; keep('keys', keysOn ? 'on' : 'off'); }} /> Single keys do this</label>`});
}
addEventListener('keydown', event => {
  if (!keysOn || event.ctrlKey || event.metaKey || event.altKey || store.dialog || event.target.closest?.('input, select, textarea')) return;
  const key = KEYS.find(one => one[0] === event.key);
  if (!key) return;
  event.preventDefault();
  key[2]();
});

function Link() {
  const [state, text] = !store.picture ? ['scheduled', 'connecting']
    : isStale() ? ['missing', `no news for ${span(silence())}`]
    : store.link === 'lost' ? ['stale', 'connecting again'] : ['live', 'live'];
  return html`<span class="link"><${Badge} state=${state} text=${text} /></span>`;
}

const few = (all, show) => html`${all.slice(0, 3).map((one, place) => html`${place > 0 && '; '}${show(one)}`)}${all.length > 3 && ` and ${all.length - 3} more`}.`;

// At the lower edge, so that nothing moves away from under a pointer when one comes.
function Banners({picture}) {
  const active = running(picture), away = (picture?.sources || []).filter(source => source.state !== 'live');
  return html`${isStale() && html`<div class="banner bad" role="alert"><strong>No news for a while.</strong>
      ${' '}What stands below is as it was at ${time(picture.at)}. ${store.why}</div>`}
    ${active.length > 0 && html`<div class="banner chaos"><${Badge} state="running" text="Chaos runs" />${' '}
      ${few(active, one => html`${spaced(one.kind)} on <${Name}>${one.target}<//>, ${left(one)} left`)} <a href="#/chaos">Look</a></div>`}
    ${away.length > 0 && html`<div class="banner warn"><${Badge} state="stale" text=${`${plural(away.length, 'source')} missing or stale`} />${' '}
      ${few(away, source => html`<${Name}>${source.name}<//>`)} <a href="#/overview">Look</a></div>`}`;
}

// A view that fails takes no other with it, nor the kill switch.
function Safe({children}) {
  const [error, again] = useErrorBoundary(console.error);
  return error ? html`<p class="empty bad">This view has failed: ${plain(error.message)} <button onClick=${again}>Try again</button></p>` : children;
}

let shown = null;
function App() {
  const {picture, session} = store, {view, name, about} = place();
  const [all, Some, One] = VIEWS.get(view) || ['There is no such view', Nowhere];
  const View = name && One || Some, title = View === One ? name : all;
  const at = location.hash, theme = dark() ? 'dark' : 'light';
  useEffect(() => {
    // Who came by the keyboard or listens goes on reading at the heading of the new view.
    if (shown !== null && shown !== at) { scrollTo(0, 0); document.getElementById('title')?.focus({preventScroll: true}); }
    shown = at;
  }, [at]);
  const broken = picture ? picture.guards.filter(guard => guard.state === 'open' || guard.state === 'forced_open').length : 0;
  document.title = `${broken ? `${broken} open – ` : ''}${plain(title)} – ${plain(picture?.service ?? 'somaresil')}`;
  const current = view === 'guards' ? 'overview' : view;
  return html`<a class="skip" href="#main" onClick=${event => { event.preventDefault(); document.getElementById('title').focus(); }}>To the content</a>
  <header class="top">
    <div class="brand"><strong><${Name}>${picture?.service ?? 'somaresil'}<//></strong>
      ${picture?.environment && html` <span class="env"><${Name}>${picture.environment}<//></span>`} <${Link} /></div>
    <nav aria-label="Views"><ul>${TABS.map(([key, label]) => html`<li key=${key}>
      <a href=${`#/${key}`} aria-current=${current === key ? 'page' : undefined}>${label}</a></li>`)}</ul></nav>
    <div class="tools">${picture && may('stop') && html`
        <button class=${running(picture).length ? 'primary danger' : 'danger'} onClick=${() => kill(picture)} aria-keyshortcuts="k">Stop chaos</button>`}
      <button onClick=${turn} aria-label=${`Theme: ${theme}. Change it`}>${theme === 'dark' ? 'Light' : 'Dark'}</button>
      <button onClick=${help} aria-label="Keys">?</button></div></header>
  <p class="hidden" aria-live="polite" data-said>${store.said}</p>
  <main id="main"><h1 id="title" tabindex="-1"><${Name}>${title}<//></h1>
    ${picture ? html`<${Safe} key=${at}><${View} picture=${picture} name=${name} about=${about} theme=${theme} /><//>`
      : html`<p class="empty" role="status">${store.why || 'Asking …'}</p>`}</main>
  <footer><p>${picture && `As of ${time(picture.at)}. `}Times in ${zone}. ${session.actor && html`Signed in as <${Name}>${session.actor}<//>. `}
    ${!session.may.length && 'Read only. '}<a href="plain">Plain table</a> · <a href="api/picture">JSON</a></p></footer>
  <section class="says" aria-label="Notices"><${Banners} picture=${picture} /><div role="status"><${Notice} /></div></section>
  ${store.dialog && html`<${Dialog} key=${store.dialog.title} />`}`;
}

const root = document.getElementById('app');
drawnBy(() => render(html`<${App} />`, root));
addEventListener('hashchange', () => set({notice: store.notice?.bad ? store.notice : null}));
changed();
connect();
