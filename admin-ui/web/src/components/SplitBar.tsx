/** A split as one bar, with its legend in words. */
import type { ArmSpec } from "../api/types";
import { colour } from "./Chart";

export function SplitBar({ arms }: { arms: ArmSpec[] }) {
  return (
    <div>
      <div className="splitbar" aria-hidden="true">
        {arms.map((arm, at) => (
          <span key={at} style={{ width: `${arm.weight}%`, background: colour(at) }} />
        ))}
      </div>
      <div className="legend" style={{ marginTop: 4 }}>
        {arms.map((arm, at) => (
          <span key={at}>
            <span className="swatch" style={{ background: colour(at) }} />
            {arm.name} {arm.weight} %
          </span>
        ))}
      </div>
    </div>
  );
}
