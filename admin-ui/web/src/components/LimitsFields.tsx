/** Fields of a tenant's limits and budgets; what they do not show stays as it was. */
import { NumberInput, Switch } from "@mantine/core";

import type { Budget, Budgets, Limits, Unit } from "../api/types";

type Amount = number | string;
const filled = (value: Amount): value is number => typeof value === "number";

const RATES: { unit: Unit; label: string }[] = [
  { unit: "requests", label: "Requests" },
  { unit: "rows", label: "Rows" },
  { unit: "input_bytes", label: "Input bytes" },
  { unit: "device_ms", label: "Device milliseconds" },
];
const WINDOWS = ["daily", "monthly"] as const;
const BUDGETS: { unit: Unit; label: string }[] = [
  { unit: "requests", label: "requests" },
  { unit: "device_ms", label: "device milliseconds" },
];

/** The limits with a rate's number changed; without either number there is no such limit. */
export function withRate(limits: Limits, unit: Unit, part: "per_second" | "burst", value: Amount): Limits {
  const was = limits[unit];
  const next = { ...limits };
  delete next[unit];
  const perSecond = part === "per_second" ? value : (was?.per_second ?? "");
  const burst = part === "burst" ? value : (was?.burst ?? "");
  if (filled(perSecond)) next[unit] = { per_second: perSecond, burst: filled(burst) ? burst : perSecond };
  return next;
}

/** The budgets with a hard mark changed; a budget without a mark is none. */
export function withHard(budgets: Budgets, window: "daily" | "monthly", unit: Unit, value: Amount): Budgets {
  const marks = { ...budgets[window]?.[unit] };
  delete marks.hard;
  if (filled(value)) marks.hard = value;
  const budget: Budget = { ...budgets[window] };
  delete budget[unit];
  if (Object.keys(marks).length > 0) budget[unit] = marks;
  const next = { ...budgets };
  delete next[window];
  if (Object.keys(budget).length > 0) next[window] = budget;
  return next;
}

interface Props {
  limits: Limits;
  budgets: Budgets;
  readOnly: boolean;
  onLimits: (limits: Limits) => void;
  onBudgets: (budgets: Budgets) => void;
}

export function LimitsFields({ limits, budgets, readOnly, onLimits, onBudgets }: Props) {
  const concurrency = (value: Amount) => {
    const next = { ...limits };
    delete next.concurrency;
    if (filled(value)) next.concurrency = value;
    onLimits(next);
  };
  const shadow = (on: boolean) => {
    const next = { ...limits };
    delete next.enforce;
    if (on) next.enforce = "shadow";
    onLimits(next);
  };
  return (
    <>
      {RATES.map(({ unit, label }) => (
        <div className="fields" key={unit}>
          <NumberInput
            label={`${label} per second`}
            description="Empty: no limit"
            value={limits[unit]?.per_second ?? ""}
            onChange={(value) => onLimits(withRate(limits, unit, "per_second", value))}
            min={1}
            allowDecimal={false}
            disabled={readOnly}
          />
          <NumberInput
            label={unit === "requests" ? "Burst" : `${label} at once`}
            description="Empty: the same"
            value={limits[unit]?.burst ?? ""}
            onChange={(value) => onLimits(withRate(limits, unit, "burst", value))}
            min={1}
            allowDecimal={false}
            disabled={readOnly || limits[unit] === undefined}
          />
        </div>
      ))}
      <div className="fields">
        <NumberInput
          label="Requests at once"
          description="Empty: no limit"
          value={limits.concurrency ?? ""}
          onChange={concurrency}
          min={1}
          allowDecimal={false}
          disabled={readOnly}
        />
      </div>
      {WINDOWS.map((window) => (
        <div className="fields" key={window}>
          {BUDGETS.map(({ unit, label }) => (
            <NumberInput
              key={unit}
              label={`${window === "daily" ? "Daily" : "Monthly"} ${label}`}
              description="More is refused. Empty: no budget"
              value={budgets[window]?.[unit]?.hard ?? ""}
              onChange={(value) => onBudgets(withHard(budgets, window, unit, value))}
              min={1}
              allowDecimal={false}
              disabled={readOnly}
            />
          ))}
        </div>
      ))}
      <Switch
        label="Limits in shadow"
        description="Nobody is refused; what would be is counted"
        checked={limits.enforce === "shadow"}
        disabled={readOnly}
        onChange={(event) => shadow(event.currentTarget.checked)}
      />
    </>
  );
}
