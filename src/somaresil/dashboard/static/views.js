// What there is to see, a view at a time. Each is given the picture, and asks for more only where the picture has no room for it.
import {html, useState} from './vendor/htm-preact.module.js';
import {command, may, now, set, silence, store, useAnswer} from './live.js';
import {
  Badge, Bar, Fact, Grid, GuardLink, Heat, Name, Pager, Plot, STATES, SloLink, Spark, Table, column, confirm, errorTone, number, toneOf, unsorted,
} from './parts.js';
import {NONE, count, figure, plain, plural, rate, seconds, share, spaced, span, target, time} from './words.js';

const sum = values => (values || []).reduce((total, value) => total + (value || 0), 0);
const states = counts => Object.entries(counts || {}).filter(([, each]) => each).map(([state, each]) => `${count(each)} ${spaced(state)}`).join(', ');
const some = (texts, between) => texts.filter(Boolean).join(between);
const listed = parts => parts.map((part, place) => html`${place > 0 && ', '}${part}`);
const Empty = ({children}) => html`<p class="empty">${children}</p>`;
const asking = error => html`<${Empty}>${error ? `Not found: ${error.message}` : 'Asking …'}<//>`;

const path = (kind, ...names) => ['api', kind, ...names.map(encodeURIComponent)].join('/');
// A button that asks first.
const Act = ({label, name, title, text, yes = label, danger, off, to, what, body}) => html`<button aria-label=${name} disabled=${off}
  onClick=${() => confirm({title, text, label: yes, danger, run: () => command(to, what, body)})}>${label}</button>`;

const named = (key, title, more) => column(key, title, row => html`<${Name}>${row[key] ?? NONE}<//>`, more);
const moment = (key, title, more) => column(key, title, row => time(row[key]), more);
const badge = (key, more) => column(key, 'State', row => html`<${Badge} state=${row[key]} />`, more);

function filters(chosen, again) {
  const choose = key => event => {
    chosen[key] = event.target.value;
    again({});
  };
  const option = value => html`<option key=${value} value=${value}>${spaced(value)}</option>`;
  return {
    text: label => html`<label>${label} <input type="search" data-filter value=${chosen.text} onInput=${choose('text')} /></label>`,
    choice: (key, label, values) => html`<label>${label} <select value=${chosen[key]} onChange=${choose(key)}>
      <option value="">all</option>${values.map(option)}</select></label>`,
  };
}
const Filters = ({of, children}) => html`<form class="filters" role="search" aria-label=${of} onSubmit=${event => event.preventDefault()}>${children}</form>`;

// Overview: every guard and route, and how much of the service speaks here.

const rank = guard => (guard.state == null ? 9 : STATES.indexOf(guard.state));
const CALLS = [
  number('rate', 'Traffic', rate, {wide: 1}),
  number('error_share', 'Errors', share, {tone: row => errorTone(row.error_share)}),
  number('p50', 'p50', seconds, {wide: 2}),
  number('p95', 'p95', seconds, {wide: 1}),
  number('p99', 'p99', seconds, {wide: 2}),
  number('rejected', 'Rejected', count, {wide: 3, value: row => row.counts?.rejected, cell: row => count(row.counts?.rejected)}),
  number('injected_share', 'Injected', share, {wide: 2, tone: row => row.injected_share && 'chaos'}),
  column('spark', 'Last minutes', ({series}) => html`<${Spark} series=${series}
    label=${`${count(sum(series?.calls))} calls, ${count(sum(series?.bad))} of them bad`} />`, {...unsorted, wide: 3}),
];
const GUARDS = [
  column('name', 'Guard', row => html`<${GuardLink} name=${row.name} />`),
  column('state', 'State', row => {
    const all = Object.values(row.states || {}), keys = states(row.keys);
    return html`<${Badge} state=${row.state} text=${all.length > 1 && `${spaced(row.state)} ${row.states[row.state]}/${sum(all)}`} />
      ${keys && html` <span class="muted small">keys: ${keys}</span>`}`;
  }, {value: rank, urgent: true}),
  ...CALLS,
];
const ROUTES = [named('name', 'Route'), ...CALLS];

function Sources({sources}) {
  const away = sources.filter(source => source.state !== 'live').length, all = plural(sources.length, 'source');
  const about = source => some([
    plain(source.kind), source.process && `process ${source.process}`, plain(source.address ?? ''),
    source.state !== 'live' && source.at && `heard ${span(now() - source.at)} ago`, plain(source.why ?? ''),
  ], ', ');
  return html`<section class="sources" aria-labelledby="sources"><h2 id="sources">Sources</h2>
    <p class=${away && 'bad'}>
      ${away ? `${sources.length - away} of ${all} answer. What the others know is not in these figures, or old.` : `${all}, and all answer.`}</p>
    <ul class="chips">${sources.map(source => html`<li key=${source.name}>
      <${Badge} state=${source.state} /> <${Name}>${source.name}<//> <span class="muted small">${about(source)}</span></li>`)}</ul></section>`;
}

const guardFilter = {text: '', state: ''};

export function Overview({picture}) {
  const {text, choice} = filters(guardFilter, useState()[1]);
  const {guards, routes = [], objectives = []} = picture;
  const open = guards.filter(guard => rank(guard) < 2).length, total = kind => sum(guards.map(guard => guard.counts?.[kind]));
  const ended = total('good') + total('bad'), errors = ended ? total('bad') / ended : null, injected = total('injected');
  const least = objectives.filter(slo => slo.budget_left != null).sort((one, other) => one.budget_left - other.budget_left)[0];
  const fits = guard => ({'': true, not_closed: rank(guard) < 6, faults_injected: guard.injected_share > 0}[guardFilter.state] ?? guard.state === guardFilter.state);
  const rows = guards.filter(guard => fits(guard) && guard.name.toLowerCase().includes(guardFilter.text.toLowerCase()));
  return html`<dl class="facts"><${Fact} name="Guards">${count(guards.length)}<//>
    <${Fact} name="Breakers open" tone=${open && 'bad'}>${count(open)}<//>
    <${Fact} name="Traffic">${rate(sum(guards.map(guard => guard.rate)))}<//>
    <${Fact} name="Errors" tone=${errorTone(errors)}>${share(errors)}<//>
    <${Fact} name="Faults injected" tone=${injected && 'chaos'}>${count(injected)}<//>
    <${Fact} name="Least budget left" tone=${least?.budget_left <= 0 && 'bad'}>
      ${least ? html`${share(least.budget_left)} <span class="small"><${SloLink} name=${least.name} /></span>` : NONE}<//></dl>
  <${Filters} of="Guards">${text('Filter guards')}${choice('state', 'State', ['not_closed', ...STATES, 'faults_injected'])}
    <span class="muted" role="status">${count(rows.length)} of ${plural(guards.length, 'guard')}</span><//>
  <${Table} caption="Guards" columns=${GUARDS} rows=${rows} id=${row => row.name} start=${['state', false]} mark=${row => rank(row) < 2 && 'alarm'}
    empty=${guards.length ? 'No guard is like that.' : 'This service has no guard yet.'} />
  ${routes.length > 0 && html`<${Table} caption="Routes" columns=${ROUTES} rows=${routes} id=${row => row.name} start=${['rate', true]} />`}
  <${Sources} sources=${picture.sources} /><p class="muted small">Figures are of the last ${span(guards[0]?.window ?? 60)}.</p>`;
}

// Events: what happened, newest first; they can be held still while somebody reads.

const newest = rows => [...(rows || [])].sort((one, other) => other.at - one.at || other.id - one.id);
const isGuard = name => store.picture.guards.some(guard => guard.name === name);
const EVENTS = [
  moment('at', 'At', unsorted),
  column('level', 'Level', row => html`<${Badge} state=${row.level} />`, unsorted),
  named('text', 'What happened', unsorted),
  column('about', 'About', row => (isGuard(row.about) ? html`<${GuardLink} name=${row.about} />` : html`<${Name}>${row.about ?? NONE}<//>`), {...unsorted, wide: 2}),
  named('kind', 'Kind', {...unsorted, wide: 2}),
  named('source', 'In', {...unsorted, wide: 3}),
  column('facts', 'Facts', row => html`<details><summary>Facts</summary>${Object.entries(row.facts || {}).map(([name, value]) => html`
    <code key=${name}>${plain(name)}: ${plain(JSON.stringify(value))}</code>`)}</details>`, {...unsorted, wide: 2}),
];
const LEVELS = ['debug', 'info', 'warning', 'error', 'critical'];
const atLeast = level => row => LEVELS.indexOf(row.level) >= LEVELS.indexOf(level);
const EventTable = ({rows, ...rest}) => html`<${Table} caption="Events" columns=${EVENTS} rows=${newest(rows)} id=${row => `${row.source} ${row.id}`}
  empty="Nothing has happened, or nothing is like that." ...${rest} />`;

const eventFilter = {text: '', kind: '', level: 'info'};
let still = [];
export function hold() {
  still = store.events;
  set({paused: !store.paused, fresh: 0});
}

function About({name}) {
  const {data} = useAnswer(`api/events?about=${encodeURIComponent(name)}&most=200`);
  return html`<p>Only about <${Name}>${name}<//>. <a href="#/events">Show all</a></p><${EventTable} hide rows=${data?.events} />`;
}

export function Events({about}) {
  const {text, choice} = filters(eventFilter, useState()[1]);
  if (about) return html`<${About} name=${about} />`;
  const said = row => `${row.text} ${row.about} ${row.source}`.toLowerCase().includes(eventFilter.text.toLowerCase());
  const rows = (store.paused ? still : store.events).filter(row => atLeast(eventFilter.level)(row)
    && (!eventFilter.kind || row.kind === eventFilter.kind) && said(row));
  return html`<${Filters} of="Events">${text('Filter events')}${choice('kind', 'Kind', [...new Set(store.events.map(row => row.kind))].sort())}
    ${choice('level', 'At least', LEVELS.slice(1))}<button type="button" aria-pressed=${store.paused} onClick=${hold}>Pause <kbd>p</kbd></button>
    <span class="muted">${store.paused ? `Held still; ${plural(store.fresh, 'new event')}` : plural(rows.length, 'event')}
      ${store.lost > 0 && `; ${count(store.lost)} were lost on the way`}</span><//><${EventTable} hide rows=${rows} />`;
}

// Objectives: what was promised, what is left of the budget, how fast it goes.

const WINDOWS = [[300, '5 min'], [1800, '30 min'], [3600, '1 h'], [7200, '2 h'], [21600, '6 h'], [86400, '1 d'], [259200, '3 d']];
const burnTone = burn => (burn >= 6 ? 'bad' : burn > 1 && 'warn'); // At 6, a budget of 30 days is gone in five.
const leftTone = left => (left == null ? '' : left <= 0 ? 'bad' : left < 0.25 ? 'warn' : 'good');

const INCIDENTS = [
  moment('began', 'Began'),
  column('subject', 'Of', row => html`<${row.kind === 'guard' ? GuardLink : SloLink} name=${row.subject} />`),
  number('ended', 'Lasted', count, {cell: row => (row.ended == null ? html`<${Badge} state="open" text="goes on" />` : span(row.ended - row.began))}),
  number('detected_after', 'Detected after', seconds, {wide: 2}),
  number('mitigated_after', 'Mitigated after', seconds, {wide: 2}),
  column('injected', 'Cause', row => (row.injected ? html`<${Badge} state="running" text=${`injected by ${plain(row.experiment)}`} />` : 'not injected')),
];
const Incidents = ({rows}) => html`<${Table} caption="Incidents" columns=${INCIDENTS} rows=${rows || []} id=${row => row.id}
  start=${['began', true]} empty="None is known here." />`;

function Objective({slo, theme}) {
  const {at = [], left} = slo.budget_series || {}, tone = leftTone(slo.budget_left), burn = slo.burn || {};
  return html`<dl class="facts"><${Fact} name="Objective">${target(slo.target)}<//>
      <${Fact} name="Kept" tone=${slo.compliance != null && slo.compliance < slo.target && 'bad'}>${share(slo.compliance, 2)}<//>
      <${Fact} name="Budget left" tone=${tone}>${share(slo.budget_left)}<//>
      <${Fact} name="Spent">${tone === 'bad' ? 'already' : slo.exhausted_in == null ? NONE : `in ${span(slo.exhausted_in)}`}<//></dl>
    <${Bar} value=${slo.budget_left} tone=${tone} />
    <p class="muted small">${count(slo.good)} good, ${count(slo.bad)} bad in ${span(slo.period)};${' '}
      ${some([spaced(slo.kind), slo.policy && `policy ${spaced(slo.policy)}`], ', ')}.
      ${slo.blocks && html` <strong class="bad">It holds back releases and experiments.</strong>`}</p>
    <${Grid} caption="Burn rate: at 1 the budget lasts just the period" head=${['Over', ...WINDOWS.map(([, name]) => name)]}
      rows=${[['Burn', ...WINDOWS.map(([key]) => html`<span class=${burnTone(burn[key])}>${figure(burn[key], 1)}</span>`)]]} />
    ${left?.some(each => each != null) && html`<${Plot} label="Budget left" at=${at} lines=${[{label: 'left', values: left, tone: 'accent'}]}
      format=${value => share(value, 0)} theme=${theme} high=${1} />`}`;
}

const Alerts = ({slo}) => (slo.alerts || []).map(({severity, since}) => html`<span key=${severity} class="alert">
  <${Badge} state=${severity} text=${`${spaced(severity)} since ${time(since)}`} /></span>`);

export function Slos({picture, theme}) {
  const [page, turn] = useState(0), size = 12;
  const all = [...(picture.objectives || [])].sort((one, other) => (one.budget_left ?? 2) - (other.budget_left ?? 2) || one.name.localeCompare(other.name));
  if (!all.length) return html`<${Empty}>This service has no objective yet.<//>`;
  const pages = Math.ceil(all.length / size);
  return html`<div class="cards">${all.slice(page * size, (page + 1) * size).map(slo => html`<article key=${slo.name} class="card">
      <h2><${SloLink} name=${slo.name} /><${Alerts} slo=${slo} /></h2><${Objective} slo=${slo} theme=${theme} /></article>`)}</div>
    <${Pager} page=${page} pages=${pages} turn=${turn} what="objectives">${page + 1} of ${pages}<//>
    <${Incidents} rows=${picture.incidents?.filter(row => row.kind !== 'guard')} />`;
}

export function Slo({picture, name, theme}) {
  const {data, error} = useAnswer(path('objectives', name), 5), here = picture.objectives?.find(one => one.name === name);
  if (!here && !data) return asking(error);
  const slo = {...data, ...here};
  return html`<p><${Alerts} slo=${slo} /></p><section class="card"><${Objective} slo=${slo} theme=${theme} /></section>
    ${slo.guards?.length > 0 && html`<p>What counts for it: ${listed(slo.guards.map(guard => html`<${GuardLink} name=${guard.name ?? guard} />`))}.</p>`}
    <${Incidents} rows=${slo.incidents} />`;
}

// One guard: what it is made of, what it did lately, and why it said no.

const LEVERS = [
  ['trip', 'Trip', 'It rejects calls now, and probes again by itself when its open time is over.'],
  ['reset', 'Reset', 'It is closed with an empty window, whatever held it open.'],
  ['force_open', 'Force open', 'It rejects every call until somebody resets it.'],
  ['disable', 'Disable', 'Every call passes, and none is judged, until somebody resets it.'],
];
const TIMELINE = [
  moment('at', 'At'),
  column('after', 'Change', row => html`<${Badge} state=${row.before} /> <span aria-label="to">→</span> <${Badge} state=${row.after} />`, unsorted),
  column('cause', 'Because', row => spaced(row.cause)),
  named('source', 'In', {wide: 2}),
];

// When each source was in which state, in the time that the columns cover.
function Strips({timeline, from, end}) {
  const wide = at => Math.max(0, (at - from) / (end - from)) * 1000;
  return html`<div class="strips" aria-hidden="true">${[...new Set(timeline.map(row => row.source))].sort().map(source => {
    const own = timeline.filter(row => row.source === source).sort((one, other) => one.at - other.at);
    return html`<div key=${source}><${Name}>${source}<//><svg viewBox="0 0 1000 10" preserveAspectRatio="none">
      ${[{at: from, after: own[0].before}, ...own].map((row, place) => html`<rect key=${place} class=${toneOf(row.after)} height="10"
        x=${wide(row.at)} width=${Math.max(0, wide(own[place]?.at ?? end) - wide(row.at))} />`)}</svg></div>`;
  })}</div>`;
}

const PAIRS = [
  column(0, 'What', row => spaced(row[0])),
  number(1, 'Value', value => (typeof value === 'number' ? +value.toFixed(3) : plain(JSON.stringify(value)))),
];
const Pairs = ({values, ...rest}) => html`<${Table} columns=${PAIRS} rows=${Object.entries(values || {})} id=${row => row[0]} ...${rest} />`;

function Pipeline({guard}) {
  const stages = guard.stages || (guard.pipeline || []).map(name => ({name}));
  return html`<section class="card"><h2>Pipeline</h2>
    <p class="muted small">From the outside to the call. At worst it takes ${guard.worst_case == null ? 'as long as the call does' : seconds(guard.worst_case)}.</p>
    <ol class="pipeline">${stages.map(stage => html`<li key=${stage.name}>
      <strong>${stage.name === 'callee' ? 'the call' : spaced(stage.name)}</strong> ${plain(stage.says ?? '')}
      ${stage.worst_case != null && html` <span class="muted">at worst ${seconds(stage.worst_case)}</span>`}</li>`)}</ol>
    <ul class="small">${['findings', 'changed', 'options'].flatMap(key => guard[key] || []).map(text => html`<li key=${text}>${plain(text)}</li>`)}</ul></section>`;
}

export function Guard({picture, name, theme}) {
  const {data, error} = useAnswer(path('guards', name)), here = picture.guards.find(one => one.name === name);
  if (!here && !data) return asking(error);
  const guard = {...data, ...here}, series = guard.series || {}, timeline = guard.timeline || [], columns = picture.columns || [];
  const lever = ([key, label, text]) => html`<${Act} key=${key} label=${label} text=${text} title=${`${label} the breaker of ${plain(name)}?`}
    danger=${key !== 'reset'} to=${path('breakers', name, key)} what=${`${label} ${plain(name)}`} />`;
  const lines = [['calls', 'accent'], ['bad', 'bad', [6, 3]], ['rejected', 'warn', [2, 2]]]
    .map(([label, tone, dash]) => ({label, values: series[label] || [], tone, dash}));
  return html`<p class="actions"><${Badge} state=${guard.state} text=${guard.state == null && 'no breaker'} /><span class="muted">${some([
      Object.keys(guard.states || {}).length > 1 && states(guard.states), guard.held_by?.length > 0 && `full path for ${guard.held_by.map(spaced).join(', ')}`,
      guard.throttled > 0 && `${share(guard.throttled)} throttled`, guard.budget_scale != null && `budgets at ${share(guard.budget_scale)}`,
    ], '; ')}</span>${guard.state != null && may('breaker') && LEVERS.map(lever)}</p>
    <dl class="facts"><${Fact} name="Traffic">${rate(guard.rate)}<//><${Fact} name="Errors" tone=${errorTone(guard.error_share)}>${share(guard.error_share)}<//>
      ${['p50', 'p95', 'p99'].map(key => html`<${Fact} key=${key} name=${key}>${seconds(guard[key])}<//>`)}
      <${Fact} name="Injected" tone=${guard.injected_share && 'chaos'}>${share(guard.injected_share)}<//></dl>
    <div class="cards parts"><${Pipeline} guard=${guard} />
      <${Grid} caption="Calls" head=${['Outcome', `Last ${span(guard.window)}`, 'Since the start']}
        rows=${['good', 'bad', 'rejected', 'abandoned', 'ignored', 'injected']
        .map(kind => [kind, count(guard.counts?.[kind]), count(guard.totals?.[kind])])} />
      <div><${Pairs} caption="Rejections by reason" values=${guard.rejections} empty="No call was rejected." />
        ${guard.tally && html`<${Pairs} caption="Window of the breaker" values=${guard.tally} />`}</div></div>
    ${series.calls?.length > 0 && html`<${Plot} label=${`Calls per ${span(picture.step)}`} at=${columns} theme=${theme} format=${count} lines=${lines} />`}
    <section class="card"><h2>Latency</h2>${data?.heat ? html`<${Heat} heat=${data.heat} theme=${theme} />` : asking(error)}</section>
    ${timeline.length > 0 && html`<section class="card"><h2>States</h2>
      <${Strips} timeline=${timeline} from=${columns[0] ?? timeline[0].at} end=${picture.at} /></section>`}
    <${Table} caption="Changes of state" columns=${TIMELINE} rows=${timeline} id=${row => `${row.source} ${row.at} ${row.after}`}
      start=${['at', true]} size=${10} empty="None lately." />
    <${Incidents} rows=${picture.incidents?.filter(row => row.subject === name)} />
    <${EventTable} caption="Events about it" rows=${data?.recent?.filter(atLeast('info'))} size=${10} />
    <p><a href=${`#/events?about=${encodeURIComponent(name)}`}>All events about it</a></p>`;
}

// Chaos: what strikes on purpose, for how long yet, what of it reached callers, and how to end it.

export const running = picture => (picture?.experiments || []).filter(one => one.state === 'running');
export const left = one => span(one.state === 'running' ? Math.max(0, one.remaining - silence()) : null);

export function kill(picture) {
  const active = running(picture).length, stay = may('engage');
  confirm({
    title: 'Stop all chaos now?', danger: true, label: 'Stop everything', run: () => command('api/stop', 'Stop all chaos'),
    text: `${active ? plural(active, 'experiment') : 'Whatever runs'} will end in every process of this service on this machine.`,
    field: stay && 'If it is to stay stopped: why?',
    second: stay && {label: 'Stop and keep it stopped', run: reason => command('api/engage', 'Engage the kill switch', {reason: reason || 'engaged on the page'})},
  });
}

const Stop = ({one}) => may('experiment') && html`<${Act} label="Stop" name=${`Stop ${plain(one.id)}`}
  title=${`Stop ${plain(one.kind)} on ${plain(one.target)}?`} yes="Stop it"
  danger text="It ends in every process that runs it." to=${path('experiments', one.id, 'stop')} what=${`Stop ${plain(one.id)}`} />`;
const WHAT = [
  column('kind', 'Fault', row => html`<strong>${spaced(row.kind)}</strong> <span class="muted small"><${Name}>${row.id}<//></span>`),
  badge('state', {wide: 1}),
  column('target', 'Target', row => html`<code><${Name}>${row.target}<//></code> <span class="muted">${share(row.rate)}</span>`),
];
const RESULT = [
  number('injected', 'Injected'),
  number('absorbed', 'Absorbed', count, {
    cell: ({absorbed, injected}) => html`${count(absorbed)} <span class="muted">${injected > 0 && share(absorbed / injected)}</span>
    <${Bar} tone="good" value=${absorbed / injected} />`}),
  column('struck', 'Struck', row =>
    listed(Object.entries(row.struck || {}).map(([name, calls]) => html`<${GuardLink} name=${name} /> ${count(calls)}`)), {...unsorted, wide: 2}),
  named('by', 'By', {wide: 3}),
  number('sources', 'Processes', all => count(all?.length), {wide: 3}),
];
const ACTIVE = [
  ...WHAT,
  number('remaining', 'Left', span, {cell: row => html`<strong>${row.state === 'running' ? left(row) : `in ${span(row.starts_at - now())}`}</strong>`}),
  ...RESULT,
  column('stop', 'Stop', row => html`<${Stop} one=${row} />`, unsorted),
];
const ENDED = [...WHAT, moment('starts_at', 'Began'), column('end_reason', 'Because', row => spaced(row.end_reason)), ...RESULT];

function Switch({picture}) {
  const {engaged, allowed, environment, problems} = picture.chaos || {};
  return html`<section class=${`card switch ${engaged && 'held'}`}><div><h2>Kill switch</h2>
      <p>${engaged ? html`<${Badge} state="open" text="engaged" /> ${plain(engaged)}. Nothing is injected, and nothing can be started.`
        : html`<${Badge} state=${allowed ? 'closed' : 'disabled'} text=${allowed ? 'released' : 'not allowed'} />${' '}
          Experiments may ${!allowed && 'not '}run in environment ${plain(environment)}.`}</p>
      <ul>${problems?.map(problem => html`<li key=${problem}>${plain(problem)}</li>`)}</ul></div>
    <p class="actions">${may('stop') && html`<button class="primary danger" onClick=${() => kill(picture)}>Stop all chaos <kbd>k</kbd></button>`}
      ${engaged && may('engage') && html`<${Act} label="Release" title="Release the kill switch?"
        text="Experiments can be started again. None starts by itself." yes="Release it"
        to="api/disengage" what="Release the kill switch" />`}</p></section>`;
}

const Plan = ({plan: {name, about, windows}, off}) => html`<li><div><strong><${Name}>${name}<//></strong><br />
    <span class="muted">${some([plain(about), windows > 1 && `${windows} windows`], ', ')}</span></div>
  ${may('experiment') && html`<${Act} label="Start" name=${`Start ${plain(name)}`} off=${off} title=${`Start “${plain(name)}”?`} yes="Start it"
    text=${`${plain(about)}. It strikes real calls of this service, and ends by itself.`}
    to="api/experiments" what=${`Start ${plain(name)}`} body=${{plan: name}} />`}</li>`;

export function Chaos({picture}) {
  const all = picture.experiments || [], plans = picture.plans || [], off = Boolean(picture.chaos?.engaged) || !picture.chaos?.allowed;
  return html`<${Switch} picture=${picture} />
  <${Table} caption="Running and scheduled" columns=${ACTIVE} rows=${all.filter(one => one.state !== 'ended')} id=${row => row.id}
    empty="No experiment runs, and none is scheduled." />
  <section class="card"><h2>Approved plans</h2><ul class="plans">${plans.map(plan => html`<${Plan} key=${plan.name} plan=${plan} off=${off} />`)}</ul>
    ${!plans.length && html`<${Empty}>None. They are given in code, so that nobody makes one up here.<//>`}</section>
  <${Table} caption="Ended lately" columns=${ENDED} rows=${all.filter(one => one.state === 'ended')} id=${row => row.id}
    start=${['starts_at', true]} empty="None has ended since the start." />`;
}

// Canary: releases that are being tried, how much traffic they have, and what speaks against them.

const ACTIONS = [
  ['promote', 'Promote', 'The new version gets all traffic.'],
  ['rollback', 'Roll back', 'The old version gets all traffic again.'],
  ['pause', 'Pause', 'The weights stay as they are.'],
  ['resume', 'Resume', 'The ramp goes on.'],
];
const CLAIMS = {objective: 'missing its objective', worse: 'worse', not_much_worse: 'not much worse'};
const EVIDENCE = [
  named('slo', 'Objective'),
  column('against', 'That the new version is', row => html`<${Name}>${CLAIMS[row.against] ?? spaced(row.against)}<//>`),
  number('e_value', 'Evidence', figure, {tone: row => row.e_value >= row.threshold && (row.against === 'not_much_worse' ? 'good' : 'bad')}),
  number('threshold', 'Enough at', value => figure(value, 0)),
  number('bad', 'Bad'),
  number('events', 'Calls'),
];
const ENDPOINTS = [named('name', 'Endpoint'), badge('state'), number('weight', 'Weight', figure)];

function Canary({canary, theme}) {
  const {at = [], log10 = {}} = canary.evidence_series || {}, evidence = canary.evidence || [], name = plain(canary.name), {weight} = canary;
  const lines = Object.entries(log10).slice(0, 4)
    .map(([claim, values], place) => ({label: CLAIMS[claim] ?? plain(claim), values, tone: ['accent', 'chaos', 'good', 'muted'][place]}));
  for (const enough of new Set(evidence.map(row => row.threshold)))
    if (enough > 0) lines.push({label: `enough at ${figure(enough, 0)}`, values: at.map(() => Math.log10(enough)), tone: 'bad', dash: [6, 4]});
  const action = ([key, label, text]) => html`<${Act} key=${key} label=${label} text=${text} title=${`${label}: ${name}, version ${plain(canary.version)}?`}
    danger=${key === 'rollback'} to=${path('canaries', canary.name, key)} what=${`${label} ${name}`} />`;
  const state = canary.paused ? 'paused' : canary.outcome;
  return html`<article class="card"><h2><${Name}>${canary.name}<//> <span class="muted">version <${Name}>${canary.version}<//></span>
      <${Badge} state=${state ?? 'tried'} text=${spaced(state ?? canary.phase)} /></h2>
    <dl class="facts"><${Fact} name="Phase">${spaced(canary.phase)}<//><${Fact} name="New version">${share(weight)}<//>
      <${Fact} name="Old version">${share(weight == null ? null : 1 - weight)}<//><${Fact} name="Began">${time(canary.began)}<//></dl>
    <${Bar} tone="accent" value=${weight} /><p>${[canary.reason, canary.trouble].filter(Boolean).map(plain).join('; ')}</p>
    ${at.length > 0 && html`<${Plot} label="Evidence, as a power of ten" at=${at} lines=${lines} format=${value => figure(value, 1)} theme=${theme} />`}
    <${Table} caption="Evidence by objective" columns=${EVIDENCE} rows=${evidence} id=${row => `${row.slo} ${row.against}`} empty="None has been gathered yet." />
    <p class="actions">${may('canary') && canary.outcome == null
      && ACTIONS.filter(([key]) => key !== (canary.paused ? 'pause' : 'resume')).map(action)}</p></article>`;
}

export function Canaries({picture: {canaries = [], pools = []}, theme}) {
  return html`<div class="cards">${canaries.map(canary => html`<${Canary} key=${canary.name} canary=${canary} theme=${theme} />`)}</div>
    ${!canaries.length && html`<${Empty}>No release is being tried here.<//>`}
    ${pools.map(pool => html`<${Table} key=${pool.name} caption=${`Pool ${plain(pool.name)}`}
      rows=${pool.endpoints} id=${row => row.name} columns=${ENDPOINTS} />`)}`;
}
