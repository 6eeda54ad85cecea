// What is known here, and how news of it arrives: one stream, and questions beside it. Views read the store and never write to it.
import {useEffect, useState} from './vendor/htm-preact.module.js';
import {plain, spaced, plural} from './words.js';

const QUIET = 5; // Seconds without a picture after which the page says so: one comes every second.
const MOST_EVENTS = 1000;

export const store = {
  picture: null, heard: 0, link: 'connecting', session: {actor: null, may: []},
  events: [], fresh: 0, lost: 0, paused: false, notice: null, dialog: null, said: '', why: '',
};

let draw = () => {};
let waiting = false;
export function changed() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}
export const drawnBy = drawer => { draw = drawer; };
export const set = values => { Object.assign(store, values); changed(); };
// At once: the next key that is pressed is for what it shows.
export const setNow = values => { Object.assign(store, values); draw(); };

const clock = () => performance.now() / 1000;
export const silence = () => (store.picture ? clock() - store.heard : 0);
export const isStale = () => silence() > QUIET;
// The service's time, whatever this machine's clock says.
export const now = () => (store.picture ? store.picture.at + silence() : Date.now() / 1000);
export const may = what => store.session.may.includes(what);

async function answered(response) {
  const told = await response.json().catch(() => ({}));
  if (response.ok) return told;
  const why = told.detail || told.title || (response.status === 404 ? 'not there, or you are no longer signed in' : response.statusText);
  throw Object.assign(new Error(plain(why)), {status: response.status, told});
}

export const ask = async path => answered(await fetch(path, {headers: {accept: 'application/json'}, cache: 'no-store', signal: AbortSignal.timeout(10_000)}));

// Ask for what only one view needs, again and again while that view is shown.
export function useAnswer(path, every = 2) {
  const [held, hold] = useState({});
  useEffect(() => {
    let over = false, timer;
    const again = async () => {
      if (!document.hidden) {
        try {
          const data = await ask(path);
          if (!over) hold({path, data});
        } catch (error) {
          if (!over) hold(old => ({path, data: old.path === path ? old.data : undefined, error}));
        }
      }
      if (!over) timer = setTimeout(again, every * 1000);
    };
    again();
    return () => { over = true; clearTimeout(timer); };
  }, [path]);
  return held.path === path ? held : {};
}

export async function refreshSession() {
  try {
    const session = await ask('api/session');
    set({session: {...session, may: session.may || []}});
  } catch {
    set({session: {actor: null, may: []}});
  }
}

// Do what changes something, and say what became of it: also which processes were not reached.
export async function command(path, what, body = {}) {
  const key = `${Date.now()}-${Math.random()}`; // A request that is sent again is the same one.
  const post = async () => answered(await fetch(path, {
    method: 'POST', body: JSON.stringify(body), signal: AbortSignal.timeout(20_000),
    headers: {'content-type': 'application/json', accept: 'application/json', 'x-somaresil-csrf': store.session.csrf || '', 'idempotency-key': key},
  }));
  try {
    let told;
    try {
      told = await post();
    } catch (error) {
      if (error.status !== 403) throw error;
      await refreshSession(); // The token of a page that was open for long has expired.
      told = await post();
    }
    report(what, told);
  } catch (error) {
    if (error.told?.sources) report(what, {done: false, ...error.told});
    else set({notice: {bad: true, text: `${what}: not done. ${error.message || 'The service did not answer.'}`, rows: []}});
  }
}

function report(what, told) {
  const sources = told.sources || [], missed = sources.filter(source => !source.done);
  const where = sources.length ? ` in ${plural(sources.length - missed.length, 'process', 'processes')}` : '';
  const rows = missed.map(source => `${plain(source.name)}: ${plain(source.problem || 'not reached')}`);
  const text = told.done || missed.length < sources.length ? `${what}: done${where}.` : `${what}: not done.`;
  set({notice: {bad: !told.done || missed.length > 0, text: missed.length ? `${text} Not reached:` : text, rows}});
}

function take(entries, isNews) {
  const held = new Set(store.events.map(entry => `${entry.source} ${entry.id}`));
  const more = entries.filter(entry => !held.has(`${entry.source} ${entry.id}`));
  if (!more.length) return;
  let quiet = 0; // Of those of single calls there are many: they push out one another, and nothing else.
  const events = [...more, ...store.events].sort((one, other) => other.at - one.at || other.id - one.id)
    .filter(entry => entry.level !== 'debug' || quiet++ < MOST_EVENTS / 4).slice(0, MOST_EVENTS);
  set({events, fresh: store.fresh + (isNews ? more.length : 0)});
}

// Said aloud are changes of state, never figures.
function differences(before, after) {
  const states = new Map(before.guards.map(guard => [guard.name, guard.state]));
  const told = after.guards.filter(guard => states.has(guard.name) && states.get(guard.name) !== guard.state)
    .map(guard => `${plain(guard.name)} is ${spaced(guard.state)}`);
  const running = picture => (picture.experiments || []).filter(one => one.state === 'running').map(one => one.id).join();
  if (running(before) !== running(after)) {
    const active = (after.experiments || []).filter(one => one.state === 'running').length;
    told.push(active ? `${plural(active, 'experiment')} running` : 'no experiment is running');
  }
  for (const slo of after.objectives || []) {
    const old = (before.objectives || []).find(one => one.name === slo.name);
    if (slo.alerts?.length > (old?.alerts?.length ?? 0)) told.push(`${plain(slo.name)}: alert ${plain(slo.alerts.at(-1).severity)}`);
  }
  return told.length > 3 ? [...told.slice(0, 3), `and ${told.length - 3} more changes`] : told;
}

export function receive(picture) {
  const told = store.picture ? differences(store.picture, picture) : [];
  set({picture, heard: clock(), link: 'live', why: '', ...(told.length && {said: told.join('; ')})});
}

// After a gap always the newest ones: the worker that answers now may count otherwise than the one before it.
async function catchUp() {
  const first = !store.events.length;
  const told = await ask('api/events?most=200').catch(() => null);
  if (told) take(told.events, !first);
}

let stream, pause = 2;
export function connect() {
  stream = new EventSource('api/stream');
  stream.addEventListener('picture', message => { pause = 2; receive(JSON.parse(message.data)); });
  stream.addEventListener('event', message => take([JSON.parse(message.data)], true));
  stream.addEventListener('lost', message => { store.lost += JSON.parse(message.data).lost || 0; });
  stream.onopen = () => { catchUp(); refreshSession(); };
  stream.onerror = () => {
    set({link: 'lost'});
    if (stream.readyState !== EventSource.CLOSED) return; // It tries again by itself.
    stream.close();
    ask('api/picture').then(receive, error => set({why: `It is asked again and again: ${error.message}.`}))
      .finally(() => setTimeout(connect, pause * 1000 * (0.75 + Math.random() / 2)));
    pause = Math.min(30, pause * 2);
  };
}
addEventListener('pagehide', () => stream?.close());
addEventListener('pageshow', event => { if (event.persisted) connect(); });
setInterval(changed, 1000);
