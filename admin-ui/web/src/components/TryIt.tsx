/** Sends one input to every arm of an endpoint, drawn or written. */
import { Button, Group, SegmentedControl, Stack, Text, Textarea } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";

import { call, paths } from "../api/client";
import type { TensorSpec, TryAnswer, TryArm, VersionSpec } from "../api/types";
import { blank, fromPixels, pixels, type Drawing } from "../lib/drawing";
import { millis } from "../lib/format";
import { exampleInputs, shapeOf } from "../lib/models";
import { SAMPLES } from "../lib/samples";
import { Code, Curl } from "./Copy";
import { DigitGrid } from "./DigitGrid";
import { errorOf, Probabilities, probabilitiesOf } from "./Probabilities";
import { Empty, Failure, Surface } from "./states";

interface Props {
  tenant: string;
  endpoint: string;
  spec: VersionSpec | undefined;
  drawable: TensorSpec | undefined;
}

export function TryIt({ tenant, endpoint, spec, drawable }: Props) {
  const [mode, setMode] = useState<"draw" | "write">(drawable ? "draw" : "write");
  const path = `${paths.endpoint(tenant, endpoint)}/try`;
  const attempt = useMutation({
    mutationFn: (inputs: unknown) => call<TryAnswer>(path, { method: "POST", json: { inputs } }),
  });
  return (
    <Surface
      title="Try it on every arm"
      aside={
        drawable && (
          <SegmentedControl
            size="xs"
            aria-label="How to give the input"
            value={mode}
            onChange={(value) => setMode(value as "draw" | "write")}
            data={[
              { value: "draw", label: "Draw" },
              { value: "write", label: "JSON" },
            ]}
          />
        )
      }
    >
      {mode === "draw" && drawable ? (
        <Draw
          input={drawable}
          batched={(spec?.config.max_batch_size ?? 0) > 0}
          path={path}
          send={attempt.mutate}
          answer={attempt.data}
          error={attempt.error}
        />
      ) : (
        <Write
          spec={spec}
          path={path}
          send={attempt.mutate}
          pending={attempt.isPending}
          answer={attempt.data}
          error={attempt.error}
        />
      )}
    </Surface>
  );
}

interface DrawProps {
  input: TensorSpec;
  batched: boolean;
  path: string;
  send: (inputs: unknown) => void;
  answer: TryAnswer | undefined;
  error: unknown;
}

function Draw({ input, batched, path, send, answer, error }: DrawProps) {
  const [drawing, setDrawing] = useState<Drawing>(blank);
  const [latest] = useState<{ drawing: Drawing }>({ drawing });
  const inputs = (of: Drawing) => [
    { name: input.name, datatype: input.datatype, shape: shapeOf(input, batched), data: pixels(of) },
  ];
  const change = (next: Drawing) => {
    latest.drawing = next;
    setDrawing(next);
  };
  const load = (sample: number[]) => {
    const next = fromPixels(sample);
    change(next);
    send(inputs(next));
  };
  return (
    <>
      <div className="trybody">
        <Stack gap="xs">
          <DigitGrid drawing={drawing} onChange={change} onDone={() => send(inputs(latest.drawing))} />
          <Group gap="xs" justify="space-between">
            <Button size="xs" variant="default" onClick={() => change(blank())}>
              Clear
            </Button>
            <Text size="xs" c="dimmed">
              Fill the square. Right button rubs out.
            </Text>
          </Group>
          <Group gap={4} role="group" aria-label="Real digits">
            {SAMPLES.map((sample, digit) => (
              <Button
                key={digit}
                size="compact-xs"
                variant="default"
                px={7}
                aria-label={`Load a handwritten ${digit}`}
                onClick={() => load(sample)}
              >
                {digit}
              </Button>
            ))}
          </Group>
        </Stack>
        <div>
          {error ? (
            <Failure error={error} />
          ) : (
            <Answers
              answer={answer}
              empty="Draw a digit, or load one that somebody wrote: every version answers as soon as you let go."
            />
          )}
        </div>
      </div>
      <Group mt="md">
        <Curl call={{ method: "POST", path, json: { inputs: inputs(drawing) } }} />
      </Group>
    </>
  );
}

interface WriteProps {
  spec: VersionSpec | undefined;
  path: string;
  send: (inputs: unknown) => void;
  pending: boolean;
  answer: TryAnswer | undefined;
  error: unknown;
}

function Write({ spec, path, send, pending, answer, error }: WriteProps) {
  const [text, setText] = useState(() => JSON.stringify(exampleInputs(spec, SAMPLES[7])));
  let inputs: unknown;
  let fault: string | undefined;
  try {
    inputs = JSON.parse(text);
    if (!Array.isArray(inputs)) fault = "inputs are a JSON list, as in the inference protocol";
  } catch (problem) {
    fault = problem instanceof Error ? problem.message : "this is no JSON";
  }
  return (
    <Stack>
      <Textarea
        label="Inputs, JSON"
        autosize
        minRows={4}
        maxRows={14}
        value={text}
        onChange={(event) => setText(event.currentTarget.value)}
        error={fault}
        spellCheck={false}
        styles={{ input: { fontFamily: "var(--mantine-font-family-monospace)", fontSize: "0.84rem" } }}
      />
      <Group justify="space-between">
        <Curl call={{ method: "POST", path, json: { inputs } }} />
        <Button onClick={() => send(inputs)} loading={pending} disabled={fault !== undefined}>
          Send to every arm
        </Button>
      </Group>
      {error ? <Failure error={error} /> : <Answers answer={answer} empty="Nothing sent yet." />}
    </Stack>
  );
}

function Answers({ answer, empty }: { answer: TryAnswer | undefined; empty: string }) {
  if (!answer) return <Empty title="No answer yet">{empty}</Empty>;
  const failed = answer.arms.filter((arm) => errorOf(arm) !== null);
  const bars = answer.arms.filter((arm) => probabilitiesOf(arm) !== null);
  const other = answer.arms.filter((arm) => errorOf(arm) === null && probabilitiesOf(arm) === null);
  return (
    <Stack>
      {bars.length > 0 && <Probabilities arms={bars} />}
      {other.map((arm) => (
        <Plain key={arm.arm} arm={arm} />
      ))}
      {failed.map((arm) => (
        <Failure key={arm.arm} error={new Error(`${arm.arm}: ${errorOf(arm)}`)} />
      ))}
    </Stack>
  );
}

const Plain = ({ arm }: { arm: TryArm }) => (
  <div>
    <Text fw={600} size="sm" mb={4}>
      {arm.arm} · version {arm.version ?? "–"} · {millis(arm.milliseconds)}
    </Text>
    <Code label={`Answer of ${arm.arm}`} text={JSON.stringify(arm.response?.outputs ?? arm.response, null, 2)} />
  </div>
);
