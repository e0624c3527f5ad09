/** Numbers and times for people. */

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export function rate(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  return value < 100 ? value.toFixed(1) : compact.format(value);
}
export function count(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  return value < 100_000 ? value.toLocaleString("en") : compact.format(value);
}
export function millis(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  if (value >= 1000) return `${(value / 1000).toFixed(2)} s`;
  return `${value < 10 ? value.toFixed(2) : value.toFixed(1)} ms`;
}
export function percent(value: number): string {
  return `${Number((value * 100).toFixed(2))} %`;
}
export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let size = value;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? size : size.toFixed(1)} ${units[unit]}`;
}
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const [d, h, m, s] = [
    Math.floor(whole / 86_400),
    Math.floor(whole / 3600) % 24,
    Math.floor(whole / 60) % 60,
    whole % 60,
  ];
  if (d > 0) return `${d} d ${h} h`;
  if (h > 0) return `${h} h ${m} min`;
  return m > 0 ? `${m} min ${s} s` : `${s} s`;
}
export function when(time: string | number | null | undefined): string {
  if (time === null || time === undefined) return "–";
  const date = new Date(time);
  return Number.isNaN(date.getTime())
    ? String(time)
    : date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
}
