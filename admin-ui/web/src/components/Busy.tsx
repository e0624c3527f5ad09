/** How busy something is, as a bar and in words. */
import { percent } from "../lib/format";

export function Busy({ name, fraction }: { name: string; fraction: number | null | undefined }) {
  const share = fraction ?? 0;
  return (
    <>
      <span>{name}</span>
      <div
        className="busybar"
        role="meter"
        aria-label={name}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={Math.round(share * 100)}
      >
        <span style={{ width: `${share * 100}%` }} />
      </div>
      <span>{fraction === null || fraction === undefined ? "–" : percent(Math.round(share * 1000) / 1000)}</span>
    </>
  );
}
