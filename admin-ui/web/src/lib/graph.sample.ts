/** A graph for tests: a step, and a switch of two. */
import type { GraphStep, GraphView } from "../api/types";

const step = (name: string, level: number, from: string, to: string): GraphStep => ({
  name,
  model: "digits@stable",
  owner: "acme",
  version: 2,
  ready: true,
  level,
  inputs: [{ name: "x", tensors: [from] }],
  outputs: [{ name: "y", tensors: [to] }],
  soft: false,
  max_inflight_requests: 0,
  numbers: { ok: 4, failed: 1, cancelled: 0, left_out: 2, mean_ms: 1.5 },
});

export const PIPE: GraphView = {
  tenant: "acme",
  model: "pipe",
  version: 1,
  ready: false,
  reason: "step 'down' is not ready: model 'digits' version 2: it broke",
  inputs: [{ name: "x", datatype: "FP32", shape: [-1, 2] }],
  steps: [
    step("first", 0, "x", "mid"),
    { ...step("up", 2, "mid", "y"), soft: true, route: { choice: "way", route: 0, when: "when mid > 0" } },
    {
      ...step("down", 2, "mid", "y"),
      ready: false,
      reason: "it broke",
      max_inflight_requests: 3,
      route: { choice: "way", route: 1, when: "otherwise" },
    },
  ],
  choices: [{ name: "way", kind: "switch", routes: ["when mid > 0", "otherwise"] }],
  outputs: [{ name: "y", from: ["y"], optional: false }],
  numbers: { ok: 4, failed: 1, cancelled: 3, mean_ms: 2, mean_compose_ms: 0.25 },
  text: "inputs: x FP32\n",
  dot: 'digraph "acme/pipe/1" {\n}\n',
};
