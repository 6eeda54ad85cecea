// Numbers, times and names in words. What is not known is a dash, never a zero.
export const NONE = '–';

const known = value => typeof value === 'number' && Number.isFinite(value);
const digits = (value, most) => value.toLocaleString('en', {minimumFractionDigits: most, maximumFractionDigits: most, signDisplay: 'negative'});

export const count = value => (known(value) ? digits(value, 0) : NONE);
export const rate = value => (known(value) ? `${digits(value, value < 99.95 ? 1 : 0)}/s` : NONE);
export const figure = (value, most = 2) => (known(value) ? digits(value, most) : NONE);
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

// A share of 1 as per cent: a little is not "0.0 %", and nearly all is not "100.0 %".
export function share(value, most = 1) {
  if (!known(value)) return NONE;
  const percent = value * 100;
  const fine = percent !== 0 && (Math.abs(percent) < 0.095 || (percent > 99.9 && percent < 100));
  return `${digits(fine && percent > 0 ? Math.min(99.99, Math.max(0.01, percent)) : percent, fine ? 2 : most)} %`;
}

// Objectives are written with the digits that they have.
export const target = value => (known(value) ? `${+(value * 100).toFixed(4)} %` : NONE);

export function seconds(value) {
  if (!known(value)) return NONE;
  if (value < 0.9995) return `${digits(value * 1000, value < 0.01 ? 1 : 0)} ms`;
  return value < 120 ? `${digits(value, value < 10 ? 2 : 1)} s` : span(value);
}

// A long time, by its largest unit and the one below it.
const UNITS = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];
export function span(value) {
  if (!known(value)) return NONE;
  const all = Math.max(0, Math.round(value)), first = Math.max(0, UNITS.findIndex(([unit, size]) => all >= size || unit === 's'));
  let rest = all;
  const parts = UNITS.slice(first, first + 2).map(([unit, size]) => {
    const whole = Math.floor(rest / size);
    rest -= whole * size;
    return (whole || !all) && `${whole} ${unit}`;
  });
  return parts.filter(Boolean).join(' ');
}

const TIME = new Intl.DateTimeFormat('en-GB', {hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23'});
const DAY = new Intl.DateTimeFormat('en-GB', {day: 'numeric', month: 'short'});
export const zone = new Intl.DateTimeFormat('en').resolvedOptions().timeZone;

export function time(at) {
  if (!known(at)) return NONE;
  const date = new Date(at * 1000), today = new Date();
  return date.toDateString() === today.toDateString() ? TIME.format(date) : `${DAY.format(date)} ${TIME.format(date)}`;
}

// Names come from anywhere. Marks that change how the text beside them reads are spelled out.
const MARKS = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
export const plain = text => String(text ?? NONE).replace(MARKS, mark => `\\u${mark.charCodeAt(0).toString(16).padStart(4, '0')}`);
export const spaced = text => plain(text).replaceAll('_', ' ');
