// What there is to see, a view at a time. Each is given the picture, and asks for more only where the picture has no room for it.
import {html, useState} from './vendor/htm-preact.module.js';
import {command, may, now, set, silence, store, useAnswer} from './live.js';
import {Badge, Bar, Fact, Grid, GuardLink, Heat, Name, Pager, Plot, STATES, SloLink, Spark, Table, column, confirm, errorTone, number, toneOf, unsorted} from './parts.js';
import {NONE, count, figure, plain, plural, rate, seconds, share, spaced, span, target, time} from './words.js';

const sum = values => (values || []).reduce((total, value) => total + (value || 0), 0);
const states = counts => Object.entries(counts || {}).filter(([, each]) => each).map(([state, each]) => `${count(each)} ${spaced(state)}`).join(', ');
const named = (key, title, more) => column(key, title, row => html`<${Name}>${row[key] ?? NONE}<//>`, more);
const nothing = error => html`<p class="empty">${error ? `Not found: ${error.message}` : 'Asking …'}</p>`;
const post = (kind, name, verb) => `api/${kind}/${encodeURIComponent(name)}/${verb}`;

function filters(chosen, again) {
  const choose = key => event => { chosen[key] = event.target.value; again({}); };
  return {
    text: label => html`<label>${label} <input type="search" data-filter value=${chosen.text} onInput=${choose('text')} /></label>`,
    choice: (key, label, values) => html`<label>${label} <select value=${chosen[key]} onChange=${choose(key)}><option value="">all</option>${values.map(value => html`<option key=${value} value=${value}>${spaced(value)}</option>`)}</select></label>`,
  };
}

// Overview: every guard and route, and how much of the service speaks here.

const rank = guard => (guard.state == null ? 9 : STATES.indexOf(guard.state));
const CALLS = [
  number('rate', 'Traffic', rate, {wide: 1}),
  number('error_share', 'Errors', share, {tone: row => errorTone(row.error_share)}),
  number('p50', 'p50', seconds, {wide: 2}), number('p95', 'p95', seconds, {wide: 1}), number('p99', 'p99', seconds, {wide: 2}),
  number('rejected', 'Rejected', count, {wide: 3, value: row => row.counts?.rejected, cell: row => count(row.counts?.rejected)}),
  number('injected_share', 'Injected', share, {wide: 2, tone: row => row.injected_share && 'chaos'}),
  column('spark', 'Last minutes', row => html`<${Spark} series=${row.series} label=${`${count(sum(row.series?.calls))} calls, ${count(sum(row.series?.bad))} of them bad`} />`, {...unsorted, wide: 3}),
];
const GUARDS = [column('name', 'Guard', row => html`<${GuardLink} name=${row.name} />`), column('state', 'State', row => {
  const all = Object.values(row.states || {}), keys = states(row.keys);
  return html`<${Badge} state=${row.state} text=${all.length > 1 && `${spaced(row.state)} ${row.states[row.state]}/${sum(all)}`} />${keys && html` <span class="muted small">keys: ${keys}</span>`}`;
}, {value: rank}), ...CALLS];
const ROUTES = [named('name', 'Route'), ...CALLS];

function Sources({sources}) {
  const away = sources.filter(source => source.state !== 'live').length;
  return html`<section class="sources" aria-labelledby="sources"><h2 id="sources">Sources</h2>
    <p class=${away && 'bad'}>${away ? `${sources.length - away} of ${plural(sources.length, 'source')} answer. What the others know is not in these figures, or old.` : `${plural(sources.length, 'source')}, and all answer.`}</p>
    <ul class="chips">${sources.map(source => html`<li key=${source.name}><${Badge} state=${source.state} /> <${Name}>${source.name}<//> <span class="muted small">${[
      plain(source.kind), source.process && `process ${plain(source.process)}`, plain(source.address ?? ''), source.state !== 'live' && source.at && `heard ${span(now() - source.at)} ago`, plain(source.why ?? ''),
    ].filter(Boolean).join(', ')}</span></li>`)}</ul></section>`;
}

const guardFilter = {text: '', state: ''};

export function Overview({picture}) {
  const {text, choice} = filters(guardFilter, useState()[1]);
  const {guards, routes = [], objectives = []} = picture;
  const open = guards.filter(guard => rank(guard) < 2).length, total = kind => sum(guards.map(guard => guard.counts?.[kind]));
  const ended = total('good') + total('bad'), errors = ended ? total('bad') / ended : null;
  const least = objectives.filter(slo => slo.budget_left != null).sort((one, other) => one.budget_left - other.budget_left)[0];
  const rows = guards.filter(guard => guard.name.toLowerCase().includes(guardFilter.text.toLowerCase())
    && ({'': true, not_closed: rank(guard) < 6, faults_injected: guard.injected_share > 0}[guardFilter.state] ?? guard.state === guardFilter.state));
  return html`<dl class="facts"><${Fact} name="Guards">${count(guards.length)}<//><${Fact} name="Breakers open" tone=${open && 'bad'}>${count(open)}<//>
    <${Fact} name="Traffic">${rate(sum(guards.map(guard => guard.rate)))}<//><${Fact} name="Errors" tone=${errorTone(errors)}>${share(errors)}<//>
    <${Fact} name="Faults injected" tone=${total('injected') && 'chaos'}>${count(total('injected'))}<//>
    <${Fact} name="Least budget left" tone=${least?.budget_left <= 0 && 'bad'}>${least ? html`${share(least.budget_left)} <span class="small"><${SloLink} name=${least.name} /></span>` : NONE}<//></dl>
  <form class="filters" role="search" aria-label="Guards" onSubmit=${event => event.preventDefault()}>${text('Filter guards')}${choice('state', 'State', ['not_closed', ...STATES, 'faults_injected'])}
    <span class="muted" role="status">${count(rows.length)} of ${plural(guards.length, 'guard')}</span></form>
  <${Table} caption="Guards" columns=${GUARDS} rows=${rows} id=${row => row.name} start=${['state', false]} mark=${row => rank(row) < 2 && 'alarm'} empty=${guards.length ? 'No guard is like that.' : 'This service has no guard yet.'} />
  ${routes.length > 0 && html`<${Table} caption="Routes" columns=${ROUTES} rows=${routes} id=${row => row.name} start=${['rate', true]} />`}
  <${Sources} sources=${picture.sources} /><p class="muted small">Figures are of the last ${span(guards[0]?.window ?? 60)}.</p>`;
}

// Events: what happened, newest first; they can be held still while somebody reads.

const newest = rows => [...(rows || [])].sort((one, other) => other.at - one.at || other.id - one.id);
const EVENTS = [
  column('at', 'At', row => time(row.at), unsorted), column('level', 'Level', row => html`<${Badge} state=${row.level} />`, unsorted),
  column('text', 'What happened', row => html`<${Name}>${row.text}<//>`, unsorted),
  column('about', 'About', row => (store.picture.guards.some(guard => guard.name === row.about) ? html`<${GuardLink} name=${row.about} />` : html`<${Name}>${row.about ?? NONE}<//>`), {...unsorted, wide: 2}),
  named('kind', 'Kind', {...unsorted, wide: 2}), named('source', 'In', {...unsorted, wide: 3}),
  column('facts', 'Facts', row => html`<details><summary>Facts</summary>${Object.entries(row.facts || {}).map(([name, value]) => html`<code key=${name}>${plain(name)}: ${plain(JSON.stringify(value))}</code>`)}</details>`, {...unsorted, wide: 2}),
];
const LEVELS = ['debug', 'info', 'warning', 'error', 'critical'];
const atLeast = level => row => LEVELS.indexOf(row.level) >= LEVELS.indexOf(level);
const EventTable = ({caption, rows, ...rest}) => html`<${Table} caption=${caption} columns=${EVENTS} rows=${newest(rows)} id=${row => `${row.source} ${row.id}`} empty="Nothing has happened, or nothing is like that." ...${rest} />`;

const eventFilter = {text: '', kind: '', level: 'info'};
let still = [];
export function hold() {
  still = store.events;
  set({paused: !store.paused, fresh: 0});
}

function About({name}) {
  const {data} = useAnswer(`api/events?about=${encodeURIComponent(name)}&most=200`);
  return html`<p>Only about <${Name}>${name}<//>. <a href="#/events">Show all</a></p><${EventTable} caption="Events" hide rows=${data?.events} />`;
}

export function Events({about}) {
  const {text, choice} = filters(eventFilter, useState()[1]), all = store.paused ? still : store.events;
  if (about) return html`<${About} name=${about} />`;
  const kinds = [...new Set(store.events.map(row => row.kind))].sort();
  const rows = all.filter(row => (!eventFilter.kind || row.kind === eventFilter.kind) && atLeast(eventFilter.level)(row)
    && `${row.text} ${row.about} ${row.source}`.toLowerCase().includes(eventFilter.text.toLowerCase()));
  return html`<form class="filters" role="search" aria-label="Events" onSubmit=${event => event.preventDefault()}>${text('Filter events')}${choice('kind', 'Kind', kinds)}${choice('level', 'At least', LEVELS.slice(1))}
    <button type="button" aria-pressed=${store.paused} onClick=${hold}>Pause <kbd>p</kbd></button>
    <span class="muted">${store.paused ? `Held still; ${plural(store.fresh, 'new event')}` : plural(rows.length, 'event')}${store.lost > 0 && `; ${count(store.lost)} were lost on the way`}</span></form><${EventTable} caption="Events" hide rows=${rows} />`;
}

// Objectives: what was promised, what is left of the budget, how fast it goes.

const WINDOWS = [[300, '5 min'], [1800, '30 min'], [3600, '1 h'], [7200, '2 h'], [21600, '6 h'], [86400, '1 d'], [259200, '3 d']];
const burnTone = burn => (burn >= 6 ? 'bad' : burn > 1 && 'warn'); // At 6, a budget of 30 days is gone in five.
const leftTone = left => (left == null ? '' : left <= 0 ? 'bad' : left < 0.25 ? 'warn' : 'good');

const INCIDENTS = [
  column('began', 'Began', row => time(row.began)), column('subject', 'Of', row => html`<${row.kind === 'guard' ? GuardLink : SloLink} name=${row.subject} />`),
  number('ended', 'Lasted', count, {cell: row => (row.ended == null ? html`<${Badge} state="open" text="goes on" />` : span(row.ended - row.began))}),
  number('detected_after', 'Detected after', seconds, {wide: 2}), number('mitigated_after', 'Mitigated after', seconds, {wide: 2}),
  column('injected', 'Cause', row => (row.injected ? html`<${Badge} state="running" text=${`injected by ${plain(row.experiment)}`} />` : 'not injected')),
];
const Incidents = ({rows}) => html`<${Table} caption="Incidents" columns=${INCIDENTS} rows=${rows || []} id=${row => row.id} start=${['began', true]} empty="None is known here." />`;

function Objective({slo, theme}) {
  const {at = [], left} = slo.budget_series || {};
  return html`<dl class="facts"><${Fact} name="Objective">${target(slo.target)}<//><${Fact} name="Kept" tone=${slo.compliance < slo.target && slo.compliance != null && 'bad'}>${share(slo.compliance, 2)}<//>
      <${Fact} name="Budget left" tone=${leftTone(slo.budget_left)}>${share(slo.budget_left)}<//><${Fact} name="Spent in">${slo.budget_left <= 0 && slo.budget_left != null ? 'spent' : span(slo.exhausted_in)}<//></dl>
    <${Bar} value=${slo.budget_left} tone=${leftTone(slo.budget_left)} />
    <p class="muted small">${count(slo.good)} good, ${count(slo.bad)} bad in ${span(slo.period)}; ${spaced(slo.kind)}${slo.policy && `, policy ${spaced(slo.policy)}`}.${slo.blocks && html` <strong class="bad">It holds back releases and experiments.</strong>`}</p>
    <${Grid} caption="Burn rate: at 1 the budget lasts just the period" head=${['Over', ...WINDOWS.map(([, name]) => name)]} rows=${[['Burn', ...WINDOWS.map(([key]) => html`<span class=${burnTone(slo.burn?.[key])}>${figure(slo.burn?.[key], 1)}</span>`)]]} />
    ${left?.some(each => each != null) && html`<${Plot} label="Budget left" at=${at} lines=${[{label: 'left', values: left, tone: 'accent'}]} format=${value => share(value, 0)} theme=${theme} high=${1} />`}`;
}

const Alerts = ({slo}) => (slo.alerts || []).map(alert => html`<span key=${alert.severity} class="alert"><${Badge} state=${alert.severity} text=${`${spaced(alert.severity)} since ${time(alert.since)}`} /></span>`);

export function Slos({picture, theme}) {
  const [page, turn] = useState(0), all = [...(picture.objectives || [])].sort((one, other) => (one.budget_left ?? 2) - (other.budget_left ?? 2) || one.name.localeCompare(other.name));
  if (!all.length) return html`<p class="empty">This service has no objective yet.</p>`;
  const pages = Math.ceil(all.length / 12);
  return html`<div class="cards">${all.slice(page * 12, page * 12 + 12).map(slo => html`<article key=${slo.name} class="card"><h2><${SloLink} name=${slo.name} /><${Alerts} slo=${slo} /></h2><${Objective} slo=${slo} theme=${theme} /></article>`)}</div>
    <${Pager} page=${page} pages=${pages} turn=${turn} what="objectives">${page + 1} of ${pages}<//><${Incidents} rows=${picture.incidents?.filter(row => row.kind !== 'guard')} />`;
}

export function Slo({picture, name, theme}) {
  const {data, error} = useAnswer(`api/objectives/${encodeURIComponent(name)}`, 5), here = picture.objectives?.find(one => one.name === name);
  if (!here && !data) return nothing(error);
  const slo = {...data, ...here};
  return html`<p><${Alerts} slo=${slo} /></p><section class="card"><${Objective} slo=${slo} theme=${theme} /></section>
    ${slo.guards?.length > 0 && html`<p>What counts for it: ${slo.guards.map((guard, place) => html`${place > 0 && ', '}<${GuardLink} name=${guard.name ?? guard} />`)}.</p>`}<${Incidents} rows=${slo.incidents} />`;
}

// One guard: what it is made of, what it did lately, and why it said no.

const LEVERS = [
  ['trip', 'Trip', 'It rejects calls now, and probes again by itself when its open time is over.'], ['reset', 'Reset', 'It is closed with an empty window, whatever held it open.'],
  ['force_open', 'Force open', 'It rejects every call until somebody resets it.'], ['disable', 'Disable', 'Every call passes, and none is judged, until somebody resets it.'],
];
const TIMELINE = [
  column('at', 'At', row => time(row.at)), column('after', 'Change', row => html`<${Badge} state=${row.before} /> <span aria-label="to">→</span> <${Badge} state=${row.after} />`, unsorted),
  column('cause', 'Because', row => spaced(row.cause)), named('source', 'In', {wide: 2}),
];

// When each source was in which state, in the time that the columns cover.
function Strips({timeline, from, end}) {
  const wide = at => Math.max(0, (at - from) / (end - from)) * 1000;
  return html`<div class="strips" aria-hidden="true">${[...new Set(timeline.map(row => row.source))].sort().map(source => {
    const own = timeline.filter(row => row.source === source).sort((one, other) => one.at - other.at);
    return html`<div key=${source}><${Name}>${source}<//><svg viewBox="0 0 1000 10" preserveAspectRatio="none">${[{at: from, after: own[0].before}, ...own].map((row, place) => html`<rect key=${place} class=${toneOf(row.after)} x=${wide(row.at)} width=${Math.max(0, wide(own[place]?.at ?? end) - wide(row.at))} height="10" />`)}</svg></div>`;
  })}</div>`;
}

const Pairs = ({caption, values, empty}) => html`<${Table} caption=${caption} rows=${Object.entries(values || {})} id=${row => row[0]} empty=${empty} columns=${[column(0, 'What', row => spaced(row[0])), number(1, 'Value', value => (typeof value === 'number' ? +value.toFixed(3) : plain(JSON.stringify(value))))]} />`;

export function Guard({picture, name, theme}) {
  const {data, error} = useAnswer(`api/guards/${encodeURIComponent(name)}`), here = picture.guards.find(one => one.name === name);
  if (!here && !data) return nothing(error);
  const guard = {...data, ...here}, series = guard.series || {}, timeline = guard.timeline || [], columns = picture.columns || [];
  const lever = ([key, label, text]) => html`<button key=${key} type="button" onClick=${() => confirm({title: `${label} the breaker of ${plain(name)}?`, text, label, danger: key !== 'reset', run: () => command(post('breakers', name, key), `${label} ${plain(name)}`)})}>${label}</button>`;
  return html`<p class="actions"><${Badge} state=${guard.state} text=${guard.state == null && 'no breaker'} /><span class="muted">${[Object.keys(guard.states || {}).length > 1 && states(guard.states), guard.held_by?.length > 0 && `full path for ${guard.held_by.map(spaced).join(', ')}`,
      guard.throttled > 0 && `${share(guard.throttled)} throttled`, guard.budget_scale != null && `budgets at ${share(guard.budget_scale)}`].filter(Boolean).join('; ')}</span>${guard.state != null && may('breaker') && LEVERS.map(lever)}</p>
    <dl class="facts"><${Fact} name="Traffic">${rate(guard.rate)}<//><${Fact} name="Errors" tone=${errorTone(guard.error_share)}>${share(guard.error_share)}<//>${['p50', 'p95', 'p99'].map(key => html`<${Fact} key=${key} name=${key}>${seconds(guard[key])}<//>`)}
      <${Fact} name="Injected" tone=${guard.injected_share && 'chaos'}>${share(guard.injected_share)}<//></dl>
    <div class="cards parts"><section class="card"><h2>Pipeline</h2><p class="muted small">From the outside to the call. At worst it takes ${guard.worst_case == null ? 'as long as the call does' : seconds(guard.worst_case)}.</p>
      <ol class="pipeline">${(guard.stages || (guard.pipeline || []).map(stage => ({name: stage}))).map(stage => html`<li key=${stage.name}><strong>${stage.name === 'callee' ? 'the call' : spaced(stage.name)}</strong> ${plain(stage.says ?? '')} ${stage.worst_case != null && html`<span class="muted">at worst ${seconds(stage.worst_case)}</span>`}</li>`)}</ol>
      <ul class="small">${[...guard.findings || [], ...guard.changed || [], ...guard.options || []].map(text => html`<li key=${text}>${plain(text)}</li>`)}</ul></section>
    <${Grid} caption="Calls" head=${['Outcome', `Last ${span(guard.window)}`, 'Since the start']} rows=${['good', 'bad', 'rejected', 'abandoned', 'ignored', 'injected'].map(kind => [kind, count(guard.counts?.[kind]), count(guard.totals?.[kind])])} />
    <div><${Pairs} caption="Rejections by reason" values=${guard.rejections} empty="No call was rejected." />${guard.tally && html`<${Pairs} caption="Window of the breaker" values=${guard.tally} />`}</div></div>
    ${series.calls?.length > 0 && html`<${Plot} label=${`Calls per ${span(picture.step)}`} at=${columns} theme=${theme} format=${count} lines=${[['calls', 'accent'], ['bad', 'bad', [6, 3]], ['rejected', 'warn', [2, 2]]].map(([key, tone, dash]) => ({label: key, values: series[key] || [], tone, dash}))} />`}
    <section class="card"><h2>Latency</h2>${data?.heat ? html`<${Heat} heat=${data.heat} theme=${theme} />` : nothing(error)}</section>
    ${timeline.length > 0 && html`<section class="card"><h2>States</h2><${Strips} timeline=${timeline} from=${columns[0] ?? timeline[0].at} end=${picture.at} /></section>`}
    <${Table} caption="Changes of state" columns=${TIMELINE} rows=${timeline} id=${row => `${row.source} ${row.at} ${row.after}`} start=${['at', true]} size=${10} empty="None lately." />
    <${Incidents} rows=${picture.incidents?.filter(row => row.subject === name)} /><${EventTable} caption="Events about it" rows=${data?.recent?.filter(atLeast('info'))} size=${10} /><p><a href=${`#/events?about=${encodeURIComponent(name)}`}>All events about it</a></p>`;
}

// Chaos: what strikes on purpose, for how long yet, what of it reached callers, and how to end it.

export const running = picture => (picture?.experiments || []).filter(one => one.state === 'running');
export const left = one => span(one.state === 'running' ? Math.max(0, one.remaining - silence()) : null);

export function kill(picture) {
  const active = running(picture).length;
  confirm({
    title: 'Stop all chaos now?', danger: true, label: 'Stop everything', run: () => command('api/stop', 'Stop all chaos'),
    text: `${active ? plural(active, 'experiment') : 'Whatever runs'} will end in every process of this service on this machine.`,
    field: may('engage') && 'If it is to stay stopped: why?', second: may('engage') && {label: 'Stop and keep it stopped', run: reason => command('api/engage', 'Engage the kill switch', {reason: reason || 'engaged on the page'})},
  });
}

const WHAT = [
  column('kind', 'Fault', row => html`<strong>${spaced(row.kind)}</strong> <span class="muted small"><${Name}>${row.id}<//></span>`), column('state', 'State', row => html`<${Badge} state=${row.state} />`, {wide: 1}),
  column('target', 'Target', row => html`<code><${Name}>${row.target}<//></code> <span class="muted">${share(row.rate)}</span>`),
];
const RESULT = [
  number('injected', 'Injected'), number('absorbed', 'Absorbed', count, {cell: row => html`${count(row.absorbed)} <span class="muted">${row.injected > 0 && share(row.absorbed / row.injected)}</span><${Bar} tone="good" value=${row.absorbed / row.injected} />`}),
  column('struck', 'Struck', row => Object.entries(row.struck || {}).map(([name, calls], place) => html`${place > 0 && ', '}<${GuardLink} name=${name} /> ${count(calls)}`), {...unsorted, wide: 2}),
  named('by', 'By', {wide: 3}), number('sources', 'Processes', all => count(all?.length), {wide: 3}),
];
const ACTIVE = [...WHAT, number('remaining', 'Left', span, {cell: row => html`<strong>${row.state === 'running' ? left(row) : `in ${span(row.starts_at - now())}`}</strong>`}), ...RESULT, column('stop', 'Stop', row => may('experiment') && html`<button type="button" aria-label=${`Stop ${plain(row.id)}`} onClick=${() => confirm({
  title: `Stop ${plain(row.kind)} on ${plain(row.target)}?`, label: 'Stop it', danger: true, text: 'It ends in every process that runs it.', run: () => command(post('experiments', row.id, 'stop'), `Stop ${plain(row.id)}`),
})}>Stop</button>`, unsorted)];
const ENDED = [...WHAT, column('starts_at', 'Began', row => time(row.starts_at)), column('end_reason', 'Because', row => spaced(row.end_reason)), ...RESULT];

export function Chaos({picture}) {
  const all = picture.experiments || [], {engaged, allowed, environment, problems = []} = picture.chaos || {}, plans = picture.plans || [];
  return html`<section class=${`card switch ${engaged ? 'held' : ''}`}><div><h2>Kill switch</h2><p>${engaged ? html`<${Badge} state="open" text="engaged" /> ${plain(engaged)}. Nothing is injected, and nothing can be started.`
      : html`<${Badge} state=${allowed ? 'closed' : 'disabled'} text=${allowed ? 'released' : 'not allowed'} /> Experiments may ${allowed ? '' : 'not '}run in environment ${plain(environment)}.`}</p><ul>${problems.map(problem => html`<li key=${problem}>${plain(problem)}</li>`)}</ul></div>
    <p class="actions">${may('stop') && html`<button type="button" class="primary danger" onClick=${() => kill(picture)}>Stop all chaos <kbd>k</kbd></button>`}
      ${engaged && may('engage') && html`<button type="button" onClick=${() => confirm({title: 'Release the kill switch?', text: 'Experiments can be started again. None starts by itself.', label: 'Release it', run: () => command('api/disengage', 'Release the kill switch')})}>Release</button>`}</p></section>
  <${Table} caption="Running and scheduled" columns=${ACTIVE} rows=${all.filter(one => one.state !== 'ended')} id=${row => row.id} empty="No experiment runs, and none is scheduled." />
  <section class="card"><h2>Approved plans</h2>${plans.length ? html`<ul class="plans">${plans.map(plan => html`<li key=${plan.name}><div><strong><${Name}>${plan.name}<//></strong><br /><span class="muted">${plain(plan.about)}${plan.windows > 1 && `, ${plan.windows} windows`}</span></div>
    ${may('experiment') && html`<button type="button" aria-label=${`Start ${plain(plan.name)}`} disabled=${Boolean(engaged) || !allowed} onClick=${() => confirm({title: `Start “${plain(plan.name)}”?`, label: 'Start it', text: `${plain(plan.about)}. It strikes real calls of this service, and ends by itself.`, run: () => command('api/experiments', `Start ${plain(plan.name)}`, {plan: plan.name})})}>Start</button>`}</li>`)}</ul>`
    : html`<p class="empty">None. They are given in code, so that nobody makes one up here.</p>`}</section>
  <${Table} caption="Ended lately" columns=${ENDED} rows=${all.filter(one => one.state === 'ended')} id=${row => row.id} start=${['starts_at', true]} empty="None has ended since the start." />`;
}

// Canary: releases that are being tried, how much traffic they have, and what speaks against them.

const ACTIONS = [
  ['promote', 'Promote', 'The new version gets all traffic.'], ['rollback', 'Roll back', 'The old version gets all traffic again.'],
  ['pause', 'Pause', 'The weights stay as they are.'], ['resume', 'Resume', 'The ramp goes on.'],
];
const EVIDENCE = [named('slo', 'Objective'), number('e_value', 'Evidence of harm', figure, {tone: row => row.e_value >= row.threshold && 'bad'}), number('threshold', 'Too much at', value => figure(value, 0)), number('bad', 'Bad'), number('events', 'Calls')];
const ENDPOINTS = [named('name', 'Endpoint'), column('state', 'State', row => html`<${Badge} state=${row.state} />`), number('weight', 'Weight', figure)];

function Canary({canary, theme}) {
  const {at = [], log10 = {}} = canary.evidence_series || {}, limit = canary.evidence?.[0]?.threshold, name = plain(canary.name);
  const lines = Object.entries(log10).slice(0, 4).map(([slo, values], place) => ({label: plain(slo), values, tone: ['accent', 'chaos', 'good', 'muted'][place]}));
  if (limit > 0) lines.push({label: 'too much', values: at.map(() => Math.log10(limit)), tone: 'bad', dash: [6, 4]});
  return html`<article class="card"><h2><${Name}>${canary.name}<//> <span class="muted">version <${Name}>${canary.version}<//></span> <${Badge} state=${canary.paused ? 'paused' : canary.outcome ?? 'running'} text=${spaced(canary.paused ? 'paused' : canary.outcome ?? canary.phase)} /></h2>
    <dl class="facts"><${Fact} name="Phase">${spaced(canary.phase)}<//><${Fact} name="New version">${share(canary.weight)}<//><${Fact} name="Old version">${share(canary.weight == null ? null : 1 - canary.weight)}<//><${Fact} name="Began">${time(canary.began)}<//></dl><${Bar} tone="accent" value=${canary.weight} />
    ${canary.reason && html`<p>${plain(canary.reason)}</p>`}${at.length > 0 && html`<${Plot} label="Evidence of harm, as a power of ten" at=${at} lines=${lines} format=${value => figure(value, 1)} theme=${theme} />`}
    <${Table} caption="Evidence by objective" columns=${EVIDENCE} rows=${canary.evidence || []} id=${row => row.slo} empty="None has been gathered yet." />
    <p class="actions">${may('canary') && canary.outcome == null && ACTIONS.filter(([key]) => key !== (canary.paused ? 'pause' : 'resume')).map(([key, label, text]) => html`<button key=${key} type="button" onClick=${() => confirm({
      title: `${label}: ${name}, version ${plain(canary.version)}?`, text, label, danger: key === 'rollback', run: () => command(post('canaries', canary.name, key), `${label} ${name}`)})}>${label}</button>`)}</p></article>`;
}

export function Canaries({picture: {canaries = [], pools = []}, theme}) {
  return html`${canaries.length ? html`<div class="cards">${canaries.map(canary => html`<${Canary} key=${canary.name} canary=${canary} theme=${theme} />`)}</div>` : html`<p class="empty">No release is being tried here.</p>`}
    ${pools.map(pool => html`<${Table} key=${pool.name} caption=${`Pool ${plain(pool.name)}`} rows=${pool.endpoints} id=${row => row.name} columns=${ENDPOINTS} />`)}`;
}
