/** A call of the endpoint, ready to copy. */
import { Group, Stack, Text, TextInput } from "@mantine/core";
import { useState } from "react";

import type { Endpoint, VersionSpec } from "../api/types";
import { quote } from "../lib/curl";
import { inferenceAddress, keepInferenceAddress } from "../lib/door";
import { exampleInputs } from "../lib/models";
import { SAMPLES } from "../lib/samples";
import { Code, Copy } from "./Copy";
import { Surface } from "./states";

export function CallIt({ endpoint, spec }: { endpoint: Endpoint; spec: VersionSpec | undefined }) {
  const [address, setAddress] = useState(inferenceAddress);
  const unit = endpoint.spec.sticky_by;
  const body = { ...(unit && { parameters: { [unit]: "u1" } }), inputs: exampleInputs(spec, SAMPLES[7]) };
  const text = [
    `curl ${quote(`${address}/v2/models/${endpoint.metadata.name}/infer`)}`,
    `-H "Authorization: Bearer $MESH_API_KEY"`,
    "-H 'Content-Type: application/json'",
    `-d ${quote(JSON.stringify(body))}`,
  ].join(" \\\n  ");
  return (
    <Surface title="Call it" aside={<Copy value={text} label="Copy curl" />}>
      <Stack gap="sm">
        <Group align="flex-end">
          <TextInput
            label="Inference address"
            description="Kept in this browser"
            value={address}
            w={320}
            onChange={(event) => {
              setAddress(event.currentTarget.value);
              keepInferenceAddress(event.currentTarget.value);
            }}
          />
          <Text size="sm" c="dimmed" maw={420}>
            With an API key of {endpoint.metadata.tenant} in MESH_API_KEY. The answer's x-mesh-arm header names the arm.
          </Text>
        </Group>
        <Code text={text} label="curl command that calls the endpoint" />
      </Stack>
    </Surface>
  );
}
