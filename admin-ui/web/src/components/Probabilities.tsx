/** What every arm answered, class by class, side by side. */
import type { TryArm } from "../api/types";
import { millis, percent } from "../lib/format";
import { colour } from "./Chart";
import { Scroll } from "./states";

const MAX_CLASSES = 32;

/** An arm's answer as one row of probabilities, when it is that. */
export function probabilitiesOf(arm: TryArm): number[] | null {
  const output = arm.response?.outputs?.[0];
  const flat = output?.data.flat(4) ?? [];
  const fits =
    flat.length >= 2 &&
    flat.length <= MAX_CLASSES &&
    flat.every((value) => typeof value === "number" && value >= -1e-6 && value <= 1 + 1e-6);
  return fits ? (flat as number[]) : null;
}

export const errorOf = (arm: TryArm): string | null => {
  if (!arm.error) return null;
  return typeof arm.error === "string" ? arm.error : (arm.error.error ?? "the arm answered an error");
};

const top = (values: number[]): number => values.indexOf(Math.max(...values));

export function Probabilities({ arms }: { arms: TryArm[] }) {
  const known = arms.map((arm) => ({ arm, values: probabilitiesOf(arm) ?? [] }));
  const classes = Math.max(0, ...known.map((item) => item.values.length));
  const said = known
    .filter((item) => item.values.length > 0)
    .map((item) => `${item.arm.arm} says ${top(item.values)} (${percent(Math.max(...item.values))})`);
  return (
    <>
      <p role="status" style={{ margin: "0 0 8px", fontWeight: 650 }}>
        {said.join(", ")}
      </p>
      <Scroll label="Probabilities by class">
        <table className="grid probs">
          <thead>
            <tr>
              <th scope="col">Class</th>
              {known.map(({ arm }, at) => (
                <th scope="col" key={arm.arm}>
                  <span className="swatch" style={{ background: colour(at) }} />
                  {arm.arm}
                  {arm.version !== null && arm.version !== undefined && ` · version ${arm.version}`}
                  {typeof arm.milliseconds === "number" && ` · ${millis(arm.milliseconds)}`}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {Array.from({ length: classes }, (_, digit) => (
              <tr key={digit}>
                <th scope="row" style={{ border: 0, fontSize: "0.95rem", color: "inherit" }}>
                  {digit}
                </th>
                {known.map(({ arm, values }, at) => (
                  <td key={arm.arm} data-top={top(values) === digit} style={{ width: `${90 / known.length}%` }}>
                    <div style={{ display: "grid", gridTemplateColumns: "1fr 74px", gap: 10, alignItems: "center" }}>
                      <span
                        className="bar"
                        aria-hidden="true"
                        style={{ width: `${(values[digit] ?? 0) * 100}%`, background: colour(at) }}
                      />
                      <span className="num" data-probability={values[digit]}>
                        {values[digit] === undefined ? "–" : percent(values[digit])}
                      </span>
                    </div>
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </>
  );
}
