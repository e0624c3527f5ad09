/**
 * Edits the arms of an endpoint. Owns nothing: the draft comes in, every change goes out. Always shows the sum, and why a
 * draft cannot be saved.
 */
import { ActionIcon, Autocomplete, Button, Group, NumberInput, Slider, Stack, Text, TextInput } from "@mantine/core";

import type { ArmSpec } from "../api/types";
import { even, faults, hundredths, MAX_ARMS, newArm, sum, withWeight, ALL } from "../lib/split";
import { colour } from "./Chart";
import { SplitBar } from "./SplitBar";

export interface Choices {
  models: string[];
  /** The labels and numbers that a model's arm can name. */
  versions: (model: string) => string[];
}

interface Props {
  arms: ArmSpec[];
  choices: Choices;
  readOnly: boolean;
  onChange: (arms: ArmSpec[]) => void;
}

export function SplitEditor({ arms, choices, readOnly, onChange }: Props) {
  const found = faults(arms);
  const total = sum(arms);
  const right = hundredths(total) === ALL;
  const set = (at: number, change: Partial<ArmSpec>) =>
    onChange(arms.map((arm, index) => (index === at ? { ...arm, ...change } : arm)));
  return (
    <Stack gap="md">
      <SplitBar arms={arms} />
      <div className="arm-row arm-head" aria-hidden="true">
        <span>Arm</span>
        <span>Model</span>
        <span>Version</span>
        <span>Share</span>
        <span>Percent</span>
      </div>
      {arms.map((arm, at) => (
        <div className="arm-row" key={at} role="group" aria-label={`Arm ${arm.name}`}>
          <TextInput
            aria-label="Arm name"
            value={arm.name}
            disabled={readOnly}
            onChange={(event) => set(at, { name: event.currentTarget.value })}
          />
          <Autocomplete
            aria-label="Model"
            value={arm.model}
            data={choices.models}
            disabled={readOnly}
            onChange={(model) => set(at, { model })}
          />
          <Autocomplete
            aria-label="Version or label"
            placeholder="default"
            value={arm.version ?? ""}
            data={choices.versions(arm.model)}
            disabled={readOnly}
            onChange={(version) => set(at, { version: version || undefined })}
          />
          <Slider
            className="wide"
            color={colour(at)}
            thumbLabel={`Weight of arm ${arm.name}`}
            value={arm.weight}
            min={0}
            max={100}
            step={1}
            label={(value) => `${value} %`}
            disabled={readOnly}
            onChange={(weight) => onChange(withWeight(arms, at, weight))}
          />
          <NumberInput
            aria-label={`Percent for arm ${arm.name}`}
            value={arm.weight}
            min={0}
            max={100}
            decimalScale={2}
            suffix=" %"
            hideControls
            disabled={readOnly}
            onChange={(weight) => onChange(withWeight(arms, at, Number(weight)))}
          />
          <ActionIcon
            variant="subtle"
            color="gray"
            size="lg"
            aria-label={`Remove arm ${arm.name}`}
            disabled={readOnly || arms.length === 1}
            onClick={() => onChange(arms.filter((_, index) => index !== at))}
          >
            <span aria-hidden="true">✕</span>
          </ActionIcon>
        </div>
      ))}
      <Group justify="space-between">
        <Group gap="xs">
          <Button
            variant="default"
            size="xs"
            disabled={readOnly || arms.length >= MAX_ARMS}
            onClick={() => onChange([...arms, newArm(arms)])}
          >
            Add an arm
          </Button>
          <Button
            variant="default"
            size="xs"
            disabled={readOnly || arms.length < 2}
            onClick={() => onChange(even(arms))}
          >
            Split evenly
          </Button>
        </Group>
        <Text
          component="output"
          fw={650}
          style={{ color: right ? "var(--good)" : "var(--bad)" }}
          aria-label="Sum of the weights"
        >
          Sum {total} %
        </Text>
      </Group>
      {found.length > 0 && (
        <Text component="div" size="sm" role="status" style={{ color: "var(--bad)" }}>
          {found.map((fault) => (
            <div key={fault}>{fault}</div>
          ))}
        </Text>
      )}
    </Stack>
  );
}
