// Figures as text; what is not known is a dash.

const DASH = "–";
const SPACE = "\u00a0"; // a unit stays with its number
const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

export const number = (value, digits = 3) =>
  known(value) ? value.toLocaleString("en", { maximumSignificantDigits: Math.max(digits, String(Math.trunc(Math.abs(value))).length) }) : DASH;

export const percent = (ratio) => (known(ratio) ? `${number(100 * ratio)}${SPACE}%` : DASH);

export const duration = (seconds) => {
  if (!known(seconds)) return DASH;
  return seconds < 1 ? `${number(1000 * seconds)}${SPACE}ms` : `${number(seconds)}${SPACE}s`;
};

export const of = (have, wanted) => (known(wanted) ? `${number(have)} / ${number(wanted)}` : number(have));

const UNITS = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];

// A span of time in the two greatest units that it has.
export function span(seconds) {
  let left = Math.max(0, Math.round(seconds));
  const words = [];
  for (const [unit, length] of UNITS) {
    const count = Math.floor(left / length);
    left %= length;
    if (count) words.push(`${count} ${unit}`);
  }
  return words.slice(0, 2).join(" ") || "0 s";
}

export const clock = (seconds) => new Date(1000 * seconds).toLocaleTimeString("en-GB");
