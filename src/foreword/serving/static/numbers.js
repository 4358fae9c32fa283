/** Numbers as the report writes them. */

export const NOTHING = "–";

/** A measure: `.374`, `1.000`, `12.5`; a dash for what is missing. */
export function value(number, digits = 3) {
  if (typeof number !== "number" || !Number.isFinite(number)) return NOTHING;
  const text = Math.abs(number) < 10 ? number.toFixed(digits) : number.toLocaleString("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
  return text.replace(/^(-?)0\./, "$1.").replace("-", "−");
}

/** A difference with its sign: `+.069`, `−.012`, `.000`. */
export function difference(number) {
  const text = value(number);
  if (/^−?\.0+$/.test(text)) return text.replace("−", "");
  return number > 0 ? `+${text}` : text;
}

/** A count with thousands parted. */
export function count(number) {
  return typeof number === "number" ? Math.trunc(number).toLocaleString("en") : NOTHING;
}

/** `1 hit`, `3 hits`. */
export function several(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** Bytes: `0 B`, `49.2 kB`, `1.2 MB` (thousands). */
export function size(number) {
  if (typeof number !== "number") return NOTHING;
  const units = ["B", "kB", "MB", "GB"];
  let amount = number;
  let unit = 0;
  while (amount >= 999.95 && unit < units.length - 1) {
    amount /= 1000;
    unit += 1;
  }
  return `${amount.toFixed(unit ? 1 : 0)} ${units[unit]}`;
}

/** Seconds: `12 s`, `2 min`, `3 h`, `4 days`. */
export function duration(seconds) {
  if (typeof seconds !== "number") return NOTHING;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}
